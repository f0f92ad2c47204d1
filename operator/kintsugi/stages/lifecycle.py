"""The life of one `HealingAction`, as one pure function.

    Proposed → AwaitingApproval → Approved → Executing → Verifying → Succeeded | Failed | Inconclusive
                                                  └──────────┴─→ Reverting → RolledBack | Failed
    and while nothing was done: Rejected, Expired, Superseded

Never twice, never silently lost: entering Executing (or an undo) writes an attempt *before* its effect is returned. An
attempt that this process did not start, or whose time has run out, was interrupted: the probe is asked, and only
"not done" of an idempotent plan runs again, after every check of a first start. All else ends with a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from kintsugi.api.action import ActionStatus, Attempt, HealingAction, Phase, StepOutput, plan_hash
from kintsugi.domain.text import human
from kintsugi.domain.verdict import Outcome
from kintsugi.stages import lifecycle_attempts as attempts
from kintsugi.stages.budget import milliseconds
from kintsugi.stages.judgement import Ask
from kintsugi.stages.lifecycle_facts import (
    RETRY,
    SETTLE,
    ActionFacts,
    Advance,
    Execute,
    Need,
    Probed,
    RunResult,
    RunState,
)
from kintsugi.stages.lifecycle_undo import give_up, gone, needs_person, reverting
from kintsugi.stages.lifecycle_words import Say, enter, left, next_change, same, verdict_status, wait

RECHECK = timedelta(seconds=15)
"""How often an approved action is looked at again that something without a known end holds back."""
VERDICT_GRACE = timedelta(minutes=2)
"""How long after its window verification may still lack a verdict before it is inconclusive."""
OUTPUT_LENGTH = 4096

_START = frozenset({Need.DATABASE, Need.APPROVALS, Need.JUDGEMENT, Need.RECOMPILED, Need.PRECONDITIONS})
_START_APPROVED = _START | {Need.APPROVERS, Need.GATE}


def needs(action: HealingAction, now: datetime, executor: str) -> frozenset[Need]:
    """The facts that `advance` can use now; empty when there is nothing to read for."""
    attempt = attempts.current(action)
    if action.phase.ended or (not action.status.attempts and now >= action.spec.expires_at):
        return frozenset()
    if attempt is not None and action.phase is not Phase.VERIFYING and attempts.running(action, attempt, executor, now):
        return frozenset({Need.DATABASE})
    match action.phase:
        case Phase.PROPOSED | Phase.AWAITING_APPROVAL:
            return frozenset({Need.DATABASE, Need.APPROVALS, Need.PRECONDITIONS})
        case Phase.APPROVED:
            return _to_start(action)
        case Phase.EXECUTING:
            return _to_start(action) | {Need.PROBE}
        case Phase.VERIFYING:
            return frozenset({Need.DATABASE, Need.VERDICT})
        case _:
            return frozenset({Need.DATABASE, Need.PROBE, Need.RECOMPILED, Need.PAUSED})


def advance(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    """One step of the action's life: the next status, what to do after writing it, and when to look again.

    Pure: the same arguments give the same answer, and without new facts a second call changes and emits nothing.
    """
    if action.phase.ended:
        return same(action)
    return _PHASES[action.phase](action, facts, milliseconds(now))


def progress(status: ActionStatus, step: int, output: str, now: datetime) -> ActionStatus:
    """`status` with `step` steps of the current attempt done, and what the last of them answered."""
    attempt = status.attempts[-1].model_copy(update={"step": step})
    said = StepOutput(step=step, output=output[:OUTPUT_LENGTH], at=milliseconds(now))
    return status.model_copy(
        update={"attempts": (*status.attempts[:-1], attempt), "outputs": (*status.outputs, said)},
    )


# While nothing is done ------------------------------------------------------------------------------------------------


def _proposed(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    if (over := _called_off(action, facts, now) or _no_longer(facts)) is not None:
        return enter(action, now, *over, approvals=facts.approvals)
    spec = action.spec
    if plan_hash(spec.to_json()) != spec.plan_hash:
        message = f"planHash {spec.plan_hash} does not belong to this spec; delete the action, a new one is proposed"
        return enter(action, now, Phase.FAILED, Say("PlanHashMismatch", message, warning=True))
    if not spec.runnable:
        message = f"recommended only: {spec.action} is not run in this mode; spec.plan says what it would do"
        return wait(action, now, Say("Recommended", message), "", spec.expires_at)
    if not spec.approval.required:
        return enter(action, now, Phase.APPROVED, Say("Automatic", f"{spec.action} may run by itself here"))
    return enter(action, now, Phase.AWAITING_APPROVAL, _question(action), waits_for=_left("approval", action, now))


def _awaiting(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    if (over := _called_off(action, facts, now) or _no_longer(facts)) is not None:
        return enter(action, now, *over, approvals=facts.approvals)
    if facts.approvals is None:
        return same(action, now + RETRY)
    spec, approvals = action.spec, facts.approvals
    people = " and ".join(approver.user for approver in approvals.approvers)
    if approvals.granted(spec.approval.approvers):
        said = Say("Approved", f"approved by {people}", by=people)
        return enter(action, now, Phase.APPROVED, said, approvals=approvals)
    if approvals.problem:
        said = Say("ApprovalUnusable", approvals.problem, warning=True)
    elif people:
        hint = f"kubectl annotate ha {action.metadata.name} kintsugi.dev/second-approve={spec.plan_hash}"
        said = Say("SecondApprovalNeeded", f"approved by {people}; a second person: {hint}", by=people)
    else:
        said = _question(action)
    what = _left(approvals.missing(spec.approval.approvers), action, now)
    return wait(action, now, said, what, next_change(spec.expires_at, now), approvals=approvals)


def _approved(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    if (over := _called_off(action, facts, now)) is not None:
        return enter(action, now, *over, approvals=facts.approvals)
    return _start(action, facts, now)


def _called_off(action: HealingAction, facts: ActionFacts, now: datetime) -> tuple[Phase, Say] | None:
    """How something that nothing was done for yet is over, if it is."""
    if now >= action.spec.expires_at:
        what = "nobody approved it" if action.phase is Phase.AWAITING_APPROVAL else "it was not run"
        return Phase.EXPIRED, Say("Expired", f"{what} before it expired")
    if facts.database_present is False:
        return Phase.SUPERSEDED, gone(action)
    if facts.approvals is not None and facts.approvals.rejected:
        by = facts.approvals.rejected_by
        return Phase.REJECTED, Say(
            "Rejected", f"rejected by {by}: {facts.approvals.reason or 'no reason given'}", by=by
        )
    return None


def _no_longer(facts: ActionFacts) -> tuple[Phase, Say] | None:
    """Nobody is asked about something that is over by itself."""
    return (Phase.SUPERSEDED, Say("NoLongerCalledFor", facts.preconditions)) if facts.preconditions else None


def _question(action: HealingAction) -> Say:
    spec = action.spec
    why = spec.approval.why or f"{spec.action} is {spec.risk} risk"
    hint = f"kubectl annotate ha {action.metadata.name} kintsugi.dev/approve={spec.plan_hash}"
    return Say("ApprovalNeeded", f"{why}; approve with {hint}")


def _left(what: str, action: HealingAction, now: datetime) -> str:
    return left(what, action.spec.expires_at, now)


# At the moment of execution -------------------------------------------------------------------------------------------


def _to_start(action: HealingAction) -> frozenset[Need]:
    """What must be known; the evidence of something half done has changed by what was done, so it is not asked for."""
    needed = _START_APPROVED if action.spec.approval.required else _START
    return needed - {Need.PRECONDITIONS} if _half_done(action) else needed


def _half_done(action: HealingAction) -> bool:
    return attempts.touched(action, action.status.attempts)


def _start(action: HealingAction, facts: ActionFacts, now: datetime, step: int = 0) -> Advance:
    """Everything that must hold, and then the attempt that says what is about to be done."""
    if any(getattr(facts, need) is None for need in _to_start(action)):
        return same(action, now + RETRY)
    if (stop := _stop(action, facts)) is not None:
        return _call_off(action, facts, now, stop)
    if (hold := _hold(action, facts)) is not None:
        said, again = hold
        until = min(now + again, next_change(action.spec.expires_at, now))
        return wait(action, now, said, _left(said.reason, action, now), until)
    attempt = Attempt(started_at=now, executor=facts.executor, step=step)
    every = attempts.opened(action, attempt)
    steps = len(action.spec.plan)
    message = f"executing {action.spec.action}: {steps} step{'s' if steps != 1 else ''}"
    message += f", attempt {len(every)}, from step {step + 1}" if len(every) > 1 else ""
    return enter(
        action,
        now,
        Phase.EXECUTING,
        Say("Executing", message),
        (Execute(step, len(every)),),
        attempts=every,
        wake_at=attempts.deadline(action, attempt),
    )


def _call_off(action: HealingAction, facts: ActionFacts, now: datetime, over: tuple[Phase, Say]) -> Advance:
    """The end of an action that must not go on: in its own phase, or, half done, by taking it back."""
    if not _half_done(action):
        return enter(action, now, *over, approvals=facts.approvals)
    return give_up(
        action, now, Say(over[1].reason, f"perhaps half done, then called off: {over[1].message}", warning=True)
    )


def _stop(action: HealingAction, facts: ActionFacts) -> tuple[Phase, Say] | None:
    """Why it must not run any more, however long it waits; None when it may."""
    spec, approvals, judgement = action.spec, facts.approvals, facts.judgement
    if not spec.runnable:
        return Phase.FAILED, Say("NotRunnable", "a recommendation can't be run", warning=True)
    if facts.recompiled:
        return Phase.FAILED, Say("PlanMismatch", f"{facts.recompiled}; it was not run", warning=True)
    if spec.approval.required and approvals is not None:
        if not approvals.granted(spec.approval.approvers):
            why = approvals.problem or "the approval is gone"
            return Phase.FAILED, Say("ApprovalUnusable", f"{why}; it was not run", warning=True)
        if facts.approvers_allowed:
            return Phase.FAILED, Say("ApproverNotAllowed", f"{facts.approvers_allowed}; it was not run", warning=True)
    if facts.preconditions and not _half_done(action):
        return Phase.SUPERSEDED, Say("NoLongerCalledFor", facts.preconditions)
    if judgement is not None and isinstance(judgement.permission, Ask) and not spec.approval.required:
        why = "; ".join(ask.message for ask in judgement.permission.why)
        return Phase.SUPERSEDED, Say(
            "ApprovalNeededNow", f"it would have run by itself, but a person must approve: {why}"
        )
    return None


def _hold(action: HealingAction, facts: ActionFacts) -> tuple[Say, timedelta] | None:
    """Why it must not run yet, and when to look again; None when it may."""
    if action.spec.approval.required and facts.gate:
        return Say("ApprovalGateMissing", facts.gate, warning=True), RECHECK
    if facts.judgement is None or not facts.judgement.refusals:
        return None
    refusals = facts.judgement.refusals
    again = facts.judgement.retry_after
    said = Say(refusals[0].reason, "; ".join(refusal.message for refusal in refusals))
    return said, RECHECK if again is None else max(RETRY, timedelta(seconds=again))


# Doing ----------------------------------------------------------------------------------------------------------------


def _executing(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    attempt = attempts.current(action)
    if attempt is None:
        return _start(action, facts, now)
    if (result := attempts.result_of(action, attempt, facts)) is not None:
        return _executed(action, attempt, result, now)
    if attempts.running(action, attempt, facts.executor, now):
        return same(action, attempts.deadline(action, attempt))
    return _settle(action, attempt, facts, now)


def _executed(action: HealingAction, attempt: Attempt, result: RunResult, now: datetime) -> Advance:
    """This process' own run has ended."""
    every = attempts.closed(action, now, result.state.value)
    match result.state:
        case RunState.DONE:
            return _to_verify(action, now, "every step is done", every)
        case RunState.SUPERSEDED if attempts.touched(action, every):
            return _to_verify(action, now, f"stopped at step {attempt.step + 1}: {result.error}", every)
        case RunState.SUPERSEDED:
            return enter(action, now, Phase.SUPERSEDED, Say("FactsChanged", result.error), attempts=every)
        case RunState.FAILED:
            return _failed(action, attempt, now, result.error, every)
        case RunState.BUSY:
            said = Say("Busy", f"{result.error}; nothing was done yet")
        case RunState.UNKNOWN:
            said = Say("AnswerLost", f"{result.error}; the probe says next whether it was done", warning=True)
    return wait(action, now, said, said.reason, now + RETRY, attempts=every)


