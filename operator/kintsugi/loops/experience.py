"""The experience loop: what people label and what actions came to becomes examples in the store, beside all cycles.

Every few seconds it looks at the objects as they are: ended actions, labels, acknowledgements. So nothing is lost when
the operator is killed between an outcome and its being kept, and with an empty store it begins anew from what
Kubernetes and Prometheus still hold. Where the store can't be used everything else goes on, and a condition says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from kintsugi.domain.experience import Example
from kintsugi.loops.outcomes import Outcomes
from kintsugi.loops.past import Past, Read
from kintsugi.loops.people import People
from kintsugi.loops.services import Services
from kintsugi.shell.experience import ExperienceError, ExperienceStore, Held

log = logging.getLogger(__name__)

EVERY: Final = 10.0  # seconds between two looks
RETRY: Final = 60.0  # seconds until a store that failed is tried again
KEPT: Final = "ExperienceKept"

Hear = Callable[[str, tuple[Example, ...]], None]
"""Called with a database's uid and all its examples: once after the start, and whenever they changed."""


class ExperienceLoop:
    """Keeps examples and outcomes, and reads them back."""

    def __init__(
        self, services: Services, make_store: Callable[[], ExperienceStore], read: Read, hear: Hear | None = None
    ) -> None:
        self._services = services
        self._make_store = make_store
        self._hear = hear
        past = Past(read)
        self._outcomes = Outcomes(services, past)
        self._people = People(services, past)
        self._store: ExperienceStore | None = None
        self._held: Mapping[str, Held] = {}
        self._problem = ""
        self._asked: set[str] = set()
        self._untold: set[str] = set()  # uids: each stays until its examples were told

    def ask(self, uid: str) -> None:
        """A database is watched from now on: at the next look its examples are told."""
        self._asked.add(uid)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            used = await self.look(time.time())
            await asyncio.sleep(EVERY if used else RETRY)

    async def look(self, now: float) -> bool:
        """Look once (`now` in Unix seconds); whether the store could be used."""
        try:
            if self._services.fleet.complete:
                await self._look(now)
        except ExperienceError as error:
            self._failed(error)
            await self.close()
            return False
        except Exception:
            log.exception("experience could not be kept; it is tried again in %s s", RETRY)
            return False
        return True

    async def close(self) -> None:
        """Give the store back."""
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)

    async def _look(self, now: float) -> None:
        store = await self._opened(now)
        await self._outcomes.take_in(store, now, self._untold)
        await self._people.take_in(store, now, self._untold)
        if self._untold:
            self._held = await asyncio.to_thread(store.held)
        asked, self._asked = self._asked, set()
        self._untold |= asked & self._held.keys()
        await self._tell(store)
        self._say()

    async def _opened(self, now: float) -> ExperienceStore:
        """The store; when it is opened, what it holds is read back, and what it lacks will be taken in again."""
        if self._store is not None:
            return self._store
        store = await asyncio.to_thread(self._make_store)
        await asyncio.to_thread(store.open, now)
        before, self._held = self._held, await asyncio.to_thread(store.held)
        self._outcomes.begin_anew()
        self._people.begin_anew()
        self._untold |= before.keys() | self._held.keys()
        self._store, self._problem = store, ""
        log.info("experience is kept in %s, with examples of %d databases", store.where, len(self._held))
        await self._tell(store)
        return store

    async def _tell(self, store: ExperienceStore) -> None:
        """Tell the examples of every database whose examples nobody has heard as they are now."""
        for uid in sorted(self._untold):
            if self._hear is not None:
                self._hear(uid, await asyncio.to_thread(store.examples_of, uid))
            self._untold.discard(uid)

    def _failed(self, error: ExperienceError) -> None:
        if str(error) != self._problem:
            log.warning("%s; everything else goes on", error)
        self._problem = str(error)
        for watch in self._services.watches.values():
            watch.beside[KEPT] = (False, error.reason, self._problem)

    def _say(self) -> None:
        for watch in self._services.watches.values():
            trouble = self._outcomes.troubles.get(watch.uid, "")
            kept = (True, "Kept", _words(self._held.get(watch.uid, Held())))
            watch.beside[KEPT] = (False, "Unforeseen", trouble) if trouble else kept


def _words(held: Held) -> str:
    if not held.anomalies and not held.normal:
        return "no examples yet; label what you know (docs/experience.md)"
    return f"examples: {held.anomalies} of anomalies, {held.normal} of normal times"
