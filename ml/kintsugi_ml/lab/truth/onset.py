"""When a component left its normal band, and when it was back: one rule for all components and all runs.

A measure's band is the median of the run's normal part plus or minus max(6 × 1.4826 × MAD, its floor), only on the side
that hurts. It has left the band at the first sample outside from which, for one second and as long as the measure
itself looks back, three quarters of what was measured are outside; a component with its first measure. A stretch of
which less than half was measured says nothing.
Only what leaves between injection and remedy counts: what begins later may be the remedy's doing. What was already
outside at the injection has to come back first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi.domain.signals import Hurts
from kintsugi_ml.lab.parts import Parts
from kintsugi_ml.lab.truth.measures import Measure, Track

DEVIATIONS: Final = 6.0
NORMAL_SCALE: Final = 1.4826
"""MAD times this estimates the standard deviation of normal noise (Rousseeuw and Croux 1993)."""
STAY_SECONDS: Final = 1.0
STAY_SHARE: Final = 0.75
MEASURED_SHARE: Final = 0.5
RATE: Final = 8.0
"""Samples per second of the sampler."""


@dataclass(frozen=True, slots=True)
class Band:
    """What is normal for a measure: from `low` to `high` (infinite on the side that does not hurt)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Move:
    """A component left its band `onset` s after injection, by `measure`; `returned` counts likewise, None: never."""

    onset: float
    measure: str
    returned: float | None


def onsets(track: Track, parts: Parts, measures: Sequence[Measure]) -> dict[str, float | None]:
    """Seconds from the injection until each component left its band; None where it did not."""
    found = moves(track, parts, measures)
    return {component: move.onset if move else None for component, move in found.items()}


def returned(track: Track, parts: Parts, measures: Sequence[Measure]) -> dict[str, float | None]:
    """Seconds from the injection until each component that left was back for good; None if it was not or never left."""
    found = moves(track, parts, measures)
    return {component: move.returned if move else None for component, move in found.items()}


def moves(track: Track, parts: Parts, measures: Sequence[Measure]) -> dict[str, Move | None]:
    """Which component moved when, by which measure first, and when all its measures that had left were back."""
    found: dict[str, list[Move]] = {}
    for measure in measures:
        of_component = found.setdefault(measure.component, [])
        if measure.decides and (move := _move(track, parts, measure)) is not None:
            of_component.append(move)
    return {component: _first(of_component) for component, of_component in found.items()}


def band(values: Floats, measure: Measure) -> Band | None:
    """The band from the values `[N]` of the normal part; None when less than half of them were measured."""
    measured = values[~np.isnan(values)]
    if len(measured) == 0 or len(measured) < MEASURED_SHARE * len(values):
        return None
    median = float(np.median(measured))
    width = max(DEVIATIONS * NORMAL_SCALE * float(np.median(np.abs(measured - median))), measure.floor)
    return Band(
        -np.inf if measure.hurts is Hurts.UP else median - width,
        np.inf if measure.hurts is Hurts.DOWN else median + width,
    )


def away(times: Floats, values: Floats, normal: Band, stay: float) -> Bools:
    """Where a measure leaves its band or stays outside, `[T]`: a sample and three quarters of the `stay` s it opens."""
    measured = ~np.isnan(values)
    outside = measured & ((values < normal.low) | (values > normal.high))
    ends = np.searchsorted(times, times + stay)
    starts = np.arange(len(times))
    seen, out = (_count(flags, starts, ends) for flags in (measured, outside))
    result: Bools = outside & (seen >= MEASURED_SHARE * stay * RATE) & (out >= STAY_SHARE * seen)
    return result


def _move(track: Track, parts: Parts, measure: Measure) -> Move | None:
    within = (track.times >= parts.normal) & (track.times < parts.ended)
    times, values = track.times[within], track.column(measure.name)[within]
    if (normal := band(values[times < parts.injected], measure)) is None:
        return None
    stay = STAY_SECONDS + measure.memory
    gone = away(times, values, normal, stay)
    fault = int(np.searchsorted(times, parts.injected))
    start = fault
    while 0 < start < len(gone) and gone[start - 1] and gone[start]:
        start += 1
    candidates = np.flatnonzero(gone[start:] & (times[start:] < parts.remedied))
    if len(candidates) == 0:
        return None
    onset = times[start + candidates[0]] - parts.injected
    last = int(np.flatnonzero(gone)[-1])
    back = _back(times, values, normal, last, stay)
    return Move(float(onset), measure.name, None if back is None else back - parts.injected)


def _back(times: Floats, values: Floats, normal: Band, last: int, stay: float) -> float | None:
    """The first moment after the last stay outside from which a whole second was measured inside before the end."""
    inside = (values >= normal.low) & (values <= normal.high)
    outside = ~np.isnan(values) & ~inside
    stretch = (times >= times[last]) & (times < times[last] + stay) & outside
    after = np.flatnonzero(inside & (times > times[np.flatnonzero(stretch)[-1]]))
    if len(after) == 0 or times[-1] - times[after[0]] < STAY_SECONDS:
        return None
    return float(times[after[0]])


def _first(found: Sequence[Move]) -> Move | None:
    if not found:
        return None
    first = min(found, key=lambda move: move.onset)
    ends = [move.returned for move in found]
    known = [end for end in ends if end is not None]
    return Move(first.onset, first.measure, max(known) if len(known) == len(ends) else None)


def _count(flags: Bools, starts: np.typing.NDArray[np.int64], ends: np.typing.NDArray[np.int64]) -> Floats:
    total = np.concatenate([[0], np.cumsum(flags)])
    counted: Floats = (total[ends] - total[starts]).astype(np.float64)
    return counted
