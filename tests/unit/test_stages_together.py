"""The stages one after another on PostgreSQL's own signals, topology and actions' names: the story of one incident."""

from __future__ import annotations

import numpy as np
import pytest

from kintsugi.domain.anomaly import Anomaly, Health
from kintsugi.domain.forecast import Forecast
from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.verdict import Outcome
from kintsugi.engines.catalogue import load
from kintsugi.engines.postgresql.topology import TOPOLOGY
from kintsugi.stages.detect import RobustDetector
from kintsugi.stages.ports import DetectorState, Observed
from kintsugi.stages.predict import PropagationPredictor
from kintsugi.stages.reference import reference
from kintsugi.stages.verify import verify

CATALOGUE = load("postgresql")
NAMES = CATALOGUE.names()
QUIET = 120
FAULT = 160
HEALED = 190
LAST = 220

STORIES = {
    "lock-manager": {
        "lock_waiters": (0, 12.0),
        "lock_wait_age": (0, 8.0),
        "client_latency_p99": (1, 3.0),
        "active_sessions": (2, 20.0),
        "connections_used": (4, 0.6),
        "client_errors": (6, 5.0),
    },
    "query-engine": {
        "sequential_rows_read": (0, 5e6),
        "on_cpu_sessions": (0, 12.0),
        "longest_query_age": (2, 9.0),
        "client_latency_p99": (1, 0.4),
        "client_latency_p50": (1, 0.15),
        "host_cpu_pressure": (2, 0.9),
    },
    "pooler": {
        "pooler_clients_waiting": (0, 30.0),
        "pooler_max_wait": (1, 2.5),
        "client_latency_p99": (1, 2.5),
    },
}
"""Per root: which signals rise to what, so many seconds after the fault began."""


def the_metrics(story: dict[str, tuple[int, float]]) -> Frame:
    """A quiet database at 1 Hz whose noise is a third of each floor; the story's signals rise, and fall again."""
    rng = np.random.default_rng(5)
    floors = np.array([signal.floor for signal in CATALOGUE])
    values: Floats = np.abs(rng.normal(0.0, floors / 3, size=(LAST, len(NAMES))))
    for name in ("postgres_up", "pooler_up", "replicas_streaming", "cache_hit_ratio", "host_memory_available"):
        values[:, NAMES.index(name)] = 1.0
    for name, (delay, value) in story.items():
        values[FAULT + delay : HEALED, NAMES.index(name)] += value
    return Frame(NAMES, np.arange(1e6, 1e6 + LAST), values, ~np.isnan(values), 1.0)


def watched(frame: Frame) -> list[tuple[Anomaly, Forecast]]:
    """What was said at each sample from the end of the quiet time on."""
    detector, predictor, state = RobustDetector(), PropagationPredictor(), DetectorState()
    said = []
    incidents: list[tuple[float, float | None]] = []
    for row in range(QUIET, LAST):
        now = float(frame.times[row])
        known = frame.between(0, now + 0.5)
        observed = Observed(
            "shop/orders", CATALOGUE, reference(known, incidents, now, 600), known.between(now - 60, now + 1), state, 60
        )
        was = state.flagged
        [(anomaly, state)] = detector.detect([observed], now)
        if state.flagged != was:
            incidents = [(now, None)] if state.flagged else [(incidents[-1][0], now)]
        said.append((anomaly, predictor.predict(anomaly, TOPOLOGY, now)))
    return said


@pytest.mark.parametrize("root", STORIES)
def test_a_fault_is_found_at_its_second_sample_and_traced_to_its_component(root: str) -> None:
    said = watched(the_metrics(STORIES[root]))
    flagged = [QUIET + index for index, (anomaly, _) in enumerate(said) if anomaly.flagged]
    assert flagged[0] in (FAULT, FAULT + 1, FAULT + 2)
    assert flagged == list(range(flagged[0], flagged[-1] + 1))
    assert HEALED + 4 <= flagged[-1] <= HEALED + 7
    assert said[FAULT + 10 - QUIET][1].root == root


def test_nothing_is_said_while_all_is_well() -> None:
    assert {anomaly.health for anomaly, _ in watched(the_metrics({}))} == {Health.NORMAL}


def test_the_client_and_the_connections_are_forecast_before_they_suffer() -> None:
    late = STORIES["lock-manager"] | {"client_latency_p99": (9, 3.0), "connections_used": (12, 0.6)}
    said = watched(the_metrics(late))
    forecast = said[FAULT + 3 - QUIET][1]
    assert {"client", "connections"} <= {impact.component for impact in forecast.ahead()}


def test_the_killed_primary_is_traced_to_the_connections() -> None:
    frame = the_metrics({"client_errors": (0, 60.0), "pooler_clients_waiting": (1, 12.0), "pooler_max_wait": (2, 3.0)})
    outside = {"client", "pooler", "host-cpu", "host-memory", "host-io"}
    inside = [i for i, s in enumerate(CATALOGUE) if s.component not in outside]
    frame.values[FAULT:HEALED, inside] = np.nan
    frame.values[FAULT:HEALED, NAMES.index("postgres_up")] = 0.0
    alive = Frame(NAMES, frame.times, frame.values, ~np.isnan(frame.values), 1.0)
    said = watched(alive)
    assert said[FAULT + 1 - QUIET][0].flagged
    anomaly, forecast = said[FAULT + 8 - QUIET]
    assert forecast.root == "connections"
    assert anomaly.components["connections"] > 0.5


@pytest.mark.parametrize("root", STORIES)
def test_the_remedy_is_verified_by_the_same_bands(root: str) -> None:
    frame = the_metrics(STORIES[root])
    learned = reference(frame, [(1e6 + FAULT, None)], 1e6 + FAULT, 600)
    before = frame.between(1e6 + HEALED - 10, 1e6 + HEALED)
    evidence = list(STORIES[root])

    def judged(start: int, samples: int) -> Outcome | None:
        after = frame.between(1e6 + start, 1e6 + start + samples)
        verdict = verify(before, after, learned, CATALOGUE, evidence, ("client_latency_p99", 0.1), samples, 20)
        return verdict.outcome if verdict else None

    assert judged(HEALED, 4) is None
    assert judged(HEALED, 8) is Outcome.HEALED
    assert judged(FAULT + 8, 20) is Outcome.NOT_HEALED
