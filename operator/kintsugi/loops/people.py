"""What people say about a database's past: labels and acknowledged incidents, kept as examples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import ACKNOWLEDGE, ACKNOWLEDGED_BY, LABEL, LABELLED_BY, get_condition
from kintsugi.loops.past import Past, PastError
from kintsugi.loops.services import Services
from kintsugi.loops.watch import Watch
from kintsugi.shell.experience import ExperienceStore
from kintsugi.stages.experience import Claim, claim_of_acknowledgement, claim_of_label, example_of
from kintsugi.stages.labels import Label, LabelError, TooEarlyError, check_time, read_labels

log = logging.getLogger(__name__)

AT_ONCE: Final = 8  # databases in one look: Prometheus has others to serve
RETRY: Final = 60.0  # seconds until what could not be taken in yet is tried again
UNDERSTOOD: Final = "LabelsUnderstood"

Words = tuple[str, ...]
NOTHING: Final[Words] = ("", "", "", "", "")


class People:
    """Listens to what is new; what can't be taken in is said in a condition, and what can later, is tried again."""

    def __init__(self, services: Services, past: Past) -> None:
        self._services = services
        self._past = past
        self._heard: dict[str, Words] = {}  # by database uid
        self._taken: dict[str, set[str]] = {}  # ids of what is still said, by database uid: not taken in twice
        self._later: dict[str, float] = {}  # Unix seconds, by database uid

    def begin_anew(self) -> None:
        """Take nothing for known: the store may be another one, and only it knows what it holds."""
        self._forget_all_but(set())

    async def take_in(self, store: ExperienceStore, now: float, changed: set[str]) -> None:
        """Keep what is new, of a few databases at a time; the uids of those whose examples change join `changed`."""
        databases = list(self._services.fleet.databases.values())
        self._forget_all_but({database.metadata.uid for database in databases})
        left = AT_ONCE
        for database in databases:
            uid, watch = database.metadata.uid, self._services.watches.get(database.metadata.key)
            heard = self._heard.get(uid, NOTHING) == _words(database)
            if left == 0 or watch is None or heard or now < self._later.get(uid, now) <= now + RETRY:
                continue
            left -= 1
            await self._listen(store, database, watch, now, changed)

    async def _listen(
        self, store: ExperienceStore, database: MonitoredDatabase, watch: Watch, now: float, changed: set[str]
    ) -> None:
        """Take in what is said about one database; what is no longer said may be said again."""
        uid, words = database.metadata.uid, _words(database)
        found = read_labels(database.metadata.annotations)
        taken = self._taken.setdefault(uid, set())
        known = taken | await asyncio.to_thread(store.known_examples, uid)
        problems, waits = list(found.problems), False
        everything: tuple[Label | Claim, ...] = (*found.labels, *_acknowledged(database, watch))
        for said in everything:
            if said.id in known:
                continue
            try:
                await self._take_in(store, database, watch, said, [label.id for label in found.labels], now)
            except (TooEarlyError, PastError) as error:
                problems.append(str(error))
                waits = True
            except LabelError as error:
                problems.append(str(error))
                taken.add(said.id)
            else:
                taken.add(said.id)
                changed.add(uid)
        taken &= {said.id for said in everything}
        _say(database, watch, problems)
        if waits:
            self._later[uid] = now + RETRY
        else:
            self._heard[uid] = words

    async def _take_in(
        self,
        store: ExperienceStore,
        database: MonitoredDatabase,
        watch: Watch,
        said: Label | Claim,
        together: Iterable[str],
        now: float,
    ) -> None:
        """Keep what one label or acknowledgement says.

        Raises:
            LabelError: it can't be believed or kept.
            PastError: its samples can't be had now.
        """
        at = datetime.fromtimestamp(now, UTC)
        if isinstance(said, Label) and said.kind is None:
            start, end = said.start.timestamp(), said.end.timestamp()
            dropped = await asyncio.to_thread(store.forget, database.metadata.uid, start, end, list(together))
            note = f"{dropped} examples forgotten: {said}, by {said.who}"
        else:
            claim = await self._keep(store, database, watch, said, at)
            what = f"{claim.kind}:{claim.fault_class}" if claim.fault_class else claim.kind.value
            length = (
                f"{claim.end - claim.start:.0f} s from {datetime.fromtimestamp(claim.start, UTC):%Y-%m-%d %H:%M:%S}"
            )
            note = f"kept as an example of {what}: {length} UTC, by {claim.who}"
        log.info("%s: %s", database.metadata.key, note)
        self._services.emit(database, None, "Labelled", note, now=at)

    async def _keep(
        self, store: ExperienceStore, database: MonitoredDatabase, watch: Watch, said: Label | Claim, at: datetime
    ) -> Claim:
        claim: Claim
        if isinstance(said, Label):
            check_time(said, at)
            claim = claim_of_label(said, database.metadata.uid)
        else:
            claim = said
            if claim.end > at.timestamp():
                raise PastError(f"{claim.end - at.timestamp():.0f} s more of the acknowledged time are waited for")
        frame = await self._past.frame(database, watch, claim.start, claim.end)
        example = example_of(claim, frame, watch.incidents, database.spec.reference.window.total_seconds())
        if example is None:
            raise LabelError(
                f"{said} can't be kept: Prometheus has too few samples of it, or of the fault-free time before it"
            )
        await asyncio.to_thread(store.add_example, example, at.timestamp())
        return claim

    def _forget_all_but(self, uids: set[str]) -> None:
        for uid in (set(self._heard) | set(self._taken) | set(self._later)) - uids:
            self._heard.pop(uid, None)
            self._taken.pop(uid, None)
            self._later.pop(uid, None)


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


def _acknowledged(database: MonitoredDatabase, watch: Watch) -> tuple[Claim, ...]:
    claim = claim_of_acknowledgement(database, tuple(watch.engine.actions))
    return (claim,) if claim else ()


def _say(database: MonitoredDatabase, watch: Watch, problems: list[str]) -> None:
    """A condition as soon as anybody has labelled anything, and for as long as it was there."""
    said = LABEL in database.metadata.annotations or get_condition(database.status.conditions, UNDERSTOOD) is not None
    if problems:
        watch.beside[UNDERSTOOD] = (False, "NotKept", "; ".join(problems))
    elif said:
        watch.beside[UNDERSTOOD] = (True, "Kept", "every label is kept as an example")


def say_unheard(database: MonitoredDatabase, watch: Watch) -> None:
    """What an operator that keeps no experience says to those who label all the same."""
    if LABEL in database.metadata.annotations:
        _say(
            database, watch, ["this operator keeps no examples (chart value experience.enabled): labels change nothing"]
        )
    else:
        watch.beside.pop(UNDERSTOOD, None)
