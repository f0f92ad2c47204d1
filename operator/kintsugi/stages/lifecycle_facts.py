"""What the machine of `lifecycle.py` is told, and what it answers: facts, needs and effects as immutable values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

from kintsugi.api.action import ActionStatus
from kintsugi.domain.verdict import Verdict
from kintsugi.stages.approval import Approvals
from kintsugi.stages.judgement import Judgement

RETRY = timedelta(seconds=5)
"""When to look again where a fact could not be read, or another session of ours is at work."""
SETTLE = timedelta(minutes=2)
"""How long the probe of something interrupted may stay unknown before a person is asked."""


class Need(StrEnum):
    """A fact that the machine can use in an action's present phase; the shell reads these and no others."""

    DATABASE = "database_present"
    APPROVALS = "approvals"
    APPROVERS = "approvers_allowed"
    GATE = "gate"
    JUDGEMENT = "judgement"
    RECOMPILED = "recompiled"
    PRECONDITIONS = "preconditions"
    PROBE = "probe"
    VERDICT = "verdict"
    PAUSED = "paused"


class Probed(StrEnum):
    """Whether a plan's effect is there now."""

    DONE = "done"
    NOT_DONE = "not-done"
    UNKNOWN = "unknown"


class RunState(StrEnum):
    """How a run of a plan ended, the words of `shell.execute.StepState`.

    DONE: every step took effect. For the others it is the step where it stopped: SUPERSEDED, BUSY and FAILED changed
    nothing themselves; of UNKNOWN nobody knows (the answer was lost).
    """

    DONE = "done"
    SUPERSEDED = "superseded"
    BUSY = "busy"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of an `Execute` or `Undo` effect. `attempt` is the effect's own, so that a late answer is known."""

    attempt: int
    state: RunState
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFacts:
    """What was read for one step of the machine. None means: not read this time, and nothing is concluded from it.

    Attributes:
        executor: this process, unique per start; an attempt of another executor is one that was interrupted.
        database_present: whether the database with the spec's uid still exists.
        approvals: what `read_approvals` found.
        approvers_allowed: why an approver may not approve any more (SubjectAccessReview just now); empty when all may.
        gate: why the approval gate can't be relied on (its self-test just now); empty when it can.
        judgement: the guard's, just now.
        recompiled: why the spec is not what its action and parameters compile to; empty when it is.
        idempotent: whether the compiled plan may run again when it is not done; read with `recompiled`.
        preconditions: why the action is no longer called for; empty when its evidence still holds.
        probe: whether the plan's effect is there.
        probe_reason: why `probe` is unknown.
        result: how this process' run of the plan or of the undo ended, if it did.
        verdict: verification's, once it has one.
        paused: who paused and why; empty when nothing is paused.
    """

    executor: str
    database_present: bool | None = None
    approvals: Approvals | None = None
    approvers_allowed: str | None = None
    gate: str | None = None
    judgement: Judgement | None = None
    recompiled: str | None = None
    idempotent: bool | None = None
    preconditions: str | None = None
    probe: Probed | None = None
    probe_reason: str = ""
    result: RunResult | None = None
    verdict: Verdict | None = None
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class Execute:
    """Run the plan from step `from_step` (0-based). Report `RunResult(attempt, …)`; write progress after each step."""

    from_step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Undo:
    """Run the undo plan from step `from_step` (0-based). Report and write as for `Execute`."""

    from_step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Emit:
    """A Kubernetes Event on the action and its database."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class Audit:
    """One line for the audit chain: a transition, why, and by whom (`kintsugi` or the people who said so)."""

    phase: str
    reason: str
    message: str
    by: str


Effect: TypeAlias = Execute | Undo | Emit | Audit


@dataclass(frozen=True, slots=True)
class Advance:
    """The next status, what to do once it is written, and when to look again.

    The order matters: write `status` by compare-and-swap on resourceVersion first; on a conflict drop the effects and
    start from what is there now. `wake_at` not after now means: there is more to do at once. None: only an event helps.
    """

    status: ActionStatus
    effects: tuple[Effect, ...] = ()
    wake_at: datetime | None = None
