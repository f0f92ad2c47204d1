"""The action loop: each `HealingAction` that has not ended goes through the machine of `stages/lifecycle.py`.

It reads what the machine needs, lets it decide, writes the status by compare-and-swap, and only then does what the
machine asked for. While the API server is away it waits: what is known stays known, and nothing starts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from kintsugi.api.action import ActionStatus, HealingAction, Phase, PlanStep
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import PAUSE
from kintsugi.engines.risk import RISKS
from kintsugi.loops.facts import candidate_of, guard_facts
from kintsugi.loops.judge import verdict_of
from kintsugi.loops.services import Services
from kintsugi.loops.watch import Watch
from kintsugi.shell import telemetry
from kintsugi.shell.errors import ConflictError, KubeError, NotFoundError
from kintsugi.shell.execute import run_probe, run_step
from kintsugi.shell.gate import GateError
from kintsugi.shell.secrets import SecretError
from kintsugi.stages.approval import read_approvals
from kintsugi.stages.compose import plan_of, recompiled, step_of
from kintsugi.stages.guard import judge
from kintsugi.stages.lifecycle import advance, needs, progress
from kintsugi.stages.lifecycle_facts import (
    ActionFacts,
    Audit,
    Effect,
    Emit,
    Execute,
    Need,
    Probed,
    RunResult,
    RunState,
    Undo,
)

log = logging.getLogger(__name__)

TURNS = 50  # of the machine in one go; a safety net against a machine that never rests
AWAY = 1.0  # seconds between tries while the API server does not answer
TICK = 0.25
DRAIN = 10.0  # seconds for what runs when the operator is told to end
LATE = timedelta(seconds=10)
"""How long after it was decided something may still be begun; the API server may have been away in between."""
GONE = "the database was deleted meanwhile"


class ActionLoop:
    """Drives every action that has work to do, each in its own task, one task per action at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._alarms: dict[str, float] = {}  # by the monotonic clock: a wall clock may be set back
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._ending = False

    def wake(self, key: str) -> None:
        """Look at this action now: it changed, or its time has come."""
        action = self._services.fleet.actions.get(key)
        if action is None or action.phase.ended or not self._services.fleet.complete or self._ending:
            return
        task = self._tasks.get(key)
        if task is not None and not task.done():
            self._again.add(key)
            return
        self._tasks[key] = asyncio.create_task(self._guarded(key))

    async def drain(self) -> None:
        """Begin nothing more, and let the steps that run end; those that take long are found by the next operator."""
        self._ending = True
        running = [task for task in self._tasks.values() if not task.done()]
        if running:
            await asyncio.wait(running, timeout=DRAIN)

    def wake_all(self, database: str = "") -> None:
        """Look at every action, or at those on one database (`namespace/name`)."""
        for key, action in self._services.fleet.actions.items():
            if database in ("", f"{action.metadata.namespace}/{action.spec.database.name}"):
                self.wake(key)

    async def run(self) -> None:
        """Ring alarms for ever."""
        while True:
            now = time.monotonic()
            for key in [key for key, at in self._alarms.items() if at <= now]:
                del self._alarms[key]
                self.wake(key)
            for key in [key for key, task in self._tasks.items() if task.done()]:
                del self._tasks[key]
            await asyncio.sleep(TICK)

    async def _guarded(self, key: str) -> None:
        action = self._services.fleet.actions.get(key)
        if action is None:
            return
        tokens = telemetry.incident.set(action.spec.incident), telemetry.database.set(action.spec.database.name)
        try:
            await self._drive(key)
        except (KubeError, SecretError, GateError) as error:
            log.warning("%s: %s", key, error)
            self._alarm(key, datetime.now(UTC) + timedelta(seconds=AWAY))
        except Exception:
            log.exception("%s failed; it is looked at again in 5 s", key)
            self._alarm(key, datetime.now(UTC) + timedelta(seconds=5))
        finally:
            telemetry.incident.reset(tokens[0])
            telemetry.database.reset(tokens[1])
        if key in self._again:
            self._again.discard(key)
            self._alarm(key, datetime.now(UTC))

    async def _drive(self, key: str) -> None:
        """Turn the machine until it rests."""
        result: RunResult | None = None
        for _ in range(TURNS):
            action = self._services.fleet.actions.get(key)
            if action is None:
                return
            now = datetime.now(UTC)
            facts = await self._facts(action, now, result)
            step = advance(action, facts, now)
            if not await self._write(action, step.status):
                continue
            result = await self._carry_out(key, step.effects, now)
            if result is None and (step.wake_at is None or step.wake_at > now):
                self._rest(key, step.wake_at, now)
                return
        log.error("%s did not come to rest; it is looked at again in 5 s", key)
        self._alarm(key, datetime.now(UTC) + timedelta(seconds=5))

    def _rest(self, key: str, wake_at: datetime | None, now: datetime) -> None:
        action = self._services.fleet.actions.get(key)
        if action is not None and action.phase is Phase.VERIFYING:
            soon = now + timedelta(seconds=1)
            wake_at = min(wake_at or soon, soon)
        if wake_at is not None:
            self._alarm(key, wake_at)

    def _alarm(self, key: str, at: datetime) -> None:
        due = time.monotonic() + max(0.0, (at - datetime.now(UTC)).total_seconds())
        self._alarms[key] = min(due, self._alarms.get(key, due))

    async def _write(self, action: HealingAction, status: ActionStatus) -> bool:
        """Write the status by compare-and-swap; False when it must be looked at anew.

        That is when somebody was faster, and when the answer was lost and the status had not arrived: what was decided
        before the API server went away is not carried out after it came back, but decided again.
        """
        if status == action.status:
            return True
        meta = action.metadata
        try:
            await self._services.write_status(HealingAction.PLURAL, meta, status, swap=True)
        except NotFoundError:
            self._services.fleet.remove(HealingAction.PLURAL, meta.key)
            return False
        except KubeError as error:
            log.warning("%s: status perhaps not written: %s", meta.key, error)
            if not isinstance(error, ConflictError):
                await asyncio.sleep(AWAY)
            if not await self._arrived(action, status):
                return False
        self._noted(action, status)
        return True

    async def _arrived(self, action: HealingAction, status: ActionStatus) -> bool:
        """Once the API server answers again: whether it has this status, its answer having been lost."""
        meta = action.metadata
        while True:
            try:
                await self._reload(meta.namespace, meta.name)
            except KubeError:
                await asyncio.sleep(AWAY)
            else:
                now_there = self._services.fleet.actions.get(meta.key)
                return now_there is not None and now_there.status.to_json() == status.to_json()

    def _noted(self, action: HealingAction, status: ActionStatus) -> None:
        if status.phase is not None and status.phase != action.status.phase:
            name = action.spec.database.name
            self._services.metrics.actions.labels(
                action.metadata.namespace, name, action.spec.action, status.phase.value
            ).inc()
            self._services.wake()

    async def _reload(self, namespace: str, name: str) -> None:
        try:
            body = await self._services.kube.get_object(HealingAction.PLURAL, namespace, name)
        except NotFoundError:
            self._services.fleet.remove(HealingAction.PLURAL, f"{namespace}/{name}")
        else:
            self._services.fleet.apply(HealingAction.PLURAL, body)

    # --- effects ---

    async def _carry_out(self, key: str, effects: Sequence[Effect], now: datetime) -> RunResult | None:
        result = None
        for effect in effects:
            action = self._services.fleet.actions.get(key)
            if action is None:
                return None
            match effect:
                case Execute() | Undo() if datetime.now(UTC) - now > LATE:
                    late = "the API server was away when it was about to begin; it is looked at anew"
                    result = RunResult(effect.attempt, RunState.BUSY, late)
                case Execute(from_step, attempt):
                    result = await self._run_steps(action, action.spec.plan, from_step, attempt)
                case Undo(from_step, attempt):
                    result = await self._run_steps(action, action.spec.undo.steps, from_step, attempt)
                case Emit(reason, message, type_):
                    log.info("%s: %s: %s", key, reason, message)
                    self._services.emit(
                        self._database(action), action, reason, message, now=now, warning=type_ == "Warning"
                    )
                case Audit():
                    self._services.audit(action, effect, now)
        return result

    async def _run_steps(self, action: HealingAction, steps: Sequence[PlanStep], first: int, attempt: int) -> RunResult:
        """Run the steps in order, and write after each one that it is done."""
        database = self._database(action)
        if database is None:
            return RunResult(attempt, RunState.FAILED, GONE)
        try:
            targets = (await self._services.access(database)).targets
        except SecretError as error:
            return RunResult(attempt, RunState.FAILED, str(error))
        except KubeError as error:
            return RunResult(attempt, RunState.BUSY, str(error))
        for number, plan_step in enumerate(steps[first:], first + 1):
            if self._database(action) is None:
                return RunResult(attempt, RunState.FAILED, GONE)
            outcome = await run_step(step_of(plan_step), targets, action.spec.action)
            state = RunState(outcome.state.value)
            if state is not RunState.DONE and not (plan_step.optional and state is RunState.FAILED):
                return RunResult(attempt, state, outcome.error)
            await self._write_progress(action.metadata.key, number, outcome.output or outcome.error)
        return RunResult(attempt, RunState.DONE)

    async def _write_progress(self, key: str, step: int, output: str) -> None:
        while True:
            action = self._services.fleet.actions.get(key)
            if action is None or not action.status.attempts or not action.phase.at_work:
                return
            status = progress(action.status, step, output, datetime.now(UTC))
            if await self._write(action, status):
                return

    # --- facts ---

    def _database(self, action: HealingAction) -> MonitoredDatabase | None:
        """The very database that the action was made for, if it still exists."""
        database = self._services.fleet.databases.get(f"{action.metadata.namespace}/{action.spec.database.name}")
        return database if database and database.metadata.uid == action.spec.database.uid else None

    async def _facts(self, action: HealingAction, now: datetime, result: RunResult | None) -> ActionFacts:
        """What the machine needs to know now, and nothing else."""
        executor = self._services.identity
        wanted = needs(action, now, executor)
        database = self._database(action)
        watch = self._services.watches.get(database.metadata.key) if database else None
        exists = self._services.fleet.exists(
            MonitoredDatabase.PLURAL,
            f"{action.metadata.namespace}/{action.spec.database.name}",
            action.spec.database.uid,
        )
        facts = ActionFacts(
            executor=executor, result=result, database_present=exists if Need.DATABASE in wanted else None
        )
        if database is None or watch is None:
            return facts
        return await _Reader(self._services, action, database, watch, now).read(facts, wanted)


