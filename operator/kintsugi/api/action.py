"""`HealingAction`: one decision, immutable; and how it went."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from kintsugi.api.meta import Condition, Duration, Model, Name, ObjectMeta, Status, Time


class Phase(StrEnum):
    """Where an action is in its life (DESIGN §4)."""

    PROPOSED = "Proposed"
    AWAITING_APPROVAL = "AwaitingApproval"
    APPROVED = "Approved"
    EXECUTING = "Executing"
    VERIFYING = "Verifying"
    REVERTING = "Reverting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ROLLED_BACK = "RolledBack"
    INCONCLUSIVE = "Inconclusive"
    REJECTED = "Rejected"
    EXPIRED = "Expired"
    SUPERSEDED = "Superseded"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self in _ENDED

    @property
    def at_work(self) -> bool:
        """Whether it is changing something or judging a change."""
        return self in (Phase.EXECUTING, Phase.VERIFYING, Phase.REVERTING)


_ENDED = frozenset(
    {
        Phase.SUCCEEDED,
        Phase.FAILED,
        Phase.ROLLED_BACK,
        Phase.INCONCLUSIVE,
        Phase.REJECTED,
        Phase.EXPIRED,
        Phase.SUPERSEDED,
    }
)


class DatabaseRef(Model):
    """The database, bound by uid so that a re-created one is not mistaken for it."""

    name: Name = Field(description="The MonitoredDatabase's name.")
    uid: str = Field(description="Its uid.")


class PolicyRef(Model):
    """A policy as it was when the action was judged."""

    name: str = Field(description="The policy's name.")
    uid: str = Field(description="Its uid.")
    generation: int = Field(description="Its generation when it was applied.")


class PlanStep(Model):
    """One command, word for word (see `domain.actions.Step`)."""

    kind: Literal["sql", "pooler", "kubernetes"] = Field(description="Which system it talks to.")
    target: str = Field(description="Where: primary, a member, pgbouncer, or a workload such as statefulset/orders.")
    command: str = Field(description="The statement, admin command or JSON merge patch, word for word.")
    timeout: Duration = Field(description="How long it may take.")
    transaction: bool = Field(default=True, description="False for statements that can't run inside a transaction.")
    optional: bool = Field(default=False, description="Whether it may fail without failing the action.")
    expect: bool = Field(default=False, description="Whether its answer must be true, or the action is superseded.")


class UndoPlan(Model):
    """How it is taken back: steps, nothing to take back, or impossible."""

    kind: Literal["Steps", "Nothing", "Impossible"] = Field(
        description="Steps, Nothing (nothing to take back) or Impossible."
    )
    steps: tuple[PlanStep, ...] = Field(default=(), max_length=16, description="What takes it back, in order.")
    note: str = Field(default="", description="Why it can't be taken back, or what doing so means.")


class EvidenceSignal(Model):
    """One signal that led here."""

    signal: str = Field(description="The signal's name.")
    component: str = Field(description="Its component.")
    deviation: float = Field(description="Robust standard deviations from the reference, positive where it hurts.")
    value: float = Field(description="What it is now.")
    reference: float = Field(description="What it usually is.")
    sentence: str = Field(description="The same in words.")


class EvidenceUnusual(Model):
    """A signal that the learned model found unusual."""

    signal: str = Field(description="The signal's name.")
    deviation: float = Field(
        description="How far it was from its usual value, in scales of the reference (about a standard deviation, "
        "60 at most); negative is below."
    )


class EvidenceOpinion(Model):
    """What the learned model and the database's own examples said."""

    model: str = Field(description="The bundle of learned models, version and hash; empty without one.")
    probability: float = Field(description="The model's probability that something was wrong, 0 to 1.")
    threshold: float = Field(description="The probability that the model alone would alarm from.")
    anomalies: int = Field(description="Examples of anomalies of this database that were used.")
    normals: int = Field(description="Examples of normal times of this database that were used.")
    unusual: tuple[EvidenceUnusual, ...] = Field(
        default=(), description="The signals that the model found most unusual, strongest first; from 3 scales on."
    )
    fault_class: str = Field(description="The kind of fault that it looked like, unknown where none did.")
    nearest_class: str = Field(
        default="", description="The known kind that is nearest: the same, or what comes closest where it is unknown."
    )
    class_probability: float = Field(description="The probability of the nearest kind, 0 to 1.")
    sentence: str = Field(description="The same in words.")


