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
from kintsugi_ml.detection.errors import DetectionError, ReferenceDataError, SamplesError, SupportError
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
            labels: `[T]`, True (or 1) where something was wrong, False (or 0) where all was well.
            labelled: `[T]`, which samples are examples; the others only fill the windows of these. None: all are.

        Raises:
            SupportError: there is no such database, labels and values don't fit, a label is neither 0 nor 1, or nothing
                is left.
        """
        many, width = self.reference.normal.known.shape
        if not isinstance(database, int | np.integer) or not 0 <= database < many:
            raise SupportError(f"there is no database {database!r}: {many} learned, give an index from 0 to {many - 1}")
        values = np.atleast_2d(_numbers(values, "the examples", SupportError))
        if values.ndim != 2 or values.shape[1] != width or not len(values):
            raise SupportError(f"the examples are {values.shape}: give (rows, {width}), at least one row")
        rows = len(values)
        wanted = np.ones(rows, dtype=np.bool_) if labelled is None else _truths(labelled, "labelled", rows)
        labels = _truths(labels, "labels", rows, wanted)
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
        """Score samples `[D, T, S]` (or `[T, S]` of a single database), oldest first, on the reference's grid.

        Raises:
            SamplesError: other databases or signals than were learned, or no samples.
        """
        values = _batch(values, "the samples", SamplesError)
        many, width = self.reference.normal.known.shape
        if values.shape[0] != many or values.shape[2] != width or not values.shape[1]:
            raise SamplesError(
                f"the samples are {values.shape} and what was learned is of {many} database(s) with {width} signal(s):"
                f" give ({many}, T, {width}), T at least 1"
            )
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
            ReferenceDataError: too few samples, no signal was measured often enough, or the arguments don't fit.
        """
        values = _batch(reference, "the reference", ReferenceDataError)
        floor, hurts = (_per_signal(one, name, values.shape[2]) for one, name in ((floor, "floor"), (hurts, "hurts")))
        if not isinstance(interval, int | float | np.number) or not 0 < interval < np.inf:
            raise ReferenceDataError(f"the sampling interval is {interval!r}: give the seconds between two samples")
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


def _numbers(given: Floats, what: str, error: type[DetectionError]) -> Floats:
    try:
        return finite(given)
    except (TypeError, ValueError):
        raise error(f"{what}: this is no array of numbers; give a row of numbers per sample, NaN for missing") from None


def _batch(given: Floats, what: str, error: type[DetectionError]) -> Floats:
    """Samples `[T, S]` or `[D, T, S]` as the latter."""
    values = _numbers(given, what, error)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or not len(values):
        raise error(f"{what}: the shape is {np.shape(given)}: give (rows, signals), or (databases, rows, signals)")
    return values


def _per_signal(given: Floats | None, name: str, width: int) -> Floats | None:
    if given is None:
        return None
    values = _numbers(given, f"`{name}`", ReferenceDataError)
    if values.shape != (width,):
        raise ReferenceDataError(f"`{name}` has the shape {values.shape}: give one per signal, ({width},)")
    wrong = np.flatnonzero(np.isnan(values))
    if len(wrong):
        raise ReferenceDataError(f"`{name}[{wrong[0]}]` is missing or infinite: give a number for each signal")
    return values


def _truths(given: Bools, name: str, many: int, wanted: Bools | None = None) -> Bools:
    """What is true `[T]`, given as such or as 0 and 1; where it isn't wanted, it may be anything."""
    try:
        values = np.asarray(given)
    except ValueError:
        raise SupportError(f"`{name}` is no array: give one per row, ({many},)") from None
    if values.shape != (many,):
        raise SupportError(f"`{name}` has the shape {values.shape}, not ({many},): give one row per label")
    if values.dtype == np.bool_:
        return values
    wrong = np.flatnonzero(((values != 0) & (values != 1)) & (True if wanted is None else wanted))
    if len(wrong):
        raise SupportError(f"`{name}[{wrong[0]}]` is {values.tolist()[wrong[0]]!r}: it is 1 or 0, True or False")
    return np.asarray(values == 1)


def _newest(judged: Bools, labels: Bools) -> Bools:
    """Which samples `[K]` are kept: those that can be judged, the newest of each kind."""
    kept = judged.copy()
    for kind in (True, False):
        of_kind = np.flatnonzero(judged & (labels == kind))
        kept[of_kind[:-MOST_EXAMPLES]] = False
    return kept
