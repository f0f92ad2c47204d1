"""What clients felt, from their own log of every request: per second for judging, at 8 Hz for the ground truth.

Latency counts from the moment a request was due, and belongs to that moment: a request that was due when a lock was
taken and waited five seconds shows its five seconds there. Answers are counted when they came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats

OK: Final = "ok"
TIMEOUT: Final = "timeout"
WINDOW_SECONDS: Final = 0.5
"""What one sample of the client track looks back at: some twenty requests at the lab's rates."""
FIELDS: Final = 4
TAIL_BYTES: Final = 200_000
"""Some thousand lines, which is ten seconds and more at the lab's rates."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in the order in which they were due, `[N]` each.

    `scheduled` in Unix s, `latency` in s from then, `outcome` as `kintsugi_dev.load.statements.outcome` says.
    """

    scheduled: Floats
    latency: Floats
    outcome: NDArray[np.str_]

    @classmethod
    def none(cls) -> Requests:
        """Nobody asked."""
        return cls(np.empty(0), np.empty(0), np.empty(0, dtype=np.str_))

    @property
    def ok(self) -> Bools:
        """Which of them were answered."""
        answered: Bools = self.outcome == OK
        return answered

    def __len__(self) -> int:
        return len(self.scheduled)

    def between(self, start: float, end: float) -> Requests:
        """Those that were due in `start <= t < end`."""
        first, last = np.searchsorted(self.scheduled, (start, end))
        return Requests(self.scheduled[first:last], self.latency[first:last], self.outcome[first:last])

    def percentile(self, q: float) -> float | None:
        """Of the latency (s) of answered and timed out requests; other failures end at once and say nothing."""
        felt = self.latency[self.ok | (self.outcome == TIMEOUT)]
        return float(np.percentile(felt, q)) if len(felt) else None

    def answered(self) -> float | None:
        """The share that was answered, 0 to 1; None without any request."""
        return float(self.ok.mean()) if len(self) else None


@dataclass(frozen=True, slots=True)
class Seconds:
    """Per whole second `times` `[T]` (Unix s): percentiles (s) of what was due in it, NaN when nothing was.

    `answered` and `failed` count what ended in it.
    """

    times: Floats
    p50: Floats
    p95: Floats
    p99: Floats
    answered: Floats
    failed: Floats


@dataclass(frozen=True, slots=True)
class ClientTrack:
    """At each of `times` `[T]` over the half second before it: p90 of latency (s) and the share that failed."""

    times: Floats
    latency: Floats
    failed_share: Floats


def read(path: Path) -> Requests:
    """A `requests.csv`, which may still be written to."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return parse(file)


def read_tail(path: Path, size: int = TAIL_BYTES) -> Requests:
    """The newest requests: those in the last `size` bytes of a `requests.csv`."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return parse(file.read().decode(errors="replace").splitlines(keepends=True)[1:])


def parse(lines: Iterable[str]) -> Requests:
    """Lines of `scheduled_unix,kind,latency_seconds,outcome`; a header, damaged lines and a cut last one are not."""
    rows = sorted(row for line in lines if (row := _row(line)) is not None)
    return Requests(
        np.array([row[0] for row in rows], dtype=np.float64),
        np.array([row[1] for row in rows], dtype=np.float64),
        np.array([row[2] for row in rows], dtype=np.str_),
    )


def _row(line: str) -> tuple[float, float, str] | None:
    fields = line.rstrip("\r\n").split(",")
    if len(fields) != FIELDS or not line.endswith("\n"):
        return None
    try:
        scheduled, latency = float(fields[0]), float(fields[2])
    except ValueError:
        return None
    return (scheduled, latency, fields[3]) if math.isfinite(scheduled + latency) else None


def per_second(requests: Requests, start: float, end: float) -> Seconds:
    """The whole seconds from `start` to `end` (Unix s)."""
    times = np.arange(math.floor(start), math.ceil(end), dtype=np.float64)
    percentiles = np.full((len(times), 3), np.nan)
    for index, second in enumerate(times):
        due = requests.between(second, second + 1)
        if len(due):
            percentiles[index] = np.percentile(due.latency, (50, 95, 99))
    edges = np.append(times, math.ceil(end))
    ended = requests.scheduled + requests.latency
    answered, failed = (np.histogram(ended[kind], edges)[0].astype(np.float64) for kind in (requests.ok, ~requests.ok))
    return Seconds(times, percentiles[:, 0], percentiles[:, 1], percentiles[:, 2], answered, failed)


def client_track(requests: Requests, times: Floats, window: float = WINDOW_SECONDS) -> ClientTrack:
    """The track at `times` `[T]` (Unix s, increasing); NaN where nothing was due in the window."""
    firsts = np.searchsorted(requests.scheduled, times - window, side="right")
    lasts = np.searchsorted(requests.scheduled, times, side="right")
    latency, failed = np.full(len(times), np.nan), np.full(len(times), np.nan)
    for index, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        if last > first:
            latency[index] = np.percentile(requests.latency[first:last], 90)
            failed[index] = 1 - requests.ok[first:last].mean()
    return ClientTrack(times, latency, failed)
