"""Detection that learns from a database's own past: the statistics, beside them a learned model and the examples.

The statistics say what they know best: whether anything can be judged at all, when each signal left its band, what it
is called, when an incident is over. All databases that are due are scored by the model in one call; those with examples
in another, since more of their samples are looked at, and so are those whose references have other shapes. What model
and examples change of the statistics' evidence is one rule (`combine.py`); where both are absent, or fail, the
statistics stand as they are.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.anomaly import Anomaly, Effect, Opinion
from kintsugi.domain.experience import Example, LabelKind
from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi.stages.baseline import MARGIN, cells, neighbours
from kintsugi.stages.combine import combined, likeness_of
from kintsugi.stages.detect import CLOSE_AFTER, SERVER_UP, Prepared, RobustDetector, conclude
from kintsugi.stages.evidence import Model
from kintsugi.stages.familiar import reached
from kintsugi.stages.ports import DetectorState, LearnedModel, Lesson, Observed

LEAST_REFERENCE: Final = 10
"""Samples below which the model is not asked."""

PER_KIND: Final = 20
"""Examples used of a database, anomalous and normal ones each: the newest."""

UNUSUAL: Final = 3
"""Signals named as the most unusual, and the least deviation in scales that is called so."""

ROWS: Final = 60
"""Samples that the model is given of a database with examples: what hysteresis looks at."""

ROWS_WITHOUT: Final = 8
"""Without examples only the newest probability is told: three samples and the 5 s before them cost a seventh."""


@dataclass(frozen=True, slots=True)
class _Taught:
    """What a database's examples came to: for the model, and per normal one how far each signal went and how long."""

    lessons: Any | None
    familiar: tuple[tuple[Mapping[str, float], float], ...]
    anomalies: int
    normals: int


