"""Whether signals still move together as they did in the reference: the residual of a principal component analysis.

Second evidence, never first: a residual says "something is different", not "somebody is harmed", so it strengthens a
symptom and opens no incident. A row's residual is the least squares distance of its *measured* cells from the plane
of the components, so hiding a cell can only lower it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi.stages.baseline import second_of_three

EXPLAINED: Final = 0.9
"""Share of the reference's variance that the components explain."""

QUANTILE: Final = 0.995
"""Of the reference's residuals, from which the threshold is taken."""

MARGIN: Final = 1.5
"""The threshold is this far beyond that quantile, or 1.3 times the worst pair, whichever is more."""

LEAST: Final = 3.0
"""No residual below this many standard deviations is ever strange."""

CLIP: Final = 8.0
"""Standardised values are cut here while learning, so that one outlier does not turn the plane."""

FAR: Final = 50.0
"""Standardised values are cut here while judging."""


@dataclass(frozen=True, slots=True)
class Plane:
    """`components` `[S, K]`, orthonormal; `threshold` in standardised units."""

    components: Floats
    threshold: float

    def ratio(self, standardised: Floats) -> Floats:
        """Each row's `[T, S]` residual over the threshold `[T]`; NaN cells are not measured."""
        cut = np.clip(standardised, -FAR, FAR)
        missing = np.isnan(cut)
        whole = ~missing.any(axis=1)
        out = np.zeros(len(cut))
        out[whole] = _distance(cut[whole], self.components)
        for row in np.flatnonzero(~whole & ~missing.all(axis=1)):
            out[row] = _distance_of_part(cut[row], self.components)
        return out / self.threshold


def plane(standardised: Floats) -> Plane | None:
    """Learn from the reference, standardised robustly `[R, S]`; None when it is too short for its signals."""
    rows, width = standardised.shape
    if width < 3 or rows < max(60, 2 * width):
        return None
    values = np.nan_to_num(np.clip(standardised, -CLIP, CLIP), nan=0.0)
    variance, vectors = np.linalg.eigh(values.T @ values / rows)
    variance, vectors = variance[::-1], vectors[:, ::-1]
    if variance[0] <= 1e-12:
        return None
    count = _enough(variance)
    components = np.ascontiguousarray(vectors[:, :count])
    residual = _distance(values, components)
    paired = second_of_three(residual, circular=True)
    learned = max(MARGIN * float(np.quantile(residual, QUANTILE)), 1.3 * float(paired.max()), LEAST)
    return Plane(components, learned * float(np.sqrt(rows / max(rows - count, 1))))


def _enough(variance: Floats) -> int:
    """How many components explain `EXPLAINED`; equal ones are taken together, so that their order says nothing."""
    total = np.cumsum(variance) / variance.sum()
    count = int(np.searchsorted(total, EXPLAINED)) + 1
    last = variance[min(count, len(variance)) - 1]
    return int((variance >= last * (1 - 1e-6)).sum())


def _distance(rows: Floats, components: Floats) -> Floats:
    rest = rows - (rows @ components) @ components.T
    length: Floats = np.sqrt((rest * rest).sum(axis=1))
    return length


def _distance_of_part(row: Floats, components: Floats) -> float:
    measured = ~np.isnan(row)
    part = components[measured]
    weights = np.linalg.lstsq(part, row[measured], rcond=None)[0]
    return float(np.linalg.norm(row[measured] - part @ weights))
