"""How much a database's own examples say beside the model that knew no examples.

With anomalous examples it is a plain sum: likeness in the system's own signals, and the first step's logit, which
counts the less the more examples there are; averaged over 5 s. Its constants were chosen on DBSherlock's means over all
classes; trees and a regression that learned them on other classes' episodes were worse (docs/models/detection.md).
With normal examples only, a small learned model weighs how familiar a sample is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.own_space import NORMAL_ONLY, Memory, familiarity, likeness, remember
from kintsugi_ml.detection.tokens import LONG_S, mean_over, samples
from kintsugi_ml.detection.trees import Forest

FIRST: Final = 0.7
"""Weight of the first step's logit, over the square root of the number of anomalous examples."""

NEARER: Final = 0.7
"""Weight of the log ratio of distances; the regression's log odds weigh 1."""

FAMILIAR: Final = ("logit", *NORMAL_ONLY, "over_normal")
"""With normal examples only: the first step's logit, familiarity, and that logit less the mean of the examples'."""


@dataclass(frozen=True, slots=True)
class Examples:
    """A database's own examples: coordinates `[K, S]`, first-step logits `[K]`, and which are anomalous `[K]`."""

    points: Singles
    logits: Floats
    labels: Bools

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Own:
    """A database's examples, and what they say beside its present reference."""

    examples: Examples
    memory: Memory

    @classmethod
    def beside(cls, anchors: Singles, examples: Examples) -> Own:
        """Beside the reference's points `[A, S]`: two milliseconds, so do it once per reference."""
        return cls(examples, remember(anchors, examples.points, examples.labels))


@dataclass(frozen=True, slots=True)
class Decision:
    """How a score becomes a probability, and from which probability on it is an alarm."""

    calibration: Calibration
    threshold: float


@dataclass(frozen=True, slots=True)
class Step:
    """A learned model's trees and its decision."""

    forest: Forest
    decision: Decision

    def probability(self, inputs: Singles) -> Floats:
        """Probabilities `[N]` of rows `[N, F]`."""
        return self.decision.calibration.probability(self.forest.logits(inputs))


def blend(logits: Floats, points: Singles, own: Own, interval: float, measured: Bools) -> Floats:
    """Scores `[T]` with anomalous examples, for samples in order of time with logits `[T]` and points `[T, S]`.

    `interval` is in seconds; `measured` `[T]` says in which samples anything is. The others seem normal, or as before,
    and must not count in the mean: a database whose scrapes failed would look well after them.
    """
    regression, nearer = likeness(own.memory, points)
    trust = FIRST / np.sqrt(np.count_nonzero(own.examples.labels))
    total = (regression + NEARER * nearer + trust * logits).astype(np.float32)
    known = np.where(measured, total, np.float32(np.nan))
    averaged = mean_over(known[None, :, None], samples(LONG_S, interval))[0, :, 0]
    return np.where(np.isnan(averaged), total, averaged).astype(np.float64)


def familiar_inputs(logits: Floats, points: Singles, own: Own) -> Singles:
    """Inputs `[T, 4]` of the step that knows normal examples only."""
    over = (logits - own.examples.logits.mean())[:, None]
    return np.concatenate([logits[:, None], familiarity(own.memory, points), over], axis=1).astype(np.float32)
