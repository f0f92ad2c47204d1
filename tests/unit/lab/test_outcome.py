"""What came of a remedy is told from the clients' requests and from the class' own signal, each by one rule."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kintsugi.domain.frame import Frame
from kintsugi.engines import catalogue
from kintsugi_ml.lab.clienttrack import Requests
from kintsugi_ml.lab.faults.base import Effect
from kintsugi_ml.lab.outcome import Consistency, Track, measure, own_signal
from kintsugi_ml.lab.parts import Parts

PARTS = Parts(normal=1000.0, injected=1030.0, remedied=1060.0, lifted=1062.0, ended=1085.0)
RATE = 40
KNOWN = catalogue.load("postgresql")


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


LAG = Effect(client=None, signal="replication_delay", factor=3.0)


def lagging(until: float, *, bursts: bool = False) -> Frame:
    """A replica that is late from the injection until then; in bursts: every third second only."""
    times = np.arange(PARTS.normal, PARTS.ended)
    late = (times >= PARTS.injected) & (times < until) & (~np.bool_(bursts) | (times % 3 == 0))
    values = np.where(late, 60.0, 0.0)[:, None]
    return Frame(("replication_delay",), times, values, np.ones_like(values, dtype=bool), 1.0)


@pytest.mark.parametrize(("until", "after"), [(1060, 0.0), (1066, 6.0), (1090, None)])
def test_what_no_client_feels_is_told_by_the_class_own_signal(until: float, after: float | None) -> None:
    own = own_signal(LAG, PARTS, lagging(until), KNOWN)
    assert own is not None
    assert (own.name, own.before, own.during, own.felt) == ("replication_delay", 0.0, 60.0, True)
    assert own.restored_after == after


def test_the_seconds_between_two_bursts_are_no_recovery() -> None:
    own = own_signal(LAG, PARTS, lagging(1090, bursts=True), KNOWN)
    assert own is not None
    assert own.felt
    assert own.restored_after is None


def test_a_class_without_a_signal_or_one_that_was_not_measured_has_no_outcome_of_it() -> None:
    assert own_signal(Effect(), PARTS, lagging(1066), KNOWN) is None
    assert own_signal(Effect(signal="deadlocks"), PARTS, lagging(1066), KNOWN) is None
    unmeasured = lagging(1066)
    nothing = Frame(unmeasured.signals, unmeasured.times, unmeasured.values, np.zeros_like(unmeasured.mask), 1.0)
    assert own_signal(LAG, PARTS, nothing, KNOWN) is None
