"""`ExperienceStore`: keeps and gives back examples and outcomes, bounded per database, safe with several processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, and_, delete, func, insert, or_, select

from kintsugi.domain.actions import Objectives
from kintsugi.domain.experience import Example, Fate, LabelKind, Source, Trial
from kintsugi.shell.experience import gone
from kintsugi.shell.experience.engine import Database
from kintsugi.shell.experience.errors import DuplicateExperienceError
from kintsugi.shell.experience.frames import BadFrameError, pack, unpack
from kintsugi.shell.experience.schema import EXAMPLES, GONE, OUTCOMES, migrate

log = logging.getLogger(__name__)

PER_CLASS: Final = 10
"""Examples of one kind and class per database: what few-shot adaptation is made for."""

CLASSES: Final = 20
"""Kinds and classes per database that examples are kept of."""

OUTCOMES_KEPT: Final = 1000
"""Per database."""

RETAINED: Final = 366 * 86400.0
"""Seconds after which a row goes, whatever its database: those of deleted ones would stay for ever."""


@dataclass(frozen=True, slots=True)
class Held:
    """How many examples there are of one database."""

    anomalies: int = 0
    normal: int = 0


class ExperienceStore:
    """Every method but the constructor and `close` raises `ExperienceError` when the store can't be used.

    The same thing added twice, or by two processes at once, is kept once. Of each kind and class of a database the
    newest `per_class` examples stay (by the time that they are of), of all classes the newest `PER_CLASS * CLASSES`.
    What a person said and is no longer kept is remembered by its id (`fates`).
    """

    def __init__(self, url: str, *, per_class: int = PER_CLASS) -> None:
        """Prepare; nothing is opened or created yet.

        Raises:
            ExperienceUrlError: the URL is none, or its driver is not installed.
        """
        self._database = Database(url)
        self._per_class = per_class

    @property
    def where(self) -> str:
        """The URL without its password, for people."""
        return self._database.where

    def open(self, now: float) -> None:
        """Create the tables or bring them up to date, and let go of what is very old (`now` in Unix seconds)."""
        with self._database.writing() as connection:
            migrate(connection, self.where)
            for table in (EXAMPLES, OUTCOMES, GONE):
                connection.execute(delete(table).where(table.c.created < now - RETAINED))

    def close(self) -> None:
        """Give everything back."""
        self._database.close()

    def add_example(self, example: Example, now: float) -> Fate | None:
        """Keep an example, unless it gives way at once to as many newer ones; what became of it.

        None when nothing did: it is kept already, or an outcome's where a person has spoken. A person's replaces what
        outcomes say about a part of its time; about such a time outcomes are silent.
        """
        try:
            with self._database.writing() as connection:
                return self._add(connection, example, now)
        except DuplicateExperienceError:
            return None

    def add_trial(self, trial: Trial, example: Example | None, now: float) -> bool:
        """Keep an outcome and the example that it is, both or neither; False when the outcome is known.

        Where a person has spoken the outcome is kept, and the example is not.
        """
        try:
            with self._database.writing() as connection:
                if connection.execute(select(OUTCOMES.c.action).where(OUTCOMES.c.action == trial.action)).first():
                    return False
                connection.execute(insert(OUTCOMES).values(**_trial_row(trial), created=now))
                of_it = OUTCOMES.c.database == trial.database
                _drop_oldest(connection, OUTCOMES, of_it, OUTCOMES.c.ended, OUTCOMES_KEPT)
                if example is not None:
                    self._add(connection, example, now)
                return True
        except DuplicateExperienceError:
            return False

    def forget(self, database: str, start: float, end: float, now: float, keep: Collection[str] = ()) -> int:
        """Drop every example of a part of this time (Unix seconds) but those to `keep` (ids); how many there were."""
        with self._database.writing() as connection:
            gone.take_back(connection, and_(_overlapping(database, start, end, GONE), GONE.c.id.not_in(keep)))
            which = and_(_overlapping(database, start, end), EXAMPLES.c.id.not_in(keep))
            return gone.let_go(connection, which, Fate.TAKEN_BACK, now)

    def pass_over(self, database: str, id_: str, start: float, end: float, now: float) -> None:
        """Remember as taken back what a person said, although it was never kept."""
        with self._database.writing() as connection:
            gone.remember(connection, database, id_, start, end, Fate.TAKEN_BACK, now)

    def known_trials(self, actions: Collection[str]) -> frozenset[str]:
        """Which of these actions' outcomes (by uid) are kept."""
        with self._database.reading() as connection:
            rows = connection.execute(select(OUTCOMES.c.action).where(OUTCOMES.c.action.in_(actions)))
            return frozenset(row.action for row in rows)

    def fates(self, database: str) -> Mapping[str, Fate]:
        """What became of a database's examples, by id: of those kept, and of those that people once spoke of."""
        with self._database.reading() as connection:
            kept = connection.execute(select(EXAMPLES.c.id).where(EXAMPLES.c.database == database))
            return {**gone.fates(connection, database), **{row.id: Fate.KEPT for row in kept}}

    def examples_of(self, database: str) -> tuple[Example, ...]:
        """A database's examples (by its uid), oldest first; one that can't be unpacked is left out and logged."""
        query = select(EXAMPLES).where(EXAMPLES.c.database == database).order_by(EXAMPLES.c.end_time, EXAMPLES.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(example for row in rows if (example := self._example(row)) is not None)

    def trials_of(self, database: str) -> tuple[Trial, ...]:
        """What came of the actions on a database, oldest first; one that can't be read is left out and logged."""
        query = select(OUTCOMES).where(OUTCOMES.c.database == database).order_by(OUTCOMES.c.ended, OUTCOMES.c.action)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(trial for row in rows if (trial := self._trial(row)) is not None)

    def held(self) -> Mapping[str, Held]:
        """How many examples there are, by database."""
        query = select(EXAMPLES.c.database, EXAMPLES.c.kind, func.count()).group_by(
            EXAMPLES.c.database, EXAMPLES.c.kind
        )
        found: dict[str, dict[str, int]] = {}
        with self._database.reading() as connection:
            for database, kind, count in connection.execute(query):
                found.setdefault(database, {})[kind] = count
        return {
            database: Held(counts.get(LabelKind.ANOMALY, 0), counts.get(LabelKind.NORMAL, 0))
            for database, counts in found.items()
        }

    def _add(self, connection: Connection, example: Example, now: float) -> Fate | None:
        of_it = EXAMPLES.c.database == example.database
        mine = and_(of_it, EXAMPLES.c.id == example.id)
        if _any(connection, mine):
            return None
        if example.source is Source.PERSON:
            _replace(connection, example, now)
        elif _spoken_of(connection, example):
            return None
        connection.execute(insert(EXAMPLES).values(**_example_row(example), created=now))
        gone.back(connection, example.database, example.id)
        alike = and_(of_it, EXAMPLES.c.kind == example.kind.value, EXAMPLES.c.fault_class == example.fault_class)
        gone.give_way(connection, alike, self._per_class, now)
        gone.give_way(connection, of_it, self._per_class * CLASSES, now)
        return Fate.KEPT if _any(connection, mine) else Fate.GAVE_WAY

    def _example(self, row: Row[Any]) -> Example | None:
        try:
            return Example(
                id=row.id,
                database=row.database,
                start=row.start_time,
                end=row.end_time,
                kind=LabelKind(row.kind),
                fault_class=row.fault_class,
                source=Source(row.source),
                who=row.who,
                action=row.action,
                window=unpack(row.window),
                reference=unpack(row.reference),
            )
        except (BadFrameError, ValueError) as error:
            log.warning("example %s in the experience store %s is left out: %s", row.id, self.where, error)
            return None

    def _trial(self, row: Row[Any]) -> Trial | None:
        try:
            return _trial(row)
        except (ValueError, TypeError) as error:
            log.warning("the outcome of %s in the experience store %s is left out: %s", row.name, self.where, error)
            return None


def _overlapping(database: str, start: float, end: float, table: Table = EXAMPLES) -> Any:
    return and_(table.c.database == database, table.c.start_time < end, table.c.end_time > start)


def _any(connection: Connection, which: Any) -> bool:
    return connection.execute(select(EXAMPLES.c.id).where(which)).first() is not None


def _replace(connection: Connection, example: Example, now: float) -> None:
    """Let go of what a person's example stands against: outcomes of a part of its time, and words about the same."""
    same, gave_way = (
        and_(table.c.database == example.database, table.c.start_time == example.start, table.c.end_time == example.end)
        for table in (EXAMPLES, GONE)
    )
    gone.take_back(connection, gave_way)
    of_outcomes = EXAMPLES.c.source == Source.OUTCOME.value
    overlapping = _overlapping(example.database, example.start, example.end)
    gone.let_go(connection, or_(same, and_(overlapping, of_outcomes)), Fate.TAKEN_BACK, now)


def _spoken_of(connection: Connection, example: Example) -> bool:
    """Whether a person has said anything about a part of an outcome's time."""
    overlapping = _overlapping(example.database, example.start, example.end)
    return _any(connection, and_(overlapping, EXAMPLES.c.source == Source.PERSON.value)) or gone.spoken_of(
        connection, example.database, example.start, example.end
    )


def _drop_oldest(connection: Connection, table: Table, which: Any, age: Any, kept: int) -> None:
    """Of the rows `which`, keep the newest by `age`."""
    key = list(table.primary_key.columns)
    old = connection.execute(select(*key).where(which).order_by(age.desc(), *key).offset(kept)).all()
    for row in old:
        connection.execute(delete(table).where(and_(*(part == value for part, value in zip(key, row, strict=True)))))


def _example_row(example: Example) -> dict[str, Any]:
    return {
        "database": example.database,
        "id": example.id,
        "start_time": example.start,
        "end_time": example.end,
        "kind": example.kind.value,
        "fault_class": example.fault_class,
        "source": example.source.value,
        "who": example.who,
        "action": example.action,
        "window": pack(example.window),
        "reference": pack(example.reference),
    }


def _trial_row(trial: Trial) -> dict[str, Any]:
    row = {field: getattr(trial, field) for field in Trial.__dataclass_fields__}
    vectors = {"predicted": asdict(trial.predicted), "measured": dict(trial.measured)}
    words = {"evidence": dict(trial.evidence), "forecast": dict(trial.forecast)}
    return row | {name: json.dumps(value, ensure_ascii=False) for name, value in (vectors | words).items()}


def _trial(row: Row[Any]) -> Trial:
    values = {field: getattr(row, field) for field in Trial.__dataclass_fields__}
    values |= {name: json.loads(values[name]) for name in ("evidence", "forecast", "measured")}
    return Trial(**(values | {"predicted": Objectives(**json.loads(row.predicted))}))
