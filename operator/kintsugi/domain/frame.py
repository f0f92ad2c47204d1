"""The metrics of one database as numbers, with what is missing marked as missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Frame:
    """Values `[T, S]` of one database, oldest first.

    `mask[t, s]` is True where the value was measured; where it is False the value is NaN and means nothing.
    `times` `[T]` are Unix seconds, strictly increasing, on the grid of the scrape interval `interval` (seconds).
    """

    signals: tuple[str, ...]
    times: Floats
    values: Floats
    mask: Bools
    interval: float

    def column(self, name: str) -> Floats:
        """The measured values `[≤T]` of one signal; empty when it is unknown or was never measured."""
        if name not in self.signals:
            return np.empty(0)
        index = self.signals.index(name)
        measured: Floats = self.values[self.mask[:, index], index]
        return measured

    def last(self, name: str) -> float | None:
        """The newest sample of one signal, or None when that sample is missing."""
        if name not in self.signals or len(self.times) == 0:
            return None
        index = self.signals.index(name)
        return float(self.values[-1, index]) if self.mask[-1, index] else None

    def between(self, start: float, end: float) -> Frame:
        """The samples with `start <= time < end`."""
        keep = (self.times >= start) & (self.times < end)
        return Frame(self.signals, self.times[keep], self.values[keep], self.mask[keep], self.interval)

    def __len__(self) -> int:
        return len(self.times)


def empty_frame(signals: tuple[str, ...], interval: float) -> Frame:
    """A frame without samples."""
    width = len(signals)
    return Frame(signals, np.empty(0), np.empty((0, width)), np.empty((0, width), dtype=np.bool_), interval)
