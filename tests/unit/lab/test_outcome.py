"""What came of a remedy is told from the clients' requests alone, by one rule."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kintsugi_ml.lab.clienttrack import Requests
from kintsugi_ml.lab.outcome import Consistency, Track, measure
from kintsugi_ml.lab.parts import Parts

PARTS = Parts(normal=1000.0, injected=1030.0, remedied=1060.0, lifted=1062.0, ended=1085.0)
RATE = 40


def requests(slow: tuple[float, float] | None = None, silent: tuple[float, float] | None = None) -> Requests:
    """A second's requests at 5 to 20 ms each; 20 times as long in `slow`, rejected at once in `silent`."""
    random = np.random.default_rng(7)
    scheduled = np.arange(PARTS.normal, PARTS.ended, 1 / RATE)
    latency = random.uniform(0.005, 0.02, len(scheduled))
    outcome = np.full(len(scheduled), "ok", dtype="<U12")
    if slow is not None:
        latency[(scheduled >= slow[0]) & (scheduled < slow[1])] *= 20
    if silent is not None:
        gone = (scheduled >= silent[0]) & (scheduled < silent[1])
        latency[gone], outcome[gone] = 0.001, "rejected"
    return Requests(scheduled, latency, outcome)


def test_a_fault_that_ends_four_seconds_after_the_remedy_counts_as_restored_then() -> None:
    outcome = measure(requests(slow=(1030, 1064)), PARTS, {})
    assert outcome.felt
    assert outcome.restored_after == pytest.approx(4.0, abs=0.5)
    assert not outcome.harm


def test_a_fault_that_goes_on_to_the_end_is_never_restored() -> None:
    outcome = measure(requests(slow=(1030, 1090)), PARTS, {})
    assert outcome.restored_after is None
    assert not outcome.harm


def test_a_good_second_between_two_bad_ones_is_not_a_recovery() -> None:
    calm = requests()
    bad = (calm.scheduled >= 1030) & ~((calm.scheduled >= 1066) & (calm.scheduled < 1068.4))
    outcome = measure(Requests(calm.scheduled, np.where(bad, 0.4, calm.latency), calm.outcome), PARTS, {})
    assert outcome.restored_after is None


def test_errors_that_come_at_once_are_not_mistaken_for_fast_answers() -> None:
    outcome = measure(requests(silent=(1030, 1070)), PARTS, {})
    assert outcome.felt
    assert outcome.during.throughput == 0
    assert outcome.restored_after == pytest.approx(10.0, abs=0.5)


def test_clients_that_noticed_nothing_were_not_hurt_and_are_restored_at_once() -> None:
    outcome = measure(requests(), PARTS, {})
    assert not outcome.felt
    assert outcome.restored_after == 0.0
    assert not outcome.harm


def test_a_remedy_that_makes_slow_clients_fail_does_harm() -> None:
    slow, silent = requests(slow=(1030, 1061)), requests(silent=(1061, 1090))
    worse = Requests(slow.scheduled, np.where(silent.outcome == "ok", slow.latency, silent.latency), silent.outcome)
    assert measure(worse, PARTS, {}).harm


def test_clients_that_fall_silent_are_neither_restored_nor_unharmed() -> None:
    outcome = measure(requests(slow=(1030, 1061)).between(0, 1061), PARTS, {})
    assert outcome.restored_after is None
    assert outcome.harm


def test_resources_are_averaged_per_part_and_gaps_are_not_zero() -> None:
    times = np.arange(PARTS.normal, PARTS.ended, 1.0)
    cpu = np.where(times < PARTS.remedied, 0.5, np.nan)
    outcome = measure(requests(), PARTS, {"primary_cpu": Track(times, cpu)}, Consistency(sessions_terminated=2))
    assert outcome.before.resources == {"primary_cpu": 0.5}
    assert outcome.after.resources == {"primary_cpu": None}
    assert json.loads(json.dumps(outcome.as_json()))["consistency"]["sessions_terminated"] == 2
