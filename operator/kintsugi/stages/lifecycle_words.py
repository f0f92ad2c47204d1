"""How the machine writes a status: transitions, waiting, conditions and the words for people. No decisions here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kintsugi.api.action import (
    ApprovalStatus,
    HealingAction,
    MeasureStatus,
    Phase,
    Transition,
    VerdictStatus,
)
from kintsugi.api.meta import Condition, get_condition, set_condition
from kintsugi.domain.verdict import Verdict
from kintsugi.stages.approval import Approvals
from kintsugi.stages.lifecycle_facts import Advance, Audit, Effect, Emit

COMPLETE = "Complete"
"""The summary condition: False with the present reason while it lives, True with the last reason when it has ended."""
NEEDS_PERSON = "NeedsPerson"

_ASPECTS: dict[tuple[Phase | None, Phase], tuple[str, bool | None]] = {
    (None, Phase.APPROVED): ("Approved", True),
    (None, Phase.REJECTED): ("Approved", False),
    (Phase.AWAITING_APPROVAL, Phase.EXPIRED): ("Approved", False),
    (None, Phase.VERIFYING): ("Executed", True),
    (Phase.APPROVED, Phase.FAILED): ("Executed", False),
    (Phase.EXECUTING, Phase.FAILED): ("Executed", False),
    (Phase.EXECUTING, Phase.REVERTING): ("Executed", False),
    (Phase.EXECUTING, Phase.INCONCLUSIVE): ("Executed", None),
    (None, Phase.SUCCEEDED): ("Verified", True),
    (Phase.VERIFYING, Phase.FAILED): ("Verified", False),
    (Phase.VERIFYING, Phase.REVERTING): ("Verified", False),
    (Phase.VERIFYING, Phase.INCONCLUSIVE): ("Verified", None),
    (None, Phase.ROLLED_BACK): ("Reverted", True),
    (Phase.REVERTING, Phase.FAILED): ("Reverted", False),
    (Phase.REVERTING, Phase.INCONCLUSIVE): ("Reverted", None),
}
"""Which condition a transition sets, by phases (from, to); None stands for any phase before."""


@dataclass(frozen=True, slots=True)
class Say:
    """Why: a CamelCase reason, the sentence, whether it is a warning, and who is behind it."""

    reason: str
    message: str
    warning: bool = False
    by: str = "kintsugi"


def same(action: HealingAction, wake_at: datetime | None = None) -> Advance:
    """Nothing new."""
    return Advance(action.status, (), wake_at)


def enter(
    action: HealingAction,
    now: datetime,
    phase: Phase,
    said: Say,
    effects: tuple[Effect, ...] = (),
    *,
    waits_for: str = "",
    wake_at: datetime | None = None,
    needs_person: bool = False,
    approvals: Approvals | None = None,
    **changes: Any,
) -> Advance:
    """The transition into `phase`: status, history, conditions, one event and one line of audit, then `effects`."""
    conditions = _conditions(action, now, phase, said)
    if needs_person:
        conditions = _set(action, conditions, NEEDS_PERSON, True, said, now)
    status = action.status.model_copy(
        update={
            "observed_generation": action.metadata.generation,
            "phase": phase,
            "message": said.message,
            "waits_for": waits_for,
            "conditions": conditions,
            "history": (*action.status.history, Transition(phase=phase.value, at=now, message=said.message)),
            "ended_at": now if phase.ended else None,
            **_approval(approvals),
            **changes,
        }
    )
    audit = Audit(phase.value, said.reason, said.message, said.by)
    wake = None if phase.ended else (wake_at or now)
    return Advance(status, (_emit(said), audit, *effects), wake)


def wait(
    action: HealingAction,
    now: datetime,
    said: Say,
    waits_for: str,
    wake_at: datetime | None,
    *,
    approvals: Approvals | None = None,
    **changes: Any,
) -> Advance:
    """Stay in the phase and say why: an event when the reason is a new one, a new status when its words are."""
    old = get_condition(action.status.conditions, COMPLETE)
    news = old is None or old.reason != said.reason or action.status.phase is None
    if not news and action.status.waits_for == waits_for and not changes:
        return Advance(action.status, (), wake_at)
    conditions = _conditions(action, now, None, said)
    status = action.status.model_copy(
        update={
            "observed_generation": action.metadata.generation,
            "phase": action.phase,
            "message": said.message,
            "waits_for": waits_for,
            "conditions": conditions,
            **_approval(approvals),
            **changes,
        }
    )
    return Advance(status, (_emit(said),) if news else (), wake_at)


def reason(action: HealingAction) -> str:
    """The present reason, or an empty string before there is any."""
    condition = get_condition(action.status.conditions, COMPLETE)
    return condition.reason if condition else ""


def left(what: str, until: datetime, now: datetime) -> str:
    """`approval, 26m left`: in hours above two of them, so that it changes at most once a minute."""
    seconds = (until - now).total_seconds()
    unit, letter = (3600, "h") if seconds > 7200 else (60, "m")
    return f"{what}, {max(1, math.ceil(seconds / unit))}{letter} left"


def next_change(until: datetime, now: datetime) -> datetime:
    """When `left` says something else, or `until` itself."""
    seconds = (until - now).total_seconds()
    unit = 3600 if seconds > 7200 else 60
    steps = math.ceil(seconds / unit) - 1
    floor = 7200 if unit == 3600 else 0
    return until - timedelta(seconds=max(steps * unit, floor))


def verdict_status(verdict: Verdict) -> VerdictStatus:
    """A verdict as the API has it."""
    return VerdictStatus(
        outcome=verdict.outcome.value,
        reasons=verdict.reasons,
        measures=tuple(
            MeasureStatus(signal=m.signal, unit=m.unit, before=m.before, after=m.after, reference=m.reference)
            for m in verdict.measures
        ),
    )


def _emit(said: Say) -> Emit:
    return Emit(said.reason, said.message, "Warning" if said.warning else "Normal")


def _approval(approvals: Approvals | None) -> dict[str, ApprovalStatus]:
    if approvals is None:
        return {}
    status = ApprovalStatus(
        approved_by=approvals.approved_by,
        second_approved_by=approvals.second_approved_by,
        rejected_by=approvals.rejected_by,
        reason=approvals.reason,
    )
    return {"approval": status}


def _conditions(action: HealingAction, now: datetime, phase: Phase | None, said: Say) -> tuple[Condition, ...]:
    """With the summary set, and with the aspect that this transition settles."""
    ended = phase is not None and phase.ended
    conditions = _set(action, action.status.conditions, COMPLETE, ended, said, now)
    if phase is None:
        return conditions
    aspect = _ASPECTS.get((action.phase, phase)) or _ASPECTS.get((None, phase))
    return conditions if aspect is None else _set(action, conditions, aspect[0], aspect[1], said, now)


def _set(
    action: HealingAction, conditions: tuple[Condition, ...], type_: str, holds: bool | None, said: Say, now: datetime
) -> tuple[Condition, ...]:
    generation = action.metadata.generation
    return set_condition(conditions, type_, holds, said.reason, said.message, now=now, generation=generation)