def _settle(action: HealingAction, attempt: Attempt, facts: ActionFacts, now: datetime) -> Advance:
    """An attempt that was interrupted, whose answer was lost, or that found us busy: what is true decides."""
    if facts.database_present is False:
        return enter(action, now, Phase.INCONCLUSIVE, gone(action), attempts=attempts.closed(action, now, ""))
    if attempt.step >= len(action.spec.plan):
        every = attempts.closed(action, now, RunState.DONE.value)
        return _to_verify(action, now, "every step had been done when it was interrupted", every)
    if facts.probe is None or facts.database_present is None:
        return same(action, now + RETRY)
    if facts.probe is Probed.DONE:
        every = attempts.closed(action, now, RunState.DONE.value)
        return _to_verify(action, now, "the probe says that it is done", every)
    if facts.probe is Probed.UNKNOWN:
        return _unknown(action, attempt, facts, now)
    if attempt.outcome == RunState.UNKNOWN:
        lost = "the answer was lost, and the probe says that it was not done"
        return _failed(action, attempt, now, lost, action.status.attempts)
    return _again(action, attempt, facts, now)


def _again(action: HealingAction, attempt: Attempt, facts: ActionFacts, now: datetime) -> Advance:
    """It is not done: run it once more where that is safe."""
    if facts.idempotent is None:
        return same(action, now + RETRY)
    if not facts.idempotent and attempt.outcome != RunState.BUSY:
        message = "interrupted, and not safe to run again although the probe says that it is not done"
        return needs_person(action, now, Say("Interrupted", message), attempts.closed(action, now, ""))
    if attempts.too_many(action, attempt):
        message = f"{attempts.MAX_ATTEMPTS} attempts came to nothing: {action.status.message}"
        return _call_off(action, facts, now, (Phase.FAILED, Say("TooManyAttempts", message, warning=True)))
    if (over := _called_off(action, facts, now)) is not None:
        return _call_off(action, facts, now, over)
    return _start(action, facts, now, attempt.step)


