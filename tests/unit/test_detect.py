from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.domain.anomaly import Anomaly, Health
from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue, Hurts, Kind, Role, Signal
from kintsugi.stages.detect import RobustDetector
from kintsugi.stages.ports import DetectorState, Observed

START = 1_000_000.0
SYMPTOM, CAUSE, CONTEXT = Role.SYMPTOM, Role.CAUSE, Role.CONTEXT


def a_signal(name: str, role: Role = SYMPTOM, hurts: Hurts = Hurts.UP, component: str = "lock-manager") -> Signal:
    return Signal(name, component, "s", Kind.GAUGE, hurts, role, 0.1, f"How {name} is measured.", {})


CATALOGUE = Catalogue(
    "postgresql",
    (
        a_signal("wait_age"),
        a_signal("waiters"),
        a_signal("latency", component="client"),
        a_signal("hit_ratio", CAUSE, Hurts.DOWN, "buffer-pool"),
        a_signal("reads", CAUSE, component="buffer-pool"),
        a_signal("used", CAUSE, component="connections"),
        a_signal("calls", CONTEXT, Hurts.BOTH, "query-engine"),
        a_signal("requests", CONTEXT, Hurts.DOWN, "client"),
        a_signal("postgres_up", SYMPTOM, Hurts.DOWN, "connections"),
        a_signal("host_cpu", SYMPTOM, component="host-cpu"),
    ),
)
NAMES = CATALOGUE.names()
WIDTH = len(NAMES)


