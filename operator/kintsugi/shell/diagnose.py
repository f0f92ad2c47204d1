"""Asking a database, its pooler and its replicas what is wrong, each directly and each with little patience.

One `Diagnoser` per database: it owns the reserved session, remembers the last baseline, so that a diagnosis can show
what changed, and knows since when the primary has been silent.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kintsugi.api.database import DatabaseSpec
from kintsugi.engines.engine import Diagnosis, Engine, Query, Row
from kintsugi.engines.postgresql import sessions
from kintsugi.engines.postgresql.diagnostics import PULSE
from kintsugi.engines.postgresql.statements import strip_literals
from kintsugi.shell import sql
from kintsugi.shell.execute import Targets, Workloads
from kintsugi.shell.explain import explain
from kintsugi.shell.pgbouncer import PgBouncerError, PgBouncerLogin, pgbouncer_console
from kintsugi.shell.replication import member_views
from kintsugi.shell.session import ReservedSession

POOLER_SECONDS = 2.0
PULSE_SECONDS = 1.0
FIRST = """
SELECT current_setting('server_version_num')::int / 10000 AS version, pg_is_in_recovery() AS in_recovery,
    ARRAY(SELECT e.extname::text FROM pg_extension e ORDER BY e.oid) AS extensions,
    ARRAY(SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
          ORDER BY e.oid) AS schemas"""
_EXTENSION = re.compile(r"@(\w+)@")
ANSWERS = (
    sql.TlsError,
    sql.WrongPasswordError,
    sql.NoSuchDatabaseError,
    sql.TooManyConnectionsError,
    sql.PoolerInTheWayError,
    sql.NotAllowedError,
    sql.TimedOutError,
    sql.StatementError,
)
"""Refusals that only a living server gives."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How far the primary was when it last answered: LSN, timeline, bytes of WAL a second, and how standbys follow."""

    at: float
    lsn: int
    timeline: int
    rate: float
    synchronous: tuple[str, ...]
    replay_lags: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the caller knows beside the database itself: Prometheus' view, the Service, the workload."""

    metrics_down: bool | None = None
    primary_member: str | None = None
    workload: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


NOTHING_KNOWN = Surroundings()


def targets_for(
    spec: DatabaseSpec,
    credentials: Mapping[str, str],
    pooler_credentials: Mapping[str, str] | None = None,
    workloads: Workloads | None = None,
) -> Targets:
    """Where the plans and diagnostics of one database go; credentials are the Secrets' decoded entries."""
    places = sql.endpoints(spec, credentials)
    pooler = None
    if spec.pooler is not None and pooler_credentials is not None:
        bouncer = spec.pooler.pgbouncer
        pooler = PgBouncerLogin(
            host=bouncer.host,
            port=bouncer.port,
            username=pooler_credentials["username"],
            password=pooler_credentials["password"],
            tls=spec.connection.tls if "ca.crt" in pooler_credentials else "disable",
            ca=pooler_credentials.get("ca.crt"),
        )
    return Targets(places, pooler, workloads, ReservedSession(places[sql.PRIMARY]))


