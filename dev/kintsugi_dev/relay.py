"""A TCP relay in the caller's event loop: a Service in its simplest form, or a server under another name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LOCAL = "127.0.0.1"


class Relay:
    """Forwards each new connection to `target`, a local port that may change; the old ones stay where they are."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, host: str) -> asyncio.Server:
        """Listen on a free port of `host`."""
        server = await asyncio.start_server(self._connected, host, 0)
        self.port = int(server.sockets[0].getsockname()[1])
        return server

    async def close(self) -> None:
        """Cut what is connected."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(LOCAL, self.target)
            for source, sink in ((reader, far_writer), (far_reader, writer)):
                task = asyncio.create_task(_pump(source, sink))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def relay(target: int, host: str = LOCAL) -> AsyncIterator[Relay]:
    """A relay to the local port `target`, closed at the end."""
    made = Relay(target)
    server = await made.serve(host)
    try:
        yield made
    finally:
        server.close()
        await made.close()
