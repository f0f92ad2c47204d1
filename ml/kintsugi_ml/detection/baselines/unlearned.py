"""Detectors that need no training at all."""

from __future__ import annotations

from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.baselines.common import Unlearned, smooth
from kintsugi_ml.detection.features import FEATURES
from kintsugi_ml.detection.protocol import Run
from kintsugi_ml.detection.training import whole

WORST: Final = 5
"""Signals whose deviations MAD z averages: one alone is often chance."""

_LATENCY: Final = "latency"


def latency(run: Run) -> Floats:
    """How many times its normal the worst latency is `[T]`; signals with "latency" in their name count."""
    chosen = [index for index, name in enumerate(run.signals) if _LATENCY in name.lower()]
    if not chosen:
        return np.zeros(len(run.labels))
    values = run.values[:, chosen]
    usual = np.nanmedian(values[: run.reference], axis=0)
    return np.asarray(np.nan_to_num(np.nanmax(values / np.maximum(usual, 1e-9), axis=1), nan=0.0), dtype=np.float64)


def mad(run: Run) -> Floats:
    """The mean of the `WORST` largest robust z-scores `[T]`."""
    size = np.abs(smooth(run))
    many = min(WORST, size.shape[1])
    return np.asarray(np.partition(size, -many, axis=1)[:, -many:].mean(axis=1), dtype=np.float64)


def feature(name: str, run: Run) -> Floats:
    """One of the detector's own features `[T]` as a score."""
    return np.asarray(whole(run).features[:, FEATURES.index(name)], dtype=np.float64)


def exceedance(run: Run) -> Floats:
    """How far the signals are outside their reference's range, on average `[T]`."""
    return feature("beyond3.mean", run)


def neighbours(run: Run) -> Floats:
    """The distance to the nearest sample of the reference, against the reference's own `[T]`."""
    return feature("nearest_ratio", run)


METHODS: Final = (
    Unlearned("latency threshold", latency),
    Unlearned("MAD z", mad),
    Unlearned("exceedance", exceedance),
    Unlearned("nearest neighbour", neighbours),
)
