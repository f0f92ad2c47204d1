"""Patterns of load: what is normal change, so that a change alone is no anomaly."""

from __future__ import annotations

import pytest

from kintsugi_ml.lab.workloads.patterns import PATTERNS, factor

SECONDS = [number / 4 for number in range(4 * 240)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("seed", range(5))
def test_no_pattern_leaves_what_is_normal(pattern: str, seed: int) -> None:
    factors = [factor(pattern, t, seed) for t in SECONDS]

    assert min(factors) > 0.74
    assert max(factors) < 1.51
    assert factors == [factor(pattern, t, seed) for t in SECONDS]


@pytest.mark.parametrize("seed", range(5))
def test_a_wave_rises_and_falls_by_a_quarter_within_two_minutes(seed: int) -> None:
    factors = [factor("wave", t, seed) for t in SECONDS if t <= 120]

    assert max(factors) == pytest.approx(1.25, abs=0.01)
    assert min(factors) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_each_half_minute_has_one_burst_of_four_to_eight_seconds(seed: int) -> None:
    for slot in range(8):
        burst = [t for t in SECONDS if 30 * slot <= t < 30 * (slot + 1) and factor("spikes", t, seed) > 1]

        assert 3.75 <= burst[-1] - burst[0] <= 8
        assert len(burst) == 4 * (burst[-1] - burst[0]) + 1


def test_bursts_come_at_other_times_with_another_seed() -> None:
    assert [factor("spikes", t, 1) for t in SECONDS] != [factor("spikes", t, 2) for t in SECONDS]


def test_growth_never_falls_and_ends_at_its_height() -> None:
    factors = [factor("growth", t, 0) for t in SECONDS]

    assert factors == sorted(factors)
    assert factors[0] == pytest.approx(0.85)
    assert factors[-1] == pytest.approx(1.2)
