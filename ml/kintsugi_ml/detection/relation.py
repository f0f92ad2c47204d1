"""How a sample lies to the samples of the reference, all signals together.

A signal's coordinate is its deviation over 3 s, cut at `FAR`: one wild signal doesn't drown the others. Distances are
per signal, so their size doesn't depend on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi_ml.detection.normal import Singles

RELATIONS: Final = ("size", "nearest", "near3", "nearest_ratio", "coupling", "coupling_ratio")
"""Root mean square; distance to the nearest sample of the reference, and the mean to the nearest three; the former
against the reference's own; distance with the signals' usual joint movement taken out, and that against its own."""

MOST_ANCHORS: Final = 128
"""Samples of the reference that are compared with, evenly spaced."""

FAR: Final = 3.0
"""Coordinates end here, in scales. Of 3, 5, 10 and a logarithm, 3 told anomalies apart best on DBSherlock."""

RIDGE: Final = 0.3
"""Added to the variance in every direction: a soft cut between what moves in normal time and what doesn't."""

_APART: Final = 3  # samples; a 3 s mean shares its values with its neighbours in time
_LEAST: Final = 0.1  # added to the reference's own distances before dividing by them


@dataclass(frozen=True, slots=True)
class Anchors:
    """The reference as points: `points` `[D, A, S]`, `precision` `[D, S, S]`, `own_nearest` and `own_coupling` `[D]`,
    and `width` `[D]`, how many signals count.
    """

    points: Singles
    squares: Singles
    precision: Singles
    own_nearest: Singles
    own_coupling: Singles
    width: Singles


def coordinates(mean3: Singles) -> Singles:
    """Coordinates of the same shape; a signal that isn't measured is where it always is."""
    return np.nan_to_num(np.clip(mean3, -np.float32(FAR), np.float32(FAR)), copy=False, nan=0.0)


def anchor(points: Singles, width: Singles) -> Anchors:
    """Learn from the coordinates of the reference `[D, R, S]`, of whose signals `width` `[D]` are known."""
    rows = points.shape[1]
    if rows > MOST_ANCHORS:
        points = points[:, np.linspace(0, rows - 1, MOST_ANCHORS).round().astype(np.int64)]
    points = np.ascontiguousarray(points)
    width = np.maximum(width, 1).astype(np.float32)
    squares = np.einsum("das,das->da", points, points)
    precision = _precision(points)
    coupling = _coupling(points, precision, width)
    return Anchors(
        points=points,
        squares=squares,
        precision=precision,
        own_nearest=np.median(_own(points, squares, width), axis=1).astype(np.float32),
        own_coupling=np.median(coupling, axis=1).astype(np.float32),
        width=width,
    )


def relate(anchors: Anchors, points: Singles) -> Singles:
    """Relations `[D, T, 6]` of points `[D, T, S]`, in the order of `RELATIONS`."""
    squares = np.einsum("dts,dts->dt", points, points)
    apart = _distances(points, squares, anchors.points, anchors.squares, anchors.width)
    few = min(3, apart.shape[2])
    near = np.partition(apart, few - 1, axis=2)[..., :few]
    nearest = near.min(axis=2)
    coupling = _coupling(points, anchors.precision, anchors.width)
    parts = (
        np.sqrt(squares / anchors.width[:, None]),
        nearest,
        near.mean(axis=2),
        np.log1p(nearest / (anchors.own_nearest[:, None] + np.float32(_LEAST))),
        coupling,
        np.log1p(coupling / (anchors.own_coupling[:, None] + np.float32(_LEAST))),
    )
    return np.stack(parts, axis=2)


def _distances(one: Singles, one_squares: Singles, other: Singles, other_squares: Singles, width: Singles) -> Singles:
    """Distances `[D, T, A]` per signal between points `[D, T, S]` and `[D, A, S]`."""
    out = one @ np.swapaxes(other, 1, 2)
    out *= -2
    out += one_squares[..., None]
    out += other_squares[:, None]
    out /= width[:, None, None]
    np.maximum(out, 0, out=out)
    return np.asarray(np.sqrt(out, out=out), dtype=np.float32)


def _own(points: Singles, squares: Singles, width: Singles) -> Singles:
    """Each anchor's distance `[D, A]` to the nearest other that isn't its neighbour in time."""
    apart = _distances(points, squares, points, squares, width)
    index = np.arange(points.shape[1])
    close = np.abs(index[:, None] - index) < _APART
    if close.all():
        return np.zeros_like(squares)
    apart[:, close] = np.inf
    return np.asarray(apart.min(axis=2), dtype=np.float32)


def _precision(points: Singles) -> Singles:
    """The inverse `[D, S, S]` of the points' second moments around the centre, plus the ridge."""
    _, rows, width = points.shape
    turned = np.swapaxes(points, 1, 2)
    if width <= rows:
        inner = turned @ points / np.float32(rows) + np.float32(RIDGE) * np.eye(width, dtype=np.float32)
        return np.asarray(np.linalg.inv(inner), dtype=np.float32)
    inner = points @ turned + np.float32(RIDGE * rows) * np.eye(rows, dtype=np.float32)
    kept = turned @ np.linalg.solve(inner, points)
    return np.asarray((np.eye(width, dtype=np.float32) - kept) / np.float32(RIDGE), dtype=np.float32)


def _coupling(points: Singles, precision: Singles, width: Singles) -> Singles:
    """The ridge Mahalanobis distance `[D, T]`, per signal and in ridges, so that it is `size` where nothing moves."""
    squared = np.einsum("dts,dts->dt", points @ precision, points)
    return np.asarray(np.sqrt(np.maximum(squared, 0) * np.float32(RIDGE) / width[:, None]), dtype=np.float32)