class Database:
    """A quiet database that can be spoiled, and asked sample by sample what the detector makes of it."""

    def __init__(self, samples: int = 400, seed: int = 1, learned: int = 300, interval: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.values: Floats = rng.normal(5.0, 1.0, size=(samples, WIDTH))
        self.values[:, NAMES.index("postgres_up")] = 1.0
        self.times: Floats = np.asarray(START + interval * np.arange(samples), dtype=np.float64)
        self.learned, self.interval = learned, interval
        self.detector = RobustDetector()
        self.state = DetectorState()

    def spoil(self, name: str, start: int, value: float | Floats, end: int | None = None) -> None:
        self.values[self.learned + start : None if end is None else self.learned + end, NAMES.index(name)] = value

    def frame(self, rows: slice) -> Frame:
        values = self.values[rows]
        return Frame(NAMES, self.times[rows], values, ~np.isnan(values), self.interval)

    def at(self, sample: int, late: float = 0.2, minimum: float = 60) -> Anomaly:
        """Judge after `sample` more samples than were learned."""
        newest = self.learned + sample
        observed = Observed(
            key="shop/orders",
            catalogue=CATALOGUE,
            reference=self.frame(slice(0, self.learned)),
            recent=self.frame(slice(max(0, newest - 60), newest)),
            state=self.state,
            minimum=minimum,
        )
        [(anomaly, self.state)] = self.detector.detect([observed], float(self.times[newest - 1]) + late)
        return anomaly

    def flagged_from(self, last: int) -> list[int]:
        """The samples, counted from the end of learning, at which it was flagged."""
        return [sample for sample in range(1, last + 1) if self.at(sample).flagged]


def a_fault(size: float = 30.0, start: int = 10, end: int | None = None) -> Database:
    database = Database()
    database.spoil("wait_age", start, size, end)
    database.spoil("waiters", start, size, end)
    return database


# --- what flags, and when


def test_a_fault_is_flagged_at_its_second_sample() -> None:
    assert a_fault(size=16.0).flagged_from(20)[0] == 12


def test_an_overwhelming_fault_is_flagged_at_its_first_sample() -> None:
    assert a_fault(size=500.0).flagged_from(20)[0] == 11


def test_a_quiet_database_is_normal_and_its_score_stays_well_below_the_threshold() -> None:
    database = Database()
    scores = [database.at(sample).score for sample in range(1, 100)]
    assert max(scores) < 0.45


def test_one_spike_alone_flags_nothing() -> None:
    assert a_fault(size=20.0, start=10, end=11).flagged_from(30) == []


def test_a_lone_symptom_has_to_be_twice_as_far_out() -> None:
    weak, strong = Database(), Database()
    weak.spoil("wait_age", 10, 14.0)
    strong.spoil("wait_age", 10, 30.0)
    assert weak.flagged_from(20) == []
    assert strong.flagged_from(20)


def test_a_cause_corroborates_a_symptom_that_alone_is_too_weak() -> None:
    database = Database()
    database.spoil("wait_age", 10, 14.0)
    database.spoil("reads", 10, 14.0)
    assert database.flagged_from(20)


def test_signals_that_no_longer_move_together_corroborate_a_symptom() -> None:
    def a_database() -> Database:
        database = Database(samples=400)
        load = np.random.default_rng(2).normal(0.0, 10.0, size=400)
        for name in ("calls", "requests", "reads", "used", "hit_ratio"):
            database.values[:, NAMES.index(name)] = 100.0 + load + database.values[:, NAMES.index(name)]
        database.spoil("wait_age", 10, 14.0)
        return database

    together, apart = a_database(), a_database()
    apart.values[apart.learned + 10 :, NAMES.index("calls")] = 100.0
    apart.values[apart.learned + 10 :, NAMES.index("requests")] = 140.0
    assert together.flagged_from(40) == []
    assert apart.flagged_from(40)


def test_causes_and_context_never_flag_by_themselves() -> None:
    database = Database()
    for name in ("reads", "used", "calls", "requests"):
        database.spoil(name, 10, 1e6)
    database.spoil("hit_ratio", 10, -1e6)
    assert database.flagged_from(40) == []


def test_a_change_for_the_better_is_no_anomaly() -> None:
    database = Database()
    for name in ("wait_age", "waiters", "latency"):
        database.spoil(name, 10, -100.0)
    assert database.flagged_from(30) == []


def test_a_database_that_is_noisy_while_healthy_does_not_alarm_at_its_own_noise() -> None:
    database = Database(samples=900, learned=600)
    rng = np.random.default_rng(7)
    for name in ("wait_age", "waiters"):
        database.values[:, NAMES.index(name)] = rng.lognormal(0, 1.0, size=900)
    assert database.flagged_from(290) == []


def test_the_flag_ends_after_five_samples_without_evidence() -> None:
    flagged = a_fault(size=16.0, start=10, end=20).flagged_from(40)
    assert flagged == list(range(12, 12 + len(flagged)))
    assert flagged[-1] == 20 + 1 + 4  # the second of three samples is quiet from 22 on; five such, and it is over at 26


def test_samples_that_are_missing_never_end_an_anomaly() -> None:
    database = a_fault(start=10, end=20)
    database.values[database.learned + 20 : database.learned + 45, : NAMES.index("latency")] = np.nan
    assert database.flagged_from(44)[-1] == 44


def test_a_symptom_that_vanished_for_good_is_given_up_after_a_minute() -> None:
    database = Database(samples=500)
    database.spoil("wait_age", 10, 30.0)
    database.spoil("waiters", 10, 30.0, end=20)
    database.spoil("wait_age", 20, np.nan)
    flagged = database.flagged_from(110)
    assert 70 < flagged[-1] < 90


def test_a_step_in_two_symptoms_is_found_within_two_samples_whatever_the_noise() -> None:
    for seed in range(20):
        database = Database(seed=seed)
        database.spoil("wait_age", 10, 20.0)
        database.spoil("latency", 10, 20.0)
        assert database.flagged_from(20)[0] <= 12


# --- what it says


def test_the_sentence_names_signal_value_normal_and_deviation() -> None:
    database = Database()
    database.values[:, NAMES.index("wait_age")] = 0.0
    database.spoil("wait_age", 10, 12.0)
    database.spoil("waiters", 10, 40.0)
    database.at(12)
    said = {c.signal: c.sentence for c in database.at(13).contributions}
    assert said["wait_age"] == "wait age 12 s, normally 0 ms (120 σ)"


def test_each_signal_says_when_it_left_its_band() -> None:
    database = a_fault(start=10)
    database.spoil("latency", 19, 60.0)
    for sample in range(1, 25):
        anomaly = database.at(sample)
    left = {c.signal: c.first_at for c in anomaly.contributions}
    learned = database.times[database.learned]
    assert left["wait_age"] == learned + 10
    assert left["latency"] == learned + 19
    assert anomaly.since == learned + 10


def test_a_slow_rise_is_dated_to_when_it_left_the_band_not_to_when_it_was_flagged() -> None:
    database = Database()
    ramp = 5.0 + np.arange(90.0)
    database.spoil("wait_age", 10, ramp)
    database.spoil("waiters", 10, ramp)
    flagged = database.flagged_from(40)[0]
    assert database.state.since is not None
    onset = database.state.since - database.times[database.learned]
    assert 10 <= onset < flagged - 1


def test_components_are_scored_by_their_worst_signal_and_every_watched_one_is_named() -> None:
    database = a_fault()
    for sample in range(1, 14):
        anomaly = database.at(sample)
    assert anomaly.components["lock-manager"] > 0.5
    assert anomaly.components["buffer-pool"] < 0.5
    assert set(anomaly.components) == {signal.component for signal in CATALOGUE}


def test_a_restart_of_the_operator_changes_nothing_but_what_lies_beyond_the_window() -> None:
    database = a_fault(start=10)
    for sample in range(1, 30):
        kept = database.at(sample)
    database.state, database.detector = DetectorState(), RobustDetector()
    again = database.at(29)
    assert again == kept


def test_the_same_samples_judged_again_change_nothing() -> None:
    database = a_fault(start=10)
    first = [database.at(12) for _ in range(6)]
    assert all(anomaly == first[0] for anomaly in first)
    assert database.state.above <= 2


# --- when it can't say


def test_a_server_that_is_down_is_an_anomaly_and_not_blindness() -> None:
    database = Database()
    up, cpu = NAMES.index("postgres_up"), NAMES.index("host_cpu")
    database.values[database.learned + 10 :, [i for i in range(WIDTH) if i not in (up, cpu)]] = np.nan
    database.spoil("postgres_up", 10, 0.0)
    flagged = database.flagged_from(40)
    assert flagged[0] == 12
    assert flagged[-1] == 40
    anomaly = database.at(40)
    assert anomaly.health is Health.ANOMALOUS
    assert anomaly.components["connections"] > 0.5
    assert anomaly.contributions[0].signal == "postgres_up"


def test_one_refused_connection_attempt_is_no_outage() -> None:
    database = Database()
    database.spoil("postgres_up", 10, 0.0, end=11)
    assert database.flagged_from(20) == []


def test_without_any_new_sample_it_is_blind_and_says_since_when() -> None:
    anomaly = Database().at(20, late=12.0)
    assert anomaly.health is Health.BLIND
    assert "no sample for 12 s" in anomaly.reason
    assert anomaly.score == 0.0


def test_with_host_metrics_only_it_is_blind_and_names_the_collector() -> None:
    database = Database()
    database.values[database.learned + 10 :, : NAMES.index("host_cpu")] = np.nan
    anomaly = database.at(20)
    assert anomaly.health is Health.BLIND
    assert "of postgres_up while other metrics arrive" in anomaly.reason
    assert "collector" in anomaly.reason


def test_a_server_that_answers_but_shows_no_statistics_is_blind() -> None:
    database = Database()
    kept = (NAMES.index("host_cpu"), NAMES.index("postgres_up"), NAMES.index("latency"), NAMES.index("requests"))
    database.values[database.learned + 10 :, [i for i in range(WIDTH) if i not in kept]] = np.nan
    anomaly = database.at(20)
    assert anomaly.health is Health.BLIND
    assert "6 of 6 database signals are missing" in anomaly.reason


def test_one_lost_scrape_does_not_blind() -> None:
    database = Database()
    database.values[database.learned + 18 : database.learned + 20] = np.nan
    assert database.at(20).health is Health.NORMAL


def test_blindness_keeps_the_incident_open() -> None:
    database = a_fault(start=10)
    for sample in range(1, 15):
        database.at(sample)
    assert database.at(15, late=30).health is Health.BLIND
    assert database.state.flagged
    assert database.at(15).flagged


def test_it_learns_until_the_minimum_and_says_how_far_it_is() -> None:
    anomaly = Database(learned=30).at(20, minimum=300)
    assert anomaly.health is Health.LEARNING
    assert "30 s of 5 m" in anomaly.reason


def test_a_reference_that_is_mostly_missing_is_not_learned_from() -> None:
    database = Database()
    database.values[: database.learned] = np.where(
        np.arange(database.learned)[:, None] % 5 == 0, database.values[: database.learned], np.nan
    )
    anomaly = database.at(20)
    assert anomaly.health is Health.LEARNING
    assert "20 % of its samples" in anomaly.reason


def test_an_open_incident_is_judged_by_what_was_learned_even_when_the_buffer_has_lost_it() -> None:
    database = a_fault(start=10)
    for sample in range(1, 15):
        database.at(sample)
    database.learned, database.values, database.times = 20, database.values[290:], database.times[290:]
    assert database.at(4).flagged


# --- hostile numbers


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_numbers_whatever_make_a_score_that_is_not_one(data: st.DataObject) -> None:
    wild = st.floats(width=64, allow_nan=True, allow_infinity=True)
    samples = data.draw(st.integers(1, 30))
    cells = st.lists(wild, min_size=WIDTH, max_size=WIDTH)
    values = np.array(data.draw(st.lists(cells, min_size=samples, max_size=samples)))
    split = data.draw(st.integers(0, samples))
    times = np.arange(START, START + samples)
    mask = ~np.isnan(values)
    frames = [Frame(NAMES, times[r], values[r], mask[r], 1.0) for r in (slice(0, split), slice(split, samples))]
    observed = Observed("x", CATALOGUE, frames[0], frames[1], DetectorState(), 1.0)
    with np.errstate(all="raise", under="ignore"):
        [(anomaly, state)] = RobustDetector().detect([observed], float(times[-1]))
    assert 0.0 <= anomaly.score <= 1.0
    assert all(0.0 <= score <= 1.0 for score in anomaly.components.values())
    assert all(np.isfinite(c.deviation) for c in anomaly.contributions)
    assert state.flagged == anomaly.flagged


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["normal", "lognormal", "counts"]))
def test_an_exact_repetition_of_the_reference_never_flags(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    shape = (300, WIDTH)
    learned = {
        "normal": lambda: rng.normal(size=shape),
        "lognormal": lambda: rng.lognormal(0, 2, size=shape),
        "counts": lambda: rng.poisson(0.05, size=shape) * 50.0,
    }[kind]()
    learned[:, NAMES.index("postgres_up")] = 1.0
    database = Database(samples=360)
    database.values[:300] = learned
    database.values[300:] = learned[:60]
    assert database.flagged_from(60) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(0, 40))