class Evidence(Model):
    """Why: in words and numbers."""

    summary: str = Field(description="Why, in a sentence.")
    facts: tuple[str, ...] = Field(default=(), description="What diagnostics found, in sentences.")
    signals: tuple[EvidenceSignal, ...] = Field(default=(), description="The signals that led here, strongest first.")
    opinion: EvidenceOpinion | None = None
    not_proposed: tuple[str, ...] = Field(
        default=(), description="Other actions that were considered, and why they were left out."
    )


class ForecastImpact(Model):
    """A component at risk."""

    component: str = Field(description="The component.")
    probability: float = Field(description="Probability of degrading, 0 to 1.")
    eta_seconds: float = Field(description="Seconds until then; 0 is already.")
    path: tuple[str, ...] = Field(description="The components that the trouble travels along, root first.")


class ActionForecast(Model):
    """What was expected to happen without the action."""

    root: str = Field(default="", description="Where it started.")
    sentence: str = Field(default="", description="The forecast in words.")
    impacts: tuple[ForecastImpact, ...] = Field(default=(), description="Components at risk, most certain first.")


Effect = Annotated[float, Field(ge=-1, le=1)]


class Expected(Model):
    """Expected effect per objective, -1 to 1."""

    latency: Effect = Field(description="Effect on latency.")
    throughput: Effect = Field(description="Effect on throughput.")
    resources: Effect = Field(description="Effect on resources.")
    consistency: Effect = Field(description="Effect on consistency.")
    runner_up: str = Field(default="", description="The next best candidate, and how it compares.")


class ActionApproval(Model):
    """Whether a person must say yes, and how many; `why` says because of what."""

    required: bool = Field(description="Whether a person must approve.")
    approvers: Annotated[int, Field(ge=1, le=2)] = Field(default=1, description="How many different people.")
    why: str = Field(default="", description="Because of what.")


class ActionVerification(Model):
    """How it will be judged."""

    window: Duration = Field(description="How long the effect may take to show.")
    revert_on_failure: bool = Field(description="Whether the undo plan is run when it does not show.")


class ActionSpec(Model):
    """Immutable. `planHash` is over everything else here: whoever approves it approves exactly this."""

    database: DatabaseRef
    incident: str = Field(description="The incident that it answers.")
    action: Name = Field(description="What kind of action it is.")
    parameters: Mapping[str, Any] = Field(
        description="On what exactly, from diagnostics; the plan is compiled from these alone."
    )
    touches: tuple[str, ...] = Field(
        default=(),
        description="What it acts on (role:app, table:shop.orders); protection is checked again before it runs.",
    )
    runnable: bool = Field(default=True, description="False for a recommendation, which can't be run or approved.")
    plan: tuple[PlanStep, ...] = Field(max_length=16, description="Every step, in order.")
    undo: UndoPlan
    risk: Literal["low", "medium", "high"] = Field(
        description="How much could go wrong; high risk always asks a person."
    )
    evidence: Evidence
    forecast: ActionForecast
    expected: Expected
    propensity: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="Probability with which the chooser picked it; 1 for a rule."
    )
    expires_at: Time = Field(description="From then on it is never begun.")
    policies: tuple[PolicyRef, ...] = Field(description="The policies that it was judged by.")
    approval: ActionApproval
    verification: ActionVerification
    plan_hash: str = Field(description="Twelve hexadecimal digits over all of this; an approval carries them.")


