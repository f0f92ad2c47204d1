"""More clients that hold a pooled connection than the pool has: everybody else waits for one."""

from __future__ import annotations

import asyncio
import threading
from typing import ClassVar

import asyncpg

from kintsugi_dev.faults.base import Fault

HELD_SECONDS = 0.5
"""How long a worker waits for somebody else's answer in the middle of its transaction."""
LOOK = "SELECT id, name, balance FROM customers WHERE id = $1"


class ExhaustedPool(Fault):
    """A new service starts `clients` workers that call a payment provider while they hold a transaction open.

    Each transaction is short and blocks nobody, but keeps one of the pool's connections for half a second.
    """

    name: ClassVar[str] = "exhausted-pool"
    title: ClassVar[str] = "a new service's transactions hold every connection of the pool"

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
        if self._thread.is_alive():
            self._thread.join(10)

    async def _run(self) -> None:
        await asyncio.gather(*(self._work(number) for number in range(self._clients)))

    async def _work(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                connection = await asyncpg.connect(self._dsn, statement_cache_size=0)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.5)
                continue
            try:
                while not self._stop.is_set():
                    async with connection.transaction():
                        await connection.fetchrow(LOOK, 1000 + number)
                        await asyncio.sleep(HELD_SECONDS)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.2)
            finally:
                connection.terminate()
