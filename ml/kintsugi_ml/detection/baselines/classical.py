"""PCA, isolation forest and matrix profile, fitted to each run's reference alone."""

from __future__ import annotations

from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.baselines.common import Unlearned, smooth, standardised
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.protocol import Run

EXPLAINED: Final = 0.9
"""Share of the reference's variance that the principal components keep."""

CLIP: Final = 10.0
"""Deviations are cut here for PCA and the isolation forest."""

WINDOW_S: Final = 8.0
"""Length of the matrix profile's subsequences."""

TREES: Final = 100


def pca(run: Run) -> Floats:
    """The residual `[T]` outside the plane of the reference's principal components."""
    values = np.clip(smooth(run), -CLIP, CLIP).astype(np.float64)
    reference = values[: run.reference]
    centre = reference.mean(axis=0)
    _, size, directions = np.linalg.svd(reference - centre, full_matrices=False)
    share = np.cumsum(size**2) / max(float((size**2).sum()), 1e-12)
    kept = directions[: int(np.searchsorted(share, EXPLAINED)) + 1]
    away = values - centre
    residual: Floats = np.sqrt(((away - away @ kept.T @ kept) ** 2).mean(axis=1))
    return residual


def isolation_forest(run: Run) -> Floats:
    """How easily each sample `[T]` is told apart by random cuts (Liu et al., ICDM 2008)."""
    from sklearn.ensemble import IsolationForest

    values = np.clip(smooth(run), -CLIP, CLIP)
    forest = IsolationForest(n_estimators=TREES, random_state=0).fit(values[: run.reference])
    score: Floats = -np.asarray(forest.score_samples(values), dtype=np.float64)
    return score


def matrix_profile(run: Run) -> Floats:
    """The distance `[T]` of each subsequence to its nearest in the reference, averaged over the signals.

    Subsequences are z-normalised (Yeh et al., ICDM 2016), with the reference's own scale as the least deviation, so
    that noise isn't blown up. It sees shapes, not levels.
    """
    width = max(3, round(WINDOW_S / run.interval))
    values = standardised(run)
    if run.reference < width + 1:
        return np.zeros(len(values))
    shapes = _shapes(values, width)
    known = shapes[: run.reference - width + 1]
    squared = (shapes**2).sum(-1)[:, None] + (known**2).sum(-1)[None] - 2 * np.einsum("tsw,rsw->trs", shapes, known)
    apart = np.sqrt(np.maximum(squared, 0).min(axis=1)).mean(axis=1)
    return np.concatenate([np.full(width - 1, apart[0]), apart]).astype(np.float64)


def _shapes(values: Singles, width: int) -> Singles:
    """Each signal's subsequences `[T - W + 1, S, W]`, z-normalised."""
    windows = np.lib.stride_tricks.sliding_window_view(values, width, axis=0)
    centred = windows - windows.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.maximum(windows.std(axis=-1, keepdims=True), 1.0), dtype=np.float32)


METHODS: Final = (
    Unlearned("PCA", pca),
    Unlearned("isolation forest", isolation_forest),
    Unlearned("matrix profile", matrix_profile),
)
