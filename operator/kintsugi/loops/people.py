"""What people say about a database's past: labels and acknowledged incidents, kept as examples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import ACKNOWLEDGE, ACKNOWLEDGED_BY, LABEL, LABELLED_BY, get_condition
from kintsugi.domain.experience import Fate
from kintsugi.domain.frame import Frame
from kintsugi.loops.past import Past, Turn, Turns, sentence
from kintsugi.loops.services import Services
from kintsugi.loops.watch import Watch
from kintsugi.shell.experience import ExperienceStore
from kintsugi.stages.experience import Claim, claim_of_acknowledgement, claim_of_label, example_of, overruled
from kintsugi.stages.labels import OLDEST, Label, LabelError, Labels, TooEarlyError, check_time, read_labels

log = logging.getLogger(__name__)

UNDERSTOOD: Final = "LabelsUnderstood"

Words = tuple[str, ...]
NOTHING: Final[Words] = ("", "", "", "", "")


@dataclass(slots=True)
class Hearing:
    """What is remembered of what people say about one database, by the ids of what they still say.

    `heard` are the words of which nothing is left to do; None makes it listen anew. `settled` is obeyed, with "", or
    refused, with the reason. `tried` counts, so that one that fails again and again doesn't keep the others waiting.
    """

    heard: Words | None = NOTHING
    settled: dict[str, str] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)

    def keep(self, ids: set[str]) -> None:
        """What is no longer said may be said again."""
        self.settled = {id_: why for id_, why in self.settled.items() if id_ in ids}
        self.tried = {id_: count for id_, count in self.tried.items() if id_ in ids}


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about one database at the time of a look, and what is remembered of it."""

    database: MonitoredDatabase
    watch: Watch
    hearing: Hearing
    labels: Labels
    acknowledged: Claim | None
    now: float

    @property
    def uid(self) -> str:
        """The database's."""
        return self.database.metadata.uid

    @property
    def at(self) -> datetime:
        """The time of the look."""
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def ids(self) -> set[str]:
        """Of everything that is said."""
        return {label.id for label in self.labels.labels} | ({self.acknowledged.id} if self.acknowledged else set())


