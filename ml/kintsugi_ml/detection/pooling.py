"""From one token per signal to one row of numbers, whatever the signals' number and order.

Quantiles, means and shares over the signals: none depends on their order, and a signal that isn't measured is left out.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.tokens import TOKENS

QUANTILES: Final = (0.25, 0.5, 0.75, 0.9, 0.96, 1.0)

LEVELS: Final = (1.0, 2.0, 4.0, 8.0)
"""Shares of the signals whose token (before its logarithm) is above each of these are counted."""

POOLS: Final = (*(f"q{quantile:g}" for quantile in QUANTILES), "mean", *(f"above{level:g}" for level in LEVELS))

POOLED: Final = tuple(f"{token}.{pool}" for token in TOKENS for pool in POOLS)

_EDGES: Final = tuple(np.float32(np.log1p(level)) for level in LEVELS)


def pool(tokens: Singles) -> Singles:
    """Pools `[D, T, 77]` of tokens `[7, D, T, S]`, in the order of `POOLED`; zeros where no signal was measured."""
    ordered = np.sort(tokens, axis=-1)
    whole = not np.isnan(ordered[..., -1]).any()
    parts = _of_all(ordered) if whole else _of_measured(ordered)
    out = np.stack(parts, axis=-1)  # [7, D, T, P]
    kinds, databases, rows, pools = out.shape
    return np.ascontiguousarray(out.transpose(1, 2, 0, 3)).reshape(databases, rows, kinds * pools)


def _of_all(ordered: Singles) -> list[Singles]:
    width = ordered.shape[-1]
    parts = []
    for quantile in QUANTILES:
        position = quantile * (width - 1)
        before = int(position)
        share = np.float32(position - before)
        after = min(before + 1, width - 1)
        parts.append(ordered[..., before] * (1 - share) + ordered[..., after] * share)
    parts.append(ordered.mean(axis=-1))
    parts.extend(np.count_nonzero(ordered > edge, axis=-1).astype(np.float32) / np.float32(width) for edge in _EDGES)
    return parts


def _of_measured(ordered: Singles) -> list[Singles]:
    """The same where some are missing: these were sorted to the end."""
    count = np.count_nonzero(~np.isnan(ordered), axis=-1)
    filled = np.nan_to_num(ordered, nan=0.0)
    last = np.maximum(count - 1, 0)
    parts = []
    for quantile in QUANTILES:
        position = quantile * last
        before = position.astype(np.int64)
        share = (position - before).astype(np.float32)
        low = np.take_along_axis(filled, before[..., None], axis=-1)[..., 0]
        high = np.take_along_axis(filled, np.minimum(before + 1, last)[..., None], axis=-1)[..., 0]
        parts.append(low * (1 - share) + high * share)
    measured = np.maximum(count, 1).astype(np.float32)
    parts.append(filled.sum(axis=-1) / measured)
    parts.extend(np.count_nonzero(filled > edge, axis=-1).astype(np.float32) / measured for edge in _EDGES)
    return parts
