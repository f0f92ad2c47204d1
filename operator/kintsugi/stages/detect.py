"""Detect: whether a database is anomalous now, judged against its own fault-free reference.

What it says, in this order:

- **Blind**: the newest samples are missing, so nothing can be said and nothing may be done.
- **Learning**: the reference is shorter than the database's `minimum`, or mostly holes.
- **Anomalous**: two of the newest three samples of a symptom lie beyond its threshold (one sample, if overwhelming),
  until five samples in a row do not. Samples that are missing are never among those five.
- **Normal**: none of these.

A server that is down is not blindness: its `up` signal arrives and says 0, while all else of it is missing.
How evidence is weighed stands in `evidence.py`, what is normal in `baseline.py`. Everything is recomputed from the
recent samples in each call; the state between calls holds only what lies further back, so a restart loses nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.anomaly import Anomaly, Contribution, Health
from kintsugi.domain.frame import Bools, Frame
from kintsugi.domain.signals import Hurts, Role, Signal
from kintsugi.domain.text import human, quantity
from kintsugi.stages.baseline import cells
from kintsugi.stages.evidence import EDGE, Model, Rows, judge, learn, score
from kintsugi.stages.ports import DetectorState, Observed
from kintsugi.stages.reference import seconds_of

STALE: Final = 3
"""Scrape intervals after which a missing sample is a hole that blinds."""

CLOSE_AFTER: Final = 5
"""Samples in a row without evidence that end an anomaly."""

SEEN: Final = 0.2
"""Of the database's own signals must be fresh, or nothing can be said about it."""

REFIT_SAMPLES: Final = 30
"""A reference that moved on by fewer samples than this, or than a twentieth of it, is the same for all purposes."""

MOST: Final = 12
"""Contributions shown."""

OUTSIDE: Final = frozenset({"client", "pooler", "host-cpu", "host-memory", "host-io"})
"""Components that are measured without the database server: their metrics arrive when it is gone."""

SERVER_UP: Final = "postgres_up"


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A model, and which reference it was learned from."""

    model: Model
    signals: tuple[str, ...]
    first: float
    last: float
    samples: int


class RobustDetector:
    """Robust deviation and PCA residual against the database's own reference. Needs no training.

    It keeps the fitted models of at most `capacity` databases (about 20 kB each), least recently used out first; they
    are learned anew when the reference has moved on, and losing one costs two milliseconds.

    Args:
        alive: the signal that is 1 while the server answers and 0 when it does not.
        outside: components whose metrics do not come from the database server itself.
        capacity: how many databases' models are kept.
    """

    def __init__(self, alive: str = SERVER_UP, outside: frozenset[str] = OUTSIDE, capacity: int = 2048) -> None:
        self._alive = alive
        self._outside = outside
        self._capacity = capacity
        self._models: OrderedDict[str, _Fitted] = OrderedDict()

    def detect(self, observed: Sequence[Observed], now: float) -> Sequence[tuple[Anomaly, DetectorState]]:
        """One anomaly and the next state per database, in the given order; `now` in Unix seconds."""
        return [self._one(one, now) for one in observed]

    def _one(self, observed: Observed, now: float) -> tuple[Anomaly, DetectorState]:
        if reason := self._blindness(observed, now):
            return _unjudged(Health.BLIND, reason), observed.state
        frozen = observed.state.flagged and observed.key in self._models
        if not frozen and (reason := _ignorance(observed)):
            return _unjudged(Health.LEARNING, reason), observed.state
        model = self._models[observed.key].model if frozen else self._model(observed)
        if not model.symptoms.any():
            reason = "no symptom signal has enough samples in the reference: see which signals are missing in status"
            return _unjudged(Health.LEARNING, reason), observed.state
        rows = judge(model, observed.recent)
        state = _next(model, rows, observed.recent, observed.state)
        return _anomaly(model, rows, state), state

    def _model(self, observed: Observed) -> Model:
        reference = observed.reference
        signals, first, last = reference.signals, float(reference.times[0]), float(reference.times[-1])
        fitted = self._models.get(observed.key)
        if fitted is None or not _still_fits(fitted, reference):
            model = learn(reference, observed.catalogue, self._alive)
            fitted = _Fitted(model, signals, first, last, len(reference))
        self._models[observed.key] = fitted
        self._models.move_to_end(observed.key)
        while len(self._models) > self._capacity:
            self._models.popitem(last=False)
        return fitted.model

    def _blindness(self, observed: Observed, now: float) -> str:
        """Why nothing can be said about this database now; empty when something can."""
        recent, horizon = observed.recent, now - (STALE + 0.5) * observed.recent.interval
        fresh = recent.between(horizon, np.inf)
        if not fresh.mask.any():
            return f"{_silence(recent, now)}: is Prometheus reachable, and does it scrape this database?"
        up = fresh.column(self._alive)
        if len(up) and up[-1] < 0.5:
            return ""
        if not len(up) and (len(recent.column(self._alive)) or len(observed.reference.column(self._alive))):
            silence = _silence(recent, now, self._alive)
            return f"{silence} of {self._alive} while other metrics arrive: is the collector running?"
        own = [s.name for s in observed.catalogue if s.component not in self._outside and s.name != self._alive]
        known = _ever(observed.reference, own) | _ever(recent, own)
        lost = known & ~_ever(fresh, own)
        if lost.sum() > (1 - SEEN) * known.sum():
            return f"{lost.sum()} of {known.sum()} database signals are missing: see the collector's log"
        return ""


def _ever(frame: Frame, names: Sequence[str]) -> Bools:
    """Which of the named signals `[S]` were measured at all."""
    measured = {name for name, seen in zip(frame.signals, np.atleast_1d(frame.mask.any(axis=0)), strict=True) if seen}
    return np.array([name in measured for name in names], dtype=np.bool_)


def _silence(recent: Frame, now: float, name: str | None = None) -> str:
    """How long ago something (or the named signal) was last seen, in words."""
    names = recent.signals if name is None else (name,)
    seen = recent.times[~np.isnan(cells(recent, names)).all(axis=1)]
    return f"no sample for {human(max(now - float(seen[-1]), 0.0))}" if len(seen) else "no sample has arrived yet"


def _ignorance(observed: Observed) -> str:
    """Why this database can't be judged yet; empty when it can."""
    reference = observed.reference
    learned = seconds_of(reference)
    if len(reference) == 0 or learned < observed.minimum:
        return f"{human(learned)} of {human(observed.minimum)} of fault-free samples learned"
    known = reference.mask.any(axis=0)
    share = float(reference.mask[:, known].mean()) if known.any() else 0.0
    if share < 0.5:
        return f"the reference is mostly missing: {share * 100:.0f} % of its samples were measured, half are needed"
    return ""


