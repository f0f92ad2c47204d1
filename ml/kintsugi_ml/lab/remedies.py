"""Carrying out a remedy, and saying exactly what was done.

What production can do is proposed from a real diagnosis, compiled and run by production's own code, as its own role.
Where production proposes nothing, that is a result: it is noted, and the trial's own parameters are compiled instead.
The rest are `procedures`; what neither knows, the fault itself does (`remedy`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kintsugi.domain.actions import Proposal, StepKind, UndoKind
from kintsugi.engines.postgresql.indexes import IndexIdea, index_name
from kintsugi.shell.execute import StepResult
from kintsugi_dev.patient import Patient, compile_again, database_spec
from kintsugi_dev.servers import Database
from kintsugi_dev.servers.errors import ServerError
from kintsugi_ml.lab.faults.base import LOST, Fault, Trial
from kintsugi_ml.lab.procedures import PROCEDURES, SCHEMA, ImpossibleError, Undo, Work
from kintsugi_ml.lab.world import APP, World

DEADLINE_SECONDS: Final = 20.0
DIAGNOSIS_SECONDS: Final = 6.0
MAXIMUM_ROUNDS: Final = 8
"""So many sessions are ended at most, one diagnosis each: production would come back in its next cycles."""
MAX_POOL_SIZE: Final = 100
"""The default of `spec.pooler.pgbouncer.maxPoolSize`."""
SESSION_ACTIONS: Final = frozenset({"terminate-blocker", "terminate-idle-in-transaction"})
PRODUCTION: Final = frozenset({"analyze-table", "create-index", "resize-pool"}) | SESSION_ACTIONS
FAILURES: Final = (*LOST, ServerError, ImpossibleError, ValueError)
"""What a server, a console or a wrong parameter (BadParametersError is a ValueError) may do to a remedy."""
_IDENTITY = """
SELECT pid, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "backendStart",
    to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "xactStart",
    usename::text AS role, datname::text AS database
FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a remedy. Times are Unix seconds; `steps` are the commands word for word.

    `ok`: it was carried out, which says nothing about whether it helped. `parameters` are those of the trial;
    `proposals` is what production itself said: what it proposed, or why not. `side_effects`: `sessions_terminated`,
    `queries_cancelled`, `downtime_seconds`, `index_bytes`, `indexes_dropped`, `blocks_read`. `undo` is for `put_back`.
    """

    action: str
    right: bool
    parameters: Mapping[str, Any]
    started: float
    ended: float
    ok: bool
    error: str | None = None
    steps: tuple[str, ...] = ()
    proposals: tuple[str, ...] = ()
    side_effects: Mapping[str, float] = field(default_factory=dict)
    undo: tuple[Undo, ...] = ()
    dirty: bool = False


def healer(world: World) -> Patient:
    """The database as production looks after it: as `kintsugi_healer`, straight at the primary.

    One that lives through a run and is asked for a `diagnoser.baseline()` before the fault sees what changed.
    """
    spec = database_spec(world.primary, world.database, pooler=world.pooler)
    assert spec.pooler is not None
    bouncer = spec.pooler.pgbouncer.model_copy(update={"max_pool_size": MAX_POOL_SIZE})
    spec = spec.model_copy(update={"pooler": spec.pooler.model_copy(update={"pgbouncer": bouncer})})
    return Patient(Database(world.primary, world.database), APP, spec)


async def carry_out(trial: Trial, fault: Fault, world: World, healer_of_run: Patient | None = None) -> Applied:
    """Do it, within `DEADLINE_SECONDS`. Never raises for what a server may do: `ok` and `error` say so."""
    started = time.time()
    work = Work(world, dict(trial.parameters), trial.right)
    proposals: list[str] = []
    error: str | None = None
    deadline = asyncio.timeout(DEADLINE_SECONDS)
    try:
        async with deadline:
            if trial.action in PRODUCTION:
                await _as_production(trial, fault, work, proposals, healer_of_run)
            elif trial.action in PROCEDURES:
                await PROCEDURES[trial.action](work)
            elif trial.action != "nothing":
                await _by_fault(trial.action, fault, work)
    except FAILURES as failure:
        late = f"{trial.action} was not done within {DEADLINE_SECONDS:.0f} s"
        error = late if deadline.expired() else f"{type(failure).__name__}: {failure}"
    return Applied(
        action=trial.action,
        right=trial.right,
        parameters=dict(trial.parameters),
        started=started,
        ended=time.time(),
        ok=error is None,
        error=error,
        steps=tuple(work.steps),
        proposals=tuple(proposals),
        side_effects=dict(work.effects),
        undo=tuple(work.undo),
        dirty=work.dirty,
    )


async def put_back(applied: Applied, world: World) -> list[str]:
    """Take back what a remedy has left behind, the last thing first; returns what could not be."""
    problems = []
    for undo in () if applied.dirty else reversed(applied.undo):
        try:
            if undo.kind == "sql":
                await world.sql(undo.command)
            elif undo.kind == "pooler":
                await asyncio.to_thread(world.pooler.admin, undo.command)
            elif world.groups is not None:
                world.groups.limit()
        except FAILURES as failure:
            problems.append(f"{undo.command or undo.kind}: {failure}")
    return problems


async def _by_fault(action: str, fault: Fault, work: Work) -> None:
    remedy = getattr(fault, "remedy", None)
    if remedy is None:
        raise ImpossibleError(f"nobody knows a remedy called {action!r}")
    work.steps.append(f"{fault.name}: {action}")
    await remedy(action)


# --- as production does it ---


async def _as_production(
    trial: Trial, fault: Fault, work: Work, proposals: list[str], healer_of_run: Patient | None
) -> None:
    patient = healer_of_run or healer(work.world)
    try:
        proposed = await _propose(trial.action, patient, proposals)
        # A wrong remedy is wrong by what it is aimed at: what production would rather do is noted, not done.
        parameters = proposed if proposed is not None and trial.right else await _completed(trial, work)
        await _compiled(trial.action, parameters, patient, work)
        if trial.right and trial.action in SESSION_ACTIONS:
            await _the_others(trial.action, fault, patient, work, proposals)
    finally:
        if healer_of_run is None:
            await patient.close()


async def _propose(action: str, patient: Patient, proposals: list[str]) -> Mapping[str, Any] | None:
    """What production would do now, if anything."""
    try:
        answer = await asyncio.wait_for(patient.propose(action), DIAGNOSIS_SECONDS)
    except TimeoutError:
        proposals.append(f"not proposed: no diagnosis within {DIAGNOSIS_SECONDS:.0f} s")
        return None
    if isinstance(answer, Proposal):
        proposals.append(f"proposed: {'; '.join(answer.evidence)}")
        return answer.parameters
    proposals.append(f"not proposed: {answer.reason}")
    return None


async def _the_others(action: str, fault: Fault, patient: Patient, work: Work, proposals: list[str]) -> None:
    """End the sessions that are left, each from a fresh look; a look that finds none ends it."""
    for _ in range(MAXIMUM_ROUNDS - 1):
        left = [trial for trial in fault.trials() if trial.right and trial.action == action]
        if not left:
            return
        proposed = await _propose(action, patient, proposals)
        try:
            await _compiled(action, proposed or left[0].parameters, patient, work)
        except ImpossibleError as gone:
            proposals.append(str(gone))


async def _compiled(action: str, parameters: Mapping[str, Any], patient: Patient, work: Work) -> None:
    """Compile and run; whatever is to be taken back later is noted before anything is done."""
    plan = compile_again(action, parameters)
    if plan.undo.kind is UndoKind.STEPS:
        work.undo += [
            Undo("pooler" if step.kind is StepKind.POOLER else "sql", step.command)
            for step in plan.undo.steps
            if not step.expect
        ]
    for step in plan.steps:
        work.steps.append(step.command)
        result: StepResult = (await patient.carry_out([step], action))[0]
        if not result.ok and not step.optional:
            raise ImpossibleError(f"{result.state}: {result.error}")
        if action in SESSION_ACTIONS:
            work.count("sessions_terminated", 1)
    if action == "create-index":
        work.count("index_bytes", await _pages(parameters, work.world) * 8192)


async def _pages(parameters: Mapping[str, Any], world: World) -> int:
    """From the catalogue: the size functions would wait behind a lock."""
    rows = await world.sql("SELECT relpages FROM pg_class WHERE relname = $1", parameters["index"])
    return int(rows[0]["relpages"]) if rows else 0


async def _completed(trial: Trial, work: Work) -> Mapping[str, Any]:
    """The trial's parameters as production's `compile` wants them, the rest looked up."""
    given = dict(trial.parameters)
    match trial.action:
        case "analyze-table" if "analyzed" not in given:
            rows = await work.world.sql(
                "SELECT analyze_count + autoanalyze_count AS analyzed FROM pg_stat_user_tables WHERE relname = $1",
                work.given("table"),
            )
            return {"schema": SCHEMA, **given, "analyzed": rows[0]["analyzed"] if rows else 0}
        case "create-index" if "index" not in given:
            columns = tuple(given.get("columns") or (work.given("column"),))
            idea = IndexIdea(given.get("schema", SCHEMA), work.given("table"), columns)
            return {"schema": idea.schema, "table": idea.table, "columns": list(columns), "index": index_name(idea)}
        case "resize-pool" if "former" not in given:
            config = await asyncio.to_thread(work.world.pooler.admin, "SHOW CONFIG")
            former = next(int(row["value"]) for row in config if row["key"] == "default_pool_size")
            return {"former": former, "size": work.given("size")}
        case "terminate-blocker" | "terminate-idle-in-transaction" if "backendStart" not in given:
            rows = await work.world.sql(_IDENTITY, work.given("pid"))
            if not rows:
                raise ImpossibleError(f"pid {given['pid']} is in no transaction (any more)")
            return rows[0]
    return given


__all__ = ["Applied", "carry_out", "healer", "put_back"]
