"""resize-pool: more server connections for a pool that is exhausted while the server has room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from kintsugi.api.database import DatabaseSpec
from kintsugi.api.meta import Model
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.domain.text import human
from kintsugi.engines.engine import BadParametersError, Diagnosis, Row
from kintsugi.engines.postgresql.actions.parameters import validated
from kintsugi.engines.postgresql.slow import SlowStatement, slow_statements

NAME = "resize-pool"
SETTING = "default_pool_size"
LIMIT = 10_000
LEFT_FREE = 0.1
"""The part of the server's connections that is never given to the pool."""
WAIT_SECONDS = 0.05
MOSTLY = 0.5
MUCH_SLOWER = 3.0
SLOW_SECONDS = 0.01


class PoolParameters(Model):
    """From which size to which."""

    former: Annotated[int, Field(ge=1, le=LIMIT)]
    size: Annotated[int, Field(ge=1, le=LIMIT)]


class ResizePool:
    """Raises PgBouncer's default_pool_size, within `maxPoolSize` and what the server can take."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """A size that lets the waiting clients in."""
        if spec.pooler is None:
            return [NotProposed(NAME, "the database has no pooler (spec.pooler)")]
        if diagnosis.pooler is None:
            return [NotProposed(NAME, f"the pooler can't be asked: {diagnosis.errors.get('pooler', 'no answer')}")]
        answer = _size(diagnosis, diagnosis.pooler, spec)
        return [NotProposed(NAME, answer) if isinstance(answer, str) else _proposal(answer)]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """Check that the size is still the former one, then set the new one."""
        wanted = validated(PoolParameters, parameters, NAME)
        if wanted.size <= wanted.former:
            raise BadParametersError(f"size: {wanted.size} is not above the former {wanted.former}; give a larger one")
        return Plan(
            steps=(_set(wanted.former, expect=True), _set(wanted.size)),
            undo=Undo(
                UndoKind.STEPS,
                (_set(wanted.size, expect=True), _set(wanted.former)),
                "sets the former size; a size that a person has set meanwhile is left as it is",
            ),
            probe=_set(wanted.size),
            idempotent=True,
        )


def _set(size: int, *, expect: bool = False) -> Step:
    return Step(StepKind.POOLER, "pgbouncer", f"SET {SETTING} = {size}", timeout=5.0, expect=expect)


@dataclass(frozen=True, slots=True)
class _Resize:
    former: int
    size: int
    waiting: int
    longest: float
    room: int
    used: int
    maximum: int
    pools: tuple[str, ...]


def _size(diagnosis: Diagnosis, pooler: Mapping[str, tuple[Row, ...]], spec: DatabaseSpec) -> _Resize | str:
    """The resize, or why not."""
    config = {row["key"]: row["value"] for row in pooler["config"]}
    former = int(config[SETTING])
    names = _databases(pooler, spec)
    pools = [row for row in pooler["pools"] if row["database"] in names]
    waiting = [row for row in pools if row["cl_waiting"] > 0]
    if not waiting:
        return "no client waits for the pool"
    longest = max(_wait(row) for row in waiting)
    if longest < WAIT_SECONDS:
        return f"no client has waited for the pool longer than {human(longest)}"
    if reason := _overridden(pooler, waiting, former, config) or _another_cause(diagnosis):
        return reason
    if any(_busy(row) < former for row in waiting):
        return "the pool is not exhausted: clients wait for a new server connection; see PgBouncer's log"
    return _bounded(diagnosis, spec, former, waiting, pools, longest)


def _databases(pooler: Mapping[str, tuple[Row, ...]], spec: DatabaseSpec) -> set[str]:
    """PgBouncer's names for our database: `orders-ro = host=… dbname=orders` is ours as well."""
    ours = spec.connection.database
    return {row["name"] for row in pooler["databases"] if row["database"] == ours and row["name"] != "pgbouncer"}


def _wait(row: Row) -> float:
    return float(row["maxwait"]) + float(row.get("maxwait_us") or 0) / 1e6


def _busy(row: Row) -> int:
    """Server connections of a pool, in whatever state."""
    states = ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login", "sv_active_cancel", "sv_being_canceled")
    return sum(int(row.get(state) or 0) for state in states)


