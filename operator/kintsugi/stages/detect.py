"""Detect: whether a database is anomalous now, judged against its own fault-free reference.

What it says, in this order:

- **Blind**: the newest samples are missing, so nothing can be said and nothing may be done.
- **Learning**: the reference is shorter than the database's `minimum`, or mostly holes. From ten samples on it is
  judged provisionally: people are told, nothing is done.
- **Anomalous**: two of the newest three samples of a symptom lie beyond its threshold (one sample, if overwhelming),
  until five samples in a row do not. Samples that are missing are never among those five.
- **Normal**: none of these.

A server that is down is not blindness: its `up` signal arrives and says 0, while all else of it is missing.
How evidence is weighed stands in `evidence.py`, what is normal in `baseline.py`. Everything is recomputed from the
recent samples in each call; the state between calls holds only what lies further back, so a restart loses nothing.
What a database's own examples change of it stands in `learned.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.anomaly import Anomaly, Health
from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.domain.signals import Role
from kintsugi.domain.text import human
from kintsugi.stages.baseline import cells
from kintsugi.stages.contributions import components, contributions
from kintsugi.stages.evidence import EDGE, Model, Rows, judge, learn, score
from kintsugi.stages.familiar import allowed
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

PROVISIONAL: Final = 10
"""Samples of a reference from which on a database is judged provisionally while it still learns. With 10 all of the
lab's faults are found as with 30, and the harmless runs raise three alarms more (docs/detection.md)."""

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """One database's samples judged, before anything is concluded; `model` and `rows` are None where they can't be.

    `health` is NORMAL where all that is missing is the conclusion; `reason` says why it is something else.
    """

    observed: Observed
    health: Health
    reason: str
    model: Model | None = None
    rows: Rows | None = None


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
        return [conclude(self.prepare(one, now)) for one in observed]

    def prepare(self, observed: Observed, now: float, reached: Sequence[Mapping[str, float]] = ()) -> Prepared:
        """Judge one database's samples; `reached` is what is allowed (`Rows.tamed`), see `familiar.py`."""
        if reason := self._blindness(observed, now):
            return Prepared(observed, Health.BLIND, reason)
        frozen = observed.state.flagged and observed.key in self._models
        ignorance = "" if frozen else _ignorance(observed)
        if ignorance and len(observed.reference) < PROVISIONAL:
            return Prepared(observed, Health.LEARNING, ignorance)
        model = self._models[observed.key].model if frozen else self._model(observed)
        if not model.symptoms.any():
            reason = "no symptom signal has enough samples in the reference: see which signals are missing in status"
            return Prepared(observed, Health.LEARNING, ignorance or reason)
        rows = judge(model, observed.recent, [allowed(model, one) for one in reached])
        return Prepared(observed, Health.LEARNING if ignorance else Health.NORMAL, ignorance, model, rows)

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


def conclude(prepared: Prepared, evidence: Floats | None = None) -> tuple[Anomaly, DetectorState]:
    """The verdict and the next state, from this evidence per row `[T]`; without it, from the statistics' own."""
    state, model, rows = prepared.observed.state, prepared.model, prepared.rows
    if model is None or rows is None:
        return _unjudged(prepared.health, prepared.reason), state
    evidence = rows.evidence if evidence is None else evidence
    if prepared.health is Health.LEARNING:
        return _provisional(prepared.reason, model, rows, float(evidence[-1])), state
    state = _next(model, rows, evidence, prepared.observed.recent, state)
    return _anomaly(model, rows, float(evidence[-1]), state), state


def _next(model: Model, rows: Rows, evidence: Floats, recent: Frame, state: DetectorState) -> DetectorState:
    """The state after these rows: open with evidence in the newest, close after enough rows without any."""
    above: Bools = np.asarray(evidence >= 1)
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


def _anomaly(model: Model, rows: Rows, evidence: float, state: DetectorState) -> Anomaly:
    return Anomaly(
        health=Health.ANOMALOUS if state.flagged else Health.NORMAL,
        score=score(evidence),
        since=state.since,
        contributions=contributions(model, rows, state.first_at or {}),
        components=components(model, rows, flagged=state.flagged),
    )


def _provisional(ignorance: str, model: Model, rows: Rows, evidence: float) -> Anomaly:
    """What can be said of a database whose reference is still short: enough to tell people, too little to act on."""
    suspected = evidence >= 1
    found = contributions(model, rows, {})
    what = f"suspicious: {found[0].sentence}" if suspected and found else "nothing suspicious so far"
    return Anomaly(
        health=Health.LEARNING,
        score=score(evidence),
        since=None,
        contributions=found,
        components={},
        reason=f"{ignorance}; judged provisionally until then, to tell people and never to act: {what}",
        suspected=suspected,
    )


def _unjudged(health: Health, reason: str) -> Anomaly:
    return Anomaly(health=health, score=0.0, since=None, contributions=(), components={}, reason=reason)
