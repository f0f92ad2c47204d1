"""From metrics to one row of numbers per sample: 77 pools over the signals' tokens and 18 relations to the
reference.

Any signals, in any order, at any interval, for one database or a thousand. Rows need `tokens.context(interval)` rows
before them for their windows; the first rows of an input use what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.normal import Normal, Singles, counters, learn, steps
from kintsugi_ml.detection.pooling import POOLED, pool
from kintsugi_ml.detection.relation import KINDS, RELATIONS, WINDOWS, Anchors, anchor, coordinates, relate
from kintsugi_ml.detection.tokens import context, directed, mean_over, samples, tokens

FEATURES: Final = (*POOLED, *RELATIONS)
"""All of them are 0 in perfect normality and grow with distance from it."""

CLOSE: Final = tuple(name for name in RELATIONS if not name.startswith(KINDS[0]))
"""The relations but for their size: what carries over best to classes and systems that are new."""

LEAN: Final = (
    *CLOSE,
    *(f"{token}.{name}" for token in ("beyond3", "tail3", "mean5", "last") for name in ("q1", "mean", "above2")),
)
"""What the shipped first step looks at: all relations, and how far the worst signal, the average one and many of them
are out. See `training.zero_shot` for why these."""

_BLOCK: Final = 1 << 17  # cells (samples x signals) worked on at once, so that temporaries stay in the cache


def chosen(features: Singles, names: tuple[str, ...] = LEAN) -> Singles:
    """The named features `[N, F]` of rows of all of them `[N, 95]`."""
    return features[:, [FEATURES.index(name) for name in names]]


@dataclass(frozen=True, slots=True)
class Reference:
    """What was learned from the references of D databases with S signals each, sampled every `interval` seconds.

    `counting` `[D, S]` marks counters, which are judged by their steps.
    """

    normal: Normal
    anchors: Anchors
    counting: Bools
    interval: float
    hurts: Floats | None = None

    def part(self, first: int, last: int) -> Reference:
        """The same for the databases from `first` to before `last`."""
        normal, anchors, here = self.normal, self.anchors, slice(first, last)
        if first == 0 and last >= len(normal.known):
            return self
        return Reference(
            Normal(*(getattr(normal, name)[here] for name in Normal.__slots__)),
            Anchors(*(getattr(anchors, name)[here] for name in Anchors.__slots__)),
            self.counting[here],
            self.interval,
            self.hurts,
        )


@dataclass(frozen=True, slots=True)
class Described:
    """Samples described.

    `features` `[D, T, 95]`; `deviation` `[D, T, S]`, each signal's over 3 s in scales, 0 where it isn't measured;
    `judged` `[D, T]`, False where no known signal was measured within 5 s, so that nothing can be said.
    """

    features: Singles
    deviation: Singles
    judged: Bools

    @property
    def points(self) -> Singles:
        """Coordinates `[D, T, S]`, see `relation`."""
        return coordinates(self.deviation)


def refer(reference: Floats, interval: float, *, floor: Floats | None = None, hurts: Floats | None = None) -> Reference:
    """Learn what is normal from `[D, R, S]`, NaN for missing.

    Args:
        reference: fault-free samples, oldest first, on the grid of `interval`.
        interval: seconds between two samples.
        floor: `[S]`, the smallest change that could matter, in each signal's unit; none: 0.5 % of its centre.
        hurts: `[S]`, 1 where a rise hurts, -1 where a fall does, 0 for both; none: both everywhere.
    """
    counting = counters(reference)
    reference = steps(reference, counting)
    normal = learn(reference, floor)
    means = _means(directed(normal.standardise(reference), hurts), interval)
    width = normal.known.sum(axis=1).astype(np.float32)
    return Reference(normal, anchor(coordinates(np.stack(means, axis=1)), width), counting, interval, hurts)


def describe(reference: Reference, values: Floats) -> Described:
    """Describe samples `[D, T, S]`, oldest first, on the grid of the reference's interval; NaN for missing."""
    values = steps(values, reference.counting)
    databases, rows, width = values.shape
    out = Described(
        features=np.empty((databases, rows, len(FEATURES)), dtype=np.float32),
        deviation=np.empty((databases, rows, width), dtype=np.float32),
        judged=np.empty((databases, rows), dtype=np.bool_),
    )
    many = max(1, _BLOCK // max(rows * width, 1))
    long = max(1, _BLOCK // max(width, 1)) if many == 1 else rows
    for first in range(0, databases, many):
        part = reference.part(first, first + many)
        for start in range(0, rows, long):
            _describe(part, values[first : first + many], out, first, start, min(start + long, rows))
    return out


def _describe(part: Reference, values: Floats, out: Described, first: int, start: int, end: int) -> None:
    before = max(0, start - context(part.interval))
    deviation = directed(part.normal.standardise(values[:, before:end]), part.hurts)
    means = _means(deviation, part.interval)
    kept = start - before
    found = tokens(part.normal, deviation, means[0], part.interval)[:, :, kept:]
    points = coordinates(np.stack([mean[:, kept:] for mean in means], axis=1))
    here = slice(first, first + len(values))
    out.judged[here, start:end] = (~np.isnan(found[3])).any(axis=-1)
    out.deviation[here, start:end] = np.nan_to_num(means[0][:, kept:], nan=0.0)
    split = len(POOLED)
    out.features[here, start:end, :split] = pool(found)
    out.features[here, start:end, split:] = relate(part.anchors, points)


def _means(deviation: Singles, interval: float) -> list[Singles]:
    """Deviations `[D, T, S]` averaged over each of the windows."""
    return [mean_over(deviation, samples(window, interval)) for window in WINDOWS]
