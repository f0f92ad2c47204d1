"""The weights that ship: any signals, in any order, at any scrape interval; and the same data give the same ones."""

from collections.abc import Callable

import numpy as np
import pytest

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.baselines import ours
from kintsugi_ml.detection.detector import Detector
from kintsugi_ml.detection.protocol import Run

Build = Callable[..., Floats]


def said(values: Floats, interval: float, given: slice | None = None) -> Floats:
    """Probabilities `[T]`: the first half of the samples are the reference, `given` are anomalous examples."""
    watch = Detector().learn(values[: len(values) // 2], interval)
    if given is not None:
        watch = watch.remember(0, values[given], np.ones(len(values[given]), dtype=np.bool_))
    found: Floats = watch.score(values).probability[0]
    return found


@pytest.mark.parametrize("given", [None, slice(90, 95)], ids=["without examples", "with five"])
@pytest.mark.parametrize("columns", [5, 94, 500])
def test_signals_that_it_has_never_seen_in_any_order(
    columns: int, given: slice | None, calm: Build, spiked: Build
) -> None:
    values = spiked(calm(120, columns, seed=columns), 90, 110, range(max(columns // 4, 2)))
    turned = said(values[:, np.random.default_rng(0).permutation(columns)], 1.0, given)
    found = said(values, 1.0, given)
    np.testing.assert_allclose(turned, found, atol=0.02)
    assert found[96:110].min() > found[60:88].max()


@pytest.mark.parametrize("columns", [20, 100])
def test_signals_that_are_dropped_leave_the_rest_to_tell(columns: int, calm: Build, spiked: Build) -> None:
    values = spiked(calm(120, columns, seed=3), 90, 110, range(columns // 2))
    for seed in range(5):
        kept = np.random.default_rng(seed).permutation(columns)[: columns // 2]
        found = said(values[:, kept], 1.0)
        assert found[96:110].min() > found[60:88].max()


@pytest.mark.parametrize("interval", [1.0, 5.0, 15.0])
def test_one_model_for_every_scrape_interval(interval: float, calm: Build, spiked: Build) -> None:
    found = said(spiked(calm(120, 20, seed=4), 90, 110, range(6)), interval)
    assert found[96:110].min() > found[60:88].max()


def test_the_same_data_and_seed_give_the_same_model(toy_runs: list[Run]) -> None:
    (one, per_sample), (other, again) = (ours.fit(toy_runs, 3, "toys") for _ in range(2))
    assert per_sample == again
    assert (one.first.decision, one.labelled, one.familiar.decision) == (
        other.first.decision,
        other.labelled,
        other.familiar.decision,
    )
    for mine, theirs in ((one.first.forest, other.first.forest), (one.familiar.forest, other.familiar.forest)):
        np.testing.assert_array_equal(mine.threshold, theirs.threshold)
        np.testing.assert_array_equal(mine.leaves, theirs.leaves)
