"""Comparing samples with a database's own labelled examples, in the space of its own signals.

This is what pays most (docs/models/detection.md): a pooled description forgets *which* signals moved, and the second
time that the same ones move is no coincidence. Nothing here is learned across databases; `stack` weighs it.

A is for the samples of the reference (normal), P and N for the labelled anomalous and normal ones. All are coordinates
(see `relation`), so an example from another time, or another run, is given relative to *its* reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi_ml.detection.normal import Singles

SIMILARITIES: Final = ("discriminant", "ridge", "cosine", "best_cosine", "projection", "nearest", "prototype")
"""Linear discriminant with each signal's own variance (-1 like normal, 1 like the examples); regularised least squares
(0 and 1); cosine with the mean example, and with the most similar one; share of the way to the mean example; log ratio
of the distances to the nearest normal and the nearest anomalous sample; the same for their means."""

NORMAL_ONLY: Final = ("nearest", "gained")
"""Without anomalous examples: distance to the nearest normal sample, and how much nearer the labelled ones are."""

VARIANCE_RIDGE: Final = 0.1
"""Added to each signal's variance: a signal that stood still in a short reference is not infinitely telling."""

WEIGHT_RIDGE: Final = 3.0
"""Penalty on the weights of the least squares; a class's samples weigh 1 together."""

_LEAST: Final = np.float32(0.05)  # added to distances before their ratio


@dataclass(frozen=True, slots=True)
class Memory:
    """What one database's examples say; `normal` `[A + N, S]`, `anomalous` `[P, S]`, and what follows from them."""

    normal: Singles
    labelled_normal: Singles
    anomalous: Singles
    middle: Singles
    towards: Singles
    discriminant: Singles
    weights: Singles


def remember(reference: Singles, points: Singles, labels: np.ndarray) -> Memory:
    """From the reference's points `[A, S]`, the examples' `[K, S]` and which of those are anomalous `[K]`."""
    chosen = np.asarray(labels, dtype=np.bool_)
    anomalous, labelled = points[chosen], points[~chosen]
    normal = np.concatenate([reference, labelled])
    middle = normal.mean(axis=0)
    towards = anomalous.mean(axis=0) - middle if len(anomalous) else np.zeros_like(middle)
    return Memory(
        normal=normal,
        labelled_normal=labelled,
        anomalous=anomalous,
        middle=middle,
        towards=towards,
        discriminant=towards / _variance(normal, anomalous),
        weights=_ridge(normal - middle, anomalous - middle) if len(anomalous) else np.zeros_like(middle),
    )


def similarities(memory: Memory, points: Singles) -> Singles:
    """Similarities `[T, 7]` of points `[T, S]` to the anomalous examples, in the order of `SIMILARITIES`."""
    away = points - memory.middle
    length = float(memory.towards @ memory.towards)
    reach = float(memory.discriminant @ memory.towards)
    others = memory.anomalous - memory.middle
    return np.stack(
        [
            2 * (away @ memory.discriminant) / max(reach, 1e-6) - 1,
            away @ memory.weights,
            _cosines(away, memory.towards[None])[:, 0],
            _cosines(away, others).max(axis=1),
            away @ memory.towards / max(length, 1e-6),
            _log_ratio(nearest(points, memory.normal), nearest(points, memory.anomalous)),
            _log_ratio(nearest(points, memory.middle[None]), nearest(points, (memory.middle + memory.towards)[None])),
        ],
        axis=1,
    ).astype(np.float32)


def familiarity(memory: Memory, points: Singles) -> Singles:
    """How near points `[T, S]` are to what is known to be normal `[T, 2]`, in the order of `NORMAL_ONLY`."""
    kept = memory.normal[: len(memory.normal) - len(memory.labelled_normal)]
    to_all, to_reference = nearest(points, memory.normal), nearest(points, kept)
    return np.stack([to_all, _log_ratio(to_reference, to_all)], axis=1)


def nearest(points: Singles, others: Singles) -> Singles:
    """The distance `[T]`, per signal, from each of `[T, S]` to the nearest of `[M, S]`."""
    squared = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * (points @ others.T)
    return np.asarray(
        np.sqrt(np.maximum(squared.min(axis=1), 0) / np.float32(max(points.shape[1], 1))), dtype=np.float32
    )


def _variance(normal: Singles, anomalous: Singles) -> Singles:
    """Within the classes `[S]`, the mean of both (of one, when the other has a single sample)."""
    parts = [part.var(axis=0) for part in (normal, anomalous) if len(part) > 1]
    mean = np.mean(parts, axis=0, dtype=np.float32) if parts else np.zeros(normal.shape[1], dtype=np.float32)
    return np.asarray(mean + np.float32(VARIANCE_RIDGE), dtype=np.float32)


def _ridge(normal: Singles, anomalous: Singles) -> Singles:
    """Weights `[S]` that give 0 for normal and 1 for anomalous samples, each class weighing the same."""
    points = np.concatenate([normal, anomalous])
    importance = np.repeat([1 / len(normal), 1 / len(anomalous)], [len(normal), len(anomalous)]).astype(np.float32)
    scaled = points * np.sqrt(importance)[:, None]
    target = np.repeat([0.0, 1.0], [len(normal), len(anomalous)]).astype(np.float32) * np.sqrt(importance)
    width = points.shape[1]
    if width <= len(points):
        inner = scaled.T @ scaled + np.float32(WEIGHT_RIDGE) * np.eye(width, dtype=np.float32)
        return np.asarray(np.linalg.solve(inner, scaled.T @ target), dtype=np.float32)
    outer = scaled @ scaled.T + np.float32(WEIGHT_RIDGE) * np.eye(len(points), dtype=np.float32)
    return np.asarray(scaled.T @ np.linalg.solve(outer, target), dtype=np.float32)


def _cosines(points: Singles, others: Singles) -> Singles:
    """Cosines `[T, M]`; a tiny point has none."""
    lengths = np.sqrt((points**2).sum(axis=1))[:, None] * np.sqrt((others**2).sum(axis=1))
    return np.asarray((points @ others.T) / (lengths + np.float32(1e-3)), dtype=np.float32)


def _log_ratio(one: Singles, other: Singles) -> Singles:
    return np.asarray(np.log((one + _LEAST) / (other + _LEAST)), dtype=np.float32)
