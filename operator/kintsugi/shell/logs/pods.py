"""The log of pods, through the Kubernetes API: all that a selector finds, each from where it was read last.

It is asked for again and again rather than followed: a broken connection then costs one read, and a fleet no threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.shell.errors import ForbiddenError, KubeError, NotFoundError, UnavailableError
from kintsugi.shell.kube import Kube
from kintsugi.shell.logs.source import Batch, LogError, Mark, NewDecoder, Position, known_from
from kintsugi.shell.logs.stamped import NANOSECONDS, Stream, stamped

LIMIT_BYTES: Final = 1 << 20
"""Of one container at once; what is left comes with the next batch."""
MOST_PODS: Final = 32
WAITING: Final = ("waiting to start", "is not available", "ContainerCreating", "PodInitializing")

Json = Mapping[str, Any]


class PodLogs:
    """The output of one container of each pod that has these labels."""

    every = 5.0

    def __init__(
        self, kube: Kube, namespace: str, selector: Mapping[str, str], container: str | None, new_decoder: NewDecoder
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._selector = ",".join(f"{label}={value}" for label, value in sorted(selector.items()))
        self._container = container
        self._new = new_decoder
        self._streams: dict[str, Stream] = {}
        self._restarts: dict[str, int] = {}
        self._position: Position | None = None

    async def read(self, since: Position) -> Batch:
        """What the containers wrote since.

        Raises:
            LogError: no pod has these labels, or their log may not be read.
            KubeError: the API server could not be asked.
        """
        began = time.time()
        if since != self._position:
            self._streams = {key: Stream(self._new(since.since), mark[:2]) for key, mark in since.marks.items()}
            self._restarts = {key: mark[2] for key, mark in since.marks.items()}
        self._position = None  # until this batch is whole: what fails is read again
        junk = -sum(stream.decoder.junk for stream in self._streams.values())
        for stream in self._streams.values():
            stream.decoder.zone = ""
        lines, more, begins = await self._all(since, await self._pods())
        zone = next((stream.decoder.zone for stream in self._streams.values() if stream.decoder.zone), "")
        junk += sum(stream.decoder.junk for stream in self._streams.values())
        self._position = Position(since.since, {key: self._mark(key) for key in self._streams})
        until = began if not more else max((line.time for line in lines), default=since.since)
        begins = known_from(begins, (stream.decoder for stream in self._streams.values()))
        return Batch(tuple(lines), self._position, min(until, began), more, begins, max(junk, 0), zone)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _mark(self, key: str) -> Mark:
        return (*self._streams[key].mark, self._restarts.get(key, 0))

    async def _pods(self) -> Sequence[Json]:
        try:
            pods = await self._kube.list_pods(self._namespace, self._selector)
        except ForbiddenError as error:
            raise self._forbidden() from error
        if not pods:
            raise LogError(
                "NoPods",
                f"no pod in {self._namespace} has the labels {self._selector}; correct spec.logs.pods.selector",
            )
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))[-MOST_PODS:]

    async def _all(self, since: Position, pods: Sequence[Json]) -> tuple[list[Line], bool, float | None]:
        lines: list[Line] = []
        more, begins = False, None
        for pod in pods:
            found, full, skipped_to = await self._pod(pod, since.since)
            lines += found
            more |= full
            begins = skipped_to if begins is None else max(begins, skipped_to or begins)
        gone = set(self._streams) - {pod["metadata"]["uid"] for pod in pods}
        for key in gone:
            self._restarts.pop(key, None)
            lines += self._streams.pop(key).decoder.end()
        return lines, more, begins

    async def _pod(self, pod: Json, since: float) -> tuple[list[Line], bool, float | None]:
        """One pod's new lines; when its container was started anew, the last words of the one before come first."""
        key, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        stream = self._streams.setdefault(key, Stream(self._new(since)))
        restarts = self._restart_count(pod)
        lines: list[Line] = []
        if restarts > self._restarts.setdefault(key, restarts):
            previous, _, _ = await self._container_log(name, stream, since, previous=True)
            lines += [*previous, *stream.decoder.end()]
        self._restarts[key] = restarts
        found, full, begins = await self._container_log(name, stream, since)
        return [*lines, *found], full, begins

    def _restart_count(self, pod: Json) -> int:
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        counts = [int(s.get("restartCount", 0)) for s in statuses if self._container in (None, s.get("name"))]
        return max(counts, default=0)

    async def _container_log(
        self, pod: str, stream: Stream, since: float, *, previous: bool = False
    ) -> tuple[list[Line], bool, float | None]:
        """New lines, whether the limit was reached, and the time up to which lines had to be left out."""
        start = max(stream.stamp // NANOSECONDS, int(since))
        data = await self._asked(pod, start, previous)
        if data is None:
            return [], False, None
        full = len(data) >= LIMIT_BYTES
        whole = data[: data.rfind(b"\n") + 1]
        entries = (entry for line in whole.split(b"\n") if (entry := stamped(line)))
        # In a thread: a mebibyte takes a quarter of a second.
        lines, news = await asyncio.to_thread(stream.take, entries)
        if full and not news:
            # A line, or a second, with more than can be had at once: the API's times have whole seconds.
            first = stamped(data[:64])
            following = (first[0] // NANOSECONDS if first else start) + 1
            stream.stamp, stream.same = following * NANOSECONDS, 0
            return lines, True, float(following)
        return lines if news else stream.decoder.idle(), full, None

    async def _asked(self, pod: str, start: int, previous: bool) -> bytes | None:
        query = {
            "timestamps": "true",
            "limitBytes": LIMIT_BYTES,
            "sinceTime": datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if self._container:
            query["container"] = self._container
        if previous:
            query["previous"] = "true"
        try:
            return await self._kube.pod_log(self._namespace, pod, query)
        except ForbiddenError as error:
            raise self._forbidden() from error
        except UnavailableError:
            raise
        except NotFoundError:
            return None
        except KubeError as error:
            if previous or any(word in str(error) for word in WAITING):
                return None
            raise LogError(
                "PodLogRefused", f"the log of pod {pod} can't be read: {error}; check spec.logs.pods.container"
            ) from error

    def _forbidden(self) -> LogError:
        return LogError(
            "PodLogForbidden",
            f"the operator may not read pods and their logs in {self._namespace}; install the chart with "
            "logs.pods=true and the namespace in rbac.namespaces",
        )
