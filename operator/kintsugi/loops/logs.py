"""Logs beside the cycle: read on in the background, counted, and merged into the same frames as the metrics.

A log that is slow, gone or nonsense costs its own database some columns and a condition, and nobody a cycle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.database_logs import Logs
from kintsugi.domain.text import human
from kintsugi.engines.postgresql.logs.book import AHEAD, Book
from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.engines.postgresql.logs.prefix import LinePrefixError
from kintsugi.loops.watch import Log, Watch, reach
from kintsugi.shell.errors import KubeError
from kintsugi.shell.kube import Kube
from kintsugi.shell.logs.file import FileLog
from kintsugi.shell.logs.loki import Loki
from kintsugi.shell.logs.pods import PodLogs
from kintsugi.shell.logs.source import Batch, LogError, LogSource, NewDecoder, Position
from kintsugi.shell.prometheus import Endpoint, Samples
from kintsugi.shell.secrets import SecretError, Secrets
from kintsugi.stages.policy import Ceiling

log = logging.getLogger(__name__)

CONDITION: Final = "LogsRead"
HISTORY: Final = 3600.0  # seconds before now that are read when a database is first seen
BATCHES: Final = 8  # read in one go; what is left comes with the next cycle
LATE: Final = 10.0  # seconds after which a line that was not written yet is not waited for
BEFORE: Final = 60.0  # seconds before an incident was noticed whose lines are evidence

Pair = tuple[MonitoredDatabase, Watch]


@dataclass(slots=True)
class _Known:
    """The source of one database's log, for one spec and one set of credentials."""

    fingerprint: tuple[object, ...]
    source: LogSource


class LogReader:
    """Reads the logs of many databases."""

    def __init__(self, kube: Kube, secrets: Secrets, ceiling: Ceiling) -> None:
        self._kube = kube
        self._secrets = secrets
        self._ceiling = ceiling
        self._sources: dict[str, _Known] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    def begin(self, pairs: Iterable[Pair], now: float) -> None:
        """Read on in the background, unless the last read of the same log still goes on; `now` in Unix seconds."""
        for database, watch in pairs:
            if database.spec.logs is None or watch.key in self._reading:
                continue
            task = asyncio.create_task(self._guarded(database, database.spec.logs, watch, now))
            self._reading[watch.key] = task
            task.add_done_callback(partial(self._ended, watch.key))

    async def keep(self, keys: Iterable[str]) -> None:
        """Close the sources of all other databases."""
        for key in set(self._sources) - set(keys):
            await self._sources.pop(key).source.close()

    async def close(self) -> None:
        """Stop reading and close every connection."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keep(())

    def _ended(self, key: str, _: asyncio.Task[None]) -> None:
        self._reading.pop(key, None)

    async def _guarded(self, database: MonitoredDatabase, logs: Logs, watch: Watch, now: float) -> None:
        try:
            await self._read(database, logs, watch, now)
        except (LogError, SecretError) as error:
            watch.beside[CONDITION] = (False, error.reason, str(error))
        except KubeError as error:
            watch.beside[CONDITION] = (False, "KubernetesUnavailable", str(error))
        except Exception:
            log.exception("the log of %s could not be read; it is tried again", watch.key)
            watch.beside[CONDITION] = (False, "LogFailed", "reading the log failed; see the operator's own log")

    async def _read(self, database: MonitoredDatabase, logs: Logs, watch: Watch, now: float) -> None:
        source = await self._source(database, logs, watch)
        if watch.log is None:
            watch.log = _begun(database, now)
        known = watch.log
        if known.read_at is not None and 0 <= now - known.read_at < source.every:
            return
        for _ in range(BATCHES):
            batch = await source.read(known.position)
            if batch.complete_since is not None:
                known.book.begin(batch.complete_since)
            known.book.add(batch.lines, batch.until)
            _note(known, batch)
            known.position, known.read_at = batch.position, now
            known.lines += len(batch.lines)
            known.junk += batch.junk
            if not batch.more:
                break
        watch.beside[CONDITION] = _said(known)

    async def _source(self, database: MonitoredDatabase, logs: Logs, watch: Watch) -> LogSource:
        endpoint, loki = None, logs.loki
        if loki is not None:
            endpoint = await self._secrets.endpoint(
                database.metadata.namespace, loki.url, loki.auth, loki.ca_secret_ref
            )
        fingerprint = (watch.uid, watch.spec_generation, endpoint)
        known = self._sources.get(watch.key)
        if known is None or known.fingerprint != fingerprint:
            if known:
                await known.source.close()
            self._sources[watch.key] = known = _Known(fingerprint, self._new(database, logs, endpoint))
        return known.source

    def _new(self, database: MonitoredDatabase, logs: Logs, endpoint: Endpoint | None) -> LogSource:
        new = _decoders(logs)
        if logs.loki and endpoint:
            return Loki(endpoint, logs.loki.query, logs.loki.tenant, new)
        if logs.pods:
            return PodLogs(self._kube, database.metadata.namespace, logs.pods.selector, logs.pods.container, new)
        path = logs.file.path if logs.file else ""
        root = self._ceiling.log_root(path)
        if root is None:
            raise LogError("OutsideCeiling", f"{path} is outside the operator's ceiling; see ceiling.logFiles")
        return FileLog(path, logs.format, new, root)


def merge(watch: Watch) -> None:
    """Fill the log's columns into the kept samples, up to where it has been read; a late line still counts."""
    known, frame = watch.log, watch.buffer.frame
    if known is None or not known.understood or len(frame) == 0:
        return
    times = frame.times[frame.times > known.merged - max(LATE, 2 * frame.interval)]
    columns = known.book.columns(watch.engine.catalogue.logged(), times, frame.interval)
    watch.buffer.merge(Samples(times, columns))
    known.merged = min(float(frame.times[-1]), known.book.until)


def evidence(watch: Watch, opened: float, now: float) -> tuple[str, ...]:
    """What the log says of an incident noticed at `opened` (Unix s): a few sentences, without anybody's data."""
    return watch.log.book.evidence(opened - BEFORE, now) if watch.log else ()


def _begun(database: MonitoredDatabase, now: float) -> Log:
    span = min(HISTORY, reach(database, now))
    book = Book(span + LATE)
    book.begin(now - span)
    return Log(book, Position(now - span))


def _decoders(logs: Logs) -> NewDecoder:
    try:
        decoder(logs.format, logs.line_prefix)
    except LinePrefixError as error:
        raise LogError("LinePrefix", f"spec.logs.linePrefix: {error}") from error
    return lambda since: decoder(logs.format, logs.line_prefix, since)


def _note(known: Log, batch: Batch) -> None:
    """What is wrong with the times of the newest lines; of what was left out for it, nothing is known."""
    if batch.zone or batch.lines:
        known.zone = batch.zone
    if batch.lines:
        newest = max(line.time for line in batch.lines)
        known.ahead = newest - batch.until if newest > batch.until + AHEAD else 0.0
    if batch.zone or known.ahead:
        known.book.begin(batch.until)


def _said(known: Log) -> tuple[bool, str, str]:
    if known.zone:
        return (False, "LogTimeZone", f"{known.zone}; what is written until then is left out")
    if known.ahead:
        what = f"the server's clock is {human(known.ahead)} ahead of the operator's"
        return (False, "LogClock", f"{what}: set both by NTP; what is written until then is left out")
    if not known.understood:
        message = f"none of {known.junk} lines was understood; check spec.logs.format and spec.logs.linePrefix"
        return (False, "LogNotUnderstood", message)
    return (True, "Reading", "the server's log is read")