class _Reader:
    """Reads facts about one action now."""

    def __init__(
        self, services: Services, action: HealingAction, database: MonitoredDatabase, watch: Watch, now: datetime
    ) -> None:
        self._services = services
        self._action = action
        self._database = database
        self._watch = watch
        self._now = now

    async def read(self, facts: ActionFacts, wanted: frozenset[Need]) -> ActionFacts:
        """`facts` with everything wanted read."""
        found = {field: getattr(facts, field) for field in ActionFacts.__dataclass_fields__}
        spec = self._action.spec
        if Need.APPROVALS in wanted:
            found["approvals"] = read_approvals(self._action.metadata.annotations, spec.plan_hash)
        if Need.RECOMPILED in wanted:
            found["recompiled"] = recompiled(spec, self._watch.engine.actions, RISKS)
            found["idempotent"] = not found["recompiled"] and plan_of(spec, self._watch.engine.actions).idempotent
        if Need.PRECONDITIONS in wanted:
            found["preconditions"] = self._no_longer()
        if Need.PAUSED in wanted:
            found["paused"] = self._paused()
        if Need.JUDGEMENT in wanted:
            found["judgement"] = self._judgement()
        if Need.APPROVERS in wanted:
            found["approvers_allowed"] = await self._approvers()
        if Need.GATE in wanted:
            found["gate"] = await self._gate()
        if Need.PROBE in wanted:
            found["probe"], found["probe_reason"] = await self._probe()
        if Need.VERDICT in wanted:
            found["verdict"] = verdict_of(self._action, self._database, self._watch, self._now)
        return ActionFacts(**found)

    def _no_longer(self) -> str:
        """Why the action is not called for any more; empty while its incident is open."""
        incident = self._database.status.incident
        if incident is None:
            return "the database is back to normal without it"
        if incident.id != self._action.spec.incident:
            return f"its incident {self._action.spec.incident} is over; the present one is {incident.id}"
        return ""

    def _paused(self) -> str:
        policy = self._services.policy_for(self._database)
        if policy.ceiling.paused:
            return "the operator is paused"
        if policy.paused_by:
            return f"paused by policy {', '.join(policy.paused_by)}"
        reason = self._database.metadata.annotations.get(PAUSE)
        return "" if reason is None else f"the database is paused ({reason})"

    def _judgement(self) -> object:
        candidate = candidate_of(self._action)
        facts = guard_facts(
            self._services,
            self._database,
            self._watch,
            candidate,
            self._action.spec.incident,
            self._now,
            this=self._action.metadata.name,
        )
        return judge(candidate, self._services.policy_for(self._database), facts)

    async def _approvers(self) -> str:
        approvals = read_approvals(self._action.metadata.annotations, self._action.spec.plan_hash)
        meta, risk = self._action.metadata, self._action.spec.risk
        for approver in approvals.approvers:
            allowed = await self._services.kube.run(
                lambda person=approver: self._services.gate.may_approve(  # type: ignore[misc]
                    person.user, person.groups, risk, meta.namespace, meta.name
                )
            )
            if not allowed:
                return f"{approver.user} may not approve {risk}-risk actions in {meta.namespace} any more"
        return ""

    async def _gate(self) -> str:
        try:
            state = await self._services.kube.run(self._services.gate.check)
        except GateError as error:
            return str(error)
        return "" if state.ok else state.message

    async def _probe(self) -> tuple[Probed, str]:
        spec = self._action.spec
        if recompiled(spec, self._watch.engine.actions, RISKS):
            return Probed.UNKNOWN, "the plan can't be compiled again"
        try:
            access = await self._services.access(self._database)
        except SecretError as error:
            return Probed.UNKNOWN, str(error)
        answer = await run_probe(plan_of(spec, self._watch.engine.actions).probe, access.targets, spec.action)
        return Probed(answer.answer.value), answer.reason