@dataclass(frozen=True, slots=True)
class _Known:
    """The model's view of a reference and of the examples; which fitted statistics stand for that reference."""

    fitted: Model
    lessons: Any | None
    learned: Any


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the model said of one database's rows `[T]`; `deviation` `[S]` is of the newest."""

    probability: Floats
    threshold: float
    deviation: Floats
    fault_class: str
    nearest_class: str
    class_probability: float


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
        self.model = model
        self._statistical = RobustDetector(capacity=capacity)
        self._failed = failed
        self._capacity = capacity
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._heard: dict[str, tuple[Example, ...]] = {}
        self._taught: dict[str, _Taught] = {}

    def use(self, model: LearnedModel | None) -> None:
        """Go on with another model, or without one."""
        self.model = model
        self._known.clear()
        self._taught.clear()

    def hear(self, uid: str, examples: Sequence[Example]) -> None:
        """All examples of a database, in place of those before; they count from its next cycle on."""
        kept = [
            example for kind in LabelKind for example in [each for each in examples if each.kind is kind][-PER_KIND:]
        ]
        self._heard[uid] = tuple(kept)
        self._taught.pop(uid, None)

    def forget(self, uid: str) -> None:
        """A database is gone."""
        self._heard.pop(uid, None)
        self._taught.pop(uid, None)

    def detect(self, observed: Sequence[Observed], now: float) -> Sequence[tuple[Anomaly, DetectorState]]:
        """One anomaly and the next state per database, in the given order; `now` in Unix seconds."""
        taught = [self._taught_of(one) if one.learned else NOTHING for one in observed]
        prepared = [
            self._statistical.prepare(one, now, _still_allowed(of_it, one))
            for one, of_it in zip(observed, taught, strict=True)
        ]
        seen = self._seen(prepared, taught)
        return [
            _concluded(one, of_it, seen.get(place), self.model.name if self.model else "")
            for place, (one, of_it) in enumerate(zip(prepared, taught, strict=True))
        ]

    def _taught_of(self, observed: Observed) -> _Taught:
        """What the examples of a database teach, worked out once."""
        examples = self._heard.get(observed.uid, ())
        if not examples:
            return NOTHING
        if observed.uid not in self._taught:
            self._taught[observed.uid] = self._learn_from(examples, observed.catalogue)
        return self._taught[observed.uid]

    def _learn_from(self, examples: Sequence[Example], catalogue: Catalogue) -> _Taught:
        normal = [example for example in examples if example.kind is LabelKind.NORMAL]
        familiar = tuple((_reached(example, catalogue), example.end - example.start) for example in normal)
        lessons = None
        if self.model is not None:
            try:
                lessons = self.model.teach([_lesson(one, catalogue) for one in examples], *_directions(catalogue))
            except Exception as error:  # noqa: BLE001 – whatever a model does costs the model, never a cycle
                self._failed(error)
        return _Taught(lessons, familiar, len(examples) - len(normal), len(normal))

    def _seen(self, prepared: Sequence[Prepared], taught: Sequence[_Taught]) -> Mapping[int, _Seen]:
        """What the model says of each database, by its place; nothing of those that it can't judge."""
        if self.model is None:
            return {}
        groups: dict[tuple[Any, ...], list[tuple[int, Any]]] = defaultdict(list)
        try:
            for place, one in enumerate(prepared):
                learned = self._learned(one, taught[place].lessons)
                if learned is not None:
                    shape = self.model.shape(learned)
                    many = ROWS_WITHOUT if taught[place].lessons is None else ROWS
                    groups[shape, many, one.observed.recent.interval, one.observed.catalogue.names()].append(
                        (place, learned)
                    )
            found: dict[int, _Seen] = {}
            for (_, many, *_), members in groups.items():
                places = [place for place, _ in members]
                found |= self._scored(
                    [prepared[place] for place in places],
                    [learned for _, learned in members],
                    places,
                    many,
                )
        except Exception as error:  # noqa: BLE001 – whatever a model does costs the model, never a cycle
            self._failed(error)
            return {}
        return found

    def _learned(self, prepared: Prepared, lessons: Any | None) -> Any | None:
        """The model's view of a database's reference, learned anew whenever the statistics learn it anew."""
        observed, fitted = prepared.observed, prepared.model
        if self.model is None or fitted is None or not observed.learned or len(observed.reference) < LEAST_REFERENCE:
            return None
        known = self._known.get(observed.key)
        if known is None or known.fitted is not fitted or known.lessons is not lessons:
            values = cells(observed.reference, observed.catalogue.names())
            learned = self.model.learn(values, observed.reference.interval, *_directions(observed.catalogue))
            if lessons is not None:
                learned = self.model.recall(learned, lessons)
            known = self._known[observed.key] = _Known(fitted, lessons, learned)
        self._known.move_to_end(observed.key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known.learned

    def _scored(
        self,
        prepared: Sequence[Prepared],
        learned: Sequence[Any],
        places: Sequence[int],
        many: int,
    ) -> Mapping[int, _Seen]:
        """One call for databases of one shape, of whose newest samples `many` are given."""
        assert self.model is not None
        names = prepared[0].observed.catalogue.names()
        on_grid = [_on_grid(one.observed.recent, many) for one in prepared]
        length = max(int(rows.max()) + 1 for rows in on_grid)
        values = np.full((len(prepared), length, len(names)), np.nan)
        for index, (one, rows) in enumerate(zip(prepared, on_grid, strict=True)):
            values[index, length - 1 - rows[rows >= 0]] = cells(one.observed.recent, names)[rows >= 0]
        scored = self.model.score(learned, values)
        if scored.probability.shape != values.shape[:2] or not np.isfinite(scored.probability).all():
            raise ValueError(
                "the model's probabilities are not one finite number per sample: it does not fit this version"
            )
        found = {}
        for index, (place, rows) in enumerate(zip(places, on_grid, strict=True)):
            if not scored.judged[index, -1]:
                continue
            probability = np.where(rows >= 0, scored.probability[index, length - 1 - np.maximum(rows, 0)], 0.0)
            threshold, deviation = float(scored.threshold[index]), scored.deviation[index]
            wrong = _already_wrong(prepared[index]) or probability[-1] >= threshold
            named = self.model.classify(deviation, names) if wrong else ("", "", 0.0)
            found[place] = _Seen(probability, threshold, deviation[-1], *named)
        return found


def _already_wrong(prepared: Prepared) -> bool:
    return prepared.observed.state.flagged or (prepared.rows is not None and bool(prepared.rows.evidence[-1] >= 1))


def _concluded(prepared: Prepared, taught: _Taught, seen: _Seen | None, name: str) -> tuple[Anomaly, DetectorState]:
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


def _opinion(prepared: Prepared, taught: _Taught, seen: _Seen | None, name: str, evidence: Floats) -> Opinion:
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


def _on_grid(frame: Frame, many: int) -> NDArray[np.int64]:
    """How many intervals before the newest sample each row `[T]` lies; -1 for those beyond the newest `many`."""
    rows = np.round((frame.times[-1] - frame.times) / frame.interval).astype(np.int64)
    return np.where(rows < many, rows, -1)


def _lesson(example: Example, catalogue: Catalogue) -> Lesson:
    """An example in today's columns: what it did not measure is missing, what is not known any more is left out."""
    names, window = catalogue.names(), example.window
    anomalous = example.kind is LabelKind.ANOMALY
    return cells(example.reference, names), cells(window, names), window.interval, anomalous


def _reached(example: Example, catalogue: Catalogue) -> Mapping[str, float]:
    return reached(example.reference, example.window, catalogue, SERVER_UP)


def _directions(catalogue: Catalogue) -> tuple[Floats, Floats]:
    """Each signal's smallest change that matters, and the direction that hurts, both `[S]`."""
    floor = np.array([signal.floor for signal in catalogue])
    hurts = np.array([signal.hurts.sign for signal in catalogue])
    return floor, hurts
