"""More clients that hold a pooled connection than the pool has: everybody else waits for one."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

import asyncpg

from kintsugi_dev.faults.base import Fault

HOLD = "SELECT pg_sleep(0.5)"
"""What a report's query is to the pool: half a second in which its connection serves nobody else."""


class ExhaustedPool(Fault):
    """A new service starts `clients` workers that go through the same pool, each with slow queries."""

    name: ClassVar[str] = "exhausted-pool"
    title: ClassVar[str] = "a new service's slow queries take every connection of the pool"

    def __init__(self, dsn: str, clients: int) -> None:
        self._dsn = dsn
        self._clients = clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def inject(self) -> None:
        """Start the workers."""
        self._thread.start()

    def lift(self) -> None:
        """Stop them."""
        self._stop.set()
        self._thread.join(10)

    async def _run(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(self._clients)))

    async def _work(self) -> None:
        while not self._stop.is_set():
            try:
                connection = await asyncpg.connect(self._dsn, statement_cache_size=0)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.5)
                continue
            try:
                while not self._stop.is_set():
                    await connection.execute(HOLD)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.2)
            finally:
                connection.terminate()
