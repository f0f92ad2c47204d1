"""A slow network between pooler and database: a TCP relay that can hold back every byte for a while.

It stands in for netem, which this kernel (and many a container's) lacks; it delays, it never reorders or loses.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import ClassVar, Self

from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.process import HOST, Process, accepts_connections, free_port

POLL_SECONDS = 0.1


class SlowLink(LocalServer):
    """A relay on 127.0.0.1 to one local port, both changeable while it runs."""

    kind: ClassVar[str] = "Slow link"

    def __init__(self, directory: Path, port: int, target: int) -> None:
        super().__init__(directory, port)
        self._target = target
        self._delay = 0.0

    @classmethod
    def start(cls, directory: Path, *, target: int, port: int | None = None) -> Self:
        """Relay to the local port `target` without delay."""
        directory.mkdir(parents=True, exist_ok=True)
        link = cls(directory, port or free_port(), target)
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
        return Process.start(f"Slow link on port {self.port}", command, log=self.log)

    def _ready(self) -> bool:
        return accepts_connections(self.port)


class _Relay:
    def __init__(self, state: Path) -> None:
        self._state = state
        self.delay, self.target = 0.0, 0
        self.read()

    def read(self) -> None:
        delay, target = self._state.read_text().split()
        self.delay, self.target = float(delay), int(target)

    async def watch(self) -> None:
        while True:
            self.read()
            await asyncio.sleep(POLL_SECONDS)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, data = await queue.get()
                if not data:
                    return
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                sink.write(data)
                await sink.drain()

        sender = asyncio.create_task(send())
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.delay == 0 and queue.empty() and not sender.done():
                    sink.write(data)
                    await sink.drain()
                else:
                    queue.put_nowait((loop.time() + self.delay, data))
        queue.put_nowait((0.0, b""))
        with contextlib.suppress(OSError):
            await sender
        sink.close()


async def _serve(port: int, state: Path) -> None:
    relay = _Relay(state)
    server = await asyncio.start_server(relay.connected, HOST, port)
    async with server:
        await asyncio.gather(server.serve_forever(), relay.watch())


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
