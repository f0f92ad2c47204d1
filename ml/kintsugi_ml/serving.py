"""The detector as the operator uses it: databases are learned one by one, as their references move on, and scored in
one batch.

It fills the port `LearnedModel` of `kintsugi.stages.ports` without importing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml import bundle
from kintsugi_ml.detection.detector import Detector, Watch
from kintsugi_ml.detection.diagnose import UNKNOWN
from kintsugi_ml.detection.errors import DetectionError
from kintsugi_ml.detection.features import Reference
from kintsugi_ml.detection.normal import Normal
from kintsugi_ml.detection.relation import Anchors
from kintsugi_ml.detection.stack import Examples
from kintsugi_ml.detection.tokens import LONG_S, samples

LEAST_ROWS: Final = 3
"""Of each example, however many there are: fewer can't be told from a spike."""

MOST_ROWS: Final = 60
"""Of all examples of a kind together: the regression over them is the dearest part of a cycle with examples."""

Arrays = TypeVar("Arrays", Normal, Anchors)


@dataclass(frozen=True, slots=True)
class Scored:
    """What is said of D databases' T samples of S signals.

    `probability` `[D, T]` is calibrated, never NaN, and 0 where `judged` `[D, T]` is False; `deviation` `[D, T', S]` is
    of the newest 5 s, in scales of the own reference; `threshold` `[D]` is the probability that an alarm begins at.
    """

    probability: Floats
    judged: Bools
    deviation: Floats
    threshold: Floats


class Serving:
    """The models of one bundle."""

    def __init__(self, models: bundle.Bundle) -> None:
        self._model = models.detection
        self._diagnosis = models.diagnosis
        self._detector = Detector(models.detection)
        self.name = models.name

    def learn(self, reference: Floats, interval: float, floor: Floats, hurts: Floats) -> Watch:
        """One database's normal.

        Args:
            reference: fault-free samples `[R, S]`, oldest first, NaN for missing.
            interval: seconds between two samples.
            floor: `[S]`, the smallest change that could ever matter.
            hurts: `[S]`, 1 where a rise hurts, -1 where a fall does, 0 for both.

        Raises:
            DetectionError: the reference says nothing.
        """
        return self._detector.learn(reference, interval, floor=floor, hurts=hurts)

    def teach(
        self, examples: Sequence[tuple[Floats, Floats, float, bool]], floor: Floats, hurts: Floats
    ) -> Examples | None:
        """What a database's examples teach.

        Each is seen relative to its own reference, so a level that has moved since teaches nothing wrong. All are kept,
        thinned out evenly; one that can't be judged is left out. None without an anomalous one: from normal ones alone
        the model learns nothing that helps (docs/detection.md).

        Args:
            examples: of each its own reference `[R, S]`, its samples `[T, S]`, the seconds between these, and whether
                it is anomalous.
            floor: as in `learn`.
            hurts: as in `learn`.
        """
        found = []
        for reference, window, interval, anomalous in examples:
            many = sum(kind == anomalous for *_, kind in examples)
            try:
                own = self._detector.learn(reference, interval, floor=floor, hurts=hurts)
                one = own.examples(0, window, np.full(len(window), anomalous))
            except DetectionError:  # it measures nothing that is known here
                continue
            found.append(_thinned(one, max(LEAST_ROWS, MOST_ROWS // many)))
        if not any(one.labels.any() for one in found):
            return None
        return Examples(
            np.concatenate([one.points for one in found]),
            np.concatenate([one.logits for one in found]),
            np.concatenate([one.labels for one in found]),
        )

    def recall(self, learned: Watch, taught: Examples) -> Watch:
        """One database's normal with what `teach` found beside it."""
        return learned.beside(0, taught)

    def shape(self, learned: Watch) -> tuple[int, ...]:
        """What must be equal of all databases in one call, besides their interval and signals."""
        return learned.reference.anchors.points.shape[1:]

    def score(self, learned: Sequence[Watch], values: Floats) -> Scored:
        """All of them in one call: samples `[D, T, S]`, oldest first, NaN for missing."""
        own = {place: watch.own[0] for place, watch in enumerate(learned) if watch.own}
        scores = Watch(self._model, _stacked([watch.reference for watch in learned]), own).score(values)
        examples = (own[place].examples if place in own else None for place in range(len(learned)))
        threshold = np.array([self._model.threshold(one) for one in examples], dtype=np.float64)
        newest = scores.deviation[:, -samples(LONG_S, learned[0].reference.interval) :].astype(np.float64)
        return Scored(scores.probability, scores.judged, newest, threshold)

    def classify(self, deviation: Floats, names: Sequence[str]) -> tuple[str, str, float]:
        """The fault class, the nearest known one and its probability, from one database's deviation `[T', S]`."""
        if self._diagnosis is None:
            return UNKNOWN, "", 0.0
        return self._diagnosis.classify(deviation, names)


def load(directory: Path | None = None) -> Serving:
    """The models of a bundle; without a directory, those that come with the package.

    Raises:
        BundleError: the bundle can't be used.
    """
    return Serving(bundle.read(directory or bundle.SHIPPED))


def _thinned(examples: Examples, most: int) -> Examples:
    rows = np.unique(np.linspace(0, len(examples) - 1, min(most, len(examples))).round().astype(np.int64))
    return Examples(examples.points[rows], examples.logits[rows], examples.labels[rows])


def _stacked(references: Sequence[Reference]) -> Reference:
    """Many databases' references, of one database each, as one."""
    if len(references) == 1:
        return references[0]
    return Reference(
        _together([one.normal for one in references]),
        _together([one.anchors for one in references]),
        np.concatenate([one.counting for one in references]),
        references[0].interval,
        references[0].hurts,
    )


def _together(parts: Sequence[Arrays]) -> Arrays:
    kind = type(parts[0])
    return kind(*(np.concatenate([getattr(part, name) for part in parts]) for name in kind.__slots__))
