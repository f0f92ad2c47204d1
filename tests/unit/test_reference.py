from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.domain.frame import Frame
from kintsugi.stages.reference import reference, seconds_of


def a_frame(times: list[float] | None = None, interval: float = 1.0, samples: int = 300) -> Frame:
    at = np.array(times if times is not None else np.arange(samples) * interval, dtype=float)
    values = np.arange(len(at), dtype=float).reshape(-1, 1)
    return Frame(("x",), at, values, np.ones_like(values, dtype=bool), interval)


def test_the_newest_ten_seconds_are_not_part_of_the_reference() -> None:
    kept = reference(a_frame(samples=300), (), now=299, window=60)
    assert kept.times[-1] == 289
    assert len(kept) == 60


def test_at_a_long_scrape_interval_five_samples_are_kept_out() -> None:
    kept = reference(a_frame(samples=100, interval=15), (), now=99 * 15, window=600)
    assert kept.times[-1] == 94 * 15
    assert seconds_of(kept) == 600


def test_an_incident_and_the_seconds_before_it_are_left_out() -> None:
    kept = reference(a_frame(), ((100.0, 130.0),), now=299, window=1000)
    assert not ((kept.times >= 90) & (kept.times <= 130)).any()
    assert {89.0, 131.0} <= set(kept.times)


def test_the_reference_stands_still_while_an_incident_is_open() -> None:
    frame = a_frame()
    early = reference(frame.between(0, 151), ((140.0, None),), now=150, window=60)
    late = reference(frame, ((140.0, None),), now=299, window=60)
    assert list(early.times) == list(late.times)
    assert late.times[-1] == 130


def test_a_closed_incident_makes_the_window_reach_further_back_and_not_shrink() -> None:
    kept = reference(a_frame(), ((200.0, 280.0),), now=299, window=100)
    assert len(kept) == 100
    assert kept.times[0] < 190


def test_samples_of_which_nothing_was_measured_are_no_reference() -> None:
    frame = a_frame()
    frame.mask[50:100] = False
    kept = reference(frame, (), now=299, window=1000)
    assert not ((kept.times >= 50) & (kept.times < 100)).any()


def test_a_clock_that_was_put_back_leaves_later_samples_out() -> None:
    kept = reference(a_frame(), (), now=150, window=1000)
    assert kept.times[-1] == 140


def test_a_clock_that_jumped_forward_costs_no_sample_but_the_newest() -> None:
    frame = a_frame([*np.arange(100.0), *np.arange(5000.0, 5100.0)])
    kept = reference(frame, (), now=5099, window=150)
    assert len(kept) == 150
    assert kept.times[0] < 100


def test_an_empty_frame_gives_an_empty_reference() -> None:
    assert len(reference(a_frame([]), ((1.0, None),), now=10, window=60)) == 0


@given(
    incidents=st.lists(st.tuples(st.floats(0, 300), st.none() | st.floats(0, 300)), max_size=4),
    now=st.floats(0, 400),
    window=st.floats(1, 400),
)
def test_whatever_the_incidents_no_kept_sample_lies_in_one(
    incidents: list[tuple[float, float | None]], now: float, window: float
) -> None:
    kept = reference(a_frame(), incidents, now, window)
    assert len(kept) <= max(1, round(window))
    assert (kept.times <= now - 10).all()
    for start, end in incidents:
        if end is None:
            assert (kept.times <= start - 10).all()
        else:
            assert not ((kept.times >= start - 10) & (kept.times <= end)).any() or end < start
