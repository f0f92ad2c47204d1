"""Onsets are found where they are, and nowhere else."""

from collections.abc import Iterator

import numpy as np
import pytest

from kintsugi.domain.frame import Floats
from kintsugi.domain.signals import Hurts
from kintsugi.engines.catalogue import COMPONENTS
from kintsugi_ml.lab.clienttrack import Requests
from kintsugi_ml.lab.parts import Parts
from kintsugi_ml.lab.truth import queries
from kintsugi_ml.lab.truth.measures import MEASURES, Gauge, Measure, Samples, Track, track
from kintsugi_ml.lab.truth.onset import moves, onsets, returned

PARTS = Parts(normal=1000.0, injected=1030.0, remedied=1065.0, lifted=1070.0, ended=1090.0)
NOBODY = Requests.none()
TIMES = np.arange(PARTS.normal, PARTS.ended, 0.125)


def a_measure(component: str = "wal", hurts: Hurts = Hurts.UP, floor: float = 1.0, name: str = "m") -> Measure:
    return Measure(name, component, "1", hurts, floor, Gauge("m"), "a test")


def found(values: Floats, measure: Measure) -> tuple[float | None, float | None]:
    made = Track(TIMES, (measure.name,), values[:, None])
    component = measure.component
    return onsets(made, PARTS, [measure])[component], returned(made, PARTS, [measure])[component]


