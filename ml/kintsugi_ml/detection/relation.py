"""How a sample lies to the samples of the reference, all signals together.

A signal's coordinate is its deviation over a few seconds, cut at `FAR`: one wild signal doesn't drown the others.
Distances are per signal, so their size doesn't depend on how many there are. All is done for W windows at once: a short
one sees when something ends, a long one sees what is faint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi_ml.detection.normal import Singles

WINDOWS: Final = (3.0, 1.0, 5.0)
"""Seconds; the first is the one whose coordinates examples are compared in."""

KINDS: Final = ("size", "nearest", "near3", "nearest_ratio", "coupling", "coupling_ratio")
"""Root mean square; distance to the nearest sample of the reference, and the mean to the nearest three; the former
against the reference's own; distance with the signals' usual joint movement taken out, and that against its own."""

RELATIONS: Final = tuple(
    name if window == WINDOWS[0] else f"{name}@{window:g}s" for window in WINDOWS for name in KINDS
)

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
    """The reference as points: `clouds` `[D, W, A, S]` and their squared lengths, `precision` `[D, W, S, S]`,
    `own_nearest` and `own_coupling` `[D, W]`, and `width` `[D]`, how many signals count.
    """

    clouds: Singles
    squares: Singles
    precision: Singles
    own_nearest: Singles
    own_coupling: Singles
    width: Singles

    @property
    def points(self) -> Singles:
        """Those of the first window, `[D, A, S]`."""
        return self.clouds[:, 0]


def coordinates(mean3: Singles) -> Singles:
    """Coordinates of the same shape; a signal that isn't measured is where it always is."""
    return np.nan_to_num(np.clip(mean3, -np.float32(FAR), np.float32(FAR)), copy=False, nan=0.0)


def anchor(points: Singles, width: Singles) -> Anchors:
    """Learn from the coordinates of the reference `[D, W, R, S]`, of whose signals `width` `[D]` are known."""
    rows = points.shape[2]
    if rows > MOST_ANCHORS:
        points = points[:, :, np.linspace(0, rows - 1, MOST_ANCHORS).round().astype(np.int64)]
    points = np.ascontiguousarray(points)
    width = np.maximum(width, 1).astype(np.float32)
    squares = _squares(points)
    precision = _precision(points)
    coupling = _coupling(points, precision, width)
    return Anchors(
        clouds=points,
        squares=squares,
        precision=precision,
        own_nearest=np.median(_own(points, squares, width), axis=-1).astype(np.float32),
        own_coupling=np.median(coupling, axis=-1).astype(np.float32),
        width=width,
    )


def relate(anchors: Anchors, points: Singles) -> Singles:
    """Relations `[D, T, 6 W]` of points `[D, W, T, S]`, in the order of `RELATIONS`."""
    databases, windows, rows, _ = points.shape
    squares = _squares(points)
    apart = _distances(points, squares, anchors.clouds, anchors.squares, anchors.width)
    few = min(3, apart.shape[-1])
    near = np.partition(apart, few - 1, axis=-1)[..., :few]
    nearest = near.min(axis=-1)
    coupling = _coupling(points, anchors.precision, anchors.width)
    parts = (
        np.sqrt(squares / anchors.width[:, None, None]),
        nearest,
        near.mean(axis=-1),
        np.log1p(nearest / (anchors.own_nearest[..., None] + np.float32(_LEAST))),
        coupling,
        np.log1p(coupling / (anchors.own_coupling[..., None] + np.float32(_LEAST))),
    )
    stacked = np.stack(parts, axis=2)  # [D, W, 6, T]
    return stacked.reshape(databases, windows * len(KINDS), rows).transpose(0, 2, 1)


def _squares(points: Singles) -> Singles:
    return np.asarray(np.einsum("...s,...s->...", points, points), dtype=np.float32)


def _distances(one: Singles, one_squares: Singles, other: Singles, other_squares: Singles, width: Singles) -> Singles:
    """Distances `[D, W, T, A]` per signal between points `[D, W, T, S]` and `[D, W, A, S]`."""
    out = one @ np.swapaxes(other, -1, -2)
    out *= -2
    out += one_squares[..., None]
    out += other_squares[..., None, :]
    out /= width[:, None, None, None]
    np.maximum(out, 0, out=out)
    return np.asarray(np.sqrt(out, out=out), dtype=np.float32)


def _own(points: Singles, squares: Singles, width: Singles) -> Singles:
    """Each anchor's distance `[D, W, A]` to the nearest other that isn't its neighbour in time."""
    apart = _distances(points, squares, points, squares, width)
    index = np.arange(points.shape[2])
    close = np.abs(index[:, None] - index) < _APART
    if close.all():
        return np.zeros_like(squares)
    apart[..., close] = np.inf
    return np.asarray(apart.min(axis=-1), dtype=np.float32)


def _precision(points: Singles) -> Singles:
    """The inverse `[D, W, S, S]` of the points' second moments around the centre, plus the ridge."""
    rows, width = points.shape[-2:]
    turned = np.swapaxes(points, -1, -2)
    if width <= rows:
        inner = turned @ points / np.float32(rows) + np.float32(RIDGE) * np.eye(width, dtype=np.float32)
        return np.asarray(np.linalg.inv(inner), dtype=np.float32)
    inner = points @ turned + np.float32(RIDGE * rows) * np.eye(rows, dtype=np.float32)
    kept = turned @ np.linalg.solve(inner, points)
    return np.asarray((np.eye(width, dtype=np.float32) - kept) / np.float32(RIDGE), dtype=np.float32)


def _coupling(points: Singles, precision: Singles, width: Singles) -> Singles:
    """The ridge Mahalanobis distance `[D, W, T]`, per signal and in ridges: it is `size` where nothing moves."""
    squared = np.einsum("...s,...s->...", points @ precision, points)
    return np.asarray(np.sqrt(np.maximum(squared, 0) * np.float32(RIDGE) / width[:, None, None]), dtype=np.float32)
