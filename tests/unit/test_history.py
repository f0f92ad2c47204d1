"""Past trouble found at a start: kept out of what is normal, but a database that is always like this is not ill."""

from __future__ import annotations

import numpy as np
import pytest

from kintsugi.domain.frame import Frame
from kintsugi.domain.signals import Catalogue, Hurts, Kind, Role, Signal
from kintsugi.stages.history import AFTER, past_episodes

SAMPLES = 300


def a_signal(name: str, role: Role) -> Signal:
    return Signal(name, "client", "s", Kind.GAUGE, Hurts.UP, role, 0.01, name, {})


CATALOGUE = Catalogue(
    "postgresql",
    (a_signal("p95", Role.SYMPTOM), a_signal("p99", Role.SYMPTOM), a_signal("calls", Role.CONTEXT)),
)


def a_frame(*episodes: tuple[int, int], signals: tuple[int, ...] = (0, 1), size: float = 50.0) -> Frame:
    """Five minutes of noise around 1, with episodes in which some signals are far out."""
    values = 1 + 0.02 * np.random.default_rng(7).standard_normal((SAMPLES, 3))
    for start, end in episodes:
        for index in signals:
            values[start:end, index] += size
    times = np.arange(SAMPLES, dtype=np.float64)
    return Frame(CATALOGUE.names(), times, values, np.isfinite(values), 1.0)


def test_an_incident_in_the_past_is_found_with_the_time_after_it() -> None:
    assert past_episodes(a_frame((100, 120)), CATALOGUE) == ((100.0, 119.0 + AFTER),)


def test_a_calm_past_has_none() -> None:
    assert past_episodes(a_frame(), CATALOGUE) == ()


def test_two_incidents_stay_two_and_a_short_lull_does_not_part_one() -> None:
    found = past_episodes(a_frame((100, 110), (115, 120), (200, 210)), CATALOGUE)

    assert found == ((100.0, 119.0 + AFTER), (200.0, 209.0 + AFTER))


def test_a_spike_of_two_samples_is_what_thresholds_learn() -> None:
    assert past_episodes(a_frame((100, 102)), CATALOGUE) == ()


@pytest.mark.parametrize("signals", [(0,), (2,), (0, 2)], ids=["one symptom", "the workload", "one and the workload"])
def test_less_than_two_symptoms_are_no_fault(signals: tuple[int, ...]) -> None:
    assert past_episodes(a_frame((100, 120), signals=signals), CATALOGUE) == ()


def test_a_database_that_does_it_again_and_again_is_noisy_and_not_ill() -> None:
    episodes = [(start, start + 5) for start in range(20, 280, 40)]

    assert past_episodes(a_frame(*episodes), CATALOGUE) == ()


@pytest.mark.parametrize("every", [4, 8], ids=["densely", "at most ten seconds apart"])
@pytest.mark.parametrize("spikes", [5, 60], ids=["a few", "all the time"])
def test_spikes_that_follow_each_other_are_not_one_long_incident(every: int, spikes: int) -> None:
    starts = range(100, 296, every) if spikes == 60 else range(100, 100 + spikes * every, every)

    assert past_episodes(a_frame(*((start, start + 1) for start in starts)), CATALOGUE) == ()


def test_what_lasted_most_of_the_window_may_as_well_be_normal() -> None:
    assert past_episodes(a_frame((100, 220)), CATALOGUE) == ()


def test_gaps_are_no_trouble() -> None:
    frame = a_frame((100, 120))
    values = frame.values.copy()
    values[200:240] = np.nan
    holey = Frame(frame.signals, frame.times, values, np.isfinite(values), 1.0)

    assert past_episodes(holey, CATALOGUE) == ((100.0, 119.0 + AFTER),)
