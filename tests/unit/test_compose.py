"""Compose: the spec of an action says what would be done, and is compiled again before it is."""

from __future__ import annotations

from typing import Any

import pytest

from kintsugi.api.action import ActionSpec, plan_hash
from kintsugi.domain.actions import Risk
from kintsugi.domain.forecast import Forecast, Impact
from kintsugi.engines.risk import RISKS
from kintsugi.stages.compose import action_name, forecast_of, plan_of, recompiled, step_of
from kintsugi_dev.memory import POSTGRESQL, Memory, candidate

ACTIONS = POSTGRESQL.actions


def a_spec(action: str = "create-index") -> ActionSpec:
    memory = Memory()
    return memory.read(memory.action(action)).spec  # through JSON, as Kubernetes gives it back


@pytest.mark.parametrize("action", ["terminate-blocker", "create-index"])
def test_what_was_composed_compiles_to_the_same_again(action: str) -> None:
    spec = a_spec(action)

    assert recompiled(spec, ACTIONS, RISKS) == ""
    assert tuple(step_of(step) for step in spec.plan) == candidate(action).plan.steps
    assert plan_of(spec, ACTIONS) == candidate(action).plan


def with_hash(spec: ActionSpec, **changes: Any) -> ActionSpec:
    """Changed by somebody who also made the hash anew."""
    changed = spec.model_copy(update=changes)
    return changed.model_copy(update={"plan_hash": plan_hash(changed.to_json())})


def test_another_command_in_the_plan_is_noticed_even_with_a_fitting_hash() -> None:
    spec = a_spec()
    forged = spec.plan[0].model_copy(update={"command": "DROP TABLE customers"})

    answer = recompiled(with_hash(spec, plan=(forged, *spec.plan[1:])), ACTIONS, RISKS)

    assert answer == "the plan is not what the action and its parameters compile to"


def test_a_missing_or_additional_step_is_noticed() -> None:
    spec = a_spec()

    assert recompiled(with_hash(spec, plan=spec.plan[:-1]), ACTIONS, RISKS)
    assert recompiled(with_hash(spec, plan=(*spec.plan, spec.plan[0])), ACTIONS, RISKS)


def test_another_undo_is_noticed() -> None:
    spec = a_spec()
    undo = spec.undo.model_copy(update={"steps": spec.undo.steps[:1]})

    assert recompiled(with_hash(spec, undo=undo), ACTIONS, RISKS)


def test_a_lower_risk_is_noticed() -> None:
    answer = recompiled(with_hash(a_spec(), risk="low"), ACTIONS, RISKS)

    assert answer == f"the risk of create-index is {Risk.MEDIUM.value}, not low"


def test_an_unknown_action_is_named() -> None:
    assert recompiled(a_spec(), {}, RISKS) == "this operator knows no action create-index"


def test_parameters_that_do_not_compile_are_explained() -> None:
    spec = a_spec()
    parameters = {**spec.parameters, "index": "somebodys_index"}

    answer = recompiled(with_hash(spec, parameters=parameters), ACTIONS, RISKS)

    assert answer.startswith("the parameters do not compile: index: 'somebodys_index' is not Kintsugi's name for it")


def test_a_spec_changed_outside_its_plan_does_not_fit_its_hash() -> None:
    spec = a_spec().model_copy(update={"incident": "another"})

    assert recompiled(spec, ACTIONS, RISKS) == "planHash does not match the spec"


def test_the_same_incident_and_action_have_one_name() -> None:
    assert action_name("orders", "1402", "create-index") == action_name("orders", "1402", "create-index")
    assert action_name("orders", "1402", "create-index") != action_name("orders", "1403", "create-index")
    assert action_name("orders", "1402", "create-index") != action_name("orders", "1402", "analyze-table")


def test_a_name_stays_within_what_kubernetes_takes() -> None:
    assert len(action_name("d" * 253, "1402", "create-index")) <= 253


def test_a_forecast_is_cut_to_what_a_person_reads() -> None:
    impacts = tuple(Impact(f"component-{n}", 0.123456, 12.345, ("a", "b")) for n in range(20))

    found = forecast_of(Forecast("a", impacts, "a breaks b"))

    assert len(found.impacts) == 8
    assert (found.impacts[0].probability, found.impacts[0].eta_seconds) == (0.123, 12.3)
