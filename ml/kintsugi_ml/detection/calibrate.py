"""From a score to a probability: Platt's scaling, fitted on scores of classes that the model hasn't seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats

LEAST: Final = 1e-4
"""No probability is nearer to 0 or 1: nothing here is more certain than that."""

_STEPS: Final = 50
_RIDGE: Final = 1e-3  # keeps the fit finite when a threshold separates all


@dataclass(frozen=True, slots=True)
class Calibration:
    """The logit of the probability is `slope * score + offset`; the slope is never negative."""

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, scores: Floats) -> Floats:
        """Probabilities of the same shape, in `LEAST` … `1 - LEAST`."""
        logit = np.clip(self.slope * np.asarray(scores, dtype=np.float64) + self.offset, -30, 30)
        out: Floats = np.clip(1 / (1 + np.exp(-logit)), LEAST, 1 - LEAST)
        return out


def fit(scores: Floats, labels: Bools, weights: Floats | None = None) -> Calibration:
    """The most likely calibration of scores `[N]` whose truth is `labels` `[N]`; flat when a class is missing."""
    truth = labels.astype(np.float64)
    importance = np.ones(len(truth)) if weights is None else weights
    if not len(truth) or truth.min() == truth.max():
        share = (float(truth.sum()) + 1) / (len(truth) + 2)
        return Calibration(0.0, float(np.log(share / (1 - share))))
    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    slope, offset = _newton((scores - centre) / scale, truth, importance / importance.sum())
    if slope < 0:
        return fit(np.zeros_like(scores), labels, weights)
    return Calibration(slope / scale, offset - slope * centre / scale)


def _newton(scores: Floats, truth: Floats, weights: Floats) -> tuple[float, float]:
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    penalty = np.array([_RIDGE, 0.0])
    found = np.zeros(2)
    for _ in range(_STEPS):
        guess = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weights * (guess - truth)) + penalty * found
        curvature = (design * (weights * np.maximum(guess * (1 - guess), 1e-9))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        found = found - np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])
