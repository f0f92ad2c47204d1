"""How far each signal is from its normal at each sample, in several ways: the token of a signal.

Every number is a magnitude, 0 where the signal is as always, so a model may be monotone in all of them. Windows are in
seconds, so one model serves every sampling interval: at 5 s or more a window is a single sample.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.normal import Normal, Singles

TOKENS: Final = ("last", "mean3", "mean5", "peak5", "change5", "tail3", "beyond3")
"""The newest deviation; means over 3 and 5 s; the largest within 5 s; change relative to the centre; deviation in units
of that side's own spread (signals are skewed); how far outside the reference's range."""

SHORT_S: Final = 3.0
LONG_S: Final = 5.0

HARMLESS: Final = 0.3
"""Deviations in the direction that doesn't hurt, where it is known, count this much."""

_SIDE: Final = 0.3  # of a scale, added to a side's spread: a short reference may have no spread on one side


def samples(seconds: float, interval: float) -> int:
    """How many samples a window of so many seconds holds, at least one."""
    return max(1, round(seconds / interval))


def context(interval: float) -> int:
    """How many samples before a row its tokens look at."""
    return samples(LONG_S, interval) - 1


def directed(deviation: Singles, hurts: Floats | None) -> Singles:
    """Deviations `[D, T, S]` with the harmless direction damped; `hurts` `[S]` is 1 up, -1 down, 0 both."""
    if hurts is None:
        return deviation
    return np.where(deviation * hurts.astype(np.float32) < 0, np.float32(HARMLESS) * deviation, deviation)


def tokens(normal: Normal, deviation: Singles, mean3: Singles, interval: float) -> Singles:
    """Tokens `[7, D, T, S]` in the order of `TOKENS`, each `log(1 + x)`; NaN where nothing was measured.

    Args:
        normal: of the D databases.
        deviation: standardised values `[D, T, S]`, oldest first, on the grid of `interval`.
        mean3: their means over 3 s, see `mean_over`.
        interval: seconds between two samples.
    """
    mean5 = mean_over(deviation, samples(LONG_S, interval))
    side = np.where(mean3 >= 0, normal.high[:, None], -normal.low[:, None]) + np.float32(_SIDE)
    outside = np.maximum(mean3 - normal.highest[:, None], normal.lowest[:, None] - mean3)
    out = np.empty((len(TOKENS), *deviation.shape), dtype=np.float32)
    np.abs(deviation, out=out[0])
    np.abs(mean3, out=out[1])
    np.abs(mean5, out=out[2])
    out[3] = peak_over(out[0], samples(LONG_S, interval))
    np.multiply(out[2], normal.change[:, None], out=out[4])
    np.divide(out[1], side, out=out[5])
    np.maximum(outside, np.float32(0), out=out[6])
    np.log1p(out, out=out)
    return out


def mean_over(values: Singles, width: int) -> Singles:
    """The mean `[D, T, S]` of the newest `width` samples up to each that were measured; NaN where none was."""
    if width == 1:
        return values
    missing = np.isnan(values)
    holes = bool(missing.any())
    total = np.where(missing, np.float32(0), values) if holes else values.copy()
    summed = total.copy() if holes else values
    count = (~missing).astype(np.float32) if holes else _counts(values.shape[1], width)
    measured = count.copy() if holes else count
    for back in range(1, min(width, values.shape[1])):
        total[:, back:] += summed[:, :-back]
        if holes:
            count[:, back:] += measured[:, :-back]
    with np.errstate(invalid="ignore"):
        np.divide(total, count, out=total)
    return total


def peak_over(magnitudes: Singles, width: int) -> Singles:
    """The largest `[D, T, S]` of the newest `width` magnitudes up to each; NaN where none was measured."""
    out = magnitudes.copy()
    for back in range(1, min(width, magnitudes.shape[1])):
        np.fmax(out[:, back:], magnitudes[:, :-back], out=out[:, back:])
    return out


def _counts(rows: int, width: int) -> Singles:
    return np.minimum(np.arange(1, rows + 1), width).astype(np.float32)[:, None]