def test_the_order_of_signals_changes_nothing(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    values: Floats = rng.normal(5.0, 1.0, size=(200, WIDTH))
    values[190:] += size * rng.random(WIDTH)
    order = rng.permutation(WIDTH)
    scores = []
    for chosen in (np.arange(WIDTH), order):
        signals = tuple(CATALOGUE.signals[i] for i in chosen)
        names, shuffled = tuple(s.name for s in signals), values[:, chosen]
        frame = Frame(names, np.arange(START, START + 200), shuffled, ~np.isnan(shuffled), 1.0)
        observed = Observed("x", Catalogue("x", signals), frame.between(0, START + 180), frame, DetectorState(), 1.0)
        [(anomaly, _)] = RobustDetector(alive="none").detect([observed], START + 199.0)
        scores.append((anomaly.score, anomaly.flagged))
    assert scores[0][0] == pytest.approx(scores[1][0], abs=1e-6)
    assert scores[0][1] == scores[1][1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), unit=st.floats(1e-3, 1e3))
def test_other_units_change_no_deviation_when_the_floors_follow(seed: int, unit: float) -> None:
    def judged(scale: float) -> Anomaly:
        database = Database(seed=seed)
        database.spoil("wait_age", 10, 60.0)
        database.spoil("latency", 10, 25.0)
        up = NAMES.index("postgres_up")
        database.values = np.where(np.arange(WIDTH) == up, database.values, database.values * scale)
        signals = tuple(replace(s, floor=s.floor * scale) for s in CATALOGUE)
        observed = Observed(
            "x",
            Catalogue("x", signals),
            database.frame(slice(0, 300)),
            database.frame(slice(260, 320)),
            DetectorState(),
            1.0,
        )
        return RobustDetector().detect([observed], float(database.times[319]))[0][0]

    there, here = judged(unit), judged(1.0)
    assert there.score == pytest.approx(here.score, rel=1e-6)
    assert [c.deviation for c in there.contributions] == pytest.approx(
        [c.deviation for c in here.contributions], rel=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.6), size=st.floats(0, 60))
