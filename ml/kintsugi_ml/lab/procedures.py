"""Remedies that production doesn't have (yet): what a DBA would type, one function each, as superuser.

Each does its work step by step and notes it: commands as text, side effects in numbers, and how it is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import asyncpg
import psutil

from kintsugi.engines.postgresql.identifiers import quote_identifier, quote_literal, quote_qualified
from kintsugi_ml.lab.faults.base import LOST

if TYPE_CHECKING:
    from kintsugi_ml.lab.world import World

SCHEMA: Final = "public"
LOCK_TIMEOUT: Final = "3s"
"""As long as production waits for a lock at most (kintsugi.shell.sql.LOCK_SECONDS)."""
STATEMENT_TIMEOUT: Final = "20s"
_SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)?")
_INDEXES = """
SELECT i.indexrelid::regclass::text AS name FROM pg_index i WHERE i.indrelid = $1::text::regclass AND i.indisvalid"""
_TERMINATE = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 1000)) AS ended FROM pg_stat_activity WHERE {}"


class ImpossibleError(Exception):
    """A remedy that can't be carried out with these parameters or on this machine; says why."""


@dataclass(frozen=True, slots=True)
class Undo:
    """One command that takes back what a remedy has left behind; `limits` puts all control groups' limits back."""

    kind: Literal["sql", "pooler", "limits"]
    command: str = ""


@dataclass
class Work:
    """A remedy under way: what it was told, and what it has done so far."""

    world: World
    parameters: Mapping[str, Any]
    right: bool = False
    steps: list[str] = field(default_factory=list)
    undo: list[Undo] = field(default_factory=list)
    effects: dict[str, float] = field(default_factory=dict)
    dirty: bool = False

    def given(self, name: str) -> Any:
        """A parameter; ImpossibleError when it is missing."""
        if name not in self.parameters:
            raise ImpossibleError(
                f"the parameter {name!r} is missing; there are {', '.join(self.parameters) or 'none'}"
            )
        return self.parameters[name]

    def count(self, effect: str, number: float) -> None:
        """Add to a side effect."""
        self.effects[effect] = self.effects.get(effect, 0.0) + number

    async def sql(self, *statements: str, arguments: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run statements in one superuser session, each in a transaction of its own; the last one's rows."""
        rows: list[asyncpg.Record] = []
        async with _session(self.world) as session:
            for statement in statements:
                self.steps.append(" ".join(statement.split()))
                rows = await session.fetch(statement, *arguments)
        return [dict(row) for row in rows]

    async def pooler(self, command: str) -> None:
        """Run a command on PgBouncer's console."""
        self.steps.append(f"pgbouncer: {command}")
        await asyncio.to_thread(self.world.pooler.admin, command)


@contextlib.asynccontextmanager
async def _session(world: World) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        world.direct_dsn("postgres"),
        timeout=10,
        statement_cache_size=0,
        server_settings={
            "application_name": "kintsugi/lab-remedy",
            "lock_timeout": LOCK_TIMEOUT,
            "statement_timeout": STATEMENT_TIMEOUT,
        },
    )
    try:
        yield connection
    finally:
        # Not terminate(): a statement that was given up must be cancelled, or the server goes on with it.
        with contextlib.suppress(*LOST):
            await connection.close(timeout=2)


# --- tables and memory ---


async def checkpoint(work: Work) -> None:
    """Write all dirty buffers now."""
    await work.sql("CHECKPOINT")


async def vacuum_table(work: Work) -> None:
    """Remove a table's dead rows; statistics are left as they are."""
    await work.sql(f"VACUUM {_table(work)}")


async def prewarm_cache(work: Work) -> None:
    """Read a relation (or several) and its indexes into shared buffers."""
    named = work.parameters.get("relations") or [work.given("relation")]
    for name in named:
        relation = quote_qualified(SCHEMA, name)
        indexes = [row["name"] for row in await work.sql(_INDEXES, arguments=[relation])]
        for one in (relation, *indexes):
            (row,) = await work.sql(f"SELECT pg_prewarm({quote_literal(one)}) AS blocks")
            work.count("blocks_read", row["blocks"])


async def drop_redundant_index(work: Work) -> None:
    """Drop indexes without blocking anybody; their definitions are kept."""
    for name in work.given("indexes"):
        index = quote_qualified(SCHEMA, name)
        (row,) = await work.sql("SELECT pg_get_indexdef($1::text::regclass) AS made", arguments=[index])
        # CONCURRENTLY waits for everybody else's transactions, and that counts as waiting for a lock.
        await work.sql("SET lock_timeout = 0", f"DROP INDEX CONCURRENTLY {index}")
        if not work.right:  # what was rightly dropped shall not come back
            work.undo.append(Undo("sql", row["made"]))
        work.count("indexes_dropped", 1)


