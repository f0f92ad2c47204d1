"""Attempts: the intent that is written before acting, and what can be told from it after a restart."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from kintsugi.api.action import Attempt, HealingAction, Phase, PlanStep
from kintsugi.stages.lifecycle_facts import ActionFacts, RunResult, RunState

GRACE = timedelta(seconds=30)
GRACE_PER_STEP = timedelta(seconds=5)
"""Connecting to each step's target and writing progress; after that an attempt counts as interrupted."""
MAX_ATTEMPTS = 5
"""Runs of one plan, or of one undo; more of them interrupted means that something is wrong with us."""


def current(action: HealingAction) -> Attempt | None:
    """The last attempt of what the action's phase is about; None when there is none yet."""
    kind = "undo" if action.phase is Phase.REVERTING else "execute"
    mine = [attempt for attempt in action.status.attempts if attempt.kind == kind]
    return mine[-1] if mine else None


def running(action: HealingAction, attempt: Attempt, executor: str, now: datetime) -> bool:
    """Whether this very process is still at it, as far as time tells."""
    return attempt.executor == executor and attempt.ended_at is None and now < deadline(action, attempt)


def deadline(action: HealingAction, attempt: Attempt) -> datetime:
    """When an attempt must have ended: every step's timeout, and some grace."""
    steps = steps_of(action, attempt.kind)
    return attempt.started_at + sum((step.timeout + GRACE_PER_STEP for step in steps), GRACE)


def over(action: HealingAction, attempt: Attempt) -> datetime:
    """When an attempt ended, or must have."""
    return attempt.ended_at or deadline(action, attempt)


def steps_of(action: HealingAction, kind: Literal["execute", "undo"]) -> tuple[PlanStep, ...]:
    """The plan's steps, or the undo's."""
    return action.spec.plan if kind == "execute" else action.spec.undo.steps


def result_of(action: HealingAction, attempt: Attempt, facts: ActionFacts) -> RunResult | None:
    """The answer to this very attempt; a late one to an earlier attempt is no answer."""
    result = facts.result
    mine = attempt.executor == facts.executor and attempt.ended_at is None
    return result if result is not None and mine and result.attempt == len(action.status.attempts) else None


def opened(action: HealingAction, attempt: Attempt) -> tuple[Attempt, ...]:
    """The attempts with a new one after them."""
    return (*action.status.attempts, attempt)


def closed(action: HealingAction, now: datetime, outcome: str) -> tuple[Attempt, ...]:
    """The attempts with the last one ended; one that is over already stays as it is."""
    last = action.status.attempts[-1]
    if last.ended_at is not None:
        return action.status.attempts
    ended = last.model_copy(update={"ended_at": now, "outcome": outcome})
    return (*action.status.attempts[:-1], ended)


def touched(action: HealingAction, every: Iterable[Attempt]) -> bool:
    """Whether any of these attempts at the plan may have changed something that a probe's "not done" does not show."""
    return any(attempt.kind == "execute" and _perhaps_begun(action, attempt) for attempt in every)


def _perhaps_begun(action: HealingAction, attempt: Attempt) -> bool:
    """Half of a plan, or of a statement outside a transaction, may be there; one transaction is all or nothing.

    Of an attempt that was interrupted, or whose answer was lost, not even the number of finished steps is known.
    """
    plan = action.spec.plan
    if attempt.step:
        return True
    if attempt.outcome in (RunState.BUSY, RunState.SUPERSEDED):
        return False
    halves = any(not step.transaction for step in plan[:1])
    return halves or (len(plan) > 1 and attempt.outcome != RunState.FAILED)


def too_many(action: HealingAction, attempt: Attempt) -> bool:
    """Whether no further attempt of this kind may be made."""
    return sum(other.kind == attempt.kind for other in action.status.attempts) >= MAX_ATTEMPTS
