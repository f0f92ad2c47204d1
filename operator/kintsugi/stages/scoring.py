"""What the learned model says of each database: those that are alike in one call, one that it fails on left aside.

Databases with examples are scored in a call of their own, since more of their samples are looked at, and so are those
whose references have other shapes. A database on which the model raises an error is left to the statistics for a while;
the others go on. A model that fails and has never worked is given up as a whole.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi.stages.baseline import cells
from kintsugi.stages.detect import Prepared
from kintsugi.stages.evidence import Model
from kintsugi.stages.ports import LearnedModel, Lesson, Observed

LEAST_REFERENCE: Final = 10
"""Samples below which the model is not asked."""

ROWS: Final = 60
"""Samples that the model is given of a database with examples: what hysteresis looks at."""

ROWS_WITHOUT: Final = 8
"""Without examples only the newest probability is told: three samples and the 5 s before them cost a seventh."""

RETRY: Final = 60.0
"""Seconds until the model is asked again about a database on which it failed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model said of one database's rows `[T]`; `deviation` `[S]` is of the newest."""

    probability: Floats
    threshold: float
    deviation: Floats
    fault_class: str
    nearest_class: str
    class_probability: float


@dataclass(frozen=True, slots=True)
class _Known:
    """The model's view of a reference and of the examples; which fitted statistics stand for that reference."""

    fitted: Model
    lessons: Any | None
    learned: Any


@dataclass(frozen=True, slots=True)
class _Asked:
    """A database about which the model is asked: its place among all, the model's view of it, and that one's shape."""

    place: int
    prepared: Prepared
    learned: Any
    shape: tuple[int, ...]


