"""What came of a remedy, as numbers: one vector of objectives before, during and after, never a single score.

Pure: arrays of the clients' requests and per-second values in, an `Outcome` out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi_ml.lab import gate
from kintsugi_ml.lab.clienttrack import Requests
from kintsugi_ml.lab.faults.base import Effect
from kintsugi_ml.lab.parts import Parts

WINDOW_SECONDS: Final = 2.0
STEP_SECONDS: Final = 0.5
STEADY_SECONDS: Final = 3.0
SLOWER: Final = 1.5
SLACK_SECONDS: Final = 0.005
USUAL: Final = 95.0
SHARE_SLACK: Final = 0.01
HEIGHT_SECONDS: Final = 15.0
"""So long before the remedy counts as the fault at its height: a ramp has ended by then."""
SIGNAL_SECONDS: Final = 5.0
"""Over so long a class' own signal is averaged: deadlocks and checkpoints come one by one."""
HARM_SLOWER: Final = 1.25
HARM_SHARE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Track:
    """One resource's values `[T]` at Unix seconds `[T]`; missing ones are NaN."""

    times: Floats
    values: Floats

    def mean(self, start: float, end: float) -> float | None:
        """The mean of what was measured in `start <= time < end`."""
        found = self.values[(self.times >= start) & (self.times < end)]
        found = found[~np.isnan(found)]
        return float(found.mean()) if len(found) else None


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the run: latency in s, answered requests per second, the share answered, mean of each resource."""

    p50: float | None
    p95: float | None
    p99: float | None
    throughput: float
    answered: float | None
    resources: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Consistency:
    """What was lost or broken off, in numbers of each; None: not measured."""

    lost_writes: int | None = None
    rolled_back: float | None = None
    sessions_terminated: int = 0


@dataclass(frozen=True, slots=True)
class OwnSignal:
    """What came of the class' own signal, in its unit: means of the same times as in `Outcome`, None: not measured.

    `felt`: at the fault's height it was moved by the factor that the gate asks for. `restored_after`: seconds from the
    remedy's start until it was not any more, for five seconds and in the mean of all that follows; None: never.
    """

    name: str
    before: float
    during: float
    settled: float | None
    felt: bool
    restored_after: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The objectives before (normal part), during (the fault at its height) and after (from the remedy's start).

    `settled` is the last third of the time after. `felt`: at its height the clients were outside their band.
    `restored_after`: seconds from the remedy's start until they were within it for 3 s on end; None: never.
    `harm`: what it settled to is worse than what it was against.
    """

    before: Phase
    during: Phase
    after: Phase
    settled: Phase
    consistency: Consistency
    felt: bool
    restored_after: float | None
    harm: bool
    own_signal: OwnSignal | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Band:
    """What is normal for these clients: p95 (s) at most, share answered at least, over `WINDOW_SECONDS`."""

    p95: float
    answered: float

    @classmethod
    def of(cls, normal: Requests, start: float, end: float) -> Band | None:
        """The one rule: p95 up to 1.5 times normal, or 5 ms more, or what 95 % of the normal windows kept below."""
        p95, answered = normal.percentile(95), normal.answered()
        if p95 is None or answered is None:
            return None
        windows = (normal.between(at, at + WINDOW_SECONDS).percentile(95) for at in _grid(start, end - WINDOW_SECONDS))
        usual = float(np.percentile([window for window in windows if window is not None] or [p95], USUAL))
        return cls(max(SLOWER * p95, p95 + SLACK_SECONDS, usual), answered - SHARE_SLACK)

    def holds(self, window: Requests) -> bool:
        """Whether a window is within it; one without any request is not."""
        p95, answered = window.percentile(95), window.answered()
        return p95 is not None and answered is not None and p95 <= self.p95 and answered >= self.answered