async def tune_setting(work: Work) -> None:
    """Another value for a setting, of the server or of one `role`; only settings that a reload changes."""
    name, value = str(work.given("name")), quote_literal(str(work.given("value")))
    if not _SETTING.fullmatch(name):
        raise ImpossibleError(f"{name!r} is no setting's name")
    if "role" in work.parameters:
        role = f"ALTER ROLE {quote_identifier(work.parameters['role'])}"
        work.undo.append(Undo("sql", f"{role} RESET {name}"))
        await work.sql(f"{role} SET {name} = {value}")
        return
    work.undo += [Undo("sql", "SELECT pg_reload_conf()"), Undo("sql", f"ALTER SYSTEM RESET {name}")]
    await work.sql(f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")


async def discard_plans(work: Work) -> None:
    """Let the pooler replace every server connection, and with it cached plans and catalogue caches."""
    await work.pooler("RECONNECT")


def _table(work: Work) -> str:
    return quote_qualified(work.parameters.get("schema", SCHEMA), work.given("table"))


# --- sessions ---


async def cancel_query(work: Work) -> None:
    """Cancel what these sessions are at; they stay connected."""
    pids = [int(pid) for pid in work.given("pids")]
    (row,) = await work.sql(
        "SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) AS cancelled FROM pg_stat_activity"
        " WHERE pid = ANY ($1::int[]) AND state = 'active'",
        arguments=[pids],
    )
    work.count("queries_cancelled", row["cancelled"])


async def terminate_idle_sessions(work: Work) -> None:
    """End the idle sessions of an application or a role, and again a second later, for those that came meanwhile."""
    named = {"application": "application_name", "role": "usename"}
    conditions = [
        f"{column} = {quote_literal(str(work.parameters[key]))}"
        for key, column in named.items()
        if key in work.parameters
    ]
    if not conditions:
        raise ImpossibleError("terminate-idle-sessions needs an application or a role")
    for again in (False, True):
        await asyncio.sleep(1.0 if again else 0.0)
        (row,) = await work.sql(_TERMINATE.format(" AND ".join(["state = 'idle'", *conditions])))
        work.count("sessions_terminated", row["ended"])


async def limit_role(work: Work) -> None:
    """Let a role have at most so many connections, and end those that are too many, the youngest first."""
    role, limit = str(work.given("role")), int(work.given("limit"))
    (row,) = await work.sql("SELECT rolconnlimit AS former FROM pg_roles WHERE rolname = $1", arguments=[role])
    alter = f"ALTER ROLE {quote_identifier(role)} CONNECTION LIMIT"
    # The role may be a fault's own and gone with it.
    there = f"EXISTS (SELECT FROM pg_roles WHERE rolname = {quote_literal(role)})"
    work.undo.append(Undo("sql", f"DO $$ BEGIN IF {there} THEN {alter} {row['former']}; END IF; END $$"))
    await work.sql(f"{alter} {limit}")
    youngest = f"SELECT pid FROM pg_stat_activity WHERE usename = {quote_literal(role)} ORDER BY backend_start"
    (row,) = await work.sql(_TERMINATE.format(f"pid IN ({youngest} OFFSET {limit})"))
    work.count("sessions_terminated", row["ended"])


# --- servers ---


async def scale(work: Work) -> None:
    """More CPU time, disk or memory for the primary: `{"disk": 2}` is twice what is normal."""
    groups = work.world.groups
    if groups is None:
        raise ImpossibleError("this machine has no control groups, so nothing can be scaled")
    wanted = {name: float(factor) for name, factor in work.parameters.items()}
    if unknown := set(wanted) - {"cpus", "disk", "memory"}:
        raise ImpossibleError(f"{', '.join(sorted(unknown))} can't be scaled; cpus, disk and memory can")
    work.undo.append(Undo("limits"))
    for name, factor in wanted.items():
        work.steps.append(f"primary: {name} × {factor:g}")
        if name == "disk":
            groups.primary.disk(groups.disk.times(factor), groups.device)
        elif name == "memory":
            groups.primary.memory(int(groups.memory * factor))
        else:
            groups.primary.cpu_quota(None)
            groups.primary.cpu_shares(int(1024 * factor))


async def restart_workload(work: Work) -> None:
    """Stop the primary in fast mode and start it again on the same data."""
    world, began = work.world, time.time()
    work.steps.append("pg_ctl restart -m fast")
    await _to_its_end(lambda: world.primary.restart("fast"))
    if world.groups is not None:
        postmaster = psutil.Process(world.primary.pid)
        for process in (postmaster, *postmaster.children()):
            with contextlib.suppress(ProcessLookupError):  # a session may have ended meanwhile
                world.groups.primary.add(process.pid)
    work.count("downtime_seconds", time.time() - began)


async def failover(work: Work) -> None:
    """Fence the primary, promote the replica, and send new connections there. The world is dirty afterwards."""
    world, began = work.world, time.time()
    work.dirty = True
    work.steps += ["fence the primary (immediate shutdown)", "SELECT pg_promote() on the replica", "point the service"]
    await _to_its_end(lambda: world.primary.stop("immediate"))
    await _to_its_end(lambda: world.standby.promote(timeout=15))
    world.link.point(world.standby.port)
    work.count("downtime_seconds", time.time() - began)


async def _to_its_end(job: Callable[[], object]) -> None:
    """In a thread, and waited for even when our deadline passes: nobody else may meet a server half way."""
    task = asyncio.create_task(asyncio.to_thread(job))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


PROCEDURES: Final[Mapping[str, Callable[[Work], Awaitable[None]]]] = {
    "checkpoint": checkpoint,
    "vacuum-table": vacuum_table,
    "prewarm-cache": prewarm_cache,
    "drop-redundant-index": drop_redundant_index,
    "tune-setting": tune_setting,
    "discard-plans": discard_plans,
    "cancel-query": cancel_query,
    "terminate-idle-sessions": terminate_idle_sessions,
    "limit-role": limit_role,
    "scale": scale,
    "restart-workload": restart_workload,
    "failover": failover,
}
"""By action name."""
