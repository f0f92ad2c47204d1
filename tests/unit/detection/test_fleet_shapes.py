"""Not timings: that the fleet's shape goes through in one call, and what the newest samples need."""

import numpy as np

from kintsugi_ml.detection.detector import Detector
from kintsugi_ml.detection.model import Model
from kintsugi_ml.detection.tokens import context


def test_a_fleet_is_scored_in_one_call_and_the_newest_sample_needs_only_its_window(toy_model: Model) -> None:
    values = np.random.default_rng(0).normal(100, 10, (50, 60, 45))
    watch = Detector(toy_model).learn(values, 1.0)
    whole = watch.score(values)
    newest = watch.score(values[:, -1 - context(1.0) :])
    assert whole.probability.shape == (50, 60)
    np.testing.assert_allclose(newest.probability[:, -1], whole.probability[:, -1], atol=1e-3)
