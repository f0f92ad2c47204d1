"""Detection that learns from a database's own past: the statistics, beside them a learned model and the examples.

The statistics say what they know best: whether anything can be judged at all, when each signal left its band, what it
is called, when an incident is over. What the model says beside them is asked in `scoring.py`. What model and examples
change of the statistics' evidence is one rule (`combine.py`); where both are absent, or fail, the statistics stand as
they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from kintsugi.domain.anomaly import Anomaly, Effect, Opinion
from kintsugi.domain.experience import Example, LabelKind
from kintsugi.domain.frame import Bools, Floats
from kintsugi.domain.signals import Catalogue
from kintsugi.stages.baseline import MARGIN, cells, neighbours
from kintsugi.stages.combine import combined, likeness_of
from kintsugi.stages.detect import CLOSE_AFTER, SERVER_UP, Prepared, RobustDetector, conclude
from kintsugi.stages.familiar import reached
from kintsugi.stages.ports import DetectorState, LearnedModel, Lesson, Observed
from kintsugi.stages.scoring import Scoring, Seen

PER_KIND: Final = 20
"""Examples used of a database, anomalous and normal ones each: the newest."""

UNUSUAL: Final = 3
"""Signals named as the most unusual, and the least deviation in scales that is called so."""


@dataclass(frozen=True, slots=True)
class _Taught:
    """What a database's examples came to: for the model, and per normal one how far each signal went and how long."""

    lessons: Any | None
    familiar: tuple[tuple[Mapping[str, float], float], ...]
    anomalies: int
    normals: int


NOTHING: Final = _Taught(None, (), 0, 0)


class LearnedDetector:
    """The statistics, a learned model and the examples together.

    Args:
        model: scores databases; None: only the statistics and what was labelled normal.
        failed: called with the error when the model fails on a batch, which is then judged without it.
        capacity: how many databases' references the model keeps (about 80 kB each), least recently used out first.
    """

    def __init__(
        self,
        model: LearnedModel | None = None,
        failed: Callable[[Exception], None] = lambda _: None,
        capacity: int = 2048,
    ) -> None:
        self._statistical = RobustDetector(capacity=capacity)
        self._scoring = Scoring(failed, capacity)
        self._scoring.use(model)
        self._heard: dict[str, tuple[Example, ...]] = {}
        self._taught: dict[str, _Taught] = {}
        self._unheard: set[str] = set()

    @property
    def model(self) -> LearnedModel | None:
        """The model that is in use."""
        return self._scoring.model

    def use(self, model: LearnedModel | None) -> None:
        """Go on with another model, or without one. What the one before was taught is worth nothing to it."""
        self._scoring.use(model)
        self._unheard |= self._taught.keys() - self._heard.keys()
        self._taught = {uid: replace(taught, lessons=None) for uid, taught in self._taught.items()}

    def hear(self, uid: str, examples: Sequence[Example]) -> None:
        """All examples of a database, in place of those before; they count from its next cycle on.

        They are kept until the model was taught by them: a database's are some megabytes.
        """
        kept = [
            example for kind in LabelKind for example in [each for each in examples if each.kind is kind][-PER_KIND:]
        ]
        self.forget(uid)
        if kept:
            self._heard[uid] = tuple(kept)

    def forget(self, uid: str) -> None:
        """A database is gone."""
        self._heard.pop(uid, None)
        self._taught.pop(uid, None)
        self._unheard.discard(uid)

    def unheard(self) -> set[str]:
        """Databases whose examples must be heard again, since there is another model; each is told once."""
        found, self._unheard = self._unheard, set()
        return found

    def failing(self, key: str) -> Exception | None:
        """Why the model is not asked about a database at present; None when it is."""
        return self._scoring.failing(key)

    def detect(self, observed: Sequence[Observed], now: float) -> Sequence[tuple[Anomaly, DetectorState]]:
        """One anomaly and the next state per database, in the given order; `now` in Unix seconds."""
        taught = [self._taught_of(one, now) if one.learned else NOTHING for one in observed]
        prepared = [
            self._statistical.prepare(one, now, _still_allowed(of_it, one))
            for one, of_it in zip(observed, taught, strict=True)
        ]
        seen = self._scoring.seen(prepared, [of_it.lessons for of_it in taught], now)
        return [
            _concluded(one, of_it, seen.get(place), self.model.name if self.model else "")
            for place, (one, of_it) in enumerate(zip(prepared, taught, strict=True))
        ]

    def _taught_of(self, observed: Observed, now: float) -> _Taught:
        """What the examples of a database teach, worked out once."""
        uid, catalogue = observed.uid, observed.catalogue
        examples = self._heard.get(uid)
        if examples is None:
            return self._taught.get(uid, NOTHING)
        if uid not in self._taught:
            self._taught[uid] = _familiar(examples, catalogue)
        asked, lessons = self._scoring.taught(observed, [_lesson(one, catalogue) for one in examples], now)
        if asked:
            self._taught[uid] = replace(self._taught[uid], lessons=lessons)
            del self._heard[uid]
        return self._taught[uid]


