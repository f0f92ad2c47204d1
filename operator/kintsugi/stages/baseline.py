"""What is normal for each signal of one database, learned from its own fault-free reference.

Detection and verification share it, so that "back to normal" means exactly "what the detector calls normal".

A sample's *deviation* is its distance from the reference's median in robust standard deviations (1.4826 · MAD, but
never less than the signal's floor nor a small share of the median), positive in the direction that hurts. Its *ratio*
is the deviation divided by the signal's own threshold: 1 is abnormal. The threshold comes from the reference itself:
what the database does while healthy, plus a margin, so that a noisy one does not alarm for ever.

Judged is the second largest of three consecutive samples: two samples out of three have to agree, a lost sample or a
single spike decides nothing, and hiding a sample can only lower it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.domain.signals import Catalogue, Signal

THRESHOLD: Final = 5.0
"""Least deviation that can ever be abnormal, in robust standard deviations."""

MARGIN: Final = 1.5
"""How far beyond the worst of the reference the threshold lies."""

FORESIGHT: Final = 1000.0
"""How many references ahead the tail is extrapolated (a week of ten-minute ones), where it is heavier than `MARGIN`."""

SHORT: Final = 8.0
"""A short reference has not seen its own extremes yet; see `widening`."""

SINGLE: Final = 3.0
"""One sample alone must be this many thresholds out to count (the overwhelming case)."""

SHARE: Final = 0.02
"""Of the median: a smaller scale than this is precision that no latency or rate really has."""

ENOUGH: Final = 0.3
"""Of the reference's samples must be measured for a signal to be judged, and never fewer than `FEWEST`."""

FEWEST: Final = 8
"""Samples below which a median absolute deviation means nothing."""

CAP: Final = 1e6
"""Deviations are cut here: beyond it more says nothing, and sums stay finite."""

HUGE: Final = 1e30
"""Values are cut here, so that differences and squares stay finite."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The judgeable signals `[S]` of one database; arrays are `[S]` in the same order.

    `threshold` applies to two samples of three, `single` to one sample alone.
    """

    signals: tuple[Signal, ...]
    median: Floats
    scale: Floats
    threshold: Floats
    single: Floats

    def names(self) -> tuple[str, ...]:
        """The signals' names, in the arrays' order."""
        return tuple(signal.name for signal in self.signals)

    def deviations(self, frame: Frame) -> Floats:
        """How far each sample `[T, S]` is from normal, positive where it hurts; NaN where nothing was measured."""
        return _toward_harm(self.signals, (cells(frame, self.names()) - self.median) / self.scale)


def cells(frame: Frame, names: Sequence[str]) -> Floats:
    """The values `[T, S]` of the named signals; NaN where missing, infinite or unknown to the frame."""
    place = {name: index for index, name in enumerate(frame.signals)}
    where = np.array([place.get(name, -1) for name in names], dtype=np.intp)
    out = np.full((len(frame), len(names)), np.nan)
    known = where >= 0
    picked = frame.values[:, where[known]]
    valid = frame.mask[:, where[known]] & np.isfinite(picked)
    out[:, known] = np.where(valid, np.clip(picked, -HUGE, HUGE), np.nan)
    return out


def baseline(reference: Frame, catalogue: Catalogue) -> Baseline:
    """Learn from a fault-free reference `[R, S]`; signals that it hardly knows are left out."""
    values = cells(reference, catalogue.names())
    counts = (~np.isnan(values)).sum(axis=0)
    usable = counts >= max(FEWEST, ENOUGH * len(reference))
    signals = tuple(signal for signal, use in zip(catalogue, usable, strict=True) if use)
    values, counts = values[:, usable], counts[usable]
    middle = median(values)
    spread = 1.4826 * median(np.abs(values - middle))
    floors = np.array([signal.floor for signal in signals])
    scale = np.maximum(np.maximum(spread, floors), np.maximum(SHARE * np.abs(middle), 1e-12))
    harm = worst(_toward_harm(signals, (values - middle) / scale))
    doubt = widening(counts)
    least = np.where(scale > spread, THRESHOLD, THRESHOLD * doubt)  # a floor is a decree: no sample count changes it
    sustained = np.maximum(least, doubt * _extreme(second_of_three(harm, circular=True)))
    single = np.maximum(SINGLE * sustained, MARGIN * doubt * harm.max(axis=0, initial=0.0))
    return Baseline(signals, middle, scale, sustained, single)


def widening(samples: Floats | int) -> Floats:
    """How much wider a threshold is for having seen few samples: ×1.33 at 600, ×2 at 64."""
    return np.asarray(1.0 + SHORT / np.sqrt(np.maximum(samples, 1)), dtype=np.float64)


def _extreme(harm: Floats) -> Floats:
    """The worst to be expected of each healthy signal, from what the reference `[R, S]` reached.

    The worst seen times `MARGIN`, or where the tail is heavy (latencies are), the worst seen extrapolated as an
    exponential tail fitted between the 90th percentile and the maximum.
    """
    if len(harm) == 0:
        return np.zeros(harm.shape[1])
    highest = harm.max(axis=0)
    slope = (highest - np.quantile(harm, 0.9, axis=0)) / max(np.log(0.1 * len(harm)), 1.0)
    return np.asarray(np.maximum(MARGIN * highest, highest + slope * np.log(FORESIGHT)), dtype=np.float64)


def worst(deviations: Floats) -> Floats:
    """Deviations that count as evidence: what is missing or better than normal is 0."""
    return np.where(deviations > 0, deviations, 0.0)


def second_of_three(harm: Floats, near: Bools | None = None, *, circular: bool = False) -> Floats:
    """Per row, the second largest of it and the two rows before: what two of three samples reach.

    Args:
        harm: `[T, …]`, 0 where missing.
        near: `[T, 2]`, whether the row before, and the one before that, are close enough in time to be counted.
        circular: let the first rows follow the last ones (a reference that repeats).
    """
    one, two = (_shifted(harm, step, near, circular) for step in (1, 2))
    return np.maximum(np.minimum(harm, one), np.minimum(np.maximum(harm, one), two))


def neighbours(frame: Frame) -> Bools:
    """For `second_of_three`: which of the two rows before each row `[T, 2]` are near in time, not beyond a gap."""
    near = np.zeros((len(frame), 2), dtype=np.bool_)
    for step in (1, 2):
        near[step:, step - 1] = frame.times[step:] - frame.times[:-step] <= (step + 1.5) * frame.interval
    return near


def median(values: Floats) -> Floats:
    """The median of each column `[T, S]`, NaN left aside; NaN for a column without values."""
    if len(values) == 0:
        return np.full(values.shape[1], np.nan)
    ordered = np.sort(values, axis=0)
    counts = (~np.isnan(values)).sum(axis=0)
    columns = np.arange(values.shape[1])
    low, high = np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, len(values) - 1)
    middle: Floats = (ordered[low, columns] + ordered[high, columns]) / 2
    return middle


def _toward_harm(signals: Sequence[Signal], distance: Floats) -> Floats:
    direction = np.array([signal.hurts.sign for signal in signals])
    turned = np.where(direction == 0, np.abs(distance), distance * direction)
    return np.clip(turned, -CAP, CAP)


def _shifted(harm: Floats, step: int, near: Bools | None, circular: bool) -> Floats:
    rolled = np.roll(harm, step, axis=0)
    if not circular:
        rolled[:step] = 0.0
    if near is not None:
        keep = near[:, step - 1].reshape(-1, *([1] * (harm.ndim - 1)))
        rolled = np.where(keep, rolled, 0.0)
    return rolled