def noise(seed: int, persistence: float) -> Floats:
    """Noise of standard deviation 1, each sample `persistence` of the one before."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(len(TIMES))
    for index in range(1, len(values)):
        values[index] = persistence * values[index - 1] + np.sqrt(1 - persistence**2) * values[index]
    return values


def test_a_step_is_found_where_it_begins_and_ends() -> None:
    values = noise(1, 0.0) * 0.1 + np.where((TIMES >= 1033.0) & (TIMES < 1072.0), 5.0, 0.0)
    assert found(values, a_measure()) == (3.0, 42.0)


def test_what_does_not_come_back_has_not_returned() -> None:
    assert found(np.where(TIMES >= 1033.0, 5.0, 0.0), a_measure()) == (3.0, None)


def test_only_the_side_that_hurts_counts() -> None:
    step = np.where(TIMES >= 1033.0, -5.0, 0.0)
    assert found(step, a_measure(hurts=Hurts.UP))[0] is None
    assert found(step, a_measure(hurts=Hurts.DOWN))[0] == 3.0
    assert found(step, a_measure(hurts=Hurts.BOTH))[0] == 3.0


def test_a_spike_shorter_than_a_second_is_no_onset() -> None:
    assert found(np.where((TIMES >= 1033.0) & (TIMES < 1033.5), 50.0, 0.0), a_measure())[0] is None


def test_a_burst_is_no_onset_though_a_rate_looks_back_at_it_for_a_second() -> None:
    measure = next(measure for measure in MEASURES if measure.name == "wal_bytes")
    burst = Samples(TIMES, {"wal_position": np.where(TIMES >= 1033.0, 50e6, 0.0)})
    on = Samples(TIMES, {"wal_position": np.maximum(TIMES - 1033.0, 0.0) * 50e6})
    assert found(track(burst, NOBODY, [measure]).values[:, 0], measure)[0] is None
    assert found(track(on, NOBODY, [measure]).values[:, 0], measure)[0] == pytest.approx(3.125)


def test_a_change_below_the_floor_is_no_onset() -> None:
    assert found(np.where(TIMES >= 1033.0, 0.9, 0.0), a_measure(floor=1.0))[0] is None


def test_missing_samples_neither_make_nor_hide_an_onset() -> None:
    step = np.where(TIMES >= 1033.0, 5.0, 0.0)
    holes = np.where(np.arange(len(TIMES)) % 3 == 0, np.nan, step)
    assert found(holes, a_measure())[0] == pytest.approx(3.0, abs=0.13)
    assert found(np.where(TIMES >= 1033.0, np.nan, 0.0), a_measure())[0] is None
    assert found(np.where(TIMES < 1030.0, np.nan, step), a_measure())[0] is None


def test_what_was_outside_before_the_injection_must_come_back_first() -> None:
    early = (TIMES >= 1027.0) & (TIMES < 1036.0)
    again = TIMES >= 1050.0
    assert found(np.where(early, 5.0, 0.0), a_measure())[0] is None
    assert found(np.where(early | again, 5.0, 0.0), a_measure())[0] == 20.0


def test_what_begins_after_the_remedy_is_not_the_faults() -> None:
    assert found(np.where(TIMES >= 1066.0, 5.0, 0.0), a_measure())[0] is None


def test_a_component_leaves_with_its_first_measure_and_returns_with_its_last() -> None:
    first, second = a_measure(name="a"), a_measure(name="b")
    values = np.stack(
        [np.where((at <= TIMES) & (end > TIMES), 5.0, 0.0) for at, end in ((1034, 1050), (1032, 1045))], 1
    )
    move = moves(Track(TIMES, ("a", "b"), values), PARTS, [first, second])["wal"]
    assert move is not None
    assert (move.onset, move.measure, move.returned) == (2.0, "b", 20.0)


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.9, 0.97])
def test_null_runs_have_next_to_no_onsets(persistence: float) -> None:
    """Noise without a fault, as large as its floor lets it be felt at all; .97 remembers for four seconds."""
    outcomes = [found(noise(seed, persistence), a_measure(floor=0.1))[0] for seed in range(200)]
    assert sum(onset is not None for onset in outcomes) <= 4


def test_every_component_has_a_measure_that_decides() -> None:
    assert {measure.component for measure in MEASURES if measure.decides} == set(COMPONENTS)
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_every_number_that_is_asked_of_a_server_is_used() -> None:
    used = set(_columns())
    asked = {*queries.PRIMARY_COLUMNS, *queries.TABLES_COLUMNS, *queries.REPLICA_COLUMNS}
    assert asked <= used


def _columns() -> Iterator[str]:
    for measure in MEASURES:
        for field in ("column", "per", "less"):
            yield getattr(measure.formula, field, None) or ""


def test_a_counter_becomes_a_rate_and_a_reset_a_gap() -> None:
    counter = np.where(TIMES < 1040.0, (TIMES - 1000.0) * 3e6, (TIMES - 1040.0) * 3e6)
    made = track(Samples(TIMES, {"wal_position": counter}), NOBODY)
    rate = made.column("wal_bytes")
    assert rate[16] == pytest.approx(3e6)
    assert np.isnan(rate[(TIMES >= 1040.0) & (TIMES < 1040.9)]).all()
    assert rate[-1] == pytest.approx(3e6)
    assert np.isnan(made.column("client_latency")).all()


def test_a_replica_that_stands_still_is_as_late_as_it_has_stood() -> None:
    primary = (TIMES - 1000.0) * 3e4
    replica = np.where((TIMES >= 1030.0) & (TIMES < 1050.0), 30.0 * 3e4, primary)
    made = track(Samples(TIMES, {"wal_position": primary, "replay_position": replica}), NOBODY)
    late = made.column("replay_delay")
    assert late[TIMES == 1029.0] == 0.0
    assert late[TIMES == 1040.0] == pytest.approx(10.0)
    assert late[TIMES == 1051.0] == 0.0
    assert onsets(made, PARTS, MEASURES)["replication"] == pytest.approx(1.0, abs=0.4)


def test_a_primary_that_writes_nothing_has_no_late_replica_and_unknown_stays_unknown() -> None:
    still = np.full(len(TIMES), 5e6)
    gone = np.where(TIMES < 1040.0, still, np.nan)
    late = track(Samples(TIMES, {"wal_position": still, "replay_position": gone}), NOBODY).column("replay_delay")
    assert (late[TIMES < 1040.0] == 0.0).all()
    assert np.isnan(late[TIMES >= 1040.0]).all()