def plan_hash(spec: Mapping[str, Any]) -> str:
    """Twelve hex digits of SHA-256 over the JSON spec (camelCase) without `planHash` itself, keys sorted.

    Whole floats count as integers: the API server stores 1.0 as 1.
    """
    body = {key: _canonical(value) for key, value in spec.items() if key != "planHash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ApprovalStatus(Status):
    """Who said what, as the API server stamped it."""

    approved_by: str = Field(default="", description="Who approved.")
    second_approved_by: str = Field(default="", description="Who approved as the second.")
    rejected_by: str = Field(default="", description="Who rejected.")
    reason: str = Field(default="", description="The reason given for rejecting.")


class Attempt(Status):
    """Intent written before acting, so that a killed operator knows what it was about to do.

    `step` is the number of steps known to be done; `kind` says of which plan. `outcome` is how the run ended, in the
    words of `stages.lifecycle_facts.RunState`; empty while it runs, and for ever where the operator was killed.
    """

    kind: Literal["execute", "undo"] = Field(default="execute", description="What was attempted.")
    started_at: Time = Field(description="When it was begun.")
    executor: str = Field(description="Which operator process began it.")
    step: int = Field(default=0, description="Steps known to be done.")
    ended_at: Time | None = Field(default=None, description="When it ended.")
    outcome: str = Field(default="", description="How it ended.")


class StepOutput(Status):
    """What a step answered."""

    step: int = Field(description="The step's place in the plan, from 0.")
    output: str = Field(default="", max_length=4096, description="What it answered.")
    at: Time = Field(description="When.")


class MeasureStatus(Status):
    """One signal before and after, beside its reference."""

    signal: str = Field(description="The signal's name.")
    unit: str = Field(description="Its unit.")
    before: float | None = Field(default=None, description="Median before the action.")
    after: float | None = Field(default=None, description="Median after it.")
    reference: float | None = Field(default=None, description="What it usually is.")


class VerdictStatus(Status):
    """The verdict and every reason for it."""

    outcome: Literal["Healed", "NotHealed", "Harmed", "Inconclusive"] = Field(
        description="Healed, NotHealed, Harmed or Inconclusive."
    )
    reasons: tuple[str, ...] = Field(description="Every reason for it.")
    measures: tuple[MeasureStatus, ...] = Field(default=(), description="What was compared.")


class Transition(Status):
    """One step of the action's life."""

    phase: str = Field(description="The phase entered.")
    at: Time = Field(description="When.")
    message: str = Field(description="Why.")


class ActionStatus(Status):
    """How it goes."""

    observed_generation: int = Field(default=0, description="The generation that this status is about.")
    phase: Phase | None = None
    message: str = Field(default="", description="How it goes, in a sentence.")
    waits_for: str = Field(default="", description="What it waits for, and how long it still will.")
    conditions: tuple[Condition, ...] = Field(default=(), description="What is in order and what isn't.")
    approval: ApprovalStatus = ApprovalStatus()
    attempts: tuple[Attempt, ...] = Field(default=(), description="Every time it was begun, with how far it came.")
    outputs: tuple[StepOutput, ...] = Field(default=(), description="What the steps answered.")
    verdict: VerdictStatus | None = None
    executed_at: Time | None = Field(default=None, description="When the last step was done.")
    ended_at: Time | None = Field(default=None, description="When it ended.")
    history: tuple[Transition, ...] = Field(default=(), description="Every phase it has been in.")


class HealingAction(Model):
    """The whole object as read from the API server."""

    KIND: ClassVar[str] = "HealingAction"
    PLURAL: ClassVar[str] = "healingactions"

    metadata: ObjectMeta
    spec: ActionSpec
    status: ActionStatus = ActionStatus()

    @property
    def phase(self) -> Phase:
        """Its phase; a fresh one is Proposed."""
        return self.status.phase or Phase.PROPOSED
