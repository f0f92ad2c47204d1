"""Summary: what stands in `kubectl get mdb`, and that it changes only when something has happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kintsugi.api.action import ActionStatus, HealingAction, Phase
from kintsugi.api.database import IncidentStatus
from kintsugi.domain.anomaly import Anomaly, Health
from kintsugi.domain.decision import DatabasePhase
from kintsugi.domain.forecast import NO_FORECAST, Forecast, Impact
from kintsugi.stages import summary
from kintsugi_dev.builders import NOW, a_spec, an_action
from kintsugi_dev.memory import ANOMALOUS, NORMAL, POSTGRESQL

NOTHING_FITS = "no action fits, a person is needed; status.notProposed has the reasons"
INCIDENT = IncidentStatus(id="1402", opened_at=NOW)
BLIND = replace(NORMAL, health=Health.BLIND, reason="no sample for 9 s")
LEARNING = replace(NORMAL, health=Health.LEARNING, reason="3 s of 5 m learned")


def in_phase(phase: Phase, **spec: object) -> HealingAction:
    return an_action(a_spec("create-index", **spec), ActionStatus(phase=phase))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("anomaly", "live", "incident", "paused", "phase"),
    [
        (NORMAL, None, None, False, DatabasePhase.HEALTHY),
        (ANOMALOUS, None, None, False, DatabasePhase.DEGRADED),
        (NORMAL, None, INCIDENT, False, DatabasePhase.DEGRADED),
        (ANOMALOUS, in_phase(Phase.AWAITING_APPROVAL), INCIDENT, False, DatabasePhase.DEGRADED),
        (ANOMALOUS, in_phase(Phase.EXECUTING), INCIDENT, False, DatabasePhase.HEALING),
        (BLIND, in_phase(Phase.VERIFYING), INCIDENT, False, DatabasePhase.HEALING),
        (BLIND, None, INCIDENT, False, DatabasePhase.BLIND),
        (LEARNING, None, None, False, DatabasePhase.LEARNING),
        (ANOMALOUS, in_phase(Phase.EXECUTING), INCIDENT, True, DatabasePhase.PAUSED),
    ],
)
def test_the_phase_says_the_most_important_thing(
    anomaly: Anomaly, live: HealingAction | None, incident: IncidentStatus | None, paused: bool, phase: DatabasePhase
) -> None:
    assert summary.phase_of(anomaly, live, incident, paused) is phase


@pytest.mark.parametrize("anomaly", [BLIND, LEARNING])
def test_where_nothing_is_known_no_risk_is_claimed(anomaly: Anomaly) -> None:
    assert summary.risk_of(anomaly) == "-"


def test_noise_of_a_healthy_database_does_not_change_its_status() -> None:
    shown = {summary.risk_of(replace(NORMAL, score=score)) for score in (0.0, 0.1, 0.21, 0.29)}

    assert shown == {"0.00"}


def test_a_score_moves_in_coarse_steps() -> None:
    shown = {summary.risk_of(replace(ANOMALOUS, score=0.88 + n / 1000)) for n in range(40)}

    assert shown == {"0.90"}


def test_what_comes_next_is_the_soonest_that_has_not_happened() -> None:
    forecast = Forecast(
        "lock-manager",
        (
            Impact("lock-manager", 1.0, 0.0, ("lock-manager",)),
            Impact("connections", 0.84, 40.2, ("lock-manager", "connections")),
            Impact("client", 0.6, 12.0, ("lock-manager", "client")),
        ),
        "",
    )

    assert summary.soon_of(forecast, POSTGRESQL.topology) == "client 0.60 in 12 s"
    assert summary.soon_of(NO_FORECAST, POSTGRESQL.topology) == "-"


def test_components_at_risk_come_first_and_calm_ones_not_at_all() -> None:
    anomaly = replace(ANOMALOUS, components={"lock-manager": 0.9, "client": 0.5, "storage": 0.1})
    forecast = Forecast("lock-manager", (Impact("connections", 0.7, 40.0, ("lock-manager", "connections")),), "")

    found = summary.components_of(anomaly, forecast)

    assert [(each.name, each.risk, each.eta_seconds) for each in found] == [
        ("lock-manager", 0.9, None),
        ("connections", 0.7, 40.0),
        ("client", 0.5, None),
    ]


@pytest.mark.parametrize(
    ("phase", "says"),
    [
        (Phase.PROPOSED, "proposed orders-7c1f (create-index)"),
        (Phase.AWAITING_APPROVAL, "waiting for approval of orders-7c1f (create-index)"),
        (Phase.EXECUTING, "executing orders-7c1f (create-index)"),
        (Phase.REVERTING, "taking back orders-7c1f (create-index)"),
    ],
)
def test_an_action_is_said_with_what_it_waits_for(phase: Phase, says: str) -> None:
    assert summary.doing_with(in_phase(phase)) == says


def test_a_recommendation_is_called_one() -> None:
    assert summary.doing_with(in_phase(Phase.PROPOSED, runnable=False)) == "recommends create-index (orders-7c1f)"


@pytest.mark.parametrize(
    ("phase", "held_back", "looked_for", "pause", "says"),
    [
        (DatabasePhase.HEALTHY, (), 0.0, "", "watching"),
        (DatabasePhase.PAUSED, (), 0.0, "until noon", "paused: until noon"),
        (DatabasePhase.PAUSED, (), 0.0, "", "paused"),
        (DatabasePhase.BLIND, ("x",), 0.0, "", "no sample for 9 s"),
        (DatabasePhase.DEGRADED, ("Observe",), 3600.0, "", "held back: Observe"),
        (DatabasePhase.DEGRADED, (), 1.0, "", "looking for a remedy"),
        (
            DatabasePhase.DEGRADED,
            (),
            3600.0,
            "",
            "no action fits, a person is needed; status.notProposed has the reasons",
        ),
    ],
)
def test_without_an_action_it_says_why_there_is_none(
    phase: DatabasePhase, held_back: tuple[str, ...], looked_for: float, pause: str, says: str
) -> None:
    assert summary.doing_without(phase, BLIND, held_back, looked_for, pause) == says


def test_while_a_remedy_is_looked_for_the_symptom_is_said() -> None:
    said = summary.doing_without(DatabasePhase.DEGRADED, ANOMALOUS, (), 1.0, "")

    assert said == "looking for a remedy: lock waiters 9"


def test_the_sentence_names_the_worst_signal() -> None:
    assert summary.summary_of(ANOMALOUS, NO_FORECAST, 3.0) == "anomalous for 2 s; lock waiters 9"
