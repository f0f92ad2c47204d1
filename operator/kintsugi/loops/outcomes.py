"""Ended actions: what came of each is kept once, with the example that it is."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.experience import Example, Trial
from kintsugi.domain.frame import Frame
from kintsugi.loops.past import Past, PastError
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

AT_ONCE: Final = 8  # in one look: Prometheus has others to serve
ASKED: Final = 500  # in one look at the store
RETRY: Final = 60.0  # seconds until what could not be read is read again

Pair = tuple[MonitoredDatabase, Watch]


class Outcomes:
    """Takes in what actions came to; what can't be read now is taken in at a later look."""

    def __init__(self, services: Services, past: Past) -> None:
        self._services = services
        self._past = past
        self._done: set[str] = set()  # uids
        self._later: dict[str, float] = {}  # Unix seconds, by uid

    def begin_anew(self) -> None:
        """Take nothing for known: the store may be another one, and only it knows what it holds."""
        self._done.clear()
        self._later.clear()

    async def take_in(self, store: ExperienceStore, now: float, changed: set[str]) -> None:
        """Keep what is new, a few at a time; the uids of the databases that have a new example join `changed`."""
        ended = [action for action in self._services.fleet.actions.values() if action.phase.ended]
        uids_there = {action.metadata.uid for action in ended}
        self._done &= uids_there
        self._later = {uid: at for uid, at in self._later.items() if uid in uids_there and now < at <= now + RETRY}
        new = [action for action in ended if action.metadata.uid not in self._done and counts_as_trial(action)]
        if new:
            uids = [action.metadata.uid for action in new[:ASKED]]
            self._done |= await asyncio.to_thread(store.known_trials, uids)
        left = AT_ONCE
        for action in new:
            pair = self._watched(action)
            uid = action.metadata.uid
            if left == 0 or uid in self._done or uid in self._later or pair is None:
                continue
            left -= 1
            if await self._keep(store, action, pair, now):
                changed.add(action.spec.database.uid)

    def _watched(self, action: HealingAction) -> Pair | None:
        """The database that it was made for, if that is watched and its signals are known."""
        key = f"{action.metadata.namespace}/{action.spec.database.name}"
        database, watch = self._services.fleet.databases.get(key), self._services.watches.get(key)
        if database is None or watch is None or database.metadata.uid != action.spec.database.uid:
            return None
        return (database, watch) if watch.offers else None

    async def _keep(self, store: ExperienceStore, action: HealingAction, pair: Pair, now: float) -> bool:
        try:
            trial, example = await self._judged(action, *pair)
        except PastError as error:
            log.info("what came of %s is kept later: %s", action.metadata.key, error)
            self._later[action.metadata.uid] = now + RETRY
            return False
        added = await asyncio.to_thread(store.add_trial, trial, example, now)
        self._done.add(action.metadata.uid)
        return added and example is not None

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
        frame = await self._past.frame(database, watch, *span)
        window = database.spec.reference.window.total_seconds()
        example = example_of(claim, frame, watch.incidents, window) if claim else None
        return trial_of(action, _measured(action, frame, watch, window)), example


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
