"""Which samples say what is normal: the newest fault-free ones.

Three rules keep a fault from teaching itself as normal: the newest `guard` seconds are never part of the reference,
nor is anything inside an incident, nor the `guard` seconds before it was flagged. While an incident is open nothing is
added, so the reference stands still as long as the buffer behind `frame` holds it.

Windows are counted in samples, not by the clock: a gap, a closed incident or a clock that was put forward doesn't
shrink what is known, it only reaches further back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Frame

GUARD: Final = 10.0
"""Seconds before an incident was flagged that may already show it: two samples of hysteresis and a slow start."""

GUARD_SAMPLES: Final = 5
"""At long scrape intervals seconds are no guard: at least this many samples are kept out."""

Incident = tuple[float, float | None]


def reference(frame: Frame, incidents: Sequence[Incident], now: float, window: float, guard: float = GUARD) -> Frame:
    """The newest `window` seconds' worth of fault-free samples of `frame`, oldest first.

    Args:
        frame: everything that is remembered of one database.
        incidents: (flagged at, closed at or None while open), Unix seconds, in any order, overlapping or not.
        now: the present, Unix seconds.
        window: how much to keep, in seconds of samples.
        guard: seconds before an incident was flagged, and before now, that are left out.
    """
    margin = max(guard, GUARD_SAMPLES * frame.interval)
    start_of_open = min((start for start, end in incidents if end is None), default=now)
    keep = frame.times <= min(now, start_of_open) - margin
    for start, end in incidents:
        if end is not None:
            keep &= (frame.times < start - margin) | (frame.times > end)
    keep &= frame.mask.any(axis=1)
    rows = _as_slice(np.flatnonzero(keep)[-max(1, round(window / frame.interval)) :])
    return Frame(frame.signals, frame.times[rows], frame.values[rows], frame.mask[rows], frame.interval)


def _as_slice(rows: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Unbroken rows as a slice, which numpy takes without copying a megabyte a cycle."""
    unbroken = len(rows) > 0 and int(rows[-1] - rows[0]) == len(rows) - 1
    return slice(int(rows[0]), int(rows[-1]) + 1) if unbroken else rows


def seconds_of(frame: Frame) -> float:
    """How many seconds of samples a reference holds, however far they are spread."""
    return len(frame) * frame.interval
