"""The process behind `ServiceRelay`: `python -m kintsugi_dev.servers.relay_process --service … --listen …`.

Two threads follow the Service and the pods at the API server; the event loop forwards bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3.exceptions
from kubernetes import client, config, watch

ADDRESS = "demo.kintsugi.dev/address"
CONNECT_SECONDS = 3.0
WATCH_SECONDS = 30
REQUEST_TIMEOUT = (3.0, WATCH_SECONDS + 5.0)
RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Target:
    """A pod that connections go to."""

    pod: str
    host: str
    port: int


def choose(service: Any | None, pods: Iterable[Any]) -> Target | None:
    """The first pod by name that the Service selects, with an address, not being deleted, not known to be unready."""
    selector = (service.spec.selector if service is not None else None) or {}
    for pod in sorted(pods, key=lambda pod: str(pod.metadata.name)):
        host, _, port = (pod.metadata.annotations or {}).get(ADDRESS, "").rpartition(":")
        addressed = host != "" and port.isdigit()
        if selector and addressed and selector.items() <= (pod.metadata.labels or {}).items() and _serves(pod):
            return Target(pod.metadata.name, host, int(port))
    return None


def _serves(pod: Any) -> bool:
    conditions = (pod.status.conditions if pod.status else None) or []
    unready = any(condition.type == "Ready" and condition.status == "False" for condition in conditions)
    return pod.metadata.deletion_timestamp is None and not unready


class Follower:
    """Keeps the Service and the namespace's pods as the API server last showed them, and tells of each new target."""

    def __init__(
        self, kubeconfig: Path, namespace: str, service: str, changed: Callable[[Target | None], None]
    ) -> None:
        api = client.CoreV1Api(config.new_client_from_config(config_file=str(kubeconfig)))
        self._changed = changed
        self._lock = threading.Lock()
        self._services: dict[str, Any] = {}
        self._pods: dict[str, Any] = {}
        self._synced = (threading.Event(), threading.Event())
        only = {"namespace": namespace, "field_selector": f"metadata.name={service}"}
        follow = (
            (api.list_namespaced_service, only, self._services, self._synced[0]),
            (api.list_namespaced_pod, {"namespace": namespace}, self._pods, self._synced[1]),
        )
        for arguments in follow:
            threading.Thread(target=self._follow, args=arguments, daemon=True).start()

    def wait_synced(self) -> None:
        """Return once Service and pods have been read."""
        for event in self._synced:
            event.wait()

    def _follow(
        self, listing: Callable[..., Any], only: dict[str, Any], known: dict[str, Any], synced: threading.Event
    ) -> None:
        while True:
            try:
                current = listing(**only, _request_timeout=REQUEST_TIMEOUT)
                self._update(known, {item.metadata.name: item for item in current.items})
                synced.set()
                for event in watch.Watch().stream(
                    listing,
                    **only,
                    resource_version=current.metadata.resource_version,
                    timeout_seconds=WATCH_SECONDS,
                    _request_timeout=REQUEST_TIMEOUT,
                ):
                    self._apply(known, event)
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                print(f"the API server is away, the last known pod stays: {str(error)[:200]}", flush=True)
                time.sleep(RETRY_SECONDS)

    def _apply(self, known: dict[str, Any], event: dict[str, Any]) -> None:
        item = event["object"]
        others = {name: value for name, value in known.items() if name != item.metadata.name}
        self._update(known, others if event["type"] == "DELETED" else {**others, item.metadata.name: item})

    def _update(self, known: dict[str, Any], now: dict[str, Any]) -> None:
        with self._lock:
            known.clear()
            known.update(now)
            self._changed(choose(next(iter(self._services.values()), None), self._pods.values()))


class Relay:
    """Forwards connections to the current target and cuts them when it changes."""

    def __init__(self) -> None:
        self._target: Target | None = None
        self._sides: set[Side] = set()

    def retarget(self, target: Target | None) -> None:
        """From now on forward to `target`; connections to another are cut."""
        if target == self._target:
            return
        print(f"now forwarding to {target or 'nobody'}; {len(self._sides) // 2} connections cut", flush=True)
        self._target = target
        for side in list(self._sides):
            side.abort()

    def accept(self) -> Side:
        """The client's side of a new connection."""
        return Side(self._sides, self._connect)

    async def _connect(self, accepted: Side) -> None:
        target = self._target
        if target is None:
            accepted.abort()
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, server = await loop.create_connection(lambda: Side(self._sides), target.host, target.port)
        except OSError:
            accepted.abort()
            return
        if target != self._target:
            server.abort()
        accepted.join(server)


class Side(asyncio.Protocol):
    """One end of a relayed connection; what it reads is written to the other, at the pace the other takes it."""

    def __init__(self, sides: set[Side], opened: Callable[[Side], Any] | None = None) -> None:
        self._sides = sides
        self._opened = opened
        self._other: Side | None = None
        self._opening: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold back reading until the other end is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._sides.add(self)
        transport.pause_reading()
        if self._opened is not None:
            self._opening = asyncio.get_running_loop().create_task(self._opened(self))

    def join(self, other: Side) -> None:
        """Let bytes flow between the two ends."""
        self._other, other._other = other, self
        if self.transport is None or self.transport.is_closing():
            other.abort()
        for side in (self, other):
            if side.transport is not None and not side.transport.is_closing():
                side.transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand on what was read."""
        if self._other is not None and self._other.transport is not None:
            self._other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other end too, after what is still to be written to it."""
        self._sides.discard(self)
        if self._other is not None and self._other.transport is not None:
            self._other.transport.close()

    def pause_writing(self) -> None:
        """The reader of this end is slow: read no more from the other."""
        if self._other is not None and self._other.transport is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        """The reader of this end caught up."""
        if self._other is not None and self._other.transport is not None and not self._other.transport.is_closing():
            self._other.transport.resume_reading()


async def serve(arguments: argparse.Namespace) -> None:
    """Follow and forward until ended."""
    loop = asyncio.get_running_loop()
    relay = Relay()

    def changed(target: Target | None) -> None:
        loop.call_soon_threadsafe(relay.retarget, target)

    follower = Follower(
        arguments.kubeconfig,
        arguments.namespace,
        arguments.service,
        changed,
    )
    await asyncio.to_thread(follower.wait_synced)
    host, _, port = arguments.listen.rpartition(":")
    server = await loop.create_server(relay.accept, host, int(port))
    arguments.ready_file.write_text("listening\n")
    await server.serve_forever()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--ready-file", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