class Diagnoser:
    """Diagnoses one database, over and over, without ever holding a lock in it."""

    def __init__(
        self, engine: Engine, spec: DatabaseSpec, targets: Targets, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if targets.reserved is None:
            raise ValueError("these targets have no reserved session; make them with targets_for()")
        self._engine = engine
        self._spec = spec
        self._targets = targets
        self._session = targets.reserved
        self._clock = clock
        self._before: dict[str, tuple[Row, ...]] = {}
        self._blocking: tuple[float, Mapping[sessions.Transaction, float]] = (0.0, {})
        self._silent_since: float | None = None
        self._version = 0
        self._extensions: dict[str, str] = {}
        self._last_pulse: Pulse | None = None
        self._primary_member: str | None = None
        self.connection_error: sql.SqlError | None = None

    @property
    def server_version(self) -> int:
        """The server's major version as last seen; 0 before the first answer."""
        return self._version

    async def close(self) -> None:
        """Give the reserved session back."""
        await self._session.close()

    async def baseline(self) -> None:
        """Remember how the healthy database is; call it every half minute. Errors are left for `diagnose`."""
        await self.pulse()
        rows, errors = await self._primary(tuple(query for query in self._engine.queries if query.baseline))
        self._before |= {name: found for name, found in rows.items() if name not in errors}

    async def pulse(self) -> None:
        """Ask the primary how far it is; cheap, call it every cycle.

        After a crash nobody can: what a failover would lose, and for how long the primary has been silent, is known
        only as closely as this was called. Errors are left for `diagnose`.
        """
        try:
            rows = await self._fetch(PULSE, PULSE_SECONDS)
        except sql.SqlError as error:
            self._silent(error)
            return
        self._answered()
        if rows:
            self._last_pulse = self._pulse_of(rows[0])

    def _pulse_of(self, row: Row) -> Pulse:
        now, last = self._clock(), self._last_pulse
        rate = 0.0 if last is None or now <= last.at else max(0.0, (row["lsn"] - last.lsn) / (now - last.at))
        standbys = row["standbys"] or ()
        waited_for = row["waits_for_standbys"] and len(set(standbys)) == len(standbys)
        states = zip(standbys, row["sync_states"] or (), strict=True)
        synchronous = tuple(name for name, state in states if waited_for and state == "sync")
        lags = dict(zip(standbys, row["lags"] or (), strict=True))
        return Pulse(now, row["lsn"], row["timeline"], rate, synchronous, lags)

    async def diagnose(self, around: Surroundings = NOTHING_KNOWN) -> Diagnosis:
        """Everything that can be learned just now, in a few seconds at most. Never raises: failures are in `errors`."""
        await self._follow(around.primary_member)
        (rows, errors), members, pooler = await asyncio.gather(
            self._primary(self._engine.queries), self._members(), self._pooler()
        )
        if self._silent_since is None:
            await self.pulse()
        if "blocking" in rows:
            rows["blocking"] = self._lasting(rows["blocking"])
        await self._explain(rows, errors)
        before = {f"{name}_before": found for name, found in self._before.items()}
        return Diagnosis(
            rows={**before, **rows},
            errors={**errors, **pooler[1]},
            server_version=self._version,
            primary_reachable=self._silent_since is None,
            unreachable_for=0.0 if self._silent_since is None else self._clock() - self._silent_since,
            metrics_down=around.metrics_down,
            pooler=pooler[0],
            members=members,
            primary_member=around.primary_member,
            workload=around.workload,
            last_known_primary_lsn=None if self._last_pulse is None else self._last_pulse.lsn,
            extra={**around.extra, **self._last_known()},
        )

    def _lasting(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """The rows of `blocking`, those who block with `blocks_for`: seconds that they did in every look."""
        now, (looked, known) = self._clock(), self._blocking
        since = sessions.blocking_since(rows, known if now - looked <= sessions.LOOK_AGAIN else {}, now)
        self._blocking = (now, since)
        return tuple({**row, "blocks_for": now - since.get(sessions.transaction_of(row), now)} for row in rows)

    async def _follow(self, primary_member: str | None) -> None:
        """Leave a former primary, which may live on behind our session when the Service names another."""
        if primary_member is not None and self._primary_member not in (None, primary_member):
            await self._session.close()
        self._primary_member = primary_member or self._primary_member

    def _last_known(self) -> dict[str, Any]:
        """What is left of the primary when it is silent: its error's kind, and its last pulse."""
        known: dict[str, Any] = {
            "primary_error": type(self.connection_error).__name__ if self.connection_error else "",
            "diagnosed_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if self._last_pulse is not None:
            known |= {
                "pulse_age": self._clock() - self._last_pulse.at,
                "wal_rate": self._last_pulse.rate,
                "primary_timeline": self._last_pulse.timeline,
                "synchronous_standbys": self._last_pulse.synchronous,
                "replay_lags": self._last_pulse.replay_lags,
            }
        return known

    async def _primary(self, queries: tuple[Query, ...]) -> tuple[dict[str, tuple[Row, ...]], dict[str, str]]:
        rows: dict[str, tuple[Row, ...]] = {}
        errors: dict[str, str] = {}
        try:
            first = (await self._fetch(FIRST, 2.0))[0]
            if first["in_recovery"]:
                # The session may have outlived its server's time as the primary: see where the Service leads now.
                await self._session.close()
                first = (await self._fetch(FIRST, 2.0))[0]
            self._version = first["version"]
            self._extensions = dict(zip(first["extensions"], first["schemas"], strict=True))
            self._answered()
            for query in queries:
                await self._ask(query, rows, errors)
        except sql.SqlError as error:
            self._silent(error)
            errors |= {query.name: str(error) for query in queries if query.name not in rows}
        return rows, errors

    def _answered(self) -> None:
        self._silent_since = self.connection_error = None

    def _silent(self, error: sql.SqlError) -> None:
        """A server that refuses our login is there all the same."""
        self.connection_error = error
        if not isinstance(error, ANSWERS) and self._silent_since is None:
            self._silent_since = self._clock()

    async def _explain(self, rows: dict[str, tuple[Row, ...]], errors: dict[str, str]) -> None:
        """Show the slow statements to the planner; the answers become rows of their own."""
        if "statements" not in rows:
            return
        before = {f"{name}_before": found for name, found in self._before.items()}
        try:
            explained = await explain(self._session, {**before, **rows}, self._extensions)
        except sql.SqlError as error:
            errors["plans"] = str(error)
        else:
            rows["plans"] = explained.plans
            rows["hypothetical"] = explained.hypothetical
            rows["column_stats"] = explained.column_stats

    async def _ask(self, query: Query, rows: dict[str, tuple[Row, ...]], errors: dict[str, str]) -> None:
        statement = text_for(query, self._version)
        if statement is None:
            return
        missing = set(_EXTENSION.findall(statement)) - set(self._extensions)
        if missing:
            errors[query.name] = (
                f"{query.name} is unknown: {', '.join(sorted(missing))} is not installed in"
                f" {self._session.endpoint}; run CREATE EXTENSION there"
            )
            return
        statement = _EXTENSION.sub(lambda match: self._extensions[match[1]], statement)
        try:
            found = await self._session.fetch(statement, within=query.timeout)
        except (sql.TimedOutError, sql.NotAllowedError, sql.StatementError) as error:
            errors[query.name] = str(error)
        else:
            rows[query.name] = tuple(_clean(dict(row)) for row in found)

    async def _fetch(self, statement: str, within: float) -> tuple[Row, ...]:
        """The rows of a first question; a session that broke since the last time is opened again, once."""
        for last in (False, True):
            try:
                return tuple(dict(row) for row in await self._session.fetch(statement, within=within))
            except sql.ConnectionLostError:
                if last:
                    raise
        raise AssertionError("unreachable")

    async def _members(self) -> tuple[Any, ...]:
        places = {name: place for name, place in self._targets.endpoints.items() if name != sql.PRIMARY}
        return await member_views(places)

    async def _pooler(self) -> tuple[Mapping[str, tuple[Row, ...]] | None, dict[str, str]]:
        if self._targets.pooler is None:
            return None, {}
        try:
            async with pgbouncer_console(self._targets.pooler, within=POOLER_SECONDS) as console:
                return {
                    "pools": await console.pools(),
                    "databases": await console.databases(),
                    "config": await console.config(),
                }, {}
        except PgBouncerError as error:
            return None, {"pooler": str(error)}


def text_for(query: Query, version: int) -> str | None:
    """The query's text for this server; None when every text needs a newer one."""
    fitting = [lowest for lowest in query.sql if lowest <= version]
    return query.sql[max(fitting)] if fitting else None


def _clean(row: dict[str, Any]) -> Row:
    """A row whose statement has lost its literal values."""
    return {**row, "query": strip_literals(row["query"])} if row.get("query") else row
