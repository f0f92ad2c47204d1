"""Asking a database, its pooler and its replicas what is wrong, each directly and each with little patience.

One `Diagnoser` per database: it owns the reserved session, remembers the last baseline, so that a diagnosis can show
what changed, and knows since when the primary has been silent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kintsugi.api.database import DatabaseSpec
from kintsugi.engines.engine import Diagnosis, Engine, Query, Row
from kintsugi.engines.postgresql.statements import strip_literals
from kintsugi.shell import sql
from kintsugi.shell.execute import Targets, Workloads
from kintsugi.shell.pgbouncer import PgBouncerError, PgBouncerLogin, pgbouncer_console
from kintsugi.shell.replication import member_views
from kintsugi.shell.session import ReservedSession

POOLER_SECONDS = 2.0
VERSION = "SELECT current_setting('server_version_num')::int / 10000 AS version"


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
        self._silent_since: float | None = None
        self._version = 0

    async def close(self) -> None:
        """Give the reserved session back."""
        await self._session.close()

    async def baseline(self) -> None:
        """Remember how the healthy database is; call it every half minute. Errors are left for `diagnose`."""
        rows, errors = await self._primary(tuple(query for query in self._engine.queries if query.baseline))
        self._before |= {name: found for name, found in rows.items() if name not in errors}

    async def diagnose(self, around: Surroundings = NOTHING_KNOWN) -> Diagnosis:
        """Everything that can be learned just now, in a few seconds at most. Never raises: failures are in `errors`."""
        (rows, errors), members, pooler = await asyncio.gather(
            self._primary(self._engine.queries), self._members(), self._pooler()
        )
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
            extra=around.extra,
        )

    async def _primary(self, queries: tuple[Query, ...]) -> tuple[dict[str, tuple[Row, ...]], dict[str, str]]:
        rows: dict[str, tuple[Row, ...]] = {}
        errors: dict[str, str] = {}
        try:
            self._version = (await self._fetch(VERSION, 2.0))[0]["version"]
            self._silent_since = None
            for query in queries:
                await self._ask(query, rows, errors)
        except sql.SqlError as error:
            if not isinstance(error, (sql.WrongPasswordError, sql.TooManyConnectionsError, sql.NoSuchDatabaseError)):
                self._silent_since = self._clock() if self._silent_since is None else self._silent_since
            errors |= {query.name: str(error) for query in queries if query.name not in rows}
        return rows, errors

    async def _ask(self, query: Query, rows: dict[str, tuple[Row, ...]], errors: dict[str, str]) -> None:
        statement = text_for(query, self._version)
        if statement is None:
            return
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
