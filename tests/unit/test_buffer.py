"""The ring buffer: a grid without holes, whatever the metrics and the clock do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.loops.buffer import RingBuffer
from kintsugi.shell.prometheus import Samples

NAN = float("nan")


def samples(start: float, *values: float, interval: float = 1.0, name: str = "a") -> Samples:
    times = start + interval * np.arange(len(values), dtype=np.float64)
    return Samples(times, {name: np.array(values, dtype=float)})


def a_buffer(capacity: int = 100, interval: float = 1.0) -> RingBuffer:
    return RingBuffer(("a", "b"), interval, capacity)


def test_what_is_appended_is_there_and_what_nobody_offers_is_masked() -> None:
    buffer = a_buffer()

    buffer.append(samples(10, 1, 2, 3))

    assert buffer.frame.times.tolist() == [10, 11, 12]
    assert buffer.frame.values[:, 0].tolist() == [1, 2, 3]
    assert buffer.frame.mask.tolist() == [[True, False]] * 3
    assert buffer.newest == 12


def test_repetitions_and_older_samples_change_nothing() -> None:
    buffer = a_buffer()
    buffer.append(samples(10, 1, 2, 3))

    buffer.append(samples(11, 9, 9))

    assert buffer.frame.values[:, 0].tolist() == [1, 2, 3]


def test_of_an_overlapping_read_only_the_new_end_is_taken() -> None:
    buffer = a_buffer()
    buffer.append(samples(10, 1, 2, 3))

    buffer.append(samples(11, 9, 9, 4, 5))

    assert buffer.frame.times.tolist() == [10, 11, 12, 13, 14]
    assert buffer.frame.values[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_skipped_grid_times_are_there_and_masked() -> None:
    buffer = a_buffer()
    buffer.append(samples(10, 1))

    buffer.append(samples(14, 5))

    assert buffer.frame.times.tolist() == [10, 11, 12, 13, 14]
    assert buffer.frame.mask[:, 0].tolist() == [True, False, False, False, True]


def test_nan_is_missing_and_not_a_number_that_was_measured() -> None:
    buffer = a_buffer()

    buffer.append(samples(10, 1, NAN, 3))

    assert buffer.frame.mask[:, 0].tolist() == [True, False, True]


def test_only_the_newest_samples_are_kept() -> None:
    buffer = a_buffer(capacity=3)

    buffer.append(samples(0, 0, 1, 2, 3, 4))

    assert buffer.frame.values[:, 0].tolist() == [2, 3, 4]


def test_a_clock_put_forward_by_a_day_costs_no_more_than_the_capacity() -> None:
    buffer = a_buffer(capacity=50)
    buffer.append(samples(0, *range(40)))

    buffer.append(samples(86_400, 1))

    assert len(buffer.frame) == 50
    assert buffer.newest == 86_400
    assert buffer.frame.mask[:, 0].sum() == 1  # the gap is a gap


def test_a_clock_put_back_is_noticed_and_the_buffer_begins_anew() -> None:
    buffer = a_buffer()
    buffer.append(samples(10_000, 1))

    assert buffer.clock_stepped_back(now=6_400)
    buffer.clear()
    buffer.append(samples(6_400, 7))

    assert buffer.frame.times.tolist() == [6_400]


@pytest.mark.parametrize("late", [0.0, 5.0])
def test_a_little_lateness_is_no_clock_step(late: float) -> None:
    buffer = a_buffer()
    buffer.append(samples(10_000, 1))

    assert not buffer.clock_stepped_back(now=10_000 - late)
    assert not a_buffer().clock_stepped_back(now=0)


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1)),
        max_size=12,
    )
)
def test_the_grid_is_always_increasing_without_holes_and_bounded(reads: Sequence[tuple[int, list[float]]]) -> None:
    buffer = a_buffer(capacity=60)

    for start, values in reads:
        buffer.append(samples(float(start), *values))

    frame = buffer.frame
    assert len(frame) <= 60
    assert np.all(np.diff(frame.times) == 1)
    assert frame.values.shape == (len(frame), 2)
    assert np.array_equal(frame.mask, np.isfinite(frame.values))
