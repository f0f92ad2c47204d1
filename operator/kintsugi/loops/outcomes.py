"""Ended actions: what came of each is kept once, with the example that it is."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Final

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.experience import Example, Trial
from kintsugi.domain.frame import Frame
from kintsugi.loops.past import Past, PastError, Turns, sentence
from kintsugi.loops.services import Services
from kintsugi.loops.watch import Watch
from kintsugi.shell.experience import ExperienceStore
from kintsugi.stages.effect import NOTHING_MEASURED, SETTLED, effect
from kintsugi.stages.experience import (
    Claim,
    claim_of_action,
    counts_as_trial,
    example_of,
    overruled,
    trial_of,
)
from kintsugi.stages.labels import read_labels
from kintsugi.stages.reference import reference

log = logging.getLogger(__name__)

ASKED: Final = 500  # in one question to the store

Pair = tuple[MonitoredDatabase, Watch]


class Outcomes:
    """Takes in what actions came to; what can't be read now is taken in at a later look."""

    def __init__(self, services: Services, past: Past) -> None:
        self._services = services
        self._past = past
        self._turns = Turns()
        self._done: set[str] = set()  # uids of actions
        self._tried: dict[str, int] = {}  # how often, by uid of the action
        self._troubles: dict[str, str] = {}

    @property
    def troubles(self) -> Mapping[str, str]:
        """By uid of the database, what went wrong in a way that nobody foresaw, until it is tried again."""
        return self._troubles

    def begin_anew(self) -> None:
        """Take nothing for known: the store may be another one, and only it knows what it holds."""
        self._turns = Turns()
        self._done.clear()
        self._tried.clear()

    async def take_in(self, store: ExperienceStore, now: float, changed: set[str]) -> None:
        """Keep what is new, a few at a time; the uids of the databases that have a new example join `changed`."""
        ended = [action for action in self._services.fleet.actions.values() if action.phase.ended]
        uids_there = {action.metadata.uid for action in ended}
        self._done &= uids_there
        self._tried = {uid: count for uid, count in self._tried.items() if uid in uids_there}
        self._turns.keep({database.metadata.uid for database in self._services.fleet.databases.values()})
        waiting = await self._waiting(store, ended)
        turns = {uid: partial(self._turn, store, actions, now, changed) for uid, actions in waiting.items()}
        failed = await self._turns.take(turns, now)
        self._troubles = {uid: said for uid, said in self._troubles.items() if self._turns.waits(uid, now)}
        for uid, error in failed.items():
            name = waiting[uid][0].metadata.key
            log.info("what came of %s is kept later: %s", name, error)
            if not isinstance(error, PastError):
                self._troubles[uid] = sentence(error, f"what came of {name}")

    async def _waiting(self, store: ExperienceStore, ended: list[HealingAction]) -> dict[str, list[HealingAction]]:
        """The actions whose outcomes are not kept yet, by uid of their database, those that failed before last."""
        new = [action for action in ended if self._new(action)]
        uids = [action.metadata.uid for action in new]
        for first in range(0, len(uids), ASKED):
            self._done |= await asyncio.to_thread(store.known_trials, uids[first : first + ASKED])
        waiting: dict[str, list[HealingAction]] = defaultdict(list)
        for action in sorted(filter(self._new, new), key=lambda action: self._tried.get(action.metadata.uid, 0)):
            waiting[action.spec.database.uid].append(action)
        return waiting

    def _new(self, action: HealingAction) -> bool:
        """Whether there is anything to keep of an ended action, and its database's past can be read."""
        unknown = action.metadata.uid not in self._done and counts_as_trial(action)
        return unknown and self._watched(action) is not None

    def _watched(self, action: HealingAction) -> Pair | None:
        """The database that it was made for, if that is watched and its signals are known."""
        key = f"{action.metadata.namespace}/{action.spec.database.name}"
        database, watch = self._services.fleet.databases.get(key), self._services.watches.get(key)
        if database is None or watch is None or database.metadata.uid != action.spec.database.uid:
            return None
        return (database, watch) if watch.offers else None

    async def _turn(self, store: ExperienceStore, actions: list[HealingAction], now: float, changed: set[str]) -> bool:
        """Keep what came of the first of a database's actions, and strike it out; whether there was one.

        One that fails stays the first, for whoever says so; the next time it comes last.
        """
        if not actions:
            return False
        action = actions[0]
        uid, pair = action.metadata.uid, self._watched(action)
        if pair is not None:
            self._tried[uid] = self._tried.get(uid, 0) + 1
            trial, example = await self._judged(action, *pair)
            added = await asyncio.to_thread(store.add_trial, trial, example, now)
            self._done.add(uid)
            if added and example is not None:
                changed.add(action.spec.database.uid)
        del actions[0]
        return True

    async def _judged(
        self, action: HealingAction, database: MonitoredDatabase, watch: Watch
    ) -> tuple[Trial, Example | None]:
        interval = database.spec.metrics.scrape_interval.total_seconds()
        claim = claim_of_action(action, interval, _opened(action, watch))
        if claim is not None and overruled(claim, read_labels(database.metadata.annotations).labels):
            claim = None
        span = _span(action, claim)
        if span is None:
            return trial_of(action, NOTHING_MEASURED), None
        window = database.spec.reference.window.total_seconds()

        def judged(frame: Frame) -> tuple[Mapping[str, float | None], Example | None]:
            example = example_of(claim, frame, watch.incidents, window) if claim else None
            return _measured(action, frame, watch, window), example

        def enough(frame: Frame) -> bool:
            measured, example = judged(frame)
            return (example is not None or claim is None) and (measured != NOTHING_MEASURED or _ran(action) is None)

        measured, example = judged(await self._past.frame(database, watch, *span, enough))
        return trial_of(action, measured), example


def _opened(action: HealingAction, watch: Watch) -> float | None:
    """When the incident that an action answers was opened, as far as it is remembered."""
    created = action.metadata.creation_timestamp
    if created is None:
        return None
    at = created.timestamp()
    return max((start for start, end in watch.incidents if start <= at and (end is None or at <= end)), default=None)


def _ran(action: HealingAction) -> tuple[float, float] | None:
    """From when to when it ran and was judged; None for one that never ran to its end."""
    status = action.status
    if not status.attempts or status.executed_at is None or status.ended_at is None:
        return None
    return status.attempts[0].started_at.timestamp(), status.ended_at.timestamp()


def _span(action: HealingAction, claim: Claim | None) -> tuple[float, float] | None:
    """The time whose samples are needed; None when none are."""
    spans = [*([(claim.start, claim.end)] if claim else []), *([ran] if (ran := _ran(action)) else [])]
    return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None


def _measured(action: HealingAction, frame: Frame, watch: Watch, window: float) -> dict[str, float | None]:
    """The effect on each objective, as the database's own samples show it."""
    ran = _ran(action)
    if ran is None:
        return dict(NOTHING_MEASURED)
    began, ended = ran
    return effect(
        before=frame.between(began - SETTLED * frame.interval, began),
        after=frame.between(ended - SETTLED * frame.interval, ended + frame.interval),
        normal=reference(frame, watch.incidents, began, window),
        catalogue=watch.engine.catalogue,
    )