def _concluded(prepared: Prepared, taught: _Taught, seen: Seen | None, name: str) -> tuple[Anomaly, DetectorState]:
    """One database's verdict."""
    model, rows, observed = prepared.model, prepared.rows, prepared.observed
    if model is None or rows is None:
        return conclude(prepared)
    symptom = np.asarray(rows.held[:, model.symptoms].max(axis=1, initial=0.0), dtype=np.float64)
    likeness = np.zeros(len(rows.evidence))
    if seen is not None and taught.lessons is not None and taught.anomalies:
        likeness = likeness_of(seen.probability, seen.threshold, neighbours(observed.recent))
    evidence = combined(rows.evidence, rows.tamed, likeness, symptom)
    anomaly, state = conclude(prepared, evidence)
    state = replace(state, silent_since=_silent_since(rows.evidence, evidence, rows.times, observed.state))
    if seen is None and taught is NOTHING:
        return anomaly, state
    opinion = replace(_opinion(prepared, taught, seen, name, evidence), silent_since=state.silent_since)
    return replace(anomaly, opinion=opinion), state


def _opinion(prepared: Prepared, taught: _Taught, seen: Seen | None, name: str, evidence: Floats) -> Opinion:
    assert prepared.rows is not None
    plain, newest = float(prepared.rows.evidence[-1]), float(evidence[-1])
    effect = Effect.OPENED if plain < 1 <= newest else Effect.SILENCED if newest < 1 <= plain else Effect.NOTHING
    if seen is None:
        return Opinion("", 0.0, 1.0, taught.anomalies, taught.normals, effect=effect)
    names, far = prepared.observed.catalogue.names(), np.abs(seen.deviation)
    order = [int(index) for index in np.argsort(-far, kind="stable")[:UNUSUAL] if UNUSUAL <= far[index] < np.inf]
    unusual = tuple((names[index], float(seen.deviation[index])) for index in order)
    probability = float(seen.probability[-1])
    return Opinion(
        name,
        probability,
        seen.threshold,
        taught.anomalies,
        taught.normals,
        unusual,
        seen.fault_class,
        seen.nearest_class,
        seen.class_probability,
        effect,
    )


def _still_allowed(taught: _Taught, observed: Observed) -> list[Mapping[str, float]]:
    """What normal examples allow now: each silences 1.5 times as long as it lasted, and no longer."""
    since = observed.state.silent_since
    silent = float(observed.recent.times[-1]) - since if since is not None and len(observed.recent) else 0.0
    return [far for far, seconds in taught.familiar if far and silent <= MARGIN * seconds]


def _silent_since(plain: Floats, evidence: Floats, times: Floats, state: DetectorState) -> float | None:
    """Since when evidence has been silenced; None when it is not, or the statistics have been quiet for long enough."""
    loud: Bools = np.asarray(plain >= 1)
    silenced: Bools = np.asarray(loud & (evidence < 1))
    if not loud[-CLOSE_AFTER:].any():
        return None
    if state.silent_since is not None:
        return state.silent_since
    return float(times[int(np.argmax(silenced))]) if silenced.any() else None


def _lesson(example: Example, catalogue: Catalogue) -> Lesson:
    """An example in today's columns: what it did not measure is missing, what is not known any more is left out."""
    names, window = catalogue.names(), example.window
    anomalous = example.kind is LabelKind.ANOMALY
    return cells(example.reference, names), cells(window, names), window.interval, anomalous


def _familiar(examples: Sequence[Example], catalogue: Catalogue) -> _Taught:
    """What examples teach without a model: how far each normal one went, and for how long."""
    normal = [example for example in examples if example.kind is LabelKind.NORMAL]
    allowed = tuple((reached(one.reference, one.window, catalogue, SERVER_UP), one.end - one.start) for one in normal)
    return _Taught(None, allowed, len(examples) - len(normal), len(normal))
