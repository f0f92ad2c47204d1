"""Boosted trees as plain arrays: fast to score with numpy alone, safe to load (no pickle), trained by scikit-learn.

Scoring follows QuickScorer (Lucchese et al., SIGIR 2015): each inner node that a sample fails clears the leaves on its
left; the lowest leaf left over is where the sample ends. That is a few vector operations per node and no jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.errors import ModelError
from kintsugi_ml.detection.normal import Singles

MOST_LEAVES: Final = 16
"""Leaves of a tree, at most: their set is a 16-bit word."""

_BLOCK: Final = 1 << 14  # rows at once: their bit sets and one feature fit the first cache


@dataclass(frozen=True, slots=True)
class Forest:
    """M trees of at most `MOST_LEAVES` leaves over F features.

    Attributes:
        feature: `[N]`, which feature inner node n looks at; the nodes of all trees one after another.
        threshold: `[N]`; a sample goes left where its feature is at most this.
        cleared: `[N]`, the leaves that a sample which goes right can't reach any more, as bits.
        first: `[M + 1]`, where each tree's nodes begin.
        leaves: `[M, 16]`, each leaf's value, from left to right.
        base: what is added to all.
        width: F.
    """

    feature: NDArray[np.int16]
    threshold: Singles
    cleared: NDArray[np.uint16]
    first: NDArray[np.int32]
    leaves: Singles
    base: float
    width: int

    def __post_init__(self) -> None:
        """Refuse arrays that don't fit each other, as a damaged file would hold."""
        nodes, trees = len(self.feature), len(self.first) - 1
        fits = (
            len(self.threshold) == len(self.cleared) == nodes
            and self.leaves.shape == (trees, MOST_LEAVES)
            and trees >= 0
            and (nodes == 0 or (self.feature.min() >= 0 and self.feature.max() < self.width))
            and self.first[0] == 0
            and self.first[-1] == nodes
            and bool((np.diff(self.first) >= 0).all())
            and bool(np.isfinite(self.leaves).all())
            and bool(np.isfinite(self.base))
        )
        if not fits:
            raise ModelError("the trees of the model don't fit together: the file is damaged, install it again")

    def logits(self, features: Singles) -> Floats:
        """The sum of the trees' leaves `[N]` for rows `[N, F]`."""
        if features.shape[1] != self.width:
            raise ModelError(f"the model looks at {self.width} features and was given {features.shape[1]}")
        out = np.empty(len(features))
        for start in range(0, len(features), _BLOCK):
            columns = np.ascontiguousarray(features[start : start + _BLOCK].T, dtype=np.float32)
            out[start : start + _BLOCK] = self._block(columns)
        return out

    def _block(self, columns: Singles) -> Floats:
        total = np.full(columns.shape[1], self.base)
        alive = np.empty(columns.shape[1], dtype=np.uint16)
        for tree, (begin, end) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            alive.fill(0xFFFF)
            for node in range(begin, end):
                right = columns[self.feature[node]] > self.threshold[node]
                alive &= ~(right * self.cleared[node])
            total += self.leaves[tree][_LOWEST[alive]]
        return total


def _lowest_bits() -> NDArray[np.uint8]:
    """The position of the lowest bit that is set in each 16-bit word; every tree leaves one."""
    out = np.zeros(1 << MOST_LEAVES, dtype=np.uint8)
    for bit in reversed(range(MOST_LEAVES)):
        out[1 << bit :: 1 << (bit + 1)] = bit
    return out


_LOWEST: Final = _lowest_bits()


def from_boosting(boosting: Any, width: int) -> Forest:
    """The trees of a fitted binary `HistGradientBoostingClassifier` with `max_leaf_nodes` of at most 16."""
    feature: list[int] = []
    threshold: list[float] = []
    cleared: list[int] = []
    first = [0]
    leaves = []
    for (predictor,) in boosting._predictors:
        values: list[float] = []
        _walk(predictor.nodes, 0, feature, threshold, cleared, values)
        first.append(len(feature))
        leaves.append(values + [0.0] * (MOST_LEAVES - len(values)))
    return Forest(
        feature=np.array(feature, dtype=np.int16),
        threshold=_below(np.array(threshold)),
        cleared=np.array(cleared, dtype=np.uint16),
        first=np.array(first, dtype=np.int32),
        leaves=np.array(leaves, dtype=np.float32).reshape(-1, MOST_LEAVES),
        base=float(np.ravel(boosting._baseline_prediction)[0]),
        width=width,
    )


def _walk(
    nodes: Any, index: int, feature: list[int], threshold: list[float], cleared: list[int], values: list[float]
) -> None:
    """Add the node and all below it; leaves are numbered from left to right."""
    node = nodes[index]
    if node["is_leaf"]:
        values.append(float(node["value"]))
        return
    place, begin = len(feature), len(values)
    feature.append(int(node["feature_idx"]))
    threshold.append(float(node["num_threshold"]))
    cleared.append(0)
    _walk(nodes, int(node["left"]), feature, threshold, cleared, values)
    cleared[place] = (1 << len(values)) - (1 << begin)
    _walk(nodes, int(node["right"]), feature, threshold, cleared, values)


def _below(thresholds: Floats) -> Singles:
    """The largest float32 not above each: comparing float32 values with it decides as with the original."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
