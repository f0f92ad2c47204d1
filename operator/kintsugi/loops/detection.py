"""Detection with the learned models while they can be used, and without them while they can't: degraded, not down.

The models are loaded beside the cycles. What is wrong with them stands in the condition `ModelsReady` of every database
and once in the log; it is tried again each minute, so a bundle that is put right is used without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.experience import Example
from kintsugi.loops.watch import Watch
from kintsugi.shell.models import ModelsError
from kintsugi.stages.learned import LearnedDetector
from kintsugi.stages.ports import DetectorState, LearnedModel, Observed

log = logging.getLogger(__name__)

RETRY: Final = 60.0  # seconds until models that can't be used are tried again
READY: Final = "ModelsReady"
ALONE: Final = "the statistics judge alone until then"

Load = Callable[[], LearnedModel]


class Detection:
    """The detector of all databases.

    Args:
        load: reads the models.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, load: Load, clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._detector = LearnedDetector(failed=self._failed)
        self._problem: tuple[str, str] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._tried_at: float | None = None

    def detect(self, observed: Sequence[Observed], now: float) -> Sequence[tuple[Anomaly, DetectorState]]:
        """One anomaly and the next state per database, in the given order; `now` in Unix seconds."""
        verdicts = self._detector.detect(observed, now)
        judged = any(anomaly.opinion is not None and anomaly.opinion.model for anomaly, _ in verdicts)
        if judged and self._problem is not None:  # loaded again, and works
            log.info("the learned models are in use again")
            self._problem = None
        return verdicts

    def hear(self, uid: str, examples: tuple[Example, ...]) -> None:
        """All examples of a database, as the experience loop tells them."""
        self._detector.hear(uid, examples)

    def forget(self, uid: str) -> None:
        """A database is gone."""
        self._detector.forget(uid)

    def unheard(self) -> set[str]:
        """Databases whose examples must be heard again; each is told once."""
        return self._detector.unheard()

    def keep(self, *, wanted: bool) -> None:
        """Have the models loaded when they are wanted, there are none, and it is time; returns at once."""
        due = wanted and (self._tried_at is None or self._clock() - self._tried_at >= RETRY)
        if self._detector.model is None and due and (self._loading is None or self._loading.done()):
            self._tried_at = self._clock()
            self._loading = asyncio.create_task(self._loaded())

    def say(self, watches: Iterable[tuple[Watch, bool]]) -> None:
        """Put it among the conditions of each database; False beside those that want the statistics alone."""
        for watch, learned in watches:
            before, watch.beside[READY] = watch.beside.get(READY), self._state(watch, learned=learned)
            error = self._detector.failing(watch.normal) if learned else None
            if error is not None and before != watch.beside[READY]:
                log.error("the learned models failed on %s; others go on", watch.key, exc_info=error)

    async def close(self) -> None:
        """Stop loading."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    def _state(self, watch: Watch, *, learned: bool) -> tuple[bool, str, str]:
        if not learned:
            return True, "NotUsed", "the statistics judge alone, as is set"
        if self._problem is not None:
            return (False, *self._problem)
        if self._detector.model is None:
            return False, "Loading", f"the learned models are being read; {ALONE}"
        if error := self._detector.failing(watch.normal):
            what = f"the learned models failed on this database ({_words(error)})"
            return False, "ModelFailed", f"{what}: report it with the operator's log; {ALONE}"
        return True, "Loaded", f"bundle {self._detector.model.name}"

    async def _loaded(self) -> None:
        try:
            model = await asyncio.to_thread(self._load)
        except ModelsError as error:
            self._say_once(error.reason, f"{error}; {ALONE}")
        except Exception as error:
            if self._say_once(
                "Unusable", f"the learned models can't be loaded ({_words(error)}): see the log; {ALONE}"
            ):
                log.exception("why the learned models could not be loaded")
        else:
            self._detector.use(model)
            if self._problem is None:
                log.info("the learned models are those of bundle %s", model.name)
            elif self._problem[0] != "ModelFailed":  # of that only scoring can say that it is over
                log.info("the learned models can be used again: bundle %s", model.name)
                self._problem = None

    def _failed(self, error: Exception) -> None:
        """The model failed on what it was given."""
        self._detector.use(None)
        self._tried_at = self._clock()
        message = f"the learned models failed ({_words(error)}): report it with the operator's log; {ALONE}"
        if self._say_once("ModelFailed", message):
            log.error("where the learned models failed", exc_info=error)

    def _say_once(self, reason: str, message: str) -> bool:
        """Note a problem; whether it is news."""
        news = self._problem != (reason, message)
        if news:
            log.warning("%s", message)
        self._problem = (reason, message)
        return news


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