def _still_fits(fitted: _Fitted, reference: Frame) -> bool:
    moved = float(reference.times[-1]) - fitted.last
    return (
        fitted.signals == reference.signals
        and 0 <= moved < max(REFIT_SAMPLES, fitted.samples / 20) * reference.interval
        and len(reference) < 1.1 * fitted.samples
        and float(reference.times[0]) >= fitted.first
    )


def _next(model: Model, rows: Rows, recent: Frame, state: DetectorState) -> DetectorState:
    """The state after these rows: open with evidence in the newest, close after enough rows without any."""
    above: Bools = np.asarray(rows.evidence >= 1)
    trailing = int(np.argmin(above[::-1])) if not above.all() else len(above)
    if not state.flagged and not trailing:
        return DetectorState(below=_quiet(above, np.ones(len(above), dtype=np.bool_)))
    first_at = _departures(model, rows, state.first_at or {})
    known = _answered(model, rows, first_at)
    quiet = _quiet(above, known)
    if quiet >= CLOSE_AFTER:
        return DetectorState(below=quiet)
    since = state.since if state.flagged else min(_onsets(model, first_at), default=float(recent.times[-1]))
    return DetectorState(flagged=True, above=trailing, below=quiet, since=since, first_at=first_at)


def _quiet(above: Bools, known: Bools) -> int:
    """How many rows at the end show no evidence, rows that can't be judged left aside."""
    last = int(np.flatnonzero(above)[-1]) if above.any() else -1
    return int(known[last + 1 :].sum())


def _answered(model: Model, rows: Rows, first_at: Mapping[str, float]) -> Bools:
    """Rows `[T]` in which every symptom of the incident was measured; one that vanished for good is given up."""
    index = [
        i
        for i, signal in enumerate(model.normal.signals)
        if signal.role is Role.SYMPTOM and signal.name in first_at and not np.isnan(rows.deviation[:, i]).all()
    ]
    if index:
        return np.asarray(~np.isnan(rows.deviation[:, index]).any(axis=1), dtype=np.bool_)
    return np.asarray(np.isnan(rows.deviation[:, model.symptoms]).mean(axis=1) < 0.5, dtype=np.bool_)


