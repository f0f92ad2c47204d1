"""Observe: the newest samples of every database that is due, in as few requests as possible."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from typing import Any

from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.frame import Frame
from kintsugi.loops.buffer import RingBuffer
from kintsugi.loops.logs import LogReader, merge
from kintsugi.loops.watch import Problem, Watch, reach
from kintsugi.shell.errors import KubeError, PrometheusError
from kintsugi.shell.prometheus import Endpoint, Group, Prometheus, Subject
from kintsugi.shell.secrets import SecretError, Secrets
from kintsugi.stages.history import past_episodes

log = logging.getLogger(__name__)

Pair = tuple[MonitoredDatabase, Watch]

REDISCOVER = 60.0  # seconds between looks for signals that were missing
RETRY_DISCOVERY = 5.0  # seconds, while nothing at all was found
PATIENCE = 1.5  # seconds that a cycle waits for any Prometheus; what takes longer goes on beside the next cycles
UNUSED_AFTER = 600.0  # seconds until the connections to a Prometheus that nobody names any more are closed
SLO_EVERY = 30.0  # seconds between runs of a free latency query (DESIGN §3)


class Observer:
    """Reads Prometheus, and logs where there are some, for many databases."""

    def __init__(self, secrets: Secrets, logs: LogReader | None = None) -> None:
        self._secrets = secrets
        self._logs = logs
        self._clients: dict[Endpoint, Prometheus] = {}
        self._used: dict[Endpoint, float] = {}
        self._reads: dict[Hashable, asyncio.Task[None]] = {}

    async def observe(self, pairs: Sequence[Pair], now: float) -> None:
        """Append the newest samples to each watch's buffer, or note there why there are none.

        Returns after `PATIENCE` seconds at the latest: one Prometheus that hangs must not make all others late.
        """
        for _, watch in pairs:
            if watch.buffer.clock_stepped_back(now):
                log.warning("the clock was set back; %s learns its reference anew", watch.key)
                watch.buffer.clear()
                watch.log = None
        if self._logs:
            self._logs.begin(pairs, now)
        groups: dict[Group, list[Pair]] = defaultdict(list)
        found = await asyncio.gather(*(self._group(database, watch) for database, watch in pairs))
        for pair, group in zip(pairs, found, strict=True):
            if group is not None:
                groups[group].append(pair)
        for group, members in groups.items():
            self._begin(group, self._read_group(group, members, now))
        for database, watch in pairs:
            if database.spec.slo and database.spec.slo.latency_query:
                self._begin(watch.key, self._read_slo(database, watch, now))
        await self._wait()
        for group, members in groups.items():
            if group in self._reads:
                _say_slow(group, members)
        for _, watch in pairs:
            merge(watch)
        self._used.update(dict.fromkeys((group.endpoint for group in groups), now))
        await self._close({endpoint for endpoint, at in self._used.items() if now - at > UNUSED_AFTER})

    async def past(self, database: MonitoredDatabase, watch: Watch, start: float, end: float) -> Frame:
        """The samples `[T, S]` of a time (Unix seconds) that the buffer does not hold, as Prometheus has them.

        Raises:
            PrometheusError: it can't be asked, or refuses.
            SecretError: the credentials can't be read.
            KubeError: the API server could not be asked for them.
        """
        group = _group_at(await self._endpoint(database), database, watch)
        start, end = _grid(start, group.interval), _grid(end, group.interval)
        found = await self._client(group.endpoint).read(
            group, _subjects(group, [(database, watch)]), {watch.key: watch.offers}, start=start, end=end
        )
        buffer = RingBuffer(watch.engine.catalogue.names(), group.interval, int((end - start) / group.interval) + 1)
        buffer.append(found[watch.key])
        return buffer.frame

    async def close(self) -> None:
        """Close all connections."""
        for task in self._reads.values():
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        await self._close(set(self._clients))
        if self._logs:
            await self._logs.close()

    def _begin(self, what: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Start a read, unless the last one of the same still goes on."""
        if what in self._reads:
            work.close()
        else:
            self._reads[what] = asyncio.create_task(work)

    async def _wait(self) -> None:
        if self._reads:
            await asyncio.wait(self._reads.values(), timeout=PATIENCE)
        for what in [what for what, task in self._reads.items() if task.done()]:
            if error := self._reads.pop(what).exception():
                log.error("a read of %s failed; it is tried again", what, exc_info=error)

    async def _group(self, database: MonitoredDatabase, watch: Watch) -> Group | None:
        """The group that a database is read with; None, with the problem noted, when its credentials can't be read."""
        try:
            endpoint = await self._endpoint(database)
        except SecretError as error:
            watch.metrics_problem = Problem(error.reason, str(error))
            return None
        except KubeError as error:
            watch.metrics_problem = Problem("KubernetesUnavailable", str(error))
            return None
        return _group_at(endpoint, database, watch)

    async def _endpoint(self, database: MonitoredDatabase) -> Endpoint:
        metrics, namespace = database.spec.metrics, database.metadata.namespace
        return await self._secrets.endpoint(namespace, metrics.prometheus, metrics.auth, metrics.ca_secret_ref)

    def _client(self, endpoint: Endpoint) -> Prometheus:
        return self._clients.setdefault(endpoint, Prometheus(endpoint))

    async def _read_group(self, group: Group, members: Sequence[Pair], now: float) -> None:
        """One group; a group whose Prometheus fails does not disturb the others."""
        try:
            await self._discover(group, members, now)
            await self._fill(group, members, now)
            await self._newest(group, members, now)
        except PrometheusError as error:
            for _, watch in members:
                watch.metrics_problem = Problem(error.reason, str(error))
            return
        except Exception:
            log.exception("what %s answered could not be read; it is asked again", group.endpoint.url)
            for _, watch in members:
                watch.metrics_problem = _nonsense(group)
            return
        for database, watch in members:
            watch.metrics_problem = None if watch.offers else _no_series(database)

    async def _discover(self, group: Group, members: Sequence[Pair], now: float) -> None:
        due = [
            (database, watch)
            for database, watch in members
            if watch.discovered_at is None
            or abs(now - watch.discovered_at) >= (REDISCOVER if watch.offers else RETRY_DISCOVERY)
        ]
        if not due:
            return
        found = await self._client(group.endpoint).discover(group, _subjects(group, due), now)
        for _, watch in due:
            watch.offers = _merged(watch.offers, found[watch.key])
            watch.discovered_at = now

    async def _fill(self, group: Group, members: Sequence[Pair], now: float) -> None:
        """The whole window, once, for databases whose buffer is empty."""
        end = _grid(now, group.interval) - group.interval
        for database, watch in members:
            if watch.buffer.newest is None and watch.offers:
                start = end - _grid(reach(database, now), group.interval)
                samples = await self._client(group.endpoint).read(
                    group, _subjects(group, [(database, watch)]), {watch.key: watch.offers}, start=start, end=end
                )
                watch.buffer.append(samples[watch.key])
                episodes = past_episodes(watch.buffer.frame, watch.engine.catalogue)
                if episodes:
                    log.info("%s: %d past episodes are kept out of its reference", watch.key, len(episodes))
                watch.incidents[:0] = episodes

    async def _newest(self, group: Group, members: Sequence[Pair], now: float) -> None:
        """What came since the last cycle, for all of them together."""
        behind = [pair for pair in members if pair[1].buffer.newest is not None]
        if not behind:
            return
        end = _grid(now, group.interval)
        oldest = min(watch.buffer.newest or end for _, watch in behind)
        start = max(oldest + group.interval, end - 60 * group.interval)
        if start > end:
            return
        offers = {watch.key: watch.offers for _, watch in behind}
        samples = await self._client(group.endpoint).read(group, _subjects(group, behind), offers, start=start, end=end)
        for _, watch in behind:
            watch.buffer.append(samples[watch.key])

    async def _read_slo(self, database: MonitoredDatabase, watch: Watch, now: float) -> None:
        """A free latency query, every half minute."""
        slo = database.spec.slo
        if slo is None or slo.latency_query is None or watch.metrics_problem is not None:
            return
        if watch.slo_read_at is not None and abs(now - watch.slo_read_at) < SLO_EVERY:
            return
        watch.slo_read_at = now
        try:
            watch.slo_value = await self._client(await self._endpoint(database)).value(slo.latency_query)
        except PrometheusError as error:
            watch.slo_value, watch.slo_problem = None, Problem(error.reason, str(error))
            return
        except (SecretError, KubeError) as error:
            watch.slo_value, watch.slo_problem = None, Problem("SecretUnreadable", str(error))
            return
        watch.slo_problem = (
            Problem("NoData", "spec.slo.latencyQuery gives no single number; try it in Prometheus")
            if watch.slo_value is None
            else None
        )

    async def _close(self, endpoints: set[Endpoint]) -> None:
        for endpoint in endpoints:
            self._used.pop(endpoint, None)
            if client := self._clients.pop(endpoint, None):
                await client.close()


