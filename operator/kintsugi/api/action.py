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

    name: Name
    uid: str


class PolicyRef(Model):
    """A policy as it was when the action was judged."""

    name: str
    uid: str
    generation: int


class PlanStep(Model):
    """One command, word for word (see `domain.actions.Step`)."""

    kind: Literal["sql", "pooler", "kubernetes"]
    target: str
    command: str
    timeout: Duration
    transaction: bool = True
    optional: bool = False
    expect: bool = False


class UndoPlan(Model):
    """How it is taken back: steps, nothing to take back, or impossible."""

    kind: Literal["Steps", "Nothing", "Impossible"]
    steps: tuple[PlanStep, ...] = Field(default=(), max_length=16)
    note: str = ""


class EvidenceSignal(Model):
    """One signal that led here."""

    signal: str
    component: str
    deviation: float
    value: float
    reference: float
    sentence: str


class Evidence(Model):
    """Why: in words and numbers."""

    summary: str
    facts: tuple[str, ...] = ()
    signals: tuple[EvidenceSignal, ...] = ()
    not_proposed: tuple[str, ...] = ()


class ForecastImpact(Model):
    """A component at risk."""

    component: str
    probability: float
    eta_seconds: float
    path: tuple[str, ...]


class ActionForecast(Model):
    """What was expected to happen without the action."""

    root: str = ""
    sentence: str = ""
    impacts: tuple[ForecastImpact, ...] = ()


Effect = Annotated[float, Field(ge=-1, le=1)]


class Expected(Model):
    """Expected effect per objective, -1 to 1."""

    latency: Effect
    throughput: Effect
    resources: Effect
    consistency: Effect
    runner_up: str = ""


class ActionApproval(Model):
    """Whether a person must say yes, and how many; `why` says because of what."""

    required: bool
    approvers: Annotated[int, Field(ge=1, le=2)] = 1
    why: str = ""


class ActionVerification(Model):
    """How it will be judged."""

    window: Duration
    revert_on_failure: bool


class ActionSpec(Model):
    """Immutable. `planHash` is over everything else here: whoever approves it approves exactly this."""

    database: DatabaseRef
    incident: str
    action: Name
    parameters: Mapping[str, Any]
    touches: tuple[str, ...] = Field(
        default=(),
        description="What it acts on (role:app, table:shop.orders); protection is checked again before it runs.",
    )
    runnable: bool = Field(default=True, description="False for a recommendation, which can't be run or approved.")
    plan: tuple[PlanStep, ...] = Field(max_length=16)
    undo: UndoPlan
    risk: Literal["low", "medium", "high"]
    evidence: Evidence
    forecast: ActionForecast
    expected: Expected
    propensity: Annotated[float, Field(ge=0, le=1)] = 1.0
    expires_at: Time
    policies: tuple[PolicyRef, ...]
    approval: ActionApproval
    verification: ActionVerification
    plan_hash: str


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

    approved_by: str = ""
    second_approved_by: str = ""
    rejected_by: str = ""
    reason: str = ""


class Attempt(Status):
    """Intent written before acting, so that a killed operator knows what it was about to do.

    `step` is the number of steps known to be done; `kind` says of which plan. `outcome` is how the run ended, in the
    words of `stages.lifecycle_facts.RunState`; empty while it runs, and for ever where the operator was killed.
    """

    kind: Literal["execute", "undo"] = "execute"
    started_at: Time
    executor: str
    step: int = 0
    ended_at: Time | None = None
    outcome: str = ""


class StepOutput(Status):
    """What a step answered."""

    step: int
    output: str = Field(default="", max_length=4096)
    at: Time


class MeasureStatus(Status):
    """One signal before and after, beside its reference."""

    signal: str
    unit: str
    before: float | None = None
    after: float | None = None
    reference: float | None = None


class VerdictStatus(Status):
    """The verdict and every reason for it."""

    outcome: Literal["Healed", "NotHealed", "Harmed", "Inconclusive"]
    reasons: tuple[str, ...]
    measures: tuple[MeasureStatus, ...] = ()


class Transition(Status):
    """One step of the action's life."""

    phase: str
    at: Time
    message: str


class ActionStatus(Status):
    """How it goes."""

    observed_generation: int = 0
    phase: Phase | None = None
    message: str = ""
    waits_for: str = ""
    conditions: tuple[Condition, ...] = ()
    approval: ApprovalStatus = ApprovalStatus()
    attempts: tuple[Attempt, ...] = ()
    outputs: tuple[StepOutput, ...] = ()
    verdict: VerdictStatus | None = None
    executed_at: Time | None = None
    ended_at: Time | None = None
    history: tuple[Transition, ...] = ()


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
