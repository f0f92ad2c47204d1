"""The life of an action, phase by phase: what it waits for, when it runs, how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kintsugi.api.action import ActionApproval, ActionSpec, ActionStatus, Attempt, HealingAction, Phase, UndoPlan
from kintsugi.api.meta import get_condition
from kintsugi.domain.decision import Refusal
from kintsugi.domain.verdict import Measure, Outcome, Verdict
from kintsugi.stages.approval import Approvals
from kintsugi.stages.judgement import Ask, Auto, Forbidden, Judgement
from kintsugi.stages.lifecycle import VERDICT_GRACE, advance, needs, progress
from kintsugi.stages.lifecycle_facts import (
    SETTLE,
    ActionFacts,
    Advance,
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
from kintsugi_dev.builders import NOW, a_spec, a_step, an_action

ME, OTHER = "operator-2", "operator-1"
GO = Judgement(Auto(), (), ())
ANN = Approvals(approved_by="ann", approved_groups=("approvers",))
BOTH = replace(ANN, second_approved_by="ben")
READY = ActionFacts(
    executor=ME,
    database_present=True,
    approvals=Approvals(),
    approvers_allowed="",
    gate="",
    judgement=GO,
    recompiled="",
    idempotent=True,
    preconditions="",
    paused="",
)
ASKED = a_spec(approval=ActionApproval(required=True, why="failover is high risk"), risk="high", action="failover")
IMPOSSIBLE = UndoPlan(kind="Impossible", note="a terminated session stays terminated")
NOTHING = UndoPlan(kind="Nothing")
LATER = NOW + timedelta(seconds=40)


def then(action: HealingAction, answer: Advance) -> HealingAction:
    return action.model_copy(update={"status": ActionStatus.model_validate(answer.status.to_json())})


def run(action: HealingAction, *steps: ActionFacts | tuple[ActionFacts, datetime]) -> HealingAction:
    """The action after one advance per step, each status written and read back as the API server does."""
    for step in steps:
        facts, now = step if isinstance(step, tuple) else (step, NOW)
        action = then(action, advance(action, facts, now))
    return action


def said(action: HealingAction, type_: str) -> tuple[str, str] | None:
    condition = get_condition(action.status.conditions, type_)
    return (condition.status, condition.reason) if condition else None


def events(answer: Advance) -> list[str]:
    return [effect.reason for effect in answer.effects if isinstance(effect, Emit)]


def acts(answer: Advance) -> list[Effect]:
    return [effect for effect in answer.effects if isinstance(effect, Execute | Undo)]


def executing(spec: ActionSpec | None = None, by: str = ME, step: int = 0) -> HealingAction:
    """An action whose attempt has begun."""
    action = run(an_action(spec or a_spec()), READY, replace(READY, executor=by))
    assert action.phase is Phase.EXECUTING
    return an_action(action.spec, progress(action.status, step, "done", NOW)) if step else action


def result(state: RunState, error: str = "because", attempt: int = 1, **changes: Any) -> ActionFacts:
    return replace(READY, result=RunResult(attempt, state, error), **changes)


def verifying(spec: ActionSpec | None = None) -> HealingAction:
    return run(executing(spec), result(RunState.DONE))


def a_verdict(outcome: Outcome) -> Verdict:
    return Verdict(outcome, ("p99 back to 12 ms",), (Measure("latency_p99", "s", 0.4, 0.012, 0.01),))


def reverting(undo: UndoPlan | None = None) -> HealingAction:
    """An action whose verification failed, and whose undo has not begun."""
    return run(verifying(a_spec(undo=undo)), replace(READY, verdict=a_verdict(Outcome.NOT_HEALED)))


TWO_STEPS = (a_step("SELECT one"), a_step("SELECT two"))


# Proposed


def test_what_needs_no_approval_is_approved_at_once() -> None:
    answer = advance(an_action(), READY, NOW)

    assert answer.status.phase is Phase.APPROVED
    assert events(answer) == ["Automatic"]
    assert answer.wake_at == NOW


def test_what_needs_approval_says_how_to_approve_it() -> None:
    action = run(an_action(ASKED), READY)

    assert action.phase is Phase.AWAITING_APPROVAL
    assert f"kubectl annotate ha orders-7c1f kintsugi.dev/approve={ASKED.plan_hash}" in action.status.message
    assert "failover is high risk" in action.status.message
    assert action.status.waits_for == "approval, 30m left"


def test_a_spec_that_its_hash_does_not_belong_to_fails() -> None:
    forged = a_spec().model_copy(update={"action": "failover"})

    assert said(run(an_action(forged), READY), "Complete") == ("True", "PlanHashMismatch")


def test_a_recommendation_is_never_run_and_expires() -> None:
    action = run(an_action(a_spec(runnable=False)), READY)
    assert (action.phase, said(action, "Complete")) == (Phase.PROPOSED, ("False", "Recommended"))

    assert advance(action, replace(READY, approvals=ANN), LATER).effects == ()
    assert run(action, (READY, action.spec.expires_at)).phase is Phase.EXPIRED


@pytest.mark.parametrize("phase", [Phase.PROPOSED, Phase.AWAITING_APPROVAL, Phase.APPROVED])
def test_an_action_whose_database_is_gone_is_superseded(phase: Phase) -> None:
    action = an_action(ASKED, ActionStatus(phase=phase))

    assert run(action, replace(READY, database_present=False)).phase is Phase.SUPERSEDED


# Approval


def test_an_approved_action_names_who_approved_it() -> None:
    action = run(an_action(ASKED), READY, replace(READY, approvals=ANN))

    assert action.phase is Phase.APPROVED
    assert action.status.approval.approved_by == "ann"
    assert said(action, "Approved") == ("True", "Approved")


def test_the_audit_names_the_person_and_not_us() -> None:
    answer = advance(run(an_action(ASKED), READY), replace(READY, approvals=ANN), NOW)

    assert [effect.by for effect in answer.effects if isinstance(effect, Audit)] == ["ann"]


def test_where_two_people_are_asked_one_is_not_enough() -> None:
    spec = a_spec(approval=ActionApproval(required=True, approvers=2))
    waiting = run(an_action(spec), READY)

    answer = advance(waiting, replace(READY, approvals=ANN), NOW)
    once = then(waiting, answer)

    assert once.phase is Phase.AWAITING_APPROVAL
    assert once.status.waits_for == "second approval, 30m left"
    assert once.status.approval.approved_by == "ann"
    assert events(answer) == ["SecondApprovalNeeded"]
    assert run(once, replace(READY, approvals=BOTH)).phase is Phase.APPROVED


def test_an_approval_that_can_not_be_trusted_counts_as_none() -> None:
    waiting = run(an_action(ASKED), READY)

    action = run(waiting, replace(READY, approvals=Approvals(problem="the stamp is forged")))

    assert action.phase is Phase.AWAITING_APPROVAL
    assert said(action, "Complete") == ("False", "ApprovalUnusable")
    assert action.status.message == "the stamp is forged"
    assert "approve with" in run(action, READY).status.message


@pytest.mark.parametrize("phase", [Phase.PROPOSED, Phase.AWAITING_APPROVAL, Phase.APPROVED])
def test_a_rejection_ends_it_also_after_an_approval(phase: Phase) -> None:
    approvals = replace(ANN, rejected_by="ben", reason="planned maintenance")

    action = run(an_action(ASKED, ActionStatus(phase=phase)), replace(READY, approvals=approvals))

    assert action.phase is Phase.REJECTED
    assert action.status.message == "rejected by ben: planned maintenance"
    assert action.status.approval.rejected_by == "ben"


def test_an_approval_that_comes_too_late_is_not_executed() -> None:
    waiting = run(an_action(ASKED), READY)

    action = run(waiting, (replace(READY, approvals=ANN), ASKED.expires_at))

    assert action.phase is Phase.EXPIRED
    assert action.status.message == "nobody approved it before it expired"


def test_an_expired_approval_is_not_executed() -> None:
    approved = run(an_action(ASKED), READY, replace(READY, approvals=ANN))

    answer = advance(approved, replace(READY, approvals=ANN), ASKED.expires_at)

    assert answer.status.phase is Phase.EXPIRED
    assert acts(answer) == []


def test_the_time_left_is_kept_up_to_date_without_a_new_event() -> None:
    waiting = run(an_action(ASKED), READY)

    first = advance(waiting, READY, NOW + timedelta(seconds=10))
    second = advance(waiting, READY, NOW + timedelta(minutes=4, seconds=10))

    assert (first.status, first.effects, first.wake_at) == (waiting.status, (), NOW + timedelta(minutes=1))
    assert (second.status.waits_for, second.effects) == ("approval, 26m left", ())


# The moment of execution


def test_the_attempt_is_written_with_the_effect_that_it_announces() -> None:
    answer = advance(run(an_action(), READY), READY, NOW)

    assert answer.status.phase is Phase.EXECUTING
    assert answer.status.attempts == (Attempt(started_at=NOW, executor=ME),)
    assert acts(answer) == [Execute(from_step=0, attempt=1)]


@pytest.mark.parametrize("need", [f.name for f in fields(READY) if f.name in {n.value for n in Need}])
def test_nothing_runs_while_a_fact_that_it_needs_is_unknown(need: str) -> None:
    approved = run(an_action(ASKED), READY, replace(READY, approvals=ANN))
    known = replace(READY, approvals=ANN)
    assert acts(advance(approved, known, NOW))

    unknown: dict[str, Any] = {need: None}
    answer = advance(approved, replace(known, **unknown), NOW)

    asked_for = needs(approved, NOW, ME)
    assert bool(acts(answer)) is (Need(need) not in asked_for)
    if Need(need) in asked_for:
        assert answer == Advance(approved.status, (), NOW + timedelta(seconds=5))


STOPPED = [
    ({"recompiled": "the plan is not what it compiles to"}, Phase.FAILED, "PlanMismatch"),
    ({"approvals": Approvals()}, Phase.FAILED, "ApprovalUnusable"),
    ({"approvals": Approvals(problem="forged")}, Phase.FAILED, "ApprovalUnusable"),
    ({"approvers_allowed": "ann may no longer approve high-risk actions"}, Phase.FAILED, "ApproverNotAllowed"),
    ({"preconditions": "nobody is blocked any more"}, Phase.SUPERSEDED, "NoLongerCalledFor"),
]


@pytest.mark.parametrize(("changes", "phase", "reason"), STOPPED, ids=[reason for _, _, reason in STOPPED])
def test_what_no_longer_holds_at_the_moment_of_execution_ends_it(
    changes: dict[str, Any], phase: Phase, reason: str
) -> None:
    approved = run(an_action(ASKED), READY, replace(READY, approvals=ANN))

    answer = advance(approved, replace(READY, **{"approvals": ANN, **changes}), NOW)

    assert (answer.status.phase, said(then(approved, answer), "Complete")) == (phase, ("True", reason))
    assert acts(answer) == []
    assert answer.status.attempts == ()


def test_what_would_run_by_itself_is_superseded_when_a_person_must_approve_now() -> None:
    storm = Ask((Refusal("Storm", "9 of 20 databases have incidents at once"),))

    action = run(an_action(), READY, replace(READY, judgement=Judgement(storm, (), storm.why)))

    assert said(action, "Complete") == ("True", "ApprovalNeededNow")
    assert "9 of 20" in action.status.message


def test_what_a_person_approved_runs_although_it_would_have_to_ask() -> None:
    why = (Refusal("HighRisk", "failover is high risk"),)
    approved = run(an_action(ASKED), READY, replace(READY, approvals=ANN))

    assert acts(advance(approved, replace(READY, approvals=ANN, judgement=Judgement(Ask(why), (), why)), NOW))


def held(refusal: Refusal) -> ActionFacts:
    return replace(READY, judgement=Judgement(Forbidden((refusal,)), (refusal,), ()))


def test_what_the_guard_holds_back_waits_and_says_for_what() -> None:
    approved = run(an_action(), READY)

    answer = advance(approved, held(Refusal("CoolingDown", "40 s of cooldown left", 40.0)), NOW)

    assert answer.status.phase is Phase.APPROVED
    assert answer.status.waits_for == "CoolingDown, 30m left"
    assert answer.status.message == "40 s of cooldown left"
    assert answer.wake_at == NOW + timedelta(seconds=40)
    assert events(answer) == ["CoolingDown"]


def test_waiting_for_the_same_reason_is_said_once() -> None:
    waiting = run(an_action(), READY, held(Refusal("CoolingDown", "40 s of cooldown left", 40.0)))

    answer = advance(waiting, held(Refusal("CoolingDown", "30 s of cooldown left", 30.0)), NOW + timedelta(seconds=10))

    assert (answer.status, answer.effects) == (waiting.status, ())


def test_what_is_held_back_runs_as_soon_as_nothing_holds_it() -> None:
    waiting = run(an_action(), READY, held(Refusal("CoolingDown", "40 s of cooldown left", 40.0)))

    assert acts(advance(waiting, READY, LATER))


def test_what_is_held_back_for_too_long_expires() -> None:
    waiting = run(an_action(), READY, held(Refusal("PolicyPaused", "paused by policy critical")))

    action = run(waiting, (READY, waiting.spec.expires_at))

    assert (action.phase, action.status.message) == (Phase.EXPIRED, "it was not run before it expired")


def test_without_the_approval_gate_nothing_that_needs_approval_runs() -> None:
    approved = run(an_action(ASKED), READY, replace(READY, approvals=ANN))

    answer = advance(approved, replace(READY, approvals=ANN, gate="a forged approval was let through"), NOW)

    assert (acts(answer), answer.status.phase) == ([], Phase.APPROVED)
    assert said(then(approved, answer), "Complete") == ("False", "ApprovalGateMissing")
    assert acts(advance(run(an_action(), READY), replace(READY, gate="missing"), NOW)), "needs no approval"


# Executing


def test_a_finished_plan_is_verified_from_now_on() -> None:
    answer = advance(executing(), result(RunState.DONE), LATER)

    assert (answer.status.phase, answer.status.executed_at, answer.status.waits_for) == (
        Phase.VERIFYING,
        LATER,
        "verdict",
    )
    assert answer.status.attempts[-1].ended_at == LATER


def test_progress_counts_steps_and_keeps_what_they_answered() -> None:
    action = executing(a_spec(plan=TWO_STEPS))

    status = progress(progress(action.status, 1, "t", NOW), 2, "x" * 9999, LATER)

    assert status.attempts[-1].step == 2
    assert [(o.step, len(o.output)) for o in status.outputs] == [(1, 1), (2, 4096)]


def test_facts_that_changed_before_anything_was_done_supersede_it() -> None:
    action = run(executing(), result(RunState.SUPERSEDED, "the session has ended"))

    assert (action.phase, action.status.message) == (Phase.SUPERSEDED, "the session has ended")


def test_facts_that_changed_half_way_leave_the_judgement_to_verification() -> None:
    action = run(executing(a_spec(plan=TWO_STEPS), step=1), result(RunState.SUPERSEDED))

    assert action.phase is Phase.VERIFYING
    assert "stopped at step 2" in action.status.message


def test_a_first_step_that_fails_in_a_transaction_leaves_nothing_to_undo() -> None:
    action = run(executing(), result(RunState.FAILED, "lock timeout"))

    assert action.phase is Phase.FAILED
    assert action.status.message == "step 1 failed: lock timeout"
    assert said(action, "NeedsPerson") is None


@pytest.mark.parametrize(
    ("plan", "step"), [(TWO_STEPS, 1), ((a_step("CREATE INDEX CONCURRENTLY i ON t (c)", transaction=False),), 0)]
)
def test_what_a_failed_plan_may_have_left_behind_is_taken_back(plan: Any, step: int) -> None:
    action = run(executing(a_spec(plan=plan), step=step), result(RunState.FAILED, "deadlock"))
    assert action.phase is Phase.REVERTING

    answer = advance(action, replace(READY, probe=Probed.NOT_DONE), NOW)
    action = then(action, answer)
    assert acts(answer) == [Undo(from_step=0, attempt=2)]

    action = run(action, result(RunState.DONE, attempt=2))
    assert action.phase is Phase.ROLLED_BACK
    assert "deadlock" in action.status.message


def test_an_undo_that_finds_nothing_of_its_own_left_is_the_end() -> None:
    action = run(
        executing(a_spec(plan=TWO_STEPS), step=1), result(RunState.FAILED), replace(READY, probe=Probed.NOT_DONE)
    )

    assert run(action, result(RunState.SUPERSEDED, attempt=2)).phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("undo", [IMPOSSIBLE, NOTHING])
def test_half_a_plan_that_can_not_be_undone_needs_a_person(undo: UndoPlan) -> None:
    action = run(executing(a_spec(plan=TWO_STEPS, undo=undo), step=1), result(RunState.FAILED))

    assert (action.phase, said(action, "NeedsPerson")) == (Phase.FAILED, ("True", "ExecutionFailed"))


@pytest.mark.parametrize(
    ("probe", "phase"),
    [(Probed.DONE, Phase.VERIFYING), (Probed.NOT_DONE, Phase.FAILED), (Probed.UNKNOWN, Phase.EXECUTING)],
)
def test_after_a_lost_answer_the_probe_decides(probe: Probed, phase: Phase) -> None:
    lost = run(executing(), result(RunState.UNKNOWN, "connection lost"))
    assert said(lost, "Complete") == ("False", "AnswerLost")

    answer = advance(lost, replace(READY, probe=probe), NOW)

    assert answer.status.phase is phase
    assert acts(answer) == []


def test_a_busy_database_is_tried_again_also_when_the_plan_is_not_idempotent() -> None:
    busy = run(executing(), result(RunState.BUSY, "another session is at work"))

    answer = advance(busy, replace(READY, probe=Probed.NOT_DONE, idempotent=False), LATER)

    assert acts(answer) == [Execute(from_step=0, attempt=2)]
    assert [a.outcome for a in answer.status.attempts] == ["busy", ""]


def test_a_database_that_stays_busy_is_given_up_without_having_done_anything() -> None:
    action = executing()
    for attempt in range(1, 6):
        action = run(action, result(RunState.BUSY, "busy", attempt=attempt), replace(READY, probe=Probed.NOT_DONE))

    assert (action.phase, len(action.status.attempts)) == (Phase.FAILED, 5)


def test_while_our_own_run_is_under_way_nothing_is_read_and_nothing_changes() -> None:
    action = executing()

    answer = advance(action, READY, LATER)

    assert needs(action, LATER, ME) == {Need.DATABASE}
    assert (answer.status, answer.effects) == (action.status, ())
    assert answer.wake_at is not None
    assert answer.wake_at > NOW + action.spec.plan[0].timeout


def test_the_answer_to_an_earlier_attempt_is_no_answer() -> None:
    action = run(executing(by=OTHER), (replace(READY, probe=Probed.NOT_DONE), LATER))
    assert len(action.status.attempts) == 2

    assert advance(action, result(RunState.DONE, attempt=1), LATER).status == action.status


# After a restart


def test_an_interrupted_plan_that_is_done_is_verified_and_not_run_again() -> None:
    answer = advance(executing(by=OTHER), replace(READY, probe=Probed.DONE), LATER)

    assert (answer.status.phase, acts(answer)) == (Phase.VERIFYING, [])


def test_an_interrupted_idempotent_plan_that_is_not_done_runs_again_from_where_it_was() -> None:
    action = executing(a_spec(plan=TWO_STEPS), by=OTHER, step=1)

    answer = advance(action, replace(READY, probe=Probed.NOT_DONE, preconditions=None), LATER)

    assert acts(answer) == [Execute(from_step=1, attempt=2)]
    assert [a.executor for a in answer.status.attempts] == [OTHER, ME]


def test_a_plan_whose_every_step_is_noted_is_verified_whatever_the_probe_says() -> None:
    """A person may have undone it since; running it against them would be wrong, and there is no step left."""
    action = executing(by=OTHER, step=1)

    answer = advance(action, replace(READY, probe=Probed.NOT_DONE), LATER)

    assert (answer.status.phase, acts(answer)) == (Phase.VERIFYING, [])


def test_an_interrupted_plan_that_is_not_idempotent_is_left_to_a_person() -> None:
    action = run(executing(by=OTHER), (replace(READY, probe=Probed.NOT_DONE, idempotent=False), LATER))

    assert (action.phase, said(action, "NeedsPerson")) == (Phase.FAILED, ("True", "Interrupted"))
    assert "finish by hand" in action.status.message


def test_an_interrupted_plan_of_which_nothing_is_known_is_left_to_a_person_in_the_end() -> None:
    unknown = replace(READY, probe=Probed.UNKNOWN, probe_reason="orders-rw can't be reached")
    action = run(executing(by=OTHER), (unknown, LATER))
    assert said(action, "Complete") == ("False", "OutcomeUnknown")

    ended = run(action, (unknown, NOW + timedelta(minutes=1) + SETTLE))

    assert said(ended, "NeedsPerson") == ("True", "OutcomeUnknown")
    assert "orders-rw can't be reached" in ended.status.message


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"preconditions": "nobody is blocked any more"}, Phase.SUPERSEDED),
        ({"recompiled": "it compiles to something else"}, Phase.FAILED),
        ({"approvals": replace(ANN, rejected_by="ben")}, Phase.REJECTED),
        ({"approvers_allowed": "ann was removed"}, Phase.FAILED),
    ],
)
def test_an_interrupted_plan_runs_again_only_after_every_check_of_a_first_start(
    changes: dict[str, Any], phase: Phase
) -> None:
    begun = an_action(ASKED, ActionStatus(phase=Phase.EXECUTING, attempts=(Attempt(started_at=NOW, executor=OTHER),)))
    sure = replace(READY, approvals=ANN, probe=Probed.NOT_DONE)
    assert acts(advance(begun, sure, LATER))

    answer = advance(begun, replace(sure, **changes), LATER)

    assert (answer.status.phase, acts(answer)) == (phase, [])


def test_an_interrupted_plan_does_not_run_again_after_it_has_expired() -> None:
    action = executing(by=OTHER)

    answer = advance(action, replace(READY, probe=Probed.NOT_DONE), action.spec.expires_at)

    assert (answer.status.phase, acts(answer)) == (Phase.EXPIRED, [])


def test_half_a_plan_that_expired_is_taken_back() -> None:
    action = executing(a_spec(plan=TWO_STEPS), by=OTHER, step=1)

    answer = advance(action, replace(READY, probe=Probed.NOT_DONE), action.spec.expires_at)

    assert answer.status.phase is Phase.REVERTING


def test_a_plan_of_several_steps_that_was_interrupted_is_never_called_untouched() -> None:
    """Killed between a step and the note that it is done: the probe says not done, and step 0 is all that is known."""
    action = executing(a_spec(plan=TWO_STEPS), by=OTHER)
    sure = replace(READY, probe=Probed.NOT_DONE)

    assert Need.PRECONDITIONS not in needs(action, LATER, ME)
    assert run(action, (sure, action.spec.expires_at)).phase is Phase.REVERTING
    assert run(action, (replace(sure, approvals=Approvals(rejected_by="ben")), LATER)).phase is Phase.REVERTING
    again = run(action, (sure, LATER))
    assert run(again, (result(RunState.SUPERSEDED, attempt=2), LATER)).phase is Phase.VERIFYING
    assert run(again, (result(RunState.FAILED, attempt=2), LATER)).phase is Phase.REVERTING


def test_a_run_of_our_own_that_never_answered_counts_as_interrupted() -> None:
    action = executing()
    late = NOW + timedelta(minutes=5)

    assert Need.PROBE in needs(action, late, ME)
    assert acts(advance(action, replace(READY, probe=Probed.NOT_DONE), late)) == [Execute(0, 2)]


def test_an_operator_that_is_killed_again_and_again_stops_trying() -> None:
    action = executing(by="operator-0")
    for n in range(1, 9):
        facts = replace(READY, executor=f"operator-{n}", probe=Probed.NOT_DONE)
        action = run(action, (facts, NOW + timedelta(seconds=n)))

    assert sum(a.kind == "execute" for a in action.status.attempts) == 5
    assert action.phase is not Phase.EXECUTING


def test_a_database_deleted_while_we_are_at_it_lets_the_step_end_and_is_inconclusive() -> None:
    gone = replace(READY, database_present=False)
    action = executing()
    assert advance(action, gone, LATER).status == action.status

    action = run(action, result(RunState.DONE, database_present=False), gone)

    assert said(action, "Complete") == ("True", "DatabaseGone")
    assert action.phase is Phase.INCONCLUSIVE
    assert run(executing(by=OTHER), gone).phase is Phase.INCONCLUSIVE


# Verifying


def test_a_healed_database_is_a_success_with_its_measures() -> None:
    action = run(verifying(), replace(READY, verdict=a_verdict(Outcome.HEALED)))

    assert (action.phase, said(action, "Verified")) == (Phase.SUCCEEDED, ("True", "Healed"))
    assert action.status.verdict is not None
    assert action.status.verdict.measures[0].after == 0.012
    assert action.status.ended_at == NOW


VERDICTS = [
    (Outcome.NOT_HEALED, None, True, Phase.REVERTING),
    (Outcome.NOT_HEALED, None, False, Phase.FAILED),
    (Outcome.NOT_HEALED, IMPOSSIBLE, True, Phase.FAILED),
    (Outcome.NOT_HEALED, NOTHING, True, Phase.FAILED),
    (Outcome.HARMED, None, True, Phase.REVERTING),
    (Outcome.HARMED, None, False, Phase.REVERTING),
    (Outcome.HARMED, IMPOSSIBLE, True, Phase.FAILED),
    (Outcome.INCONCLUSIVE, None, True, Phase.INCONCLUSIVE),
]


@pytest.mark.parametrize(("outcome", "undo", "revert", "phase"), VERDICTS)
def test_a_verdict_leads_where_the_policy_and_the_undo_allow(
    outcome: Outcome, undo: UndoPlan | None, revert: bool, phase: Phase
) -> None:
    action = verifying(a_spec(undo=undo, revert_on_failure=revert))

    assert run(action, replace(READY, verdict=a_verdict(outcome))).phase is phase


def test_harm_that_can_not_be_undone_needs_a_person() -> None:
    action = run(verifying(a_spec(undo=IMPOSSIBLE)), replace(READY, verdict=a_verdict(Outcome.HARMED)))

    assert said(action, "NeedsPerson") == ("True", "Harmed")


def test_verification_goes_on_after_a_restart_and_ends_without_a_verdict_too() -> None:
    action = verifying()
    limit = NOW + action.spec.verification.window + VERDICT_GRACE
    after_restart = replace(READY, executor="operator-3")

    assert advance(action, after_restart, limit - timedelta(seconds=1)).status == action.status
    assert said(run(action, (after_restart, limit)), "Complete") == ("True", "NoVerdict")
    assert run(action, (after_restart, limit)).phase is Phase.INCONCLUSIVE


def test_a_database_deleted_while_it_is_judged_is_inconclusive() -> None:
    assert run(verifying(), replace(READY, database_present=False)).phase is Phase.INCONCLUSIVE


# Reverting


def test_a_failed_verification_is_undone() -> None:
    answer = advance(reverting(), replace(READY, probe=Probed.DONE), NOW)
    assert acts(answer) == [Undo(from_step=0, attempt=2)]

    action = run(then(reverting(), answer), result(RunState.DONE, attempt=2))

    assert (action.phase, said(action, "Reverted")) == (Phase.ROLLED_BACK, ("True", "RolledBack"))
    assert "p99 back to 12 ms" in action.status.message


def test_what_a_person_has_undone_already_is_not_undone_again() -> None:
    answer = advance(reverting(), replace(READY, probe=Probed.NOT_DONE), NOW)

    assert (answer.status.phase, acts(answer)) == (Phase.ROLLED_BACK, [])
    assert "gone already" in answer.status.message


def test_a_pause_holds_an_undo_back_until_it_is_lifted() -> None:
    paused = replace(READY, probe=Probed.DONE, paused="by ann: hands off")

    action = run(reverting(), paused)

    assert (action.phase, action.status.waits_for) == (Phase.REVERTING, "pause")
    assert acts(advance(action, replace(READY, probe=Probed.DONE), LATER)) == [Undo(0, 2)]


def test_an_undo_that_compiles_to_something_else_is_not_run() -> None:
    action = run(reverting(), replace(READY, probe=Probed.DONE, recompiled="the plan is another one"))

    assert (action.phase, said(action, "NeedsPerson")) == (Phase.FAILED, ("True", "PlanMismatch"))


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.SUPERSEDED, RunState.UNKNOWN])
def test_an_undo_that_did_not_work_needs_a_person(state: RunState) -> None:
    at_work = run(reverting(), replace(READY, probe=Probed.DONE))

    action = run(at_work, result(state, "somebody rebuilt it", attempt=2), replace(READY, probe=Probed.DONE))

    assert (action.phase, said(action, "NeedsPerson")) == (Phase.FAILED, ("True", "UndoFailed"))
    assert "somebody rebuilt it" in action.status.message


def test_an_undo_whose_answer_was_lost_is_done_when_the_probe_says_so() -> None:
    at_work = run(reverting(), replace(READY, probe=Probed.DONE))

    action = run(at_work, result(RunState.UNKNOWN, attempt=2), replace(READY, probe=Probed.NOT_DONE))

    assert action.phase is Phase.ROLLED_BACK


@pytest.mark.parametrize(("idempotent", "again"), [(True, True), (False, False)])
def test_an_interrupted_undo_runs_again_only_where_that_is_safe(idempotent: bool, again: bool) -> None:
    interrupted = run(reverting(), replace(READY, probe=Probed.DONE, executor=OTHER))

    answer = advance(interrupted, replace(READY, probe=Probed.DONE, idempotent=idempotent), LATER)

    assert bool(acts(answer)) is again
    assert (answer.status.phase is Phase.FAILED) is not again


def test_an_undo_of_which_nothing_is_known_is_left_to_a_person_in_the_end() -> None:
    unknown = replace(READY, probe=Probed.UNKNOWN)
    assert advance(reverting(), unknown, LATER).effects == ()

    assert said(run(reverting(), (unknown, NOW + SETTLE)), "NeedsPerson") == ("True", "UndoUnknown")


# Always

ENDED = [phase for phase in Phase if phase.ended]


@pytest.mark.parametrize("phase", ENDED)
def test_what_has_ended_never_changes(phase: Phase) -> None:
    action = an_action(ASKED, ActionStatus(phase=phase, ended_at=NOW))

    answer = advance(action, result(RunState.DONE, verdict=a_verdict(Outcome.HEALED), approvals=BOTH), LATER)

    assert answer == Advance(action.status, (), None)
    assert needs(action, LATER, ME) == frozenset()


def test_every_transition_is_one_event_one_line_of_audit_and_one_of_history() -> None:
    action, answers = an_action(ASKED), []
    steps: Sequence[ActionFacts] = (
        READY,
        replace(READY, approvals=ANN),
        replace(READY, approvals=ANN),
        result(RunState.DONE),
        replace(READY, verdict=a_verdict(Outcome.HEALED)),
    )
    for facts in steps:
        answers.append(advance(action, facts, NOW))
        action = then(action, answers[-1])

    reasons = ["ApprovalNeeded", "Approved", "Executing", "Executed", "Healed"]
    assert [events(answer) for answer in answers] == [[reason] for reason in reasons]
    assert [sum(isinstance(e, Audit) for e in answer.effects) for answer in answers] == [1] * 5
    assert [t.phase for t in action.status.history] == [
        "AwaitingApproval",
        "Approved",
        "Executing",
        "Verifying",
        "Succeeded",
    ]
    assert said(action, "Complete") == ("True", "Healed")


def test_the_same_facts_give_the_same_answer() -> None:
    action = run(an_action(), READY)

    assert advance(action, READY, NOW) == advance(action, READY, NOW)


@pytest.mark.parametrize("phase", [Phase.PROPOSED, Phase.AWAITING_APPROVAL])
def test_nobody_is_asked_about_an_incident_that_is_over_by_itself(phase: Phase) -> None:
    action = an_action(ASKED) if phase is Phase.PROPOSED else run(an_action(ASKED), READY)
    assert action.phase is phase

    over = run(action, replace(READY, preconditions="the database is back to normal without it"))

    assert over.phase is Phase.SUPERSEDED
    assert "back to normal" in over.status.message