def _group_at(endpoint: Endpoint, database: MonitoredDatabase, watch: Watch) -> Group:
    metrics, engine = database.spec.metrics, watch.engine
    labels = tuple(sorted(metrics.matchers))
    return Group(endpoint, labels, metrics.scrape_interval.total_seconds(), engine.name, engine.catalogue)


def _say_slow(group: Group, members: Sequence[Pair]) -> None:
    message = f"Prometheus at {group.endpoint.url} takes longer than {PATIENCE} s to answer; check that it is well"
    for _, watch in members:
        watch.metrics_problem = watch.metrics_problem or Problem("PrometheusSlow", message)


def _nonsense(group: Group) -> Problem:
    url = group.endpoint.url
    message = f"what {url} answers can't be understood (see the operator's log); check metrics.prometheus"
    return Problem("PrometheusNonsense", message)


def _subjects(group: Group, pairs: Sequence[Pair]) -> list[Subject]:
    return [
        Subject(watch.key, tuple(database.spec.metrics.matchers[label] for label in group.labels))
        for database, watch in pairs
    ]


def _merged(
    known: Mapping[str, tuple[str, ...]], found: Mapping[str, tuple[str, ...]]
) -> Mapping[str, tuple[str, ...]]:
    """What is offered: a signal once seen stays wanted, so that its absence shows as a gap and not as ignorance."""
    return {**known, **found}


def _grid(at: float, interval: float) -> float:
    return float(at // interval) * interval


def _no_series(database: MonitoredDatabase) -> Problem:
    metrics = database.spec.metrics
    selector = ", ".join(f'{label}="{value}"' for label, value in sorted(metrics.matchers.items()))
    return Problem(
        "NoSeries",
        f"Prometheus at {metrics.prometheus} has no known series with {{{selector}}}; check metrics.matchers and that "
        "the collector is scraped",
    )
