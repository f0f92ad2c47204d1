"""Taking back: the part of the machine that ends something half done, or done without help.

Before the undo runs, the probe says whether there is anything to take back: a person may have done so. What a failed
execution left behind (no `executedAt`) can't be seen by the probe; there the undo's own checks decide.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kintsugi.api.action import Attempt, HealingAction, Phase
from kintsugi.stages import lifecycle_attempts as attempts
from kintsugi.stages.lifecycle_facts import RETRY, SETTLE, ActionFacts, Advance, Probed, RunResult, RunState, Undo
from kintsugi.stages.lifecycle_words import Say, enter, same, wait


def gone(action: HealingAction) -> Say:
    """The database was deleted, or created anew under the same name."""
    return Say("DatabaseGone", f"database {action.spec.database.name} was deleted; nothing more is done", warning=True)


def needs_person(action: HealingAction, now: datetime, said: Say, every: tuple[Attempt, ...] | None = None) -> Advance:
    """The end where only a person can say what is true: Failed, with the condition NeedsPerson."""
    message = f"{said.message}; look at the database, spec.plan and status.outputs, and finish by hand"
    changes: dict[str, Any] = {} if every is None else {"attempts": every}
    return enter(action, now, Phase.FAILED, Say(said.reason, message, warning=True), needs_person=True, **changes)


def give_up(action: HealingAction, now: datetime, said: Say, every: tuple[Attempt, ...] | None = None) -> Advance:
    """End something half done: take it back where that is possible, else ask a person."""
    every = attempts.closed(action, now, "") if every is None else every
    if action.spec.undo.kind != "Steps":
        return needs_person(action, now, said, every)
    said = Say(said.reason, f"{said.message}; taking back what was done", warning=True)
    return enter(action, now, Phase.REVERTING, said, attempts=every, waits_for="undo")


def reverting(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    """One step of taking back."""
    attempt = attempts.current(action)
    if attempt is not None:
        if (result := attempts.result_of(action, attempt, facts)) is not None:
            return _undone(action, result, now)
        if attempts.running(action, attempt, facts.executor, now):
            return same(action, attempts.deadline(action, attempt))
    if facts.database_present is False:
        return enter(action, now, Phase.INCONCLUSIVE, gone(action))
    if facts.probe is None or facts.paused is None or facts.recompiled is None or facts.database_present is None:
        return same(action, now + RETRY)
    if _cleaning(action):
        return _clean(action, attempt, facts, now)
    return _take_back(action, attempt, facts, now)


def _take_back(action: HealingAction, attempt: Attempt | None, facts: ActionFacts, now: datetime) -> Advance:
    """The plan was run: the probe says whether its effect is still there."""
    if facts.probe is Probed.NOT_DONE:
        words = "its effect is gone already, so nothing had to be taken back" if attempt is None else "taken back"
        return _rolled_back(action, now, words)
    if facts.probe is Probed.UNKNOWN:
        since = action.status.history[-1].at if attempt is None else attempts.over(action, attempt)
        if now < since + SETTLE:
            return same(action, min(since + SETTLE, now + RETRY))
        why = facts.probe_reason or "the probe can't tell"
        return needs_person(
            action, now, Say("UndoUnknown", f"whether there is anything to take back is unknown: {why}")
        )
    if attempt is not None and attempt.outcome in (RunState.FAILED, RunState.SUPERSEDED, RunState.UNKNOWN):
        return needs_person(action, now, Say("UndoFailed", f"the undo did not work: {action.status.message}"))
    return _run(action, attempt, facts, now)


def _clean(action: HealingAction, attempt: Attempt | None, facts: ActionFacts, now: datetime) -> Advance:
    """The plan failed half way: run the undo, which takes back only what is its own."""
    outcome = "" if attempt is None else attempt.outcome
    if outcome in (RunState.FAILED, RunState.UNKNOWN):
        return needs_person(action, now, Say("UndoFailed", f"cleaning up did not work: {action.status.message}"))
    return _run(action, attempt, facts, now)


def _run(action: HealingAction, attempt: Attempt | None, facts: ActionFacts, now: datetime) -> Advance:
    """The checks of the moment, and then the attempt that says what is about to be undone."""
    if facts.recompiled:
        return needs_person(action, now, Say("PlanMismatch", f"{facts.recompiled}; the undo was not run"))
    if facts.paused:
        said = Say("Paused", f"the undo waits: {facts.paused}")
        return wait(action, now, said, "pause", now + RETRY)
    if attempt is not None and attempt.outcome != RunState.BUSY and not facts.idempotent:
        return needs_person(action, now, Say("Interrupted", "the undo was interrupted, and is not safe to run again"))
    if attempt is not None and attempts.too_many(action, attempt):
        return needs_person(action, now, Say("TooManyAttempts", f"{attempts.MAX_ATTEMPTS} undos were interrupted"))
    new = Attempt(kind="undo", started_at=now, executor=facts.executor)
    every = attempts.opened(action, new)
    steps = len(action.spec.undo.steps)
    said = Say("Reverting", f"taking back {action.spec.action}: {steps} step{'s' if steps != 1 else ''}")
    return enter(
        action,
        now,
        Phase.REVERTING,
        said,
        (Undo(0, len(every)),),
        attempts=every,
        waits_for="undo",
        wake_at=attempts.deadline(action, new),
    )


def _undone(action: HealingAction, result: RunResult, now: datetime) -> Advance:
    """This process' own undo has ended; whatever is not plainly done is judged by the probe next."""
    every = attempts.closed(action, now, result.state.value)
    if result.state is RunState.DONE:
        return _rolled_back(action, now, "taken back", every)
    if result.state is RunState.SUPERSEDED and _cleaning(action):
        return _rolled_back(action, now, "nothing was left behind", every)
    said = Say("Busy" if result.state is RunState.BUSY else "UndoFailed", result.error, warning=True)
    return wait(action, now, said, said.reason, now + RETRY, attempts=every)


def _rolled_back(action: HealingAction, now: datetime, words: str, every: tuple[Attempt, ...] | None = None) -> Advance:
    """The end of a successful undo; the message keeps why it was needed."""
    why = next((entry.message for entry in action.status.history if entry.phase == Phase.REVERTING), "")
    changes: dict[str, Any] = {} if every is None else {"attempts": every}
    return enter(action, now, Phase.ROLLED_BACK, Say("RolledBack", f"{words}; it was undone because: {why}"), **changes)


def _cleaning(action: HealingAction) -> bool:
    return action.status.executed_at is None