def _overridden(
    pooler: Mapping[str, tuple[Row, ...]], waiting: Sequence[Row], former: int, config: Mapping[str, Any]
) -> str | None:
    """Settings under which default_pool_size changes nothing."""
    names = {row["database"] for row in waiting}
    for row in pooler["databases"]:
        if row["name"] in names and int(row["pool_size"]) != former:
            return (
                f"pool_size = {row['pool_size']} of {row['name']} in pgbouncer.ini overrides {SETTING}: raise it there"
            )
        if row["name"] in names and 0 < int(row["max_connections"] or 0) <= former:
            return f"max_db_connections = {row['max_connections']} of {row['name']} is the limit, not the pool's size"
    if 0 < int(config.get("max_user_connections") or 0) <= former:
        return f"max_user_connections = {config['max_user_connections']} is the limit, not the pool's size"
    return None


def _another_cause(diagnosis: Diagnosis) -> str | None:
    """What fills the pool, where a larger one would only pile up more of it."""
    active = [row for row in diagnosis.rows.get("connections", ()) if row["state"] not in ("idle", "unknown")]
    sessions = sum(row["sessions"] for row in active)
    locked = sum(row["waiting_for_lock"] for row in active)
    if sessions and locked >= MOSTLY * sessions:
        return f"{locked} of {sessions} busy sessions wait for a lock: more connections would only wait as well"
    open_idle = sum(row["sessions"] for row in active if row["state"].startswith("idle in transaction"))
    if sessions and open_idle >= MOSTLY * sessions and any(row["victims"] for row in diagnosis.rows.get("idle", ())):
        return f"{open_idle} of {sessions} sessions are idle in a transaction and block others: they are the cause"
    slower = next((s for s in slow_statements(diagnosis.rows) if _fills_pools(s)), None)
    if slower is not None:
        return f"the statements have become slower, which fills any pool: {slower.sentence()}"
    return None


def _fills_pools(statement: SlowStatement) -> bool:
    """Whether one statement has become so slow that it alone keeps the server connections busy."""
    slower = (statement.slower or 0.0) >= MUCH_SLOWER
    return slower and statement.mean >= SLOW_SECONDS and statement.share >= MOSTLY


def _bounded(
    diagnosis: Diagnosis, spec: DatabaseSpec, former: int, waiting: Sequence[Row], pools: Sequence[Row], longest: float
) -> _Resize | str:
    server = next(iter(diagnosis.rows.get("server", ())), None)
    if server is None or spec.pooler is None:
        return f"the server's room is unknown: {diagnosis.errors.get('server', 'no answer')}"
    usable = server["max_connections"] - server["reserved_connections"]
    room = int(usable * (1 - LEFT_FREE)) - server["used_connections"]
    maximum = spec.pooler.pgbouncer.max_pool_size
    # Every pool may grow, so the room is shared by all of them.
    clients = sum(row["cl_waiting"] for row in waiting)
    wanted = max(2 * former, former + max(row["cl_waiting"] for row in waiting))
    size = min(wanted, former + room // max(1, len(pools)), maximum)
    if former >= maximum:
        return f"{SETTING} is {former} already, and maxPoolSize allows {maximum}"
    if size <= former:
        return f"the server has no room: {server['used_connections']} of {usable} usable connections are taken"
    names = tuple(f"{row['database']}/{row['user']}" for row in waiting)
    return _Resize(former, size, clients, longest, room, server["used_connections"], maximum, names)


def _proposal(resize: _Resize) -> Proposal:
    return Proposal(
        action=NAME,
        parameters={"former": resize.former, "size": resize.size},
        expected=Objectives(latency=0.7, throughput=0.7, resources=-0.2, consistency=0.0),
        evidence=(
            f"{resize.waiting} clients wait for the pool of {', '.join(resize.pools)}, the longest for"
            f" {human(resize.longest)}: all {resize.former} server connections are busy",
            f"the server has room for {resize.room} more connections ({resize.used} are used); maxPoolSize allows"
            f" {resize.maximum}",
            "it lasts until PgBouncer reloads its configuration: write it into pgbouncer.ini too",
        ),
        touches=tuple(f"database:{name.split('/')[0]}" for name in resize.pools),
        heals=frozenset({"pooler", "client"}),
    )
