"""How much a database's own examples say beside the model that knew no examples: a small second model weighs both.

It is learned on other systems' episodes, with first-step scores of classes that the first step didn't know, and applied
to a database it has never seen. All of its inputs but the number of examples may only raise the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.own_space import NORMAL_ONLY, SIMILARITIES, familiarity, remember, similarities
from kintsugi_ml.detection.trees import Forest

LABELLED: Final = ("logit", *SIMILARITIES, "over_normal", "to_anomalous", "shots")
"""The first step's logit; the similarities; that logit less the mean of the normal samples', and less the mean of the
anomalous examples'; how many anomalous examples there are."""

FAMILIAR: Final = ("logit", *NORMAL_ONLY, "over_normal")

RISING: Final = (*([1] * (len(LABELLED) - 1)), 0)
"""What each of `LABELLED` may do to the score: raise it, or either."""


@dataclass(frozen=True, slots=True)
class Examples:
    """A database's own examples: coordinates `[K, S]`, first-step logits `[K]`, and which are anomalous `[K]`."""

    points: Singles
    logits: Floats
    labels: Bools

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Step:
    """A model's trees, how its logit becomes a probability, and from which probability on it is an alarm."""

    forest: Forest
    calibration: Calibration
    threshold: float

    def probability(self, inputs: Singles) -> Floats:
        """Probabilities `[N]` of rows `[N, F]`."""
        return self.calibration.probability(self.forest.logits(inputs))


def labelled_inputs(logits: Floats, points: Singles, anchors: Singles, examples: Examples) -> Singles:
    """Inputs `[T, 11]` of the step that knows anomalous examples, for samples with logits `[T]` and points `[T, S]`.

    `anchors` `[A, S]` are the reference's points.
    """
    memory = remember(anchors, examples.points, examples.labels)
    wrong = examples.logits[examples.labels]
    own = np.stack(
        [
            logits - _usual(examples),
            logits - wrong.mean(),
            np.full(len(logits), len(wrong), dtype=np.float64),
        ],
        axis=1,
    )
    return np.concatenate([logits[:, None], similarities(memory, points), own], axis=1).astype(np.float32)


def familiar_inputs(logits: Floats, points: Singles, anchors: Singles, examples: Examples) -> Singles:
    """Inputs `[T, 4]` of the step that knows normal examples only."""
    memory = remember(anchors, examples.points, examples.labels)
    usual = (logits - _usual(examples))[:, None]
    return np.concatenate([logits[:, None], familiarity(memory, points), usual], axis=1).astype(np.float32)


def _usual(examples: Examples) -> float:
    """The mean logit of the normal examples; without any, that of a sample on which the first step has no opinion."""
    normal = examples.logits[~examples.labels]
    return float(normal.mean()) if len(normal) else 0.0
