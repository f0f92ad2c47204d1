"""One PostgreSQL server: its lasting connection, and what it says within a scrape's time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from kintsugi.collector import queries, waits
from kintsugi.collector.config import DatabaseConfig, MemberConfig
from kintsugi.collector.exposition import Counters, Exposition
from kintsugi.collector.link import Link, NotConnectedError, in_background
from kintsugi.collector.queries import Query
from kintsugi.shell import sql
from kintsugi.shell.sql import Connection, Endpoint

log = logging.getLogger("kintsugi.collector")

APPLICATION = "kintsugi/collect"
LOCK_TIMEOUT = 0.1
PREFIX = "kintsugi_pg_"
REASONS: Mapping[type[sql.SqlError], str] = {
    sql.UnreachableError: "unreachable",
    sql.TlsError: "tls",
    sql.WrongPasswordError: "authentication",
    sql.NoSuchDatabaseError: "no-such-database",
    sql.TooManyConnectionsError: "too-many-connections",
    sql.NotReadyError: "not-ready",
    sql.PoolerInTheWayError: "pooler-in-the-way",
}
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg says when the server hung up while the connection was idle and it has not noticed yet.
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    OSError,
)
SLOW = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)


@dataclass(slots=True)
class _Answers:
    """What one scrape has heard so far. Once closed, whatever still comes is too late and dropped."""

    metrics: dict[str, float] = field(default_factory=dict)
    identity: Mapping[str, Any] | None = None
    running: str = "connect"
    closed: bool = False

    def forget(self) -> None:
        """What was said by a server that is gone."""
        self.metrics.clear()
        self.identity = None


class _LostError(NotConnectedError):
    """The connection broke while it was asked."""


class Member:
    """A PostgreSQL server of a database. Scrape it once at a time."""

    def __init__(self, database: DatabaseConfig, config: MemberConfig, budget: float) -> None:
        self._database = database
        self._config = config
        self._labels = database.series_labels()
        self._name = f"{database.key} {config.name} ({config.host}:{config.port})"
        # Half of the budget, so that one slow query does not take the time of all others.
        self._statement_timeout = budget / 2
        self._link: Link[Connection] = Link(self._name, self.connect, lambda connection: connection.is_closed())
        self._work: asyncio.Task[None] | None = None
        self._work_started = 0.0
        self._counters = Counters()
        self._behind_since: float | None = None
        self._role = "unknown"
        self._timeouts: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()

    async def scrape(self, until: float, out: Exposition) -> None:
        """Ask the server and write what it answered before `until` (the loop's time) into `out`. Never raises."""
        started = time.monotonic()
        answers = _Answers()
        reason = ""
        try:
            async with asyncio.timeout_at(until):
                await self._clear_the_line()
                await self._asked(answers)
        except TimeoutError:
            reason = "timeout"
            self._timeouts[answers.running] += 1
        except NotConnectedError as error:
            reason = error.reason
        answers.closed = True
        self._write(answers, reason, time.monotonic() - started, out)

    async def close(self) -> None:
        """Hang up."""
        if self._work is not None:
            self._work.cancel()
        connection = self._link.drop()
        if connection is not None:
            connection.terminate()

    async def _asked(self, answers: _Answers) -> None:
        try:
            await self._start(await self._link.connection(), answers)
        except _LostError:
            # Somebody ended our session, or the server is gone: a new connection tells which.
            answers.forget()
            await self._start(await self._link.connection(), answers)

    async def _start(self, connection: Connection, answers: _Answers) -> None:
        self._work_started = time.monotonic()
        self._work = in_background(self._ask(connection, answers))
        # Shielded: a query that is late is ended by the server, not by tearing the connection down.
        await asyncio.shield(self._work)

    async def connect(self) -> Connection:
        """A new session with the collector's limits: read only, and short of patience.

        Raises:
            NotConnectedError: the server refused or did not answer.
            CredentialError: a file with user name or password can't be read.
        """
        endpoint = Endpoint(
            host=self._config.host,
            port=self._config.port,
            database=self._database.database,
            user=self._database.user(),
            password=self._database.secret(),
            tls=self._database.tls,
            ca=self._database.authority(),
        )
        try:
            return await sql.connect(
                endpoint,
                application=APPLICATION,
                statement_timeout=self._statement_timeout,
                lock_timeout=LOCK_TIMEOUT,
                read_only=True,
                cached_statements=50,
            )
        except sql.SqlError as error:
            raise NotConnectedError(REASONS.get(type(error), "unreachable"), str(error)) from None

    async def _clear_the_line(self) -> None:
        """Wait for what an earlier scrape left running; hang up when even the server's own timeout did not end it."""
        if self._work is None or self._work.done():
            return
        patience = self._work_started + 2 * self._statement_timeout + 1.0
        try:
            async with asyncio.timeout(patience - time.monotonic()):
                await asyncio.shield(self._work)
        except TimeoutError:
            connection = self._link.drop()
            if connection is not None:
                connection.terminate()
            raise self._link.lost("timeout", f"{self._name} does not answer; is it frozen or overloaded?") from None
        except NotConnectedError:
            return

    async def _ask(self, connection: Connection, answers: _Answers) -> None:
        """Ask everything, one after another; stop as soon as the scrape is over."""
        identity = await self._fetch(connection, "identity", queries.IDENTITY, answers)
        if not identity:
            return
        answers.identity = identity[0]
        role = "replica" if answers.identity["in_recovery"] else "primary"
        for query in self._wanted(role, answers.identity, connection.get_server_version().major):
            text = query.text(connection.get_server_version().major)
            rows = await self._fetch(connection, query.name, self._placed(text, answers.identity), answers)
            if answers.closed:
                return
            if rows:
                answers.metrics |= _numbers(rows[0])
            if query is queries.ACTIVITY and rows:
                answers.metrics |= await self._waits(connection, rows[0], answers)

    def _wanted(self, role: str, identity: Mapping[str, Any], version: int) -> Sequence[Query]:
        has = {"pg_monitor": identity["pg_monitor"], "pg_stat_statements": identity["statements_schema"] is not None}
        return [q for q in queries.QUERIES if q.role in ("any", role) and (q.needs is None or has[q.needs])]

    def _placed(self, text: str, identity: Mapping[str, Any]) -> str:
        """`text` with the extension's schema, which the server itself has quoted."""
        return text.replace("{schema}", identity["statements_schema"] or "public")

    async def _waits(self, connection: Connection, activity: Mapping[str, Any], answers: _Answers) -> dict[str, float]:
        rows: Sequence[Mapping[str, Any]] = ()
        if activity["lock_waiters"]:
            text = queries.WAITS.text(connection.get_server_version().major)
            found = await self._fetch(connection, queries.WAITS.name, text, answers)
            if found is None:
                return {}
            rows = found
        return dict(waits.measure([(row["pid"], max(0.0, row["age"]), row["blockers"]) for row in rows]))

    async def _fetch(
        self, connection: Connection, name: str, text: str, answers: _Answers
    ) -> Sequence[Mapping[str, Any]] | None:
        """The rows; None when the query failed or was too slow, which is counted."""
        if answers.closed:
            return None
        answers.running = name
        try:
            rows = await connection.fetch(text)
        except SLOW:
            if not answers.closed:
                self._timeouts[name] += 1
            return None
        except LOST as error:
            self._link.lost("connection-lost", f"the connection broke: {error}")
            raise _LostError("connection-lost", str(error)) from None
        except asyncpg.PostgresError as error:
            self._count_error(name, error)
            return None
        return rows

    def _count_error(self, name: str, error: asyncpg.PostgresError) -> None:
        key = (name, str(error.sqlstate))
        if key not in self._errors:
            log.warning("%s: query %s failed (%s): %s; its metrics are missing", self._name, name, key[1], error)
        self._errors[key] += 1

    def _write(self, answers: _Answers, reason: str, seconds: float, out: Exposition) -> None:
        identity = answers.identity
        if identity is not None:
            self._role = "replica" if identity["in_recovery"] else "primary"
            self._derive(answers.metrics, identity)
        labels = {**self._labels, "member": self._config.name, "role": self._role}
        out.add(f"{PREFIX}up", queries.HELP["up"], float(identity is not None), labels)
        for name, value in answers.metrics.items():
            if name in queries.HELP:
                known = self._counters.advance(name, value) if name.endswith("_total") else value
                out.add(PREFIX + name, queries.HELP[name], known, labels)
        self._write_own(identity, reason, seconds, out, labels)

    def _derive(self, metrics: dict[str, float], identity: Mapping[str, Any]) -> None:
        """What follows from several answers."""
        used = metrics.get("client_backends")
        if used is not None:
            limit = identity["max_connections"]
            metrics["connections_used_ratio"] = used / limit
            metrics["connections_exhausted"] = float(used >= limit - identity["reserved_connections"])
        backlog = metrics.get("replay_backlog_bytes")
        if backlog is not None:
            metrics["replay_delay_seconds"] = self._replay_delay(backlog, metrics.get("replay_age", math.inf))

    def _replay_delay(self, backlog: float, age: float) -> float:
        """The age of what was replayed last, but never more than the time for which there has been a backlog.

        After an idle hour the last replayed transaction is an hour old; without the second part the first WAL record
        after it would look like a delay of an hour.
        """
        if backlog <= 0:
            self._behind_since = None
            return 0.0
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        return max(0.0, min(age, now - self._behind_since))

    def _write_own(
        self,
        identity: Mapping[str, Any] | None,
        reason: str,
        seconds: float,
        out: Exposition,
        labels: Mapping[str, str],
    ) -> None:
        out.add("kintsugi_collector_scrape_seconds", "How long this server took to answer.", seconds, labels)
        if reason:
            text = "1 while a server could not be asked, and why."
            out.add("kintsugi_collector_failed", text, 1.0, {**labels, "reason": reason})
        for query, count in self._timeouts.items():
            text = "Queries left out of a scrape because they were too slow."
            out.add("kintsugi_collector_query_timeouts_total", text, float(count), {**labels, "query": query})
        for (query, sqlstate), count in self._errors.items():
            text = "Queries that the server refused."
            more = {**labels, "query": query, "sqlstate": sqlstate}
            out.add("kintsugi_collector_query_errors_total", text, float(count), more)
        for what, missing in _missing(identity).items():
            text = "1 when signals are missing because the server lacks this."
            out.add("kintsugi_collector_missing", text, float(missing), {**labels, "what": what})


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value is not None}


def _missing(identity: Mapping[str, Any] | None) -> Mapping[str, bool]:
    """What the server lacks for some signals."""
    if identity is None:
        return {}
    return {
        "pg_monitor": not identity["pg_monitor"],
        "pg_stat_statements": identity["statements_schema"] is None,
        "track_io_timing": not identity["track_io_timing"],
        "track_wal_io_timing": not identity["track_wal_io_timing"],
    }
