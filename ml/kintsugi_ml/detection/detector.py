"""The API: learn what is normal, remember examples, score what is new; for one database or a thousand at once.

    watch = Detector().learn(reference, interval=1.0)     # [D, R, S] or [R, S], NaN for missing
    watch = watch.remember(0, rows, labels)               # optional: labelled samples of database 0
    scores = watch.score(new)                             # [D, T, S] or [T, S]

No signal is ever recognised by name or position, and their number and order don't matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.errors import ReferenceDataError, SupportError
from kintsugi_ml.detection.features import Reference, chosen, describe, refer
from kintsugi_ml.detection.model import Model, shipped
from kintsugi_ml.detection.normal import Singles, finite, measured
from kintsugi_ml.detection.relation import coordinates
from kintsugi_ml.detection.stack import Examples, Own

LEAST_REFERENCE: Final = 5
"""Samples below which a reference says nothing; from about 25 on it is good."""

MOST_EXAMPLES: Final = 200
"""Of a database, of each kind: the newest are kept."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What is said of D databases' T samples, all `[D, T]`.

    `probability` is calibrated and never NaN; `alarm` is True from the threshold on. `judged` is False where none of
    the known signals was measured within 5 s: there the probability is 0 and means nothing. `deviation` `[D, T, S]` is
    each signal's over 3 s, in scales of its own reference, cut at 60: it says which signals contribute.
    """

    probability: Floats
    alarm: Bools
    judged: Bools
    deviation: Singles

    def contributions(self, many: int = 3) -> NDArray[np.int64]:
        """The `many` (or all) signals `[D, T, many]` that deviate most, the furthest first."""
        many = min(many, self.deviation.shape[2])
        return np.argsort(-np.abs(self.deviation), axis=2, kind="stable")[..., :many]


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of D databases: their normal, and their own examples by their index."""

    model: Model
    reference: Reference
    own: Mapping[int, Own] = field(default_factory=dict)

    def remember(self, database: int, values: Floats, labels: Bools, labelled: Bools | None = None) -> Watch:
        """The same with examples of one database, in place of what was remembered of it; see `examples`."""
        return self.beside(database, self.examples(database, values, labels, labelled))

    def examples(self, database: int, values: Floats, labels: Bools, labelled: Bools | None = None) -> Examples:
        """Labelled samples of one database, relative to its reference.

        Args:
            database: its index.
            values: `[T, S]` in order of time, on the reference's grid.
            labels: `[T]`, True where something was wrong.
            labelled: `[T]`, which samples are examples; the others only fill the windows of these. None: all are.

        Raises:
            SupportError: labels and values don't fit, or nothing is left.
        """
        values, labels = finite(np.atleast_2d(values)), np.asarray(labels, dtype=np.bool_)
        wanted = np.ones_like(labels) if labelled is None else np.asarray(labelled, dtype=np.bool_)
        if values.shape != (len(labels), self.reference.normal.known.shape[1]):
            width = self.reference.normal.known.shape[1]
            raise SupportError(f"the examples are {values.shape}, not ({len(labels)}, {width}): one row per label")
        described = describe(self.reference.part(database, database + 1), values[None])
        kept = _newest(described.judged[0] & wanted, labels)
        if not kept.any():
            raise SupportError("none of the examples has a measured value: give some in which signals are measured")
        logits = self.model.first.forest.logits(chosen(described.features[0]))
        return Examples(described.points[0][kept], logits[kept], labels[kept])

    def beside(self, database: int, examples: Examples) -> Watch:
        """The same with examples that may be relative to another reference, in place of those before."""
        own = Own.beside(self.reference.anchors.points[database], examples)
        return replace(self, own={**self.own, database: own})

    def score(self, values: Floats) -> Scores:
        """Score samples `[D, T, S]` (or `[T, S]` of a single database), oldest first, on the reference's grid."""
        values = finite(values)
        values = values[None] if values.ndim == 2 else values
        described = describe(self.reference, values)
        databases, rows, _ = values.shape
        first = self.model.first
        rows_of_all = described.features.reshape(databases * rows, -1)
        logits = first.forest.logits(chosen(rows_of_all)).reshape(databases, rows)
        probability = first.decision.calibration.probability(logits)
        alarm = probability >= first.decision.threshold
        for database, own in self.own.items():
            points = coordinates(described.deviation[database])
            there = measured(values[database])
            judged = self.model.weigh(logits[database], points, own, self.reference.interval, there)
            probability[database], alarm[database] = judged
        probability[~described.judged] = 0.0
        return Scores(probability, alarm & described.judged, described.judged, described.deviation)


class Detector:
    """A trained model; without one given, that which comes with the package.

    Raises:
        ModelError: the package's model is missing or damaged.
    """

    def __init__(self, model: Model | None = None) -> None:
        self.model = shipped() if model is None else model

    def learn(
        self, reference: Floats, interval: float, *, floor: Floats | None = None, hurts: Floats | None = None
    ) -> Watch:
        """Learn what is normal.

        Args:
            reference: fault-free samples `[D, R, S]` (or `[R, S]`), oldest first; NaN or infinite is missing.
            interval: seconds between two samples, 1–15.
            floor: `[S]`, the smallest change of each signal that could ever matter, in its unit; optional.
            hurts: `[S]`, 1 where a rise hurts, -1 where a fall does, 0 for both; optional.

        Raises:
            ReferenceDataError: too few samples, or no signal was measured often enough.
        """
        values = finite(reference)
        values = values[None] if values.ndim == 2 else values
        if not np.isfinite(interval) or interval <= 0:
            raise ReferenceDataError(f"the sampling interval is {interval} s: give the seconds between two samples")
        if values.shape[1] < LEAST_REFERENCE:
            raise ReferenceDataError(
                f"the reference has {values.shape[1]} samples: give at least {LEAST_REFERENCE}, better 25 or more"
            )
        seen = (~np.isnan(values)).sum(axis=1)
        values[np.broadcast_to((seen < LEAST_REFERENCE)[:, None], values.shape)] = np.nan
        silent = np.flatnonzero((seen < LEAST_REFERENCE).all(axis=1))
        if len(silent):
            raise ReferenceDataError(
                f"no signal of database {silent[0]} has {LEAST_REFERENCE} measured samples in the reference:"
                " give a reference in which something is measured"
            )
        return Watch(self.model, refer(values, interval, floor=floor, hurts=hurts))


def _newest(judged: Bools, labels: Bools) -> Bools:
    """Which samples `[K]` are kept: those that can be judged, the newest of each kind."""
    kept = judged.copy()
    for kind in (True, False):
        of_kind = np.flatnonzero(judged & (labels == kind))
        kept[of_kind[:-MOST_EXAMPLES]] = False
    return kept