def _unknown(action: HealingAction, attempt: Attempt, facts: ActionFacts, now: datetime) -> Advance:
    limit = attempts.over(action, attempt) + SETTLE
    why = facts.probe_reason or "the probe can't tell"
    if now >= limit:
        message = f"whether it was done can't be found out: {why}"
        return needs_person(action, now, Say("OutcomeUnknown", message), attempts.closed(action, now, ""))
    if attempt.outcome:
        return same(action, min(limit, now + RETRY))
    said = Say("OutcomeUnknown", f"interrupted; whether it was done is not known yet: {why}", warning=True)
    return wait(action, now, said, said.reason, min(limit, now + RETRY))


def _failed(action: HealingAction, attempt: Attempt, now: datetime, error: str, every: tuple[Attempt, ...]) -> Advance:
    """The plan stopped at a step that changed nothing; what came before it, or half of it, may be left behind."""
    said = Say("ExecutionFailed", f"step {attempt.step + 1} failed: {error}", warning=True)
    if attempts.touched(action, every):
        return give_up(action, now, said, every)
    return enter(action, now, Phase.FAILED, said, attempts=every)


# Judging --------------------------------------------------------------------------------------------------------------


def _to_verify(action: HealingAction, now: datetime, message: str, every: tuple[Attempt, ...]) -> Advance:
    said = Say("Executed", f"{message}; its effect is judged within {human(action.spec.verification.window)}")
    return enter(action, now, Phase.VERIFYING, said, attempts=every, executed_at=now, waits_for="verdict")


