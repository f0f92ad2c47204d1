"""The machine walked at random: crashes, lost answers, conflicts, people, clocks; and what must hold all the same.

A small world stands behind it: a plan of one or two steps that really takes effect, step by step, in a database whose
probe tells the truth or nothing. What the machine believes is compared with what really happened.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kintsugi.api.action import ActionApproval, ActionStatus, HealingAction, Phase, UndoPlan
from kintsugi.domain.decision import Refusal
from kintsugi.domain.verdict import Outcome, Verdict
from kintsugi.stages.approval import Approvals
from kintsugi.stages.judgement import Ask, Auto, Forbidden, Judgement
from kintsugi.stages.lifecycle import advance, needs, progress
from kintsugi.stages.lifecycle_facts import (
    ActionFacts,
    Advance,
    Audit,
    Emit,
    Execute,
    Need,
    Probed,
    RunResult,
    RunState,
    Undo,
)
from kintsugi_dev.builders import NOW, a_spec, a_step, an_action

WAIT = Refusal("CoolingDown", "some cooldown left", 30.0)
STORM = Refusal("Storm", "9 of 20 databases have incidents at once")
UNDONE = (Phase.EXPIRED, Phase.REJECTED, Phase.SUPERSEDED)


class World(RuleBasedStateMachine):
    """One action, one operator that is killed now and then, one database."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.starts = 0
        self.run: Execute | Undo | None = None
        self.at_step = 0
        self.result: RunResult | None = None
        self.approvals = Approvals()
        self.present = True
        self.paused = ""
        self.in_effect: set[int] = set()
        self.times_run: dict[int, int] = {}
        self.undone_by_hand = False
        self.ended: ActionStatus | None = None

    @initialize(
        steps=st.integers(1, 2),
        idempotent=st.booleans(),
        transaction=st.booleans(),
        approvers=st.sampled_from([0, 0, 0, 1, 2]),
        undo=st.sampled_from(["Steps", "Steps", "Nothing", "Impossible"]),
        runnable=st.sampled_from([True] * 9 + [False]),
        approved=st.booleans(),
    )
    def propose(
        self,
        steps: int,
        idempotent: bool,
        transaction: bool,
        approvers: int,
        undo: Any,
        runnable: bool,
        approved: bool,
    ) -> None:
        """A database loop has decided; half of the time people have said yes by the time we look."""
        if approved:
            self.approvals = Approvals(approved_by="ann", second_approved_by="ben")
        self.idempotent = idempotent
        self.action = an_action(
            a_spec(
                plan=[a_step(f"SELECT {n}", transaction=transaction) for n in range(steps)],
                undo=UndoPlan(kind=undo, steps=(a_step("SELECT undo"),) if undo == "Steps" else ()),
                approval=ActionApproval(required=approvers > 0, approvers=max(1, approvers)),
                runnable=runnable,
            )
        )

    # The world ------------------------------------------------------------------------------------------------------

    @property
    def executor(self) -> str:
        return f"operator-{self.starts}"

    def probe(self) -> Probed:
        """What is true: a plan is done when each of its steps is."""
        return Probed.DONE if len(self.in_effect) == len(self.action.spec.plan) else Probed.NOT_DONE

    @rule(seconds=st.sampled_from([1, 5, 30, 70, 150]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def the_operator_is_killed(self) -> None:
        self.starts += 1
        self.run, self.result = None, None

    @rule(
        who=st.sampled_from(["ann", "ann", "ben", "forger", "rejecter", "pauser", "deleter"]), really=st.integers(0, 3)
    )
    def somebody_does_something(self, who: str, really: int) -> None:
        """People approve often, and seldom do what ends everything."""
        match who:
            case "ann":
                self.approvals = replace(self.approvals, approved_by="ann", problem="")
                self.paused = ""
            case "ben" if self.approvals.approved_by:
                self.approvals = replace(self.approvals, second_approved_by="ben")
            case "forger" if really == 0:
                self.approvals = Approvals(rejected_by=self.approvals.rejected_by, problem="the stamp is forged")
            case "rejecter" if really == 0:
                self.approvals = replace(self.approvals, rejected_by="ben", reason="maintenance")
            case "pauser":
                self.paused = "by ann"
            case "deleter" if really == 0:
                self.present = False

    @precondition(lambda self: self.in_effect and self.run is None)
    @rule()
    def a_person_undoes_it_by_hand(self) -> None:
        self.in_effect.clear()
        self.undone_by_hand = True

    # The operator ---------------------------------------------------------------------------------------------------

    def facts(self, needed: frozenset[Need], **changes: Any) -> ActionFacts:
        """What a shell would have read: the needs and no more, with `changes` where it went otherwise."""
        told: dict[Need, Any] = {
            Need.DATABASE: self.present,
            Need.APPROVALS: self.approvals,
            Need.APPROVERS: "",
            Need.GATE: "",
            Need.JUDGEMENT: self.judgement(),
            Need.RECOMPILED: "",
            Need.PRECONDITIONS: "",
            Need.PROBE: self.probe(),
            Need.VERDICT: None,
            Need.PAUSED: self.paused,
        }
        read = {need.value: told[need] for need in needed}
        if Need.RECOMPILED in needed:
            read["idempotent"] = self.idempotent
        read.update({key: value for key, value in changes.items() if key in read})
        return ActionFacts(executor=self.executor, result=self.result, **read)

    def judgement(self) -> Judgement:
        if self.paused:
            return Judgement(Forbidden((WAIT,)), (WAIT,), ())
        return Judgement(Auto(), (), ())

    @rule(looks=st.integers(1, 4), works=st.booleans(), verdict=st.sampled_from([None, *Outcome]))
    def all_goes_well_for_a_while(self, looks: int, works: bool, verdict: Any) -> None:
        for _ in range(looks):
            self.the_operator_looks(set(), {}, None, False, verdict, "fine")
            while works and self.run is not None:
                self.a_step_runs("done", True, "fine")

    @rule(
        unread=st.sets(st.sampled_from(list(Need)), max_size=2),
        bad=st.dictionaries(
            st.sampled_from(["approvers_allowed", "gate", "recompiled", "preconditions"]), st.just("no"), max_size=1
        ),
        judged=st.sampled_from([None, None, None, WAIT, STORM]),
        blind=st.sampled_from([False, False, True]),
        verdict=st.sampled_from([None, *Outcome]),
        fate=st.sampled_from(["fine", "fine", "fine", "killed before writing", "conflict", "killed after writing"]),
    )
    def the_operator_looks(
        self, unread: set[Need], bad: dict[str, str], judged: Refusal | None, blind: bool, verdict: Any, fate: str
    ) -> None:
        changes: dict[str, Any] = dict(bad)
        if judged is WAIT:
            changes["judgement"] = Judgement(Forbidden((WAIT,)), (WAIT,), ())
        if judged is STORM and not self.paused:
            changes["judgement"] = Judgement(Ask((STORM,)), (), (STORM,))
        if blind:
            changes["probe"] = Probed.UNKNOWN
        if verdict is not None:
            changes["verdict"] = Verdict(verdict, ("as it is",), ())
        needed = needs(self.action, self.now, self.executor) - unread
        facts = self.facts(needed, **changes)
        answer = advance(self.action, facts, self.now)
        self.check(answer, facts)
        if fate == "killed before writing":
            self.the_operator_is_killed()
            return
        if fate == "conflict":
            return
        self.write(answer, facts)
        if fate == "killed after writing":
            self.the_operator_is_killed()

    def write(self, answer: Advance, facts: ActionFacts) -> None:
        """Compare-and-swap succeeded; then the effects."""
        before = self.action
        stored = ActionStatus.model_validate(answer.status.to_json())
        assert stored == answer.status, "what is written is what is read back"
        self.action = before.model_copy(update={"status": stored})
        if facts.result is not None and stored != before.status:
            self.result = None
        for effect in answer.effects:
            if isinstance(effect, Execute | Undo):
                self.run, self.at_step, self.result = effect, effect.from_step, None
        self.check_calm(before, facts, answer)

    @precondition(lambda self: self.run is not None)
    @rule(
        outcome=st.sampled_from(["done", "done", "done", *RunState]),
        took_effect=st.booleans(),
        fate=st.sampled_from(["fine", "fine", "killed", "progress lost"]),
    )
    def a_step_runs(self, outcome: str, took_effect: bool, fate: str) -> None:
        """One step of the present run ends, and its progress is written, or not."""
        assert self.run is not None
        if isinstance(self.run, Undo):
            self.undo_runs(outcome, took_effect)
        else:
            self.plan_step_runs(outcome, took_effect, fate)
        if fate == "killed":
            self.the_operator_is_killed()

    def undo_runs(self, outcome: str, took_effect: bool) -> None:
        assert self.run is not None
        if outcome == "done" or (outcome == RunState.UNKNOWN and took_effect):
            self.in_effect.clear()
        self.result = RunResult(self.run.attempt, RunState(outcome), "because")
        self.run = None

    def plan_step_runs(self, outcome: str, took_effect: bool, fate: str) -> None:
        assert self.run is not None
        attempt = self.run.attempt
        if outcome == "done" or (outcome == RunState.UNKNOWN and took_effect):
            self.in_effect.add(self.at_step)
            self.times_run[self.at_step] = self.times_run.get(self.at_step, 0) + 1
        if outcome != "done":
            self.result, self.run = RunResult(attempt, RunState(outcome), "because"), None
            return
        self.at_step += 1
        if fate == "fine" and not self.action.phase.ended and attempt == len(self.action.status.attempts):
            status = progress(self.action.status, self.at_step, "ok", self.now)
            self.action = self.action.model_copy(update={"status": status})
        if self.at_step == len(self.action.spec.plan):
            self.result, self.run = RunResult(attempt, RunState.DONE), None

    # What must hold -------------------------------------------------------------------------------------------------

    def check(self, answer: Advance, facts: ActionFacts) -> None:
        """Every answer, also one that is never written."""
        before = self.action
        assert advance(before, facts, self.now) == answer, "pure"
        news = len(answer.status.history) - len(before.status.history)
        audits = [effect for effect in answer.effects if isinstance(effect, Audit)]
        emits = [effect for effect in answer.effects if isinstance(effect, Emit)]
        assert len(audits) == news <= 1, "each transition is recorded once"
        assert news <= len(emits) <= 1, "and said once"
        assert (answer.status.phase != before.status.phase) <= (news == 1 or before.status.phase is None)
        for effect in answer.effects:
            if isinstance(effect, Execute):
                self.check_execute(effect, facts, answer)
            if isinstance(effect, Undo):
                self.check_undo(facts)

    def check_execute(self, effect: Execute, facts: ActionFacts, answer: Advance) -> None:
        spec, earlier = self.action.spec, self.action.status.attempts
        assert spec.runnable
        assert self.now < spec.expires_at, "nothing executes after it has expired"
        assert facts.judgement is not None
        assert not facts.judgement.refusals
        assert facts.recompiled == ""
        if spec.approval.required:
            assert facts.approvals is not None
            assert facts.approvals.granted(spec.approval.approvers), "nothing executes without its approvals"
            assert facts.approvers_allowed == ""
            assert facts.gate == ""
        else:
            assert not isinstance(facts.judgement.permission, Ask)
        assert answer.status.attempts[-1].executor == self.executor, "the intent is written with the effect"
        assert effect.attempt == len(answer.status.attempts)
        assert effect.from_step < len(spec.plan), "there is something to do"
        if earlier:
            assert facts.probe is Probed.NOT_DONE, "never again without asking the probe"
            assert self.idempotent or earlier[-1].outcome == RunState.BUSY, "never twice"

    def check_undo(self, facts: ActionFacts) -> None:
        assert self.action.spec.undo.kind == "Steps"
        assert facts.paused == ""
        assert facts.recompiled == ""
        executed = self.action.status.executed_at is not None
        assert not executed or facts.probe is Probed.DONE, "what is gone is not undone again"

    def check_calm(self, before: HealingAction, facts: ActionFacts, answer: Advance) -> None:
        """Without news, looking again changes nothing and says nothing."""
        if answer.status.phase == before.status.phase and not any(
            isinstance(e, Execute | Undo) for e in answer.effects
        ):
            again = advance(self.action, replace(facts, result=None), self.now)
            if again.status.phase == self.action.status.phase and not again.effects:
                assert again.status == self.action.status
            quiet = advance(self.action, ActionFacts(executor=self.executor), self.now)
            assert quiet.effects == ()
            assert quiet.status == self.action.status

    @invariant()
    def what_has_ended_never_changes(self) -> None:
        if not hasattr(self, "action"):
            return
        if self.ended is not None:
            assert self.action.status == self.ended
        if self.action.phase.ended:
            assert self.action.status.ended_at is not None
            self.ended = self.action.status

    @invariant()
    def nothing_is_done_twice(self) -> None:
        if hasattr(self, "idempotent") and not self.idempotent:
            assert all(times == 1 for times in self.times_run.values())

    @invariant()
    def nothing_that_was_done_is_lost(self) -> None:
        """An end that says "nothing was done" is true."""
        if hasattr(self, "action") and self.action.phase in UNDONE:
            assert not self.in_effect or self.undone_by_hand, self.action.status.message

    def teardown(self) -> None:
        """With everybody helping, it comes to an end."""
        if not hasattr(self, "action"):
            return
        self.paused = ""
        for _ in range(200):
            if self.action.phase.ended:
                break
            needed = needs(self.action, self.now, self.executor)
            facts = self.facts(needed, verdict=Verdict(Outcome.HEALED, ("well",), ()))
            answer = advance(self.action, facts, self.now)
            self.check(answer, facts)
            self.write(answer, facts)
            while self.run is not None:
                self.a_step_runs("done", True, "fine")
            assert self.action.phase.ended or answer.wake_at is not None or self.result is not None
            self.now = max(self.now, answer.wake_at or self.now)
        assert self.action.phase.ended, (self.action.phase, self.action.status.message)
        self.what_has_ended_never_changes()
        self.nothing_is_done_twice()
        self.nothing_that_was_done_is_lost()


World.TestCase.settings = settings(max_examples=400, stateful_step_count=25, deadline=None)
TestLifecycle = World.TestCase


def test_a_clock_that_was_set_back_does_not_stop_an_action() -> None:
    """Time may step back under a running attempt; it still ends."""
    world = World()
    world.propose(1, True, True, 0, "Steps", True, False)
    world.now = NOW + timedelta(minutes=5)
    for _ in range(2):
        world.the_operator_looks(set(), {}, None, False, None, "fine")
    assert world.action.phase is Phase.EXECUTING

    world.now = datetime(2026, 11, 21, 11, 0, tzinfo=NOW.tzinfo)

    world.teardown()
    assert world.action.phase.ended