class People:
    """Listens to what is new; what can't be taken in is said in a condition, and what can later, is tried again."""

    def __init__(self, services: Services, past: Past) -> None:
        self._services = services
        self._past = past
        self._turns = Turns()
        self._hearings: dict[str, Hearing] = {}  # by database uid

    def begin_anew(self) -> None:
        """Take nothing for known: the store may be another one, and only it knows what it holds."""
        self._hearings.clear()
        self._turns = Turns()

    async def take_in(self, store: ExperienceStore, now: float, changed: set[str]) -> None:
        """Keep what is new, a few intervals at a time; the uids of the databases whose examples change join `changed`.

        Those that have joined it before are heard as well: labels of theirs may have given way.
        """
        databases = {database.metadata.uid: database for database in self._services.fleet.databases.values()}
        self._hearings = {uid: one for uid, one in self._hearings.items() if uid in databases}
        self._turns.keep(set(databases))
        turns: dict[str, Turn] = {}
        for uid, database in databases.items():
            watch, hearing = self._watch(database), self._hearings.setdefault(uid, Hearing())
            if watch is not None and (uid in changed or hearing.heard != _words(database)):
                turns[uid] = partial(self._turn, store, database, watch, now, changed)
        for uid, error in (await self._turns.take(turns, now)).items():
            self._hearings[uid].heard = None
            if watch := self._watch(databases[uid]):
                problems = [*self._hearings[uid].settled.values(), sentence(error, "what is said about its past")]
                watch.beside[UNDERSTOOD] = (False, "NotKept", _joined(problems))

    def _watch(self, database: MonitoredDatabase) -> Watch | None:
        return self._services.watches.get(database.metadata.key)

    async def _turn(
        self, store: ExperienceStore, database: MonitoredDatabase, watch: Watch, now: float, changed: set[str]
    ) -> bool:
        """Do what needs no samples, and take in one interval; whether there was one."""
        hearing = self._hearings[database.metadata.uid]
        said = Said(database, watch, hearing, *_understood(database, watch, now), now)
        waiting = await self._listen(store, said, changed)
        if not waiting:
            return False
        one = min(waiting, key=lambda claim: hearing.tried.get(claim.id, 0))
        hearing.tried[one.id] = hearing.tried.get(one.id, 0) + 1
        try:
            await self._keep(store, said, one, changed)
        except LabelError as error:
            hearing.settled[one.id] = str(error)
        await self._listen(store, said, changed)
        return True

    async def _listen(self, store: ExperienceStore, said: Said, changed: set[str]) -> list[Claim]:
        """What is left to be read; everything else that is said is dealt with, and how it stands is said."""
        said.hearing.keep(said.ids)
        await self._forget(store, said, changed)
        fates = await asyncio.to_thread(store.fates, said.uid)
        early: list[str] = []
        waiting = [claim for label in said.labels.labels if (claim := _new(said, label, fates, early))]
        waiting += await self._acknowledged(store, said, fates, early)
        _say(said, fates, early, len(waiting))
        if early and not waiting:
            self._turns.put_off(said.uid, said.now)
        said.hearing.heard = None if early or waiting else _words(said.database)
        return waiting

    async def _forget(self, store: ExperienceStore, said: Said, changed: set[str]) -> None:
        """Drop what is to be forgotten, once for as long as that is said, and nothing that stands beside it."""
        together = [label.id for label in said.labels.labels]
        for label in said.labels.labels:
            if label.kind is None and label.id not in said.hearing.settled:
                start, end = label.start.timestamp(), label.end.timestamp()
                dropped = await asyncio.to_thread(store.forget, said.uid, start, end, said.now, together)
                said.hearing.settled[label.id] = ""
                changed.add(said.uid)
                self._tell(said, f"{dropped} examples forgotten: {label}, by {label.who}")

    async def _acknowledged(
        self, store: ExperienceStore, said: Said, fates: Mapping[str, Fate], early: list[str]
    ) -> list[Claim]:
        """The acknowledged time, if it is to be read: once, and only where no label says otherwise.

        It stands in the annotation for as long as nothing else is acknowledged, longer than any label about its time:
        taken in again after a restart, it would undo what was said later.
        """
        claim = said.acknowledged
        if claim is None or claim.id in fates or claim.id in said.hearing.settled:
            return []
        if overruled(claim, said.labels.labels):
            await asyncio.to_thread(store.pass_over, said.uid, claim.id, claim.start, claim.end, said.now)
            return []
        if claim.end > said.now:
            early.append(f"{claim.end - said.now:.0f} s more of the acknowledged time are waited for")
            return []
        return [claim]

    async def _keep(self, store: ExperienceStore, said: Said, claim: Claim, changed: set[str]) -> None:
        """Keep what one label or acknowledgement says.

        Raises:
            LabelError: there are no samples of it.
            PastError: its samples can't be had now.
        """
        window = said.database.spec.reference.window.total_seconds()

        def made(frame: Frame) -> bool:
            return example_of(claim, frame, said.watch.incidents, window) is not None

        frame = await self._past.frame(said.database, said.watch, claim.start, claim.end, made)
        example = example_of(claim, frame, said.watch.incidents, window)
        if example is None:
            raise LabelError(
                f"{_shown(said, claim)} can't be kept: Prometheus has too few samples of it, or of the fault-free time "
                "before it"
            )
        fate = await asyncio.to_thread(store.add_example, example, said.now)
        if fate is not None:
            changed.add(said.uid)
            self._tell(said, _note(claim, fate))

    def _tell(self, said: Said, note: str) -> None:
        log.info("%s: %s", said.database.metadata.key, note)
        self._services.emit(said.database, None, "Labelled", note, now=said.at)