def _verifying(action: HealingAction, facts: ActionFacts, now: datetime) -> Advance:
    limit = (action.status.executed_at or now) + action.spec.verification.window + VERDICT_GRACE
    if facts.database_present is False:
        return enter(action, now, Phase.INCONCLUSIVE, gone(action))
    if facts.verdict is None:
        if now < limit:
            return same(action, min(limit, now + RETRY))
        message = "there was no verdict in time, because the metrics could not be read; look at the database"
        return enter(action, now, Phase.INCONCLUSIVE, Say("NoVerdict", message, warning=True))
    outcome = facts.verdict.outcome
    phase = _after(action, outcome)
    reasons = "; ".join(facts.verdict.reasons) or outcome.value
    said = Say(outcome.value, reasons, warning=outcome is not Outcome.HEALED)
    stands = phase is Phase.FAILED and outcome is Outcome.HARMED
    return enter(action, now, phase, said, needs_person=stands, verdict=verdict_status(facts.verdict))


def _after(action: HealingAction, outcome: Outcome) -> Phase:
    """Where a verdict leads. Harm is taken back even where the policy lets mere failure stand."""
    if outcome is Outcome.HEALED:
        return Phase.SUCCEEDED
    if outcome is Outcome.INCONCLUSIVE:
        return Phase.INCONCLUSIVE
    wanted = outcome is Outcome.HARMED or action.spec.verification.revert_on_failure
    return Phase.REVERTING if wanted and action.spec.undo.kind == "Steps" else Phase.FAILED


_PHASES: Mapping[Phase, Callable[[HealingAction, ActionFacts, datetime], Advance]] = {
    Phase.PROPOSED: _proposed,
    Phase.AWAITING_APPROVAL: _awaiting,
    Phase.APPROVED: _approved,
    Phase.EXECUTING: _executing,
    Phase.VERIFYING: _verifying,
    Phase.REVERTING: reverting,
}
