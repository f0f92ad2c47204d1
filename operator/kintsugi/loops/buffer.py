"""The newest samples of one database, on a grid of its scrape interval, in a fixed amount of memory."""

from __future__ import annotations

import numpy as np

from kintsugi.domain.frame import Floats, Frame, empty_frame
from kintsugi.shell.prometheus import Samples

CLOCK_STEP = 30.0  # seconds that `now` may lie before the newest sample until the clock must have been set back


class RingBuffer:
    """Values `[≤capacity, S]` of one database, oldest first, without holes in the grid: what was not read is masked."""

    def __init__(self, signals: tuple[str, ...], interval: float, capacity: int) -> None:
        self._frame = empty_frame(signals, interval)
        self._capacity = capacity

    @property
    def frame(self) -> Frame:
        """Everything kept, as one immutable frame."""
        return self._frame

    @property
    def newest(self) -> float | None:
        """The grid time of the newest sample, or None when there is none."""
        return float(self._frame.times[-1]) if len(self._frame) else None

    def append(self, samples: Samples) -> None:
        """Add samples newer than those kept; older ones and repetitions are ignored, skipped grid times are masked."""
        frame = self._frame
        times = (
            samples.times if self.newest is None else samples.times[samples.times > self.newest + frame.interval / 2]
        )
        if len(times) == 0:
            return
        new = np.full((len(times), len(frame.signals)), np.nan)
        for index, name in enumerate(frame.signals):
            if (column := samples.columns.get(name)) is not None:
                new[:, index] = column[-len(times) :]
        times, new = self._with_skipped(times, new)
        values = np.concatenate([frame.values, new])[-self._capacity :]
        grid = np.concatenate([frame.times, times])[-self._capacity :]
        self._frame = Frame(frame.signals, grid, values, np.isfinite(values), frame.interval)

    def merge(self, samples: Samples) -> None:
        """Fill values in at kept times; what is missing in `samples` erases nothing, other times are ignored."""
        frame = self._frame
        if len(frame) == 0 or len(samples.times) == 0:
            return
        rows = np.minimum(np.searchsorted(frame.times, samples.times - frame.interval / 2), len(frame) - 1)
        kept = np.abs(frame.times[rows] - samples.times) < frame.interval / 2
        values, mask = frame.values.copy(), frame.mask.copy()
        for name, column in samples.columns.items():
            if name in frame.signals:
                known = kept & np.isfinite(column)
                index = frame.signals.index(name)
                values[rows[known], index], mask[rows[known], index] = column[known], True
        self._frame = Frame(frame.signals, frame.times, values, mask, frame.interval)

    def clock_stepped_back(self, now: float) -> bool:
        """Whether the clock was set back so far that the kept samples lie in the future; forget them then."""
        return self.newest is not None and self.newest > now + CLOCK_STEP

    def clear(self) -> None:
        """Forget everything."""
        self._frame = empty_frame(self._frame.signals, self._frame.interval)

    def _with_skipped(self, times: Floats, new: Floats) -> tuple[Floats, Floats]:
        """`new` with rows of NaN for the grid times between the newest kept sample and the first new one."""
        if self.newest is None:
            return times, new
        interval = self._frame.interval
        missing = min(round((times[0] - self.newest) / interval) - 1, self._capacity)
        if missing <= 0:
            return times, new
        skipped = times[0] - interval * np.arange(missing, 0, -1)
        gap = np.full((missing, new.shape[1]), np.nan)
        return np.concatenate([skipped, times]), np.concatenate([gap, new])
