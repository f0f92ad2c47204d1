"""Gradient boosting on the pooled features, with and without the examples, and logistic regression on them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.baselines.common import thresholds_on
from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.features import FEATURES, chosen
from kintsugi_ml.detection.protocol import Episode, Judged, Run, Thresholds, episode
from kintsugi_ml.detection.training import boost, calibrate, crossfit, rows, whole
from kintsugi_ml.detection.trees import Forest

SHARE: Final = 0.2
"""Of all the weight in training lies on the examples when they are pooled with the other systems' samples."""

PENALTY: Final = 0.1
"""Inverse strength of the logistic regression's penalty."""


@dataclass(frozen=True, slots=True)
class Boosted:
    """Trees on pooled features, the same for every run."""

    forest: Forest
    calibration: Calibration
    thresholds: Thresholds
    names: tuple[str, ...]

    def score(self, episode: Episode) -> Judged:
        """Judge without looking at the examples."""
        logits = self.forest.logits(chosen(whole(episode.run).features, self.names))
        return Judged(self.calibration.probability(logits), *self.thresholds)


def free(runs: tuple[Run, ...], seed: int, names: tuple[str, ...] = FEATURES) -> Forest:
    """Trees that may learn any shape of any feature, from the runs as they are."""
    features, labels, weights = rows(runs, seed, changed=False)
    return boost(chosen(features, names), labels, weights, seed=seed, smallest=20, monotone=[0] * len(names))


class Free:
    """Gradient boosting without the monotony that keeps what ships from learning one system by heart."""

    name = "gradient boosting, free"
    uses_examples = False
    probabilities = True

    def train(self, runs: Sequence[Run], seed: int) -> Boosted:
        """Fit on all runs; thresholds and calibration come from classes left out in turn."""
        calibration, found = calibrate(runs, crossfit(runs, seed, FEATURES, free))
        return Boosted(free(tuple(runs), seed), calibration, found, FEATURES)


@dataclass(frozen=True, slots=True)
class Pooling:
    """Gradient boosting that is fitted anew for every episode, with its examples among the training samples."""

    runs: tuple[Run, ...]
    seed: int
    calibration: Calibration
    thresholds: Thresholds

    def score(self, episode: Episode) -> Judged:
        """Fit, then judge."""
        features, labels, weights = rows(self.runs, self.seed)
        features = chosen(features)
        if episode.support is not None and len(episode.support.rows):
            given = episode.support
            own = chosen(whole(given.run).features[given.rows])
            each = SHARE * weights.sum() / ((1 - SHARE) * len(own))
            features, labels = np.concatenate([features, own]), np.concatenate([labels, given.labels])
            weights = np.concatenate([weights, np.full(len(own), each)])
        forest = boost(features, labels, weights, seed=self.seed, trees=40, leaves=4, rate=0.12, share=1.0)
        return Judged(
            self.calibration.probability(forest.logits(chosen(whole(episode.run).features))), *self.thresholds
        )


class Pooled:
    """Gradient boosting on the other classes' samples and the examples together. A fit per episode: slow."""

    name = "gradient boosting, pooled"
    uses_examples = True
    probabilities = True

    def train(self, runs: Sequence[Run], seed: int) -> Pooling:
        """Keep the runs; thresholds and calibration are those of the model without examples."""
        calibration, found = calibrate(runs, crossfit(runs, seed))
        return Pooling(tuple(runs), seed, calibration, found)


@dataclass(frozen=True, slots=True)
class Regressing:
    """Logistic regression in the system's own signals, on its examples and its reference."""

    thresholds: Thresholds

    def score(self, episode: Episode) -> Judged:
        """Fit to the examples, then judge; 0 throughout without an anomalous example."""
        return Judged(self.probability(episode), *self.thresholds)

    def probability(self, episode: Episode) -> Floats:
        """Probabilities `[T]`."""
        from sklearn.linear_model import LogisticRegression

        seen, given = whole(episode.run), episode.support
        if given is None or not given.labels.any():
            return np.zeros(len(seen.features))
        points = np.concatenate([seen.anchors, whole(given.run).points[given.rows]])
        labels = np.concatenate([np.zeros(len(seen.anchors), dtype=np.bool_), given.labels])
        model: Any = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=200).fit(points, labels)
        found: Floats = model.predict_proba(seen.points)[:, 1]
        return found


class Logistic:
    """Logistic regression on the examples alone; the training classes give its thresholds."""

    name = "logistic regression on the examples"
    uses_examples = True
    probabilities = True

    def train(self, runs: Sequence[Run], seed: int) -> Regressing:
        """Find the thresholds on the training classes' own episodes of five examples."""
        plain = Regressing(Thresholds(0.5, 0.5))
        return Regressing(thresholds_on(runs, lambda run: plain.probability(episode(run, "same", 5, seed))))


METHODS: Final = (
    Free(),
    Pooled(),
    Logistic(),
)
