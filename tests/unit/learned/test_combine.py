"""The one rule by which a database's own examples change what the statistics say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.domain.frame import Floats
from kintsugi.stages.combine import combined, likeness_of
from kintsugi.stages.evidence import EDGE

NEAR = np.ones((3, 2), dtype=np.bool_)


def rows(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize(
    ("evidence", "tamed", "likeness", "symptom", "flags", "why"),
    [
        (0.5, 0.5, 0.0, 0.9, False, "the statistics see too little and there are no examples"),
        (1.2, 1.2, 0.0, 1.2, True, "the statistics alone are enough"),
        (0.8, 0.8, 3.0, 0.7, True, "it is like a known anomaly and a symptom has left its band"),
        (0.2, 0.2, 900.0, 0.1, False, "it is like a known anomaly but nothing hurts"),
        (5.0, 0.4, 0.0, 5.0, False, "a normal example explains it"),
        (5.0, 0.4, 0.3, 5.0, False, "a normal example explains it and it is not like an anomaly"),
        (5.0, 0.4, 2.0, 5.0, True, "a normal example explains it, but it is like a known anomaly"),
    ],
)
def test_the_rule(evidence: float, tamed: float, likeness: float, symptom: float, flags: bool, why: str) -> None:
    [found] = combined(rows(evidence), rows(tamed), rows(likeness), rows(symptom))

    assert (found >= 1) == flags, why


@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_without_examples_the_statistics_stand_as_they_are(evidence: float, symptom: float) -> None:
    assert combined(rows(evidence), rows(evidence), rows(0.0), rows(symptom)) == evidence


def test_one_sample_alone_is_not_like_anything() -> None:
    assert likeness_of(rows(0.0, 0.99, 0.0), 0.5, NEAR).max() < 1
    assert likeness_of(rows(0.99, 0.0, 0.99), 0.5, NEAR)[-1] >= 1


@given(st.lists(st.floats(0, 1) | st.just(np.nan), min_size=3, max_size=3), st.floats(0, 1))
def test_the_likeness_is_a_finite_number_whatever_the_probability_and_the_threshold(
    probability: list[float], threshold: float
) -> None:
    found = likeness_of(rows(*probability), threshold, NEAR)

    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_the_edge_of_the_band_is_where_a_known_anomaly_opens() -> None:
    at_edge = combined(rows(0.1, 0.1), rows(0.1, 0.1), rows(9.0, 9.0), rows(EDGE - 0.01, EDGE))

    assert list(at_edge >= 1) == [False, True]
