"""One cycle of the database loop: it decides, says so, and creates at most one `HealingAction`. It never acts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from kintsugi.api.action import ActionApproval, ActionVerification, DatabaseRef, HealingAction, Phase
from kintsugi.api.database import MonitoredDatabase, SignalsStatus
from kintsugi.api.meta import ACKNOWLEDGE, API_VERSION, PAUSE, ObjectMeta
from kintsugi.domain.actions import Candidate, NotProposed, Proposal
from kintsugi.domain.anomaly import Anomaly, Health
from kintsugi.domain.decision import DatabasePhase
from kintsugi.domain.forecast import Forecast
from kintsugi.engines.risk import RISKS
from kintsugi.loops import logs
from kintsugi.loops.conditions import conditions_of
from kintsugi.loops.cycle import Cycle, Outcome
from kintsugi.loops.facts import guard_facts
from kintsugi.loops.incident import incident_of
from kintsugi.loops.services import Services
from kintsugi.loops.watch import Problem, Watch, expected_signals
from kintsugi.shell.errors import ConflictError, KubeError, NotFoundError, UnavailableError
from kintsugi.shell.secrets import SecretError
from kintsugi.shell.telemetry import incident as incident_in_log
from kintsugi.stages import summary
from kintsugi.stages.budget import acknowledged, settle, started
from kintsugi.stages.compose import Question, action_name, compose
from kintsugi.stages.guard import judge
from kintsugi.stages.judgement import Ask, Auto, Forbidden, Judgement, RecommendOnly
from kintsugi.stages.predict import PropagationPredictor
from kintsugi.stages.recover import RunbookRecommender, explain

log = logging.getLogger(__name__)

DIAGNOSE_EVERY = 2.0  # seconds between diagnoses while an incident is open
FRESH_DIAGNOSIS = 6.0  # seconds that a diagnosis may be old for a proposal to rest on it
BASELINE_EVERY = 30.0
TOLERANCE_INTERVALS = 2.5  # samples are no more exact than this about who was first
SUPERSEDED_LIMIT = 3  # new plans for the same action within one incident, when the facts keep changing
SUSPECT_EVERY = 300.0  # seconds between two events about the same while a database is learned
KEPT = 20  # ended actions per database that stay as objects (DESIGN §3)


class DatabaseLoop:
    """Decides for one database at a time; many may be in their cycle at once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._diagnosing: dict[str, asyncio.Task[None]] = {}
        self._outcomes: dict[str, Outcome] = {}

    async def cycle(self, database: MonitoredDatabase, watch: Watch, at: float) -> None:
        """One cycle."""
        now = datetime.fromtimestamp(at, UTC)
        anomaly = watch.anomaly
        if anomaly is None:
            return
        watch.forecast = self._forecast(database, watch, anomaly, at)
        database = self._settled(database, now)
        cycle = Cycle(
            database=database,
            watch=watch,
            policy=self._services.policy_for(database),
            anomaly=anomaly,
            actions=tuple(self._services.fleet.actions_of(database)),
            incident=database.status.incident,
            now=now,
        )
        cycle = replace(cycle, incident=incident_of(self._services, cycle))
        token = incident_in_log.set(cycle.incident.id if cycle.incident else "")
        try:
            self._look(cycle)
            outcome = await self._propose(cycle)
            cycle = replace(cycle, actions=tuple(self._services.fleet.actions_of(database)))  # with a new one
            await self._say(cycle, outcome)
            if cycle.incident is None and database.status.incident is not None:
                for action in cycle.actions:  # whoever still waits for an approval need not wait any more
                    self._services.wake_action(action.metadata.key)
            await self._prune(cycle)
        finally:
            incident_in_log.reset(token)

    def forget(self, key: str) -> None:
        """The database is gone."""
        self._outcomes.pop(key, None)
        if task := self._diagnosing.pop(key, None):
            task.cancel()
        namespace, _, name = key.partition("/")
        with contextlib.suppress(KeyError):
            self._services.metrics.risk.remove(namespace, name)

    def _forecast(self, database: MonitoredDatabase, watch: Watch, anomaly: Anomaly, at: float) -> Forecast:
        """What the anomaly will spread to, the databases that depend on this one included."""
        namespace, name = database.metadata.namespace, database.metadata.name
        beside = [other for other in self._services.fleet.databases.values() if other.metadata.namespace == namespace]
        dependents = [o.metadata.key for o in beside if any(on.name == name for on in o.spec.depends_on)]
        dependencies = [f"{namespace}/{on.name}" for on in database.spec.depends_on]
        topology = watch.engine.surrounded(watch.engine.topology, dependencies, dependents)
        tolerance = TOLERANCE_INTERVALS * database.spec.metrics.scrape_interval.total_seconds()
        return PropagationPredictor(tolerance=tolerance).predict(anomaly, topology, at)

    def _settled(self, database: MonitoredDatabase, now: datetime) -> MonitoredDatabase:
        """The database with its budget and track record counted up to now (idempotent: see `stages/budget.py`)."""
        budget, records = database.status.budget, database.status.track_record
        for action in self._services.fleet.actions_of(database):
            for attempt in action.status.attempts:
                if attempt.kind == "execute":
                    budget = started(budget, attempt.started_at, now)
            budget, records = settle(budget, records, action)
        word = database.metadata.annotations.get(ACKNOWLEDGE, "")
        if word and word != database.status.acknowledged:
            records = acknowledged(records, None if word == "all" else word)
        changes: dict[str, object] = {"budget": budget, "track_record": records, "acknowledged": word}
        if database.status.incident is not None and word == database.status.incident.id:
            changes["reference_since"] = database.status.incident.opened_at
        return database.model_copy(update={"status": database.status.model_copy(update=changes)})

    # --- diagnosis ---

    def _look(self, cycle: Cycle) -> None:
        """Ask the database itself, in the background: a full diagnosis in an incident, else its baseline."""
        watch, at = cycle.watch, cycle.now.timestamp()
        task = self._diagnosing.get(watch.key)
        if (task and not task.done()) or self._services.ceiling.problems(cycle.database):
            return
        wanted = cycle.incident is not None or cycle.live is not None
        every = DIAGNOSE_EVERY if wanted else BASELINE_EVERY
        due = watch.diagnosed_at is None or abs(at - watch.diagnosed_at) >= every
        if due or (wanted and watch.diagnosis is None):
            watch.diagnosed_at = at
            work = self._ask(cycle.database, watch, full=wanted)
        else:
            work = self._pulse(cycle.database, watch)
        self._diagnosing[watch.key] = asyncio.create_task(work)

    async def _pulse(self, database: MonitoredDatabase, watch: Watch) -> None:
        """How far the primary is: after a crash nobody can ask it any more what a failover would lose."""
        with contextlib.suppress(SecretError, KubeError):  # said by the next baseline or diagnosis
            access = await self._services.access(database)
            await access.diagnoser.pulse()

    async def _ask(self, database: MonitoredDatabase, watch: Watch, full: bool) -> None:
        """A full diagnosis, or the baseline that the next one is compared with."""
        try:
            access = await self._services.access(database)
            if full:
                around = await self._services.surroundings(database)
                watch.diagnosis = await access.diagnoser.diagnose(around)
            else:
                await access.diagnoser.baseline()
                watch.diagnosis = None
            error = access.diagnoser.connection_error
            watch.server_version = str(access.diagnoser.server_version or "")
            watch.connection_problem = Problem(_reason(error), str(error)) if error else None
            watch.connected = error is None
            if error and _reason(error) == "WrongPassword":
                self._services.secrets.forget(database.metadata.namespace, database.spec.connection.secret_ref)
        except SecretError as error:
            watch.connected, watch.connection_problem = False, Problem(error.reason, str(error))
        except KubeError as error:
            log.warning("%s could not be asked: %s", watch.key, error)
        if full:
            watch.due = 0.0
            self._services.wake()

    # --- proposal ---

    async def _propose(self, cycle: Cycle) -> Outcome:
        """Create the best action that may be created; what was held back and why."""
        if cycle.incident is None or cycle.anomaly.health in (Health.BLIND, Health.LEARNING):
            self._outcomes.pop(cycle.watch.key, None)
            return Outcome()
        if cycle.live is not None:
            return self._outcomes.get(cycle.watch.key, Outcome())
        stored = cycle.database.status.incident
        if stored is None or stored.id != cycle.incident.id:
            return Outcome()  # not written yet: an action for it would look as if it were over
        diagnosis, age = cycle.watch.diagnosis, cycle.now.timestamp() - (cycle.watch.diagnosed_at or 0)
        if diagnosis is None or age > FRESH_DIAGNOSIS or not cycle.anomaly.flagged:
            return self._outcomes.get(cycle.watch.key, Outcome())
        proposals, left_out = _proposals(cycle)
        recommender = RunbookRecommender(cycle.watch.engine.actions, RISKS)
        ranking = recommender.judge(proposals, cycle.watch.forecast, cycle.policy.objectives, _tried(cycle))
        outcome = await self._first_allowed(cycle, ranking.candidates, (*left_out, *ranking.not_proposed))
        self._outcomes[cycle.watch.key] = outcome
        return outcome

    async def _first_allowed(
        self, cycle: Cycle, ranked: Sequence[Candidate], left_out: Sequence[NotProposed]
    ) -> Outcome:
        assert cycle.incident is not None
        not_proposed = tuple(f"{item.action}: {item.reason}" for item in left_out)
        held_back: list[str] = []
        for place, candidate in enumerate(ranked):
            facts = guard_facts(self._services, cycle.database, cycle.watch, candidate, cycle.incident.id, cycle.now)
            judgement = judge(candidate, cycle.policy, facts)
            if isinstance(judgement.permission, Forbidden):
                held_back.append(judgement.sentence)
                self._refused(cycle, candidate, judgement)
                continue
            runner_up = next((other.action for other in ranked[place + 1 :]), "")
            others = explain(ranked[place:], ())
            try:
                await self._create(cycle, candidate, judgement, (*others, *not_proposed, *held_back), runner_up)
            except UnavailableError:
                raise
            except KubeError as error:
                held_back.append(f"{candidate.action} could not be proposed, the API server refused it: {error}")
                log.warning("%s", held_back[-1])
            break
        return Outcome(tuple(held_back), not_proposed)

    def _refused(self, cycle: Cycle, candidate: Candidate, judgement: Judgement) -> None:
        meta = cycle.database.metadata
        for refusal in judgement.refusals:
            self._services.metrics.refusals.labels(meta.namespace, meta.name, candidate.action, refusal.reason).inc()
        reasons = ", ".join(refusal.reason for refusal in judgement.refusals)
        self._services.emit(
            cycle.database, None, "HeldBack", f"{candidate.action} held back: {reasons}", now=cycle.now, warning=True
        )

    async def _create(
        self, cycle: Cycle, candidate: Candidate, judgement: Judgement, not_proposed: Sequence[str], runner_up: str
    ) -> None:
        assert cycle.incident is not None
        meta, permission = cycle.database.metadata, judgement.permission
        asks = permission.why if isinstance(permission, Ask) else ()
        question = Question(
            runnable=not isinstance(permission, RecommendOnly),
            approval=ActionApproval(
                required=not isinstance(permission, Auto),
                approvers=cycle.policy.approval.approvers,
                why="; ".join(reason.message for reason in asks),
            ),
            verification=ActionVerification(
                window=cycle.policy.verification.window,
                revert_on_failure=cycle.policy.verification.revert_on_failure,
            ),
            expires_after=cycle.policy.approval.expires_after,
            policies=cycle.policy.refs,
        )
        logged = logs.evidence(cycle.watch, cycle.incident.opened_at.timestamp(), cycle.now.timestamp())
        spec = compose(
            replace(candidate, proposal=replace(candidate.proposal, evidence=(*candidate.proposal.evidence, *logged))),
            question,
            database=DatabaseRef(name=meta.name, uid=meta.uid),
            incident=cycle.incident.id,
            anomaly=cycle.anomaly,
            forecast=cycle.watch.forecast,
            summary=summary.summary_of(cycle.anomaly, cycle.watch.forecast, cycle.now.timestamp()),
            not_proposed=not_proposed,
            runner_up=runner_up,
            now=cycle.now,
        )
        again = sum(1 for a in _same(cycle, candidate.action) if a.phase is Phase.SUPERSEDED)
        name = action_name(meta.name, cycle.incident.id, f"{candidate.action}/{again}" if again else candidate.action)
        body = {
            "apiVersion": API_VERSION,
            "kind": HealingAction.KIND,
            "metadata": {
                "name": name,
                "namespace": meta.namespace,
                "labels": {"kintsugi.dev/database": meta.name, "kintsugi.dev/incident": cycle.incident.id},
                "ownerReferences": [
                    {
                        "apiVersion": API_VERSION,
                        "kind": MonitoredDatabase.KIND,
                        "name": meta.name,
                        "uid": meta.uid,
                    }
                ],
            },
            "spec": spec.to_json(),
        }
        try:
            created = await self._services.kube.create_object(HealingAction.PLURAL, meta.namespace, body)
        except ConflictError:
            log.info("%s exists already", name)
            return
        self._services.fleet.apply(HealingAction.PLURAL, created)
        action = HealingAction(metadata=ObjectMeta.model_validate(created["metadata"]), spec=spec)
        log.info("created %s: %s (%s risk)", name, candidate.action, candidate.risk)
        verb = "recommended" if not question.runnable else "proposed"
        note = f"{candidate.action} {verb}: {'; '.join(candidate.proposal.evidence[:1])}"
        self._services.emit(cycle.database, action, "Proposed", note, now=cycle.now)
        self._services.wake()

    # --- status ---

    async def _say(self, cycle: Cycle, outcome: Outcome) -> None:
        """Write what this cycle saw and decided into the status, if it changed."""
        meta, watch, old = cycle.database.metadata, cycle.watch, cycle.database.status
        barred = self._services.ceiling.problems(cycle.database)
        phase = summary.phase_of(cycle.anomaly, cycle.live, cycle.incident, cycle.paused)
        doing = barred[0] if barred else self._doing(cycle, phase, outcome)
        expected = expected_signals(cycle.database, watch.engine)
        missing = tuple(name for name in expected if name not in watch.sources)
        status = old.model_copy(
            update={
                "observed_generation": meta.generation,
                "phase": phase.value,
                "risk": summary.risk_of(cycle.anomaly),
                "soon": summary.soon_of(watch.forecast, watch.engine.topology),
                "doing": doing,
                "components": summary.components_of(cycle.anomaly, watch.forecast),
                "signals": SignalsStatus(
                    found=len(expected) - len(missing),
                    expected=len(expected),
                    missing=missing,
                    exporters=tuple(sorted({source for sources in watch.sources.values() for source in sources})),
                ),
                "judgement": summary.judgement_of(cycle.anomaly),
                "incident": cycle.incident,
                "effective_mode": cycle.policy.mode.value,
                "policies": tuple(ref.name for ref in cycle.policy.refs),
                "not_proposed": outcome.not_proposed if cycle.incident else (),
                "server_version": watch.server_version or old.server_version,
                "conditions": conditions_of(cycle, outcome, barred, self._services.gate_state),
            }
        )
        self._services.metrics.risk.labels(meta.namespace, meta.name).set(cycle.anomaly.score)
        await self._services.write_status(MonitoredDatabase.PLURAL, meta, status)
        if cycle.anomaly.suspected and watch.says(f"suspected {cycle.now.timestamp() // SUSPECT_EVERY:.0f}"):
            self._services.emit(cycle.database, None, "Suspected", doing, now=cycle.now, warning=True)
        if old.phase != phase.value:
            warning = phase in (DatabasePhase.BLIND, DatabasePhase.DEGRADED)
            self._services.emit(cycle.database, None, phase.value, doing, now=cycle.now, warning=warning)

    def _doing(self, cycle: Cycle, phase: DatabasePhase, outcome: Outcome) -> str:
        if cycle.live is not None and phase is not DatabasePhase.PAUSED:
            return summary.doing_with(cycle.live)
        reason = cycle.database.metadata.annotations.get(PAUSE, "")
        recommended = next((a for a in reversed(cycle.actions) if not a.phase.ended and not a.spec.runnable), None)
        if recommended is not None and cycle.incident is not None:
            return summary.doing_with(recommended)
        looked_for = (cycle.now - cycle.incident.opened_at).total_seconds() if cycle.incident else 0.0
        return summary.doing_without(phase, cycle.anomaly, outcome.held_back, looked_for, reason)

    async def _prune(self, cycle: Cycle) -> None:
        """Keep the newest ended actions as objects; the older ones go."""
        ended = [action for action in cycle.actions if action.phase.ended]
        for action in ended[:-KEPT]:
            meta = action.metadata
            with contextlib.suppress(NotFoundError):
                await self._services.kube.delete_object(HealingAction.PLURAL, meta.namespace, meta.name)
            self._services.fleet.remove(HealingAction.PLURAL, meta.key)