def measure(
    requests: Requests, parts: Parts, resources: Mapping[str, Track], consistency: Consistency | None = None
) -> Outcome:
    """The outcome of a run. `resources` by name, `primary_cpu` (CPU seconds/s) and `wal_bytes` (B/s) for example."""
    height = _height(parts)
    during = _phase(requests, height, parts.remedied, resources)
    settled = _phase(requests, _last_third(parts), parts.ended, resources)
    band = Band.of(requests.between(parts.normal, parts.injected), parts.normal, parts.injected)
    return Outcome(
        before=_phase(requests, parts.normal, parts.injected, resources),
        during=during,
        after=_phase(requests, parts.remedied, parts.ended, resources),
        settled=settled,
        consistency=consistency or Consistency(),
        felt=band is not None and _felt(requests, band, height, parts.remedied),
        restored_after=None if band is None else restored(requests, band, parts.remedied, parts.ended),
        harm=_worse(settled, during),
    )


def own_signal(effect: Effect, parts: Parts, frame: Frame, catalogue: Catalogue) -> OwnSignal | None:
    """The same of the signal that the class is proven by; None when it has none, or that was not measured."""
    signal = catalogue.get(effect.signal) if effect.signal else None
    if signal is None or signal.name not in frame.signals:
        return None
    place = frame.signals.index(signal.name)
    track = Track(frame.times, np.where(frame.mask[:, place], frame.values[:, place], np.nan))
    before = track.mean(parts.normal, parts.injected)
    during = track.mean(_height(parts), parts.remedied)
    if before is None or during is None:
        return None

    def moved(start: float, end: float) -> bool:
        mean = track.mean(start, end)
        return mean is None or gate.factor_of(before, mean, signal) >= effect.factor

    starts = np.arange(parts.remedied, parts.ended - SIGNAL_SECONDS + 1e-9)
    back = (at for at in starts if not moved(at, at + SIGNAL_SECONDS) and not moved(at, parts.ended))
    first = next(back, None)
    return OwnSignal(
        name=signal.name,
        before=before,
        during=during,
        settled=track.mean(_last_third(parts), parts.ended),
        felt=gate.factor_of(before, during, signal) >= effect.factor,
        restored_after=None if first is None else float(first - parts.remedied),
    )


def _height(parts: Parts) -> float:
    """When the fault's height begins; it ends with the remedy."""
    return max(parts.injected, parts.remedied - HEIGHT_SECONDS)


def _last_third(parts: Parts) -> float:
    """When the last third of the time after the remedy begins."""
    return parts.ended - (parts.ended - parts.remedied) / 3


def restored(requests: Requests, band: Band, start: float, end: float) -> float | None:
    """Seconds from `start` to the first moment from which the clients are within the band for `STEADY_SECONDS`."""
    starts = _grid(start, end - WINDOW_SECONDS)
    good = [band.holds(requests.between(at, at + WINDOW_SECONDS)) for at in starts]
    needed = round((STEADY_SECONDS - WINDOW_SECONDS) / STEP_SECONDS) + 1
    for index in range(len(starts) - needed + 1):
        if all(good[index : index + needed]):
            return float(starts[index] - start)
    return None


def _felt(requests: Requests, band: Band, start: float, end: float) -> bool:
    good = [band.holds(requests.between(at, at + WINDOW_SECONDS)) for at in _grid(start, end - WINDOW_SECONDS)]
    return bool(good) and sum(good) < len(good) / 2


def _phase(requests: Requests, start: float, end: float, resources: Mapping[str, Track]) -> Phase:
    found = requests.between(start, end)
    seconds = max(end - start, 1e-9)
    return Phase(
        p50=found.percentile(50),
        p95=found.percentile(95),
        p99=found.percentile(99),
        throughput=float(found.ok.sum()) / seconds,
        answered=found.answered(),
        resources={name: track.mean(start, end) for name, track in resources.items()},
    )


def _worse(now: Phase, then: Phase) -> bool:
    """A quarter slower, or two in a hundred fewer answered; silence is worse than anything."""
    if now.answered is None or then.answered is None:
        return now.answered is None and then.answered is not None
    slower = (
        now.p95 is not None and then.p95 is not None and now.p95 > max(HARM_SLOWER * then.p95, then.p95 + SLACK_SECONDS)
    )
    return slower or now.answered < then.answered - HARM_SHARE


def _grid(start: float, end: float) -> Floats:
    return np.arange(start, end + 1e-9, STEP_SECONDS)