def test_hiding_samples_never_raises_the_score(seed: int, share: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    database = Database(seed=seed)
    database.values[database.learned + 50 :] += size * rng.random(WIDTH)
    database.values[:, NAMES.index("postgres_up")] = 1.0
    whole = database.at(60).score
    database.state, database.detector = DetectorState(), RobustDetector()
    hidden = rng.random((60, WIDTH)) < share
    hidden[-4:, NAMES.index("postgres_up")] = False
    database.values[database.learned : database.learned + 60][hidden] = np.nan
    assert database.at(60).score <= whole + 1e-9


def test_a_signal_that_never_moved_counts_from_its_floor() -> None:
    database = Database()
    database.values[:, NAMES.index("wait_age")] = 0.0
    database.values[:, NAMES.index("waiters")] = 0.0
    database.spoil("wait_age", 10, 0.3)
    database.spoil("waiters", 10, 0.3)
    assert database.flagged_from(30) == []
    database.spoil("wait_age", 40, 0.8)
    database.spoil("waiters", 40, 0.8)
    assert database.flagged_from(50)


def test_a_signal_unknown_to_the_reference_is_left_out_of_the_judgement() -> None:
    database = Database()
    database.values[: database.learned, NAMES.index("wait_age")] = np.nan
    database.spoil("wait_age", 0, 1e9)
    assert database.flagged_from(30) == []


def test_a_gap_in_time_does_not_join_samples_from_before_and_after_it() -> None:
    database = Database()
    database.spoil("wait_age", 10, 20.0, end=11)
    database.spoil("waiters", 10, 20.0, end=11)
    database.spoil("wait_age", 11, 20.0, end=12)
    database.spoil("waiters", 11, 20.0, end=12)
    assert database.flagged_from(12)
    again = Database()
    again.values = database.values
    again.times[again.learned + 11 :] += 600
    assert again.flagged_from(12) == []


def test_the_memory_of_models_is_bounded() -> None:
    detector = RobustDetector(capacity=3)
    database = Database()
    observed = [
        Observed(
            f"db-{i}", CATALOGUE, database.frame(slice(0, 300)), database.frame(slice(260, 310)), DetectorState(), 1
        )
        for i in range(10)
    ]
    assert len(detector.detect(observed, float(database.times[309]))) == 10
    assert len(detector._models) == 3


def test_many_databases_are_judged_each_by_its_own_reference() -> None:
    quiet, ill = Database(), a_fault(start=10)
    both = [
        Observed(key, CATALOGUE, d.frame(slice(0, 300)), d.frame(slice(260, 320)), DetectorState(), 1)
        for key, d in (("quiet", quiet), ("ill", ill))
    ]
    found = RobustDetector().detect(both, float(ill.times[319]))
    assert [anomaly.flagged for anomaly, _ in found] == [False, True]
