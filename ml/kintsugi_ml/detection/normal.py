"""What is normal for a system, learned from its reference: a centre, a scale and a range for each signal.

Signals are never told apart by name or position: everything is in units of the signal's own reference. All functions
take many databases at once, `[D, R, S]`; one database is a batch of one. NaN is a missing value, infinity as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats

Singles = NDArray[np.float32]

CLIP: Final = 60.0
"""Deviations beyond this many scales are all the same: something is utterly different."""

RELATIVE_FLOOR: Final = 0.005
"""A scale is never below this share of the centre: 0.5 % of a constant is measurement, not trouble."""

TINY: Final = 1e-6
"""The scale of a signal that was 0 throughout, when the caller gives no floor."""

HUGE: Final = 1e300
"""Values beyond this are taken as this, so that no difference or sum overflows, even in the smallest scale."""

_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_NORMAL_QUARTILES: Final = 1.349  # between the quartiles of a normal distribution, in standard deviations
_LEAST_QUARTILES: Final = 0.1  # of the standard deviation: a signal that mostly stands still still has a scale
_COUNTS: Final = 0.2  # of the steps in the reference go up, and none goes down: a counter
_SURELY: Final = 8  # steps up and none down are a counter, however rare they are


@dataclass(frozen=True, slots=True)
class Normal:
    """Each signal's normal, for D databases of S signals; all `[D, S]`.

    `centre` and `scale` are in the signal's unit. `lowest`, `highest` (of the reference) and `low`, `high` (its 5 % and
    95 % quantiles) are in scales from the centre. `change` turns a deviation in scales into one relative to the
    centre's size. `known` is False where the reference says nothing.
    """

    centre: Floats
    scale: Floats
    lowest: Singles
    highest: Singles
    low: Singles
    high: Singles
    change: Singles
    known: Bools

    def standardise(self, values: Floats) -> Singles:
        """Values `[D, T, S]` in scales from the centre, cut at `CLIP`; NaN where missing or unknown."""
        with np.errstate(over="ignore", invalid="ignore"):  # huge values end at the cut, missing ones stay missing
            out = values - self.centre[:, None]
            out /= self.scale[:, None]
        np.clip(out, -CLIP, CLIP, out=out)
        return out.astype(np.float32)


def learn(reference: Floats, floor: Floats | None = None) -> Normal:
    """Learn from references `[D, R, S]`; NaN is missing. `floor` `[S]`, in the signal's unit, is the least scale."""
    ordered = np.sort(np.swapaxes(reference, 1, 2), axis=2)
    count = (~np.isnan(ordered)).sum(axis=2)
    known = count > 0
    lowest, highest = _at(ordered, count, 0.0), _at(ordered, count, 1.0)
    low, quarter, centre, three_quarters, high = (_at(ordered, count, q) for q in _QUANTILES)
    deviation = _deviation(ordered, known)
    quartiles = (three_quarters - quarter) / _NORMAL_QUARTILES
    spread = np.sqrt(np.maximum(quartiles, _LEAST_QUARTILES * deviation)) * np.sqrt(deviation)
    spread = np.minimum(np.maximum(spread, RELATIVE_FLOOR * np.abs(centre)), np.finfo(np.float64).max)
    scale = np.where(known, np.maximum(spread, TINY if floor is None else np.maximum(floor, TINY)), 1.0)
    size = np.abs(centre) + scale
    return Normal(
        centre=np.where(known, centre, np.nan),
        scale=scale,
        lowest=_in_scales(lowest, centre, scale),
        highest=_in_scales(highest, centre, scale),
        low=_in_scales(low, centre, scale),
        high=_in_scales(high, centre, scale),
        change=np.where(known, scale / size, 0.0).astype(np.float32),
        known=known,
    )