def _proposals(cycle: Cycle) -> tuple[list[Proposal], list[NotProposed]]:
    """What each action of the engine offers for this diagnosis, and what each says it can't."""
    assert cycle.watch.diagnosis is not None
    proposals: list[Proposal] = []
    left_out: list[NotProposed] = []
    for action in cycle.watch.engine.actions.values():
        for item in action.propose(cycle.watch.diagnosis, cycle.database.spec):
            if isinstance(item, Proposal):
                proposals.append(item)
            else:
                left_out.append(item)
    return proposals, left_out


def _same(cycle: Cycle, action: str) -> list[HealingAction]:
    assert cycle.incident is not None
    return [a for a in cycle.actions if a.spec.incident == cycle.incident.id and a.spec.action == action]


def _tried(cycle: Cycle) -> list[str]:
    """Actions that this incident has had already. One whose facts changed before it ran may be planned anew, thrice."""
    tried = []
    for name in {a.spec.action for a in cycle.actions if cycle.incident and a.spec.incident == cycle.incident.id}:
        mine = _same(cycle, name)
        if any(a.phase is not Phase.SUPERSEDED for a in mine) or len(mine) >= SUPERSEDED_LIMIT:
            tried.append(name)
    return tried


def _reason(error: Exception) -> str:
    return type(error).__name__.removesuffix("Error")
