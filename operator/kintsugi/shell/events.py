"""Kubernetes Events (`events.k8s.io/v1`), written in the background: repeated ones are counted, not repeated.

While the API server is away they wait, in order, in a bounded queue; what no longer fits is counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from kintsugi.api.meta import API_VERSION, ObjectMeta
from kintsugi.shell.errors import ConflictError, KubeError, NotFoundError, UnavailableError
from kintsugi.shell.kube import Kube

log = logging.getLogger(__name__)

CONTROLLER = "kintsugi.dev/operator"
QUEUE = 1000
SERIES_SECONDS = 360  # as client-go: a repetition within six minutes continues the series
NOTE_LIMIT = 1024  # bytes, of the API
REMEMBERED = 4096

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one of our objects."""

    kind: str
    meta: ObjectMeta
    reason: str
    note: str
    type: EventType
    at: datetime

    @property
    def key(self) -> str:
        """What makes two events the same one, repeated."""
        return f"{self.meta.uid}/{self.type}/{self.reason}/{self.note}"


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    last: datetime


class EventRecorder:
    """Takes events at once and writes them in order in the background (`run`)."""

    def __init__(self, kube: Kube, instance: str) -> None:
        self._kube = kube
        self._instance = instance
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE)
        self._series: dict[str, _Series] = {}
        self.dropped = 0

    def emit(
        self, kind: str, meta: ObjectMeta, reason: str, note: str, *, now: datetime, warning: bool = False
    ) -> None:
        """Queue one event about an object."""
        event = Event(kind, meta, reason, note, "Warning" if warning else "Normal", now)
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1
            log.warning("event dropped, %d wait already: %s %s", QUEUE, reason, note)

    async def run(self) -> None:
        """Write events for ever."""
        while True:
            await self._write(await self._queue.get())
            self._queue.task_done()

    async def flush(self, seconds: float) -> None:
        """Write what is queued, without `run`, for so many seconds at most: the operator ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._queue.empty():
                    await self._write(self._queue.get_nowait())

    async def drain(self) -> None:
        """Return when everything queued has been written."""
        await self._queue.join()

    async def _write(self, event: Event) -> None:
        while True:
            try:
                await self._write_once(event)
            except UnavailableError:
                await asyncio.sleep(1)
            except KubeError as error:
                log.warning("event %s about %s not written: %s", event.reason, event.meta.key, error)
                return
            else:
                return

    async def _write_once(self, event: Event) -> None:
        series = self._series.get(event.key)
        if series and (event.at - series.last).total_seconds() <= SERIES_SECONDS:
            try:
                await self._count(event, series)
            except NotFoundError:
                del self._series[event.key]  # expired on the server: begin anew
            else:
                return
        body = _body(event, self._instance)
        try:
            await self._kube.create_event(event.meta.namespace, body)
        except ConflictError:
            log.debug("event %s exists already", body["metadata"]["name"])
        self._series[event.key] = _Series(body["metadata"]["name"], 1, event.at)
        while len(self._series) > REMEMBERED:
            del self._series[next(iter(self._series))]

    async def _count(self, event: Event, series: _Series) -> None:
        count = series.count + 1
        patch = {"series": {"count": count, "lastObservedTime": _micro(event.at)}}
        await self._kube.patch_event(event.meta.namespace, series.name, patch)
        series.count, series.last = count, event.at


def _micro(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _body(event: Event, instance: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{event.key}/{event.at.timestamp()}".encode()).hexdigest()[:12]
    note = event.note.encode()[:NOTE_LIMIT].decode(errors="ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{event.meta.name}.{digest}", "namespace": event.meta.namespace},
        "eventTime": _micro(event.at),
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "action": event.reason,
        "reason": event.reason,
        "note": note,
        "type": event.type,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": event.kind,
            "namespace": event.meta.namespace,
            "name": event.meta.name,
            "uid": event.meta.uid,
        },
    }