def counters(reference: Floats) -> Bools:
    """Which signals `[D, S]` only ever count up in the reference `[D, R, S]`: their steps are what means something.

    Fewer than eight rises say so only when they are frequent: of 74 signals of real runs that rose four times in 25
    samples, and not more often, 64 fell afterwards: levels that were filling up.
    """
    step, _ = _differences(reference)
    known = np.maximum((~np.isnan(step)).sum(axis=1), 1)
    rises = (step > 0).sum(axis=1)
    often = (rises >= 4) & (rises >= _COUNTS * known)
    return np.asarray((often | (rises >= _SURELY)) & ~(step < 0).any(axis=1))


def steps(values: Floats, counting: Bools) -> Floats:
    """The values `[D, T, S]`, counters `[D, S]` as their steps.

    A step over blank cells is what it is per sample. The first one is missing, and one after a reset, and one after a
    sample in which nothing at all was measured.
    """
    if not counting.any():
        return values
    step, over_hole = _differences(values)
    return np.where(counting[:, None], np.where((step < 0) | over_hole, np.nan, step), values)


def _differences(values: Floats) -> tuple[Floats, Bools]:
    """How far each value `[D, T, S]` is from the last one measured, per sample; and over which `[D, T, S]` of these
    there is a sample in which nothing at all was measured.
    """
    blank, rows = np.isnan(values), np.arange(values.shape[1])[:, None]
    if not blank.any():
        return np.diff(values, axis=1, prepend=np.nan), np.zeros(values.shape, dtype=np.bool_)
    seen = np.maximum.accumulate(np.where(blank, -1, rows), axis=1)
    last = np.concatenate([np.full_like(seen[:, :1], -1), seen[:, :-1]], axis=1)
    hole = np.maximum.accumulate(np.where(blank.all(axis=2, keepdims=True), rows, -1), axis=1)
    before = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    step = np.where(last < 0, np.nan, (values - before) / np.maximum(rows - last, 1))
    return step, np.asarray(last < hole)


def measured(values: Floats) -> Bools:
    """In which samples `[…, T]` any signal of `values` `[…, T, S]` is."""
    return np.asarray(~np.isnan(values).all(axis=-1))


def finite(values: Floats) -> Floats:
    """The values as float64 with infinities and what is masked as missing, and none beyond `HUGE`."""
    out = np.array(values, dtype=np.float64)
    if isinstance(values, np.ma.MaskedArray):
        out[np.ma.getmaskarray(values)] = np.nan
    out[~np.isfinite(out)] = np.nan
    return np.clip(out, -HUGE, HUGE, out=out)


def _deviation(ordered: Floats, known: Bools) -> Floats:
    """The standard deviation `[D, S]` of what was measured; 0 where nothing was."""
    with np.errstate(over="ignore", invalid="ignore"):
        centred = ordered - ordered[..., :1]
        missing = np.isnan(centred)
        count = np.maximum((~missing).sum(axis=2), 1)
        centred[missing] = 0
        size = np.maximum(np.abs(centred).max(axis=2), np.finfo(np.float64).tiny)
        unit = centred / size[..., None]
        variance = np.maximum((unit**2).sum(axis=2) / count - (unit.sum(axis=2) / count) ** 2, 0)
        return np.where(known, np.minimum(np.sqrt(variance) * size, np.finfo(np.float64).max), 0.0)


def _at(ordered: Floats, count: NDArray[np.int64], quantile: float) -> Floats:
    """A quantile `[D, S]` of sorted values `[D, S, R]`, of which the first `count` were measured; 0 where none was."""
    position = quantile * np.maximum(count - 1, 0)
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, np.maximum(count - 1, 0))
    share = position - before
    low = np.take_along_axis(ordered, before[..., None], axis=2)[..., 0]
    high = np.take_along_axis(ordered, after[..., None], axis=2)[..., 0]
    return np.where(count > 0, low * (1 - share) + high * share, 0.0)


def _in_scales(value: Floats, centre: Floats, scale: Floats) -> Singles:
    with np.errstate(over="ignore"):
        return np.clip((value - centre) / scale, -CLIP, CLIP).astype(np.float32)
