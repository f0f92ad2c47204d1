"""Faults of connections and pool: those who hold on to what everybody shares."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import LOST, Effect, Fault, Trial
from kintsugi_ml.lab.faults.parameters import CHECKPOINT, analyze_table, resize_pool, tune_setting
from kintsugi_ml.lab.faults.service import ROLE, ServiceFault

ROOM: Final = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - count(*) AS room
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
WORSE: Final = 0.5


class ConnectionExhaustion(ServiceFault):
    """Severity: how fast the leak takes what the pooler gives up for a moment, every 1 to .1 s.

    Clients feel it when the pooler renews its server connections: one by one as they age, or, in the worse half of the
    runs, all at once a few seconds after, as after a change of its configuration.
    """

    name: ClassVar[str] = "connection-exhaustion"
    title: ClassVar[str] = "a service opens connections and never closes one, until the server has none left"
    root: ClassVar[str] = "connections"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="connections_exhausted", factor=2.0)
    application: ClassVar[str] = "recommendations"

    async def inject(self, ramp: float) -> None:
        """Leak: all there is at once, or evenly over `ramp` seconds; then whatever gets free."""
        self.background(self._leak(ramp))

    async def _leak(self, ramp: float) -> None:
        room = (await self.world.sql(ROOM))[0]["room"]
        async for level in self.grow(ramp, step=0.5):
            while len(self._sessions) < round(room * level) and await self._one_more():
                pass
        if self.severity > WORSE:
            self.background(self._renew())
        # The service stops when its sessions are ended: somebody has looked after it.
        while not any(session.is_closed() for session in self._sessions):
            await self._one_more()
            await asyncio.sleep(self.scaled(1.0, 0.1))

    async def _renew(self) -> None:
        await asyncio.sleep(self.random.uniform(2.0, 6.0))
        await asyncio.to_thread(self.world.pooler.admin, "RECONNECT")

    async def _one_more(self) -> bool:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            await self.open()
            return True
        return False

    def trials(self) -> Sequence[Trial]:
        """End the leaking service's idle sessions and let it have no more than a few."""
        leak = {"role": ROLE, "application": self.application}
        return [
            Trial("terminate-idle-sessions", True, leak),
            resize_pool(self.world),
            analyze_table(self.world, self.world.targets.lookup_table),
            CHECKPOINT,
        ]


class PoolExhaustion(Fault):
    """Severity: how many workers there are, 14 to 34 on a pool of 16."""

    name: ClassVar[str] = "pool-exhaustion"
    title: ClassVar[str] = "a service's short transactions wait for somebody else, each with a pooled connection"
    root: ClassVar[str] = "pooler"
    effect: ClassVar[Effect] = Effect(client=2.0, signal="pooler_clients_waiting", factor=3.0)
    held_seconds: ClassVar[float] = 0.5
    """How long a payment provider takes to answer; the transaction stays open, and blocks nobody."""

    async def inject(self, ramp: float) -> None:
        """Start the workers."""
        self.background(self._start(ramp))

    async def _start(self, ramp: float) -> None:
        workers, started = round(self.scaled(14, 34)), 0
        async for level in self.grow(ramp, step=0.5):
            while started < round(workers * level):
                self.background(self._worker())
                started += 1

    async def _worker(self) -> None:
        while True:
            with contextlib.suppress(*LOST):
                await self._transactions()
            await asyncio.sleep(0.2)

    async def _transactions(self) -> None:
        # Not one of `_sessions`: what it has for a pid is the pooler's invention, and nothing to end at the server.
        connection = await asyncpg.connect(
            self.world.pooled_dsn(),
            timeout=10,
            statement_cache_size=0,
            server_settings={"application_name": "payments"},
        )
        try:
            while True:
                async with connection.transaction():
                    await connection.fetchval("SELECT 1")
                    await asyncio.sleep(self.held_seconds)
        finally:
            connection.terminate()

    async def repair(self) -> None:
        """The pool's configured size."""
        size = self.world.pooler.settings["default_pool_size"]
        await asyncio.to_thread(self.world.pooler.admin, f"SET default_pool_size = {size}")

    def trials(self) -> Sequence[Trial]:
        """Room for the workers beside the application."""
        return [
            resize_pool(self.world, 24, right=True),
            analyze_table(self.world, self.world.targets.hot_table),
            CHECKPOINT,
            tune_setting("work_mem", "8MB"),
        ]
