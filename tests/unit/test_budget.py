"""What limits are counted from, and how trust is earned."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.api.action import ActionStatus, Attempt, HealingAction, Phase, VerdictStatus
from kintsugi.api.database import Budget, TrackRecord
from kintsugi.stages.budget import (
    Records,
    acknowledged,
    harm_rate_bound,
    pooled,
    recent,
    record_of,
    settle,
    started,
    successes_needed,
)
from kintsugi_dev.builders import NOW, an_action


def ended(phase: Phase, verdict: str | None = None, after: float = 0, attempted: bool = True) -> HealingAction:
    at = NOW + timedelta(seconds=after)
    return an_action(
        status=ActionStatus(
            phase=phase,
            attempts=(Attempt(started_at=at - timedelta(minutes=1), executor="e"),) if attempted else (),
            verdict=VerdictStatus.model_validate({"outcome": verdict, "reasons": ()}) if verdict else None,
            ended_at=at,
        )
    )


def after(*actions: HealingAction) -> TrackRecord:
    budget, records = Budget(), Records()
    for action in actions:
        budget, records = settle(budget, records, action)
    return record_of(records, "create-index")


def test_a_start_counts_once_however_often_it_is_said() -> None:
    budget = started(started(Budget(), NOW, NOW), NOW, NOW)

    assert recent(budget, NOW) == (NOW,)


def test_a_start_is_forgotten_after_an_hour() -> None:
    budget = started(Budget(), NOW, NOW)

    assert recent(budget, NOW + timedelta(minutes=59)) == (NOW,)
    assert recent(budget, NOW + timedelta(minutes=60)) == ()
    assert len(started(budget, NOW + timedelta(minutes=61), NOW + timedelta(minutes=61)).started_at) == 1


def test_a_start_survives_being_written_and_read_back() -> None:
    precise = NOW + timedelta(microseconds=1234)
    budget = started(Budget(), precise, NOW)

    read_back = Budget.model_validate(budget.to_json())

    assert read_back == budget
    assert started(read_back, precise, NOW) == budget


def test_a_success_ends_a_run_of_failures() -> None:
    record = after(ended(Phase.FAILED), ended(Phase.ROLLED_BACK, after=60), ended(Phase.SUCCEEDED, "Healed", after=120))

    assert (record.succeeded, record.harmed, record.failed_in_a_row) == (1, 0, 0)


def test_harm_counts_as_harm_and_as_failure() -> None:
    record = after(ended(Phase.ROLLED_BACK, "Harmed"))

    assert (record.succeeded, record.harmed, record.failed_in_a_row) == (0, 1, 1)


def test_an_inconclusive_end_proves_nothing_but_is_cooled_down_from() -> None:
    budget, records = settle(
        Budget(), (TrackRecord(action="create-index", failed_in_a_row=1),), ended(Phase.INCONCLUSIVE)
    )

    assert budget.last_ended_at == NOW
    assert record_of(records, "create-index").failed_in_a_row == 1


@pytest.mark.parametrize("phase", [Phase.SUPERSEDED, Phase.EXPIRED, Phase.REJECTED])
def test_an_end_that_changed_nothing_is_not_counted(phase: Phase) -> None:
    assert settle(Budget(), (), ended(phase)) == (Budget(), ())


def test_a_failure_before_any_attempt_is_not_counted() -> None:
    assert settle(Budget(), (), ended(Phase.FAILED, attempted=False)) == (Budget(), ())


def test_an_end_is_counted_once_also_after_a_restart() -> None:
    action = ended(Phase.SUCCEEDED, "Healed", after=0.0005)
    budget, records = settle(Budget(), (), action)
    read_back = Budget.model_validate(budget.to_json())

    assert settle(read_back, records, action) == (read_back, records)


def test_acknowledging_one_action_type_leaves_the_others() -> None:
    records = (TrackRecord(action="a", failed_in_a_row=2), TrackRecord(action="b", failed_in_a_row=3))

    assert [r.failed_in_a_row for r in acknowledged(records, "a")] == [0, 3]
    assert [r.failed_in_a_row for r in acknowledged(records)] == [0, 0]


def test_pooled_records_are_sums_and_the_worst_run() -> None:
    records = [
        TrackRecord(action="a", succeeded=3, failed_in_a_row=1),
        TrackRecord(action="a", succeeded=4, harmed=1),
        TrackRecord(action="b", succeeded=9),
    ]

    assert pooled(records, "a") == TrackRecord(action="a", succeeded=7, harmed=1, failed_in_a_row=1)


@pytest.mark.parametrize(("rate", "needed"), [(0.10, 29), (0.02, 149), (0.01, 299)])
def test_trust_without_harm_needs_as_many_successes_as_the_design_says(rate: float, needed: int) -> None:
    assert harm_rate_bound(needed - 1, 0) > rate >= harm_rate_bound(needed, 0)
    assert successes_needed(0, rate) == needed


def test_no_record_proves_a_rate_of_zero() -> None:
    assert successes_needed(0, 0.0) is None


@pytest.mark.parametrize(
    ("good", "bad", "bound"), [(45, 1, 0.0990), (9, 1, 0.3942), (58, 2, 0.1012), (990, 10, 0.01688)]
)
def test_the_bound_with_harm_is_clopper_and_pearsons(good: int, bad: int, bound: float) -> None:
    assert harm_rate_bound(good, bad) == pytest.approx(bound, rel=2e-3)


def test_nothing_is_known_of_an_action_that_never_succeeded() -> None:
    assert harm_rate_bound(0, 0) == 1.0
    assert harm_rate_bound(0, 3) == 1.0


@given(st.integers(1, 3000), st.integers(0, 20))
def test_the_bound_solves_its_own_equation(good: int, bad: int) -> None:
    bound, trials = harm_rate_bound(good, bad), good + bad

    tail = sum(math.comb(trials, k) * bound**k * (1 - bound) ** (trials - k) for k in range(bad + 1))

    assert tail == pytest.approx(0.05, rel=1e-3)


@given(st.integers(1, 500), st.integers(0, 10))
def test_more_harm_never_earns_trust(good: int, bad: int) -> None:
    assert harm_rate_bound(good, bad + 1) > harm_rate_bound(good, bad) > harm_rate_bound(good + 1, bad)