def _onsets(model: Model, first_at: Mapping[str, float]) -> list[float]:
    symptoms = {s.name for s in model.normal.signals if s.role is Role.SYMPTOM}
    return [at for name, at in first_at.items() if name in symptoms]


def _departures(model: Model, rows: Rows, before: Mapping[str, float]) -> Mapping[str, float]:
    """When each signal left its band in this incident: what is known already, and those that are out now."""
    found = dict(before)
    for index in np.flatnonzero(rows.held[-1] >= 1):
        name = model.normal.signals[index].name
        if name not in found:
            found[name] = _left_at(rows, int(index))
    return found


def _left_at(rows: Rows, index: int) -> float:
    """The first sample beyond the edge of the band, in the run of rows that ends now."""
    outside = rows.held[:, index] >= EDGE
    start = len(outside) - int(np.argmin(outside[::-1])) if not outside.all() else 0
    while start > 0 and rows.ratio[start - 1, index] >= EDGE:
        start -= 1
    return float(rows.times[start])


def _anomaly(model: Model, rows: Rows, state: DetectorState) -> Anomaly:
    return Anomaly(
        health=Health.ANOMALOUS if state.flagged else Health.NORMAL,
        score=score(float(rows.evidence[-1])),
        since=state.since,
        contributions=_contributions(model, rows, state.first_at or {}),
        components=_components(model, rows, flagged=state.flagged),
    )


def _components(model: Model, rows: Rows, *, flagged: bool) -> Mapping[str, float]:
    """Each component's score: its worst signal. The workload's own signals count only while something is wrong."""
    counted = model.symptoms | model.causes
    out: dict[str, float] = {}
    for signal, ratio, counts in zip(model.normal.signals, rows.held[-1], counted, strict=True):
        seen = score(float(ratio)) if counts or (flagged and signal.hurts is not Hurts.BOTH) else 0.0
        out[signal.component] = max(out.get(signal.component, 0.0), seen)
    return out


def _contributions(model: Model, rows: Rows, first_at: Mapping[str, float]) -> tuple[Contribution, ...]:
    """The signals beyond the edge of their bands, the furthest out first, and each component's first departure."""
    order = np.argsort(-rows.held[-1], kind="stable")
    chosen = [int(index) for index in order if rows.held[-1, index] >= EDGE][:MOST]
    chosen += [index for index in _first_of_each(model, rows, first_at) if index not in chosen]
    return tuple(_contribution(model, rows, index, first_at) for index in chosen)


def _first_of_each(model: Model, rows: Rows, first_at: Mapping[str, float]) -> list[int]:
    """Per component, the signal that left its band first in this incident, where it was measured lately."""
    first: dict[str, int] = {}
    for index, signal in enumerate(model.normal.signals):
        if signal.name not in first_at or np.isnan(rows.values[:, index]).all():
            continue
        known = first.get(signal.component)
        if known is None or first_at[signal.name] < first_at[model.normal.signals[known].name]:
            first[signal.component] = index
    return list(first.values())


def _contribution(model: Model, rows: Rows, index: int, first_at: Mapping[str, float]) -> Contribution:
    signal, reference = model.normal.signals[index], float(model.normal.median[index])
    newest = int(np.flatnonzero(~np.isnan(rows.values[:, index]))[-1])
    value, deviation = float(rows.values[newest, index]), float(rows.deviation[newest, index])
    return Contribution(
        signal=signal.name,
        component=signal.component,
        deviation=deviation,
        value=value,
        reference=reference,
        unit=signal.unit,
        sentence=_sentence(signal, value, reference, deviation),
        first_at=first_at.get(signal.name),
    )


def _sentence(signal: Signal, value: float, reference: float, deviation: float) -> str:
    """As in "lock wait age 12 s, normally 0 ms (24 σ)"."""
    if signal.name.endswith("_up") and value < 0.5:
        return f"{signal.name.removesuffix('_up')} does not answer"
    sigmas = f"{deviation:.0f} σ" if deviation < 1000 else "> 1000 σ"
    return f"{title(signal)} {quantity(value, signal.unit)}, normally {quantity(reference, signal.unit)} ({sigmas})"


def title(signal: Signal) -> str:
    """What a signal is called in a sentence: its name as words, without the unit that follows the number."""
    words = signal.name.replace("_", " ")
    return words.removesuffix(f" {signal.unit}")


def _unjudged(health: Health, reason: str) -> Anomaly:
    return Anomaly(health=health, score=0.0, since=None, contributions=(), components={}, reason=reason)
