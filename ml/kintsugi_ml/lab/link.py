"""A slow network between pooler and database: a TCP relay that can hold back every byte for a while.

It stands in for netem, which this kernel (and many a container's) lacks; it delays, it never reorders or loses.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from pathlib import Path
from typing import ClassVar, Self

from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.process import HOST, Process, accepts_connections, free_port

POLL_SECONDS = 0.1
HELD_BYTES = 4 * 2**20
"""So much may be on its way in one direction before the sender has to wait, as in a real network's buffers."""


class SlowLink(LocalServer):
    """A relay on 127.0.0.1 to one port of one host; delay and port can be changed while it runs."""

    kind: ClassVar[str] = "Slow link"

    def __init__(self, directory: Path, port: int, target: int, far_host: str) -> None:
        super().__init__(directory, port)
        self._target = target
        self._far_host = far_host
        self._delay = 0.0

    @classmethod
    def start(cls, directory: Path, *, target: int, host: str = HOST, port: int | None = None) -> Self:
        """Relay to the port `target` of `host` without delay."""
        directory.mkdir(parents=True, exist_ok=True)
        link = cls(directory, port or free_port(), target, host)
        link._write()
        link.launch()
        return link

    @property
    def state(self) -> Path:
        """The file that the relay reads ten times a second: delay in seconds (each way), target port."""
        return self.directory / "state"

    def delay(self, seconds: float) -> None:
        """Hold back what passes for so long, each way; takes effect within .1 s."""
        self._delay = seconds
        self._write()

    def point(self, target: int) -> None:
        """Send new connections to another port; the old ones stay where they are."""
        self._target = target
        self._write()

    def _write(self) -> None:
        fresh = self.state.with_suffix(".new")
        fresh.write_text(f"{self._delay} {self._target}")
        fresh.replace(self.state)

    def _start_process(self) -> Process:
        command: list[str | Path] = [sys.executable, "-m", "kintsugi_ml.lab.link", str(self.port), self.state]
        command.append(self._far_host)
        return Process.start(f"Slow link on port {self.port}", command, log=self.log)

    def _ready(self) -> bool:
        return accepts_connections(self.port)


class _Relay:
    """What all connections share: the delay and the target, read from the state file."""

    def __init__(self, state: Path, host: str) -> None:
        self._state = state
        self.host = host
        self.delay, self.target = 0.0, 0
        self.read()

    def read(self) -> None:
        delay, target = self._state.read_text().split()
        self.delay, self.target = float(delay), int(target)

    async def watch(self) -> None:
        while True:
            self.read()
            await asyncio.sleep(POLL_SECONDS)


class _Side(asyncio.Protocol):
    """One end of a connection. What it reads goes to the other end: at once, or after everything that still waits.

    Plain callbacks instead of streams: at a thousand messages a second a relay must not be what is slow.
    """

    def __init__(self, relay: _Relay, other: _Side | None = None) -> None:
        self._relay = relay
        self._other = other
        self._transport: asyncio.Transport | None = None
        self._held: deque[tuple[float, bytes]] = deque()
        """Due times (the loop's clock, never falling) and data; no data: the end of the stream."""
        self._held_bytes = 0
        self._blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._other is None:
            transport.pause_reading()
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self._other.joined(self)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Side(self._relay, self), self._relay.host, self._relay.target)
        except OSError:
            self.close()

    def joined(self, other: _Side) -> None:
        """Let bytes flow; the near end may have gone while the far one was being reached."""
        self._other = other
        if self._transport is None or self._transport.is_closing():
            other.close()
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._relay.delay == 0 and not self._held and self._other is not None:
            self._other.write(data)
        else:
            self._hold(data)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._hold(b"")

    def _hold(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._relay.delay
        if self._held:
            due = max(due, self._held[-1][0])
        self._held.append((due, data))
        self._held_bytes += len(data)
        if len(self._held) == 1:
            loop.call_at(due, self._release)
        if self._held_bytes > HELD_BYTES:
            self._flow()

    def _release(self) -> None:
        """Hand on what is due. An item leaves the queue in the moment it is written, so nothing can overtake it."""
        loop = asyncio.get_running_loop()
        # The loop's timers fire up to one clock tick early.
        now = loop.time() + time.get_clock_info("monotonic").resolution
        while self._held and self._held[0][0] <= now:
            _, data = self._held.popleft()
            self._held_bytes -= len(data)
            if self._other is not None:
                self._other.write(data)
        if self._held:
            loop.call_at(self._held[0][0], self._release)
        self._flow()

    def _flow(self) -> None:
        """Read on, or not: not while the other end is slow or much is held."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._blocked or self._held_bytes > HELD_BYTES:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.block(True)

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.block(False)

    def block(self, blocked: bool) -> None:
        """The other end takes no more for now, or does again."""
        self._blocked = blocked
        self._flow()

    def write(self, data: bytes) -> None:
        """Send; no data: close, after what was sent before."""
        if not data:
            self.close()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _serve(port: int, state: Path, host: str) -> None:
    relay = _Relay(state, host)
    server = await asyncio.get_running_loop().create_server(lambda: _Side(relay), HOST, port)
    async with server:
        await asyncio.gather(server.serve_forever(), relay.watch())


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
