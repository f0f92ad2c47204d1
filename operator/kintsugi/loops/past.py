"""The samples of a database's past: from its buffer where they are still there, else from Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.frame import Frame
from kintsugi.loops.watch import MOST_SAMPLES, Watch
from kintsugi.shell.errors import KubeError, PrometheusError
from kintsugi.shell.secrets import SecretError
from kintsugi.stages.reference import GUARD, GUARD_SAMPLES

Read = Callable[[MonitoredDatabase, Watch, float, float], Awaitable[Frame]]
"""As `Observer.past`."""

SLACK: Final = 2.5
"""Scrape intervals by which the buffer may lack the newest samples of an interval."""


class PastError(Exception):
    """The samples of that time can't be had now; the message says why."""


class Past:
    """Looks back, with the fault-free time before what is looked at."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def frame(self, database: MonitoredDatabase, watch: Watch, start: float, end: float) -> Frame:
        """The samples from a reference window before `start` until `end` (Unix seconds).

        Raises:
            PastError: Prometheus can't be asked now.
        """
        span, interval = database.spec.reference, database.spec.metrics.scrape_interval.total_seconds()
        buffer, margin = watch.buffer.frame, max(GUARD, GUARD_SAMPLES * interval)
        learned = start - margin - span.minimum.total_seconds()
        if len(buffer) and buffer.times[0] <= learned and buffer.times[-1] >= end - SLACK * interval:
            return buffer
        if not watch.offers:
            raise PastError(watch.metrics_problem.message if watch.metrics_problem else "no signal has been found yet")
        first = max(start - margin - span.window.total_seconds(), end - MOST_SAMPLES * interval)
        try:
            return await self._read(database, watch, first, end)
        except (PrometheusError, SecretError, KubeError) as error:
            raise PastError(str(error)) from error
