"""The samples of a database's past: from its buffer where they are still there, else from Prometheus."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.frame import Frame
from kintsugi.loops.watch import MOST_SAMPLES, Watch
from kintsugi.shell.errors import KubeError, PrometheusError
from kintsugi.shell.experience import ExperienceError
from kintsugi.shell.secrets import SecretError
from kintsugi.stages.reference import GUARD, GUARD_SAMPLES, Incident

log = logging.getLogger(__name__)

Read = Callable[[MonitoredDatabase, Watch, float, float], Awaitable[Frame]]
"""As `Observer.past`."""

Turn = Callable[[], Awaitable[bool]]
"""Takes in one more interval of a database; False when there was none to read."""

AT_ONCE: Final = 8  # intervals in one look, over all databases: Prometheus has others to serve
RETRY: Final = 60.0  # seconds until a database whose past could not be read is tried again
SLACK: Final = 2.5
"""Scrape intervals by which the buffer may lack the newest samples of an interval."""


class PastError(Exception):
    """The samples of that time can't be had now; the message says why."""


class NonsensePastError(PastError):
    """Prometheus answered something that is no series of samples."""


class Past:
    """Looks back, with the fault-free time before what is looked at."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def frame(
        self, database: MonitoredDatabase, watch: Watch, start: float, end: float, enough: Callable[[Frame], bool]
    ) -> Frame:
        """The samples from a reference window before `start` until `end` (Unix seconds).

        The buffer's where they are `enough`: an incident before `start` may have left too little that is fault-free.

        Raises:
            PastError: Prometheus can't be asked now, or answers nonsense.
        """
        interval = database.spec.metrics.scrape_interval.total_seconds()
        buffer = watch.buffer.frame
        learned = start - _margin(interval) - database.spec.reference.minimum.total_seconds()
        reaches = len(buffer) and buffer.times[0] <= learned and buffer.times[-1] >= end - SLACK * interval
        if reaches and enough(buffer):
            return buffer
        if not watch.offers:
            raise PastError(watch.metrics_problem.message if watch.metrics_problem else "no signal has been found yet")
        first = _reach(start, watch.incidents, database.spec.reference.window.total_seconds(), _margin(interval))
        return await self._asked(database, watch, max(first, end - MOST_SAMPLES * interval), end)

    async def _asked(self, database: MonitoredDatabase, watch: Watch, start: float, end: float) -> Frame:
        try:
            return await self._read(database, watch, start, end)
        except (PrometheusError, SecretError, KubeError) as error:
            raise PastError(str(error)) from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # What makes no sense fails wherever it is first used. A mistake of ours would look alike: hence the log.
            log.warning("the past of %s can't be understood", watch.key, exc_info=error)
            raise NonsensePastError(
                f"what Prometheus answered about the past of {watch.key} makes no sense ({_words(error)}); check what "
                "stands behind metrics.prometheus"
            ) from error


class Turns:
    """Who may read next: one interval each in turn, first those who waited longest, last those who failed before.

    What fails, in whatever way, costs only its own database, and that only until it is tried again.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}  # the number of its last turn, by database uid
        self._later: dict[str, float] = {}  # Unix seconds, by database uid
        self._number = 0

    def keep(self, uids: set[str]) -> None:
        """Forget all databases but these."""
        self._served = {uid: number for uid, number in self._served.items() if uid in uids}
        self._later = {uid: at for uid, at in self._later.items() if uid in uids}

    def waits(self, uid: str, now: float) -> bool:
        """Whether it was put off, and is not due again (`now` in Unix seconds)."""
        return now < self._later.get(uid, now) <= now + RETRY  # a clock that was put back makes nobody wait for long

    def put_off(self, uid: str, now: float) -> None:
        """Try it again later."""
        self._later[uid] = now + RETRY

    async def take(self, turns: Mapping[str, Turn], now: float) -> dict[str, Exception]:
        """Let databases (by uid) take their turns until enough was read; whose turn failed, and how.

        Raises:
            ExperienceError: the store can't be used.
        """
        failed: dict[str, Exception] = {}
        due = [uid for uid in turns if not self.waits(uid, now)]
        queue, left = deque(sorted(due, key=lambda uid: (uid in self._later, self._served.get(uid, 0)))), AT_ONCE
        while queue and left:
            uid = queue.popleft()
            self._later.pop(uid, None)
            try:
                if not await turns[uid]():
                    continue
                queue.append(uid)
            except ExperienceError:
                raise
            except Exception as error:
                if not isinstance(error, PastError):
                    log.exception("the past of the database %s could not be taken in; it is tried again", uid)
                self.put_off(uid, now)
                failed[uid] = error
            left -= 1
            self._number += 1
            self._served[uid] = self._number
        return failed


def sentence(error: Exception, what: str) -> str:
    """Why a turn failed, for the person who reads a condition; `what` was to be taken in."""
    if isinstance(error, PastError):
        return str(error)
    return (
        f"{what} can't be taken in ({_words(error)}), which is a mistake of Kintsugi: report it with the operator's log"
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _margin(interval: float) -> float:
    return max(GUARD, GUARD_SAMPLES * interval)


def _reach(start: float, incidents: list[Incident], window: float, margin: float) -> float:
    """From when on samples hold `window` seconds of fault-free ones before `start`: incidents only push it back."""
    first = start - margin - window
    for began, ended in sorted(incidents, key=lambda one: one[0], reverse=True):
        until = start if ended is None else min(ended, start)
        if began < start and until > first:
            first -= until - began + margin
    return first
