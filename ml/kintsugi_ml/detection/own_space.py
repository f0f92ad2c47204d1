"""Comparing samples with a database's own labelled examples, in the space of its own signals.

This is what pays most: a pooled description forgets *which* signals moved, and the second time that the same ones move
is no coincidence. Nothing here is learned across databases.

A is for the samples of the reference (normal), P and N for the labelled anomalous and normal ones. All are coordinates
(see `relation`), so an example from another time, or another run, is given relative to *its* reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools
from kintsugi_ml.detection.normal import Singles

NORMAL_ONLY: Final = ("nearest", "gained")
"""Without anomalous examples: distance to the nearest normal sample, and how much nearer the labelled ones are."""

WEIGHT_RIDGE: Final = 0.5
"""Penalty on the weights of the regression; a class's samples weigh 1 together."""

_STEPS: Final = 12  # of Newton's method; it ends sooner as a rule
_ENOUGH: Final = 1e-5

_LEAST: Final = np.float32(0.05)  # added to distances before their ratio


@dataclass(frozen=True, slots=True)
class Memory:
    """What one database's examples say: `reference` `[A, S]`, the labelled samples, a regression's weights `[S]`."""

    reference: Singles
    normal: Singles
    anomalous: Singles
    weights: Singles
    offset: float


def remember(reference: Singles, points: Singles, labels: Bools) -> Memory:
    """From the reference's points `[A, S]`, the examples' `[K, S]` and which of those are anomalous `[K]`."""
    normal, anomalous = points[~labels], points[labels]
    weights, offset = np.zeros(reference.shape[1], dtype=np.float32), 0.0
    if len(anomalous):
        weights, offset = _regression(np.concatenate([reference, normal]), anomalous)
    return Memory(reference, normal, anomalous, weights, offset)


def likeness(memory: Memory, points: Singles) -> tuple[Singles, Singles]:
    """How like the anomalous examples points `[T, S]` are, in two ways `[T]`, both in log odds or a log ratio.

    The first is the regression's: which signals tell. The second compares the distances to the nearest normal and the
    nearest anomalous sample: it needs no straight border.
    """
    known = np.concatenate([memory.reference, memory.normal])
    nearer = _log_ratio(nearest(points, known), nearest(points, memory.anomalous))
    return np.asarray(points @ memory.weights + np.float32(memory.offset), dtype=np.float32), nearer


def familiarity(memory: Memory, points: Singles) -> Singles:
    """How near points `[T, S]` are to what is known to be normal `[T, 2]`, in the order of `NORMAL_ONLY`."""
    to_reference = nearest(points, memory.reference)
    to_all = np.minimum(to_reference, nearest(points, memory.normal)) if len(memory.normal) else to_reference
    return np.stack([to_all, _log_ratio(to_reference, to_all)], axis=1)


def nearest(points: Singles, others: Singles) -> Singles:
    """The distance `[T]`, per signal, from each of `[T, S]` to the nearest of `[M, S]`."""
    squared = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * (points @ others.T)
    return np.asarray(
        np.sqrt(np.maximum(squared.min(axis=1), 0) / np.float32(max(points.shape[1], 1))), dtype=np.float32
    )


def _regression(normal: Singles, anomalous: Singles) -> tuple[Singles, float]:
    """Weights `[S]` and offset of a logistic regression in which each class weighs the same, whatever its size.

    The penalised weights lie in the span of the samples, so with more signals than samples it is solved there.
    """
    points = np.concatenate([normal, anomalous]).astype(np.float64)
    truth = np.repeat([0.0, 1.0], [len(normal), len(anomalous)])
    importance = np.repeat([1 / len(normal), 1 / len(anomalous)], [len(normal), len(anomalous)])
    basis = np.linalg.qr(points.T)[0] if points.shape[1] > len(points) else np.eye(points.shape[1])
    design = np.column_stack([points @ basis, np.ones(len(points))])
    penalty = np.full(design.shape[1], WEIGHT_RIDGE)
    penalty[-1] = 1e-6
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        guess = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (importance * (guess - truth)) + penalty * found
        curvature = (design * (importance * np.maximum(guess * (1 - guess), 1e-6))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(penalty), gradient)
        found -= step
        if np.abs(step).max() < _ENOUGH:
            break
    return (basis @ found[:-1]).astype(np.float32), float(found[-1])


def _log_ratio(one: Singles, other: Singles) -> Singles:
    return np.asarray(np.log((one + _LEAST) / (other + _LEAST)), dtype=np.float32)
