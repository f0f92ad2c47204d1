from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.api.database import DatabaseSpec
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Risk, Step, StepKind, Undo, UndoKind
from kintsugi.domain.forecast import NO_FORECAST, Forecast, Impact
from kintsugi.engines.engine import BadParametersError, Diagnosis
from kintsugi.stages.recover import RunbookRecommender, explain

EVEN = Objectives(1, 1, 1, 1)
RISKS = {"low": Risk.LOW, "medium": Risk.MEDIUM, "high": Risk.HIGH, "other-low": Risk.LOW, "broken": Risk.LOW}


class Remedy:
    """An action that compiles to one statement; `broken` refuses all parameters."""

    def __init__(self, name: str) -> None:
        self.name = name

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        return ()

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        if self.name == "broken":
            raise BadParametersError("table is missing: name one")
        step = Step(StepKind.SQL, "primary", f"select '{self.name}'")
        return Plan((step,), Undo(UndoKind.NOTHING), step, idempotent=True)


RECOMMENDER = RunbookRecommender({name: Remedy(name) for name in RISKS}, RISKS)


def a_proposal(action: str = "low", heals: str = "lock-manager", gain: float = 0.8, **parameters: Any) -> Proposal:
    expected = Objectives(gain, gain, gain, gain)
    return Proposal(action, parameters, expected, ("3 sessions wait",), heals=frozenset({heals}))


def a_forecast(root: str | None = "lock-manager") -> Forecast:
    return Forecast(
        root,
        (
            Impact("lock-manager", 0.9, 0.0, ("lock-manager",)),
            Impact("pooler", 0.9, 0.0, ("lock-manager", "connections", "pooler")),
            Impact("client", 0.7, 5.0, ("lock-manager", "client")),
        ),
        "…",
    )


def ranked(*proposals: Proposal, forecast: Forecast | None = None, weights: Objectives = EVEN) -> list[str]:
    return [c.action for c in RECOMMENDER.rank(proposals, forecast or a_forecast(), weights, ())]


def test_the_remedy_of_the_root_comes_before_one_of_a_consequence() -> None:
    assert ranked(a_proposal("other-low", heals="pooler"), a_proposal("low")) == ["low", "other-low"]


def test_fit_falls_from_root_to_cause_to_degraded_to_at_risk_to_elsewhere() -> None:
    heals = ("lock-manager", "connections", "pooler", "client", "autovacuum")
    scores = [RECOMMENDER.rank([a_proposal(heals=name)], a_forecast(), EVEN, ())[0].score for name in heals]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 5


def test_the_policy_s_weights_decide_between_equal_fits() -> None:
    fast = Proposal("low", {}, Objectives(latency=0.9, resources=-0.4), (), heals=frozenset({"lock-manager"}))
    lean = Proposal("other-low", {}, Objectives(latency=0.3, resources=0.4), (), heals=frozenset({"lock-manager"}))
    assert ranked(fast, lean, weights=Objectives(latency=4, resources=1))[0] == "low"
    assert ranked(fast, lean, weights=Objectives(latency=1, resources=4))[0] == "other-low"


def test_of_equal_remedies_the_less_risky_comes_first() -> None:
    assert ranked(a_proposal("high"), a_proposal("medium"), a_proposal("low")) == ["low", "medium", "high"]


def test_weights_of_zero_count_as_equal() -> None:
    assert ranked(a_proposal("low"), weights=Objectives()) == ["low"]


def test_an_action_is_tried_once_per_incident() -> None:
    ranking = RECOMMENDER.judge([a_proposal("low"), a_proposal("medium")], a_forecast(), EVEN, ["low"])
    assert [c.action for c in ranking.candidates] == ["medium"]
    assert ranking.not_proposed == (NotProposed("low", "already tried for this incident"),)


def test_when_all_have_been_tried_nothing_is_left() -> None:
    assert not RECOMMENDER.rank([a_proposal("low")], a_forecast(), EVEN, ["low"])


def test_a_proposal_that_does_not_compile_is_reported_and_the_others_stand() -> None:
    ranking = RECOMMENDER.judge([a_proposal("broken"), a_proposal("low")], a_forecast(), EVEN, ())
    assert [c.action for c in ranking.candidates] == ["low"]
    assert "table is missing" in ranking.not_proposed[0].reason


def test_an_action_without_a_risk_does_not_exist() -> None:
    recommender = RunbookRecommender({"low": Remedy("low")}, {})
    assert "unknown action" in recommender.judge([a_proposal("low")], a_forecast(), EVEN, ()).not_proposed[0].reason


@pytest.mark.parametrize(("action", "gain"), [("low", -0.5), ("low", 0.0), ("high", 0.1)])
def test_what_gains_less_than_its_risk_costs_is_left_out(action: str, gain: float) -> None:
    ranking = RECOMMENDER.judge([a_proposal(action, gain=gain)], a_forecast(), EVEN, ())
    assert not ranking.candidates
    assert "not worth it" in ranking.not_proposed[0].reason


def test_a_confirmed_remedy_is_kept_even_when_the_forecast_knows_no_root() -> None:
    assert ranked(a_proposal("medium"), forecast=a_forecast(root=None)) == ["medium"]
    assert ranked(a_proposal("medium"), forecast=NO_FORECAST) == ["medium"]


def test_the_chosen_one_has_propensity_one_and_the_others_none() -> None:
    candidates = RECOMMENDER.rank([a_proposal("high"), a_proposal("low")], a_forecast(), EVEN, ())
    assert [c.propensity for c in candidates] == [1.0, 0.0]


def test_the_plan_is_the_action_s_own() -> None:
    [candidate] = RECOMMENDER.rank([a_proposal("low")], a_forecast(), EVEN, ())
    assert candidate.plan == Remedy("low").compile({})
    assert candidate.risk is Risk.LOW


@given(st.permutations([("low", 1), ("low", 2), ("medium", 1), ("high", 1), ("other-low", 1), ("broken", 1)]))
def test_the_order_of_proposals_changes_nothing(order: list[tuple[str, int]]) -> None:
    candidates = RECOMMENDER.rank([a_proposal(name, n=n) for name, n in order], a_forecast(), EVEN, ())
    found = [(c.action, c.proposal.parameters["n"]) for c in candidates]
    assert found == [("low", 1), ("low", 2), ("other-low", 1), ("medium", 1), ("high", 1)]


def test_runners_up_and_what_was_left_out_are_explained() -> None:
    proposals = [a_proposal("low"), a_proposal("high", gain=0.6), a_proposal("broken")]
    ranking = RECOMMENDER.judge(proposals, a_forecast(), EVEN, ())
    first, second = explain(ranking.candidates, ranking.not_proposed)
    assert first == "high: scores 0.45, low 0.80 (expected latency 0.6 against 0.8, high risk)"
    assert second.startswith("broken: its own parameters were refused")


def test_nothing_proposed_needs_no_runner_up() -> None:
    assert explain((), (NotProposed("failover", "the primary answers"),)) == ("failover: the primary answers",)