def _words(database: MonitoredDatabase) -> Words:
    """Everything that people say about a database; `NOTHING` when nobody has."""
    annotations = database.metadata.annotations
    accepted = annotations.get(ACKNOWLEDGE, "") == database.status.acknowledged and database.status.reference_since
    return (
        annotations.get(LABEL, ""),
        annotations.get(LABELLED_BY, ""),
        annotations.get(ACKNOWLEDGE, "") if accepted else "",
        annotations.get(ACKNOWLEDGED_BY, "") if accepted else "",
        str(database.status.reference_since.timestamp()) if accepted and database.status.reference_since else "",
    )


def _understood(database: MonitoredDatabase, watch: Watch, now: float) -> tuple[Labels, Claim | None]:
    """What the annotations say. An old acknowledgement is no news: it stands there until there is another one."""
    claim = claim_of_acknowledgement(database, tuple(watch.engine.actions))
    fresh = claim is not None and now - claim.start <= OLDEST.total_seconds()
    return read_labels(database.metadata.annotations), claim if fresh else None


def _new(said: Said, label: Label, fates: Mapping[str, Fate], early: list[str]) -> Claim | None:
    """What is to be read for a label; None for one that is known, that only forgets, is too early or refused.

    One that was taken back may stand there only because it was said again.
    """
    known = fates.get(label.id) in (Fate.KEPT, Fate.GAVE_WAY)
    if label.kind is None or known or label.id in said.hearing.settled:
        return None
    try:
        check_time(label, said.at)
    except TooEarlyError as error:
        early.append(str(error))
        return None
    except LabelError as error:
        said.hearing.settled[label.id] = str(error)
        return None
    return claim_of_label(label, said.uid)


def _shown(said: Said, claim: Claim) -> str:
    """A claim in the words of the label that it comes from."""
    return next((str(label) for label in said.labels.labels if label.id == claim.id), str(claim))


def _note(claim: Claim, fate: Fate) -> str:
    what = f"{claim.kind}:{claim.fault_class}" if claim.fault_class else claim.kind.value
    length = f"{claim.end - claim.start:.0f} s from {datetime.fromtimestamp(claim.start, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if fate is Fate.GAVE_WAY:
        return f"not kept, as there are newer examples of {what}: {length}, by {claim.who}"
    return f"kept as an example of {what}: {length}, by {claim.who}"


def _say(said: Said, fates: Mapping[str, Fate], early: list[str], waiting: int) -> None:
    """A condition as soon as anybody has labelled anything, and for as long as it was there."""
    problems = [*said.labels.problems, *early, *said.hearing.settled.values()]
    became = [fates.get(label.id) for label in said.labels.labels if label.kind is not None]
    kept, gave_way = became.count(Fate.KEPT), became.count(Fate.GAVE_WAY)
    shown = UNDERSTOOD in said.watch.beside or get_condition(said.database.status.conditions, UNDERSTOOD) is not None
    ever = shown or LABEL in said.database.metadata.annotations
    if any(problems):
        said.watch.beside[UNDERSTOOD] = (False, "NotKept", _joined(problems))
    elif waiting and ever:
        said.watch.beside[UNDERSTOOD] = (False, "Reading", f"{kept} kept as examples; {waiting} are yet to be read")
    elif gave_way:
        older = f"{gave_way} older {'one' if gave_way == 1 else 'ones'} gave way to newer ones"
        said.watch.beside[UNDERSTOOD] = (True, "Kept", f"{kept} kept as examples; {older}")
    elif ever:
        said.watch.beside[UNDERSTOOD] = (True, "Kept", "every label is kept as an example")


def _joined(problems: list[str]) -> str:
    return "; ".join(problem for problem in problems if problem)


def say_unheard(database: MonitoredDatabase, watch: Watch) -> None:
    """What an operator that keeps no experience says to those who label all the same."""
    if LABEL in database.metadata.annotations:
        words = "this operator keeps no examples (chart value experience.enabled): labels change nothing"
        watch.beside[UNDERSTOOD] = (False, "NotKept", words)
    else:
        watch.beside.pop(UNDERSTOOD, None)