class Scoring:
    """Asks the model.

    Args:
        failed: called with the error when the model is given up, which `use(None)` does.
        capacity: how many databases' references the model keeps (about 80 kB each), least recently used out first.
    """

    def __init__(self, failed: Callable[[Exception], None], capacity: int) -> None:
        self.model: LearnedModel | None = None
        self._failed = failed
        self._capacity = capacity
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._failing: dict[str, tuple[float, Exception]] = {}
        self._worked = False

    def use(self, model: LearnedModel | None) -> None:
        """Go on with another model, or without one."""
        self.model = model
        self._known.clear()
        self._failing.clear()
        self._worked = False

    def failing(self, key: str) -> Exception | None:
        """Why the model is not asked about a database at present; None when it is."""
        _, error = self._failing.get(key, (0.0, None))
        return error

    def taught(self, observed: Observed, lessons: Sequence[Lesson], now: float) -> tuple[bool, Any | None]:
        """What examples teach the model, None when nothing; and whether it could be asked."""
        if self.model is None or not self._may_ask(observed.key, now):
            return False, None
        try:
            return True, self.model.teach(lessons, *_directions(observed.catalogue))
        except Exception as error:  # noqa: BLE001 – whatever a model does costs the model, never a cycle
            self._failing[observed.key] = now, error
            return False, None

    def seen(self, prepared: Sequence[Prepared], lessons: Sequence[Any | None], now: float) -> Mapping[int, Seen]:
        """What the model says of each database, by its place; nothing of those that it can't judge."""
        if self.model is None:
            return {}
        groups: dict[tuple[Any, ...], list[_Asked]] = defaultdict(list)
        for place, one in enumerate(prepared):
            asked = self._asked(place, one, lessons[place], now)
            if asked is not None:
                many = ROWS_WITHOUT if lessons[place] is None else ROWS
                recent, names = one.observed.recent, one.observed.catalogue.names()
                groups[many, asked.shape, recent.interval, names].append(asked)
        found: dict[int, Seen] = {}
        for (many, *_), members in groups.items():
            found |= self._scored(members, many, now)
        if self._failing and not self._worked:
            self._failed(next(error for _, error in self._failing.values()))
            return {}
        return found

    def _may_ask(self, key: str, now: float) -> bool:
        at, _ = self._failing.get(key, (now - RETRY, None))
        if 0 <= now - at < RETRY:
            return False
        self._failing.pop(key, None)
        return True

    def _asked(self, place: int, prepared: Prepared, lessons: Any | None, now: float) -> _Asked | None:
        model, observed, fitted = self.model, prepared.observed, prepared.model
        if model is None or fitted is None or not observed.learned or len(observed.reference) < LEAST_REFERENCE:
            return None
        if not self._may_ask(observed.key, now):
            return None
        try:
            learned = self._learned(model, observed, fitted, lessons)
            return _Asked(place, prepared, learned, model.shape(learned))
        except Exception as error:  # noqa: BLE001 – see above
            self._failing[observed.key] = now, error
            return None

    def _learned(self, model: LearnedModel, observed: Observed, fitted: Model, lessons: Any | None) -> Any:
        """The model's view of a database's reference, learned anew whenever the statistics learn it anew."""
        known = self._known.get(observed.key)
        if known is None or known.fitted is not fitted or known.lessons is not lessons:
            values = cells(observed.reference, observed.catalogue.names())
            learned = model.learn(values, observed.reference.interval, *_directions(observed.catalogue))
            if lessons is not None:
                learned = model.recall(learned, lessons)
            known = self._known[observed.key] = _Known(fitted, lessons, learned)
        self._known.move_to_end(observed.key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known.learned

    def _scored(self, members: Sequence[_Asked], many: int, now: float) -> Mapping[int, Seen]:
        """One call; when it fails, one for each of the databases, so that only those are left out that it fails on."""
        try:
            found = self._in_one_call(members, many)
        except Exception as error:  # noqa: BLE001 – see above
            if len(members) == 1:
                self._failing[members[0].prepared.observed.key] = now, error
                return {}
            return {place: seen for one in members for place, seen in self._scored([one], many, now).items()}
        self._worked = True
        return found

    def _in_one_call(self, members: Sequence[_Asked], many: int) -> Mapping[int, Seen]:
        """One call for databases of one shape, of whose newest samples `many` are given."""
        assert self.model is not None
        prepared = [one.prepared for one in members]
        names = prepared[0].observed.catalogue.names()
        on_grid = [_on_grid(one.observed.recent, many) for one in prepared]
        length = max(int(rows.max()) + 1 for rows in on_grid)
        values = np.full((len(prepared), length, len(names)), np.nan)
        for index, (one, rows) in enumerate(zip(prepared, on_grid, strict=True)):
            values[index, length - 1 - rows[rows >= 0]] = cells(one.observed.recent, names)[rows >= 0]
        scored = self.model.score([one.learned for one in members], values)
        if scored.probability.shape != values.shape[:2] or not np.isfinite(scored.probability).all():
            raise ValueError(
                "the model's probabilities are not one finite number per sample: it does not fit this version"
            )
        found = {}
        for index, (asked, rows) in enumerate(zip(members, on_grid, strict=True)):
            if not scored.judged[index, -1]:
                continue
            probability = np.where(rows >= 0, scored.probability[index, length - 1 - np.maximum(rows, 0)], 0.0)
            threshold, deviation = float(scored.threshold[index]), scored.deviation[index]
            wrong = _already_wrong(prepared[index]) or probability[-1] >= threshold
            named = self.model.classify(deviation, names) if wrong else ("", "", 0.0)
            found[asked.place] = Seen(probability, threshold, deviation[-1], *named)
        return found


def _already_wrong(prepared: Prepared) -> bool:
    return prepared.observed.state.flagged or (prepared.rows is not None and bool(prepared.rows.evidence[-1] >= 1))


def _on_grid(frame: Frame, many: int) -> NDArray[np.int64]:
    """How many intervals before the newest sample each row `[T]` lies; -1 for those beyond the newest `many`."""
    rows = np.round((frame.times[-1] - frame.times) / frame.interval).astype(np.int64)
    return np.where(rows < many, rows, -1)


def _directions(catalogue: Catalogue) -> tuple[Floats, Floats]:
    """Each signal's smallest change that matters, and the direction that hurts, both `[S]`."""
    floor = np.array([signal.floor for signal in catalogue])
    hurts = np.array([signal.hurts.sign for signal in catalogue])
    return floor, hurts
