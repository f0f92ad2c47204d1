"""Faults of the write-ahead log: checkpoints that chase one another, and commits that fill the disk's bandwidth."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import asyncpg

from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import LOST, Effect, Fault, Trial
from kintsugi_ml.lab.faults.hogs import without_groups
from kintsugi_ml.lab.workloads.backoffice import BALANCES
from kintsugi_ml.lab.world import DATABASE, World

STORM_PAGES = BALANCES
"""24 MB: more than half of `max_wal_size`, so that full-page images alone bring on the next checkpoint. Two versions of
one row fill a page: a full-page image leaves out what is free."""
STORM_BATCH = 50
STORM_SESSIONS = 3
OUTBOX_ROLE = OUTBOX_PASSWORD = "lab_outbox"
RECONNECT_SECONDS = 0.5


class CheckpointStorm(Fault):
    """A write load that touches many pages, on a server whose `max_wal_size` was set far too small."""

    name: ClassVar[str] = "checkpoint-storm"
    title: ClassVar[str] = "max_wal_size is so small that checkpoints follow one another, each with full-page images"
    root: ClassVar[str] = "wal"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="checkpoints_requested", factor=3.0)

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """A fast disk hides what checkpoints cost."""
        return without_groups(world)

    async def inject(self, ramp: float) -> None:
        """Set the limit to its minimum and start the load; ramped, the load grows."""
        await self.world.configure(max_wal_size="32MB", min_wal_size="32MB")
        self._rate = 0.0
        self.background(self._grow(ramp))
        for _ in range(STORM_SESSIONS):
            self.background(self._settle(await self.session("settlement")))

    async def _grow(self, ramp: float) -> None:
        async for level in self.grow(ramp):
            self._rate = level * self.scaled(2000, 6000) / STORM_SESSIONS

    async def _settle(self, session: asyncpg.Connection) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            ids = self.random.choices(range(1, STORM_PAGES + 1), k=STORM_BATCH)
            await session.execute("UPDATE balances SET amount = amount + 1 WHERE id = ANY ($1::int[])", ids)
            due = max(due + STORM_BATCH / max(self._rate, 1.0), loop.time() - 0.1)
            await asyncio.sleep(due - loop.time())

    async def lift(self) -> None:
        """Put the settings back, end the load."""
        await self.world.reset("max_wal_size", "min_wal_size")
        await super().lift()

    async def repair(self) -> None:
        """Clean the table up, and bring it to disk before the next run begins."""
        await self.world.sql("VACUUM balances")
        await self.world.sql("CHECKPOINT")

    def trials(self) -> Sequence[Trial]:
        """More room for WAL until the next checkpoint; a checkpoint by hand is one more of them."""
        return (
            parameters.tune_setting("max_wal_size", "1GB", right=True),
            parameters.CHECKPOINT,
            parameters.resize_pool(self.world),
            parameters.analyze_table(self.world, self.world.targets.hot_table),
        )


class WalPressure(Fault):
    """An outbox: an application that commits large messages in many sessions, as change data capture reads them."""

    name: ClassVar[str] = "wal-pressure"
    title: ClassVar[str] = "an application's large commits fill the disk's write bandwidth, and all commits queue"
    root: ClassVar[str] = "wal"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="wal_sync_latency", factor=3.0)

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """A fast disk takes it all."""
        return without_groups(world)

    async def prepare(self) -> None:
        """Make the application's role."""
        await self._drop_role()
        await self.world.sql(f"CREATE ROLE {OUTBOX_ROLE} LOGIN PASSWORD '{OUTBOX_PASSWORD}'")

    async def inject(self, ramp: float) -> None:
        """Start the sessions at once, or one after another."""
        self.background(self._grow(ramp))

    async def _grow(self, ramp: float) -> None:
        sessions = round(self.scaled(2, 6))
        started = 0
        async for level in self.grow(ramp):
            while started < level * sessions:
                self.background(self._publish())
                started += 1

    async def _publish(self) -> None:
        """Commit messages back to back; like any service, connect again when the connection is lost."""
        dsn = self.world.primary.dsn(DATABASE, OUTBOX_ROLE, OUTBOX_PASSWORD, application_name="outbox")
        size = round(self.scaled(48, 144)) * 1024
        while True:
            try:
                session = await asyncpg.connect(dsn, timeout=10)
                self._sessions.append(session)
                while True:
                    await session.execute("SELECT pg_logical_emit_message(true, 'outbox', repeat('x', $1))", size)
            except LOST:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def repair(self) -> None:
        """Drop the role."""
        await self._drop_role()

    async def _drop_role(self) -> None:
        await self.world.sql(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = $1", OUTBOX_ROLE
        )
        await self.world.sql(f"DROP ROLE IF EXISTS {OUTBOX_ROLE}")

    def trials(self) -> Sequence[Trial]:
        """One session of that role is harmless; terminating them is not enough, they come back."""
        return (
            Trial("limit-role", right=True, parameters={"role": OUTBOX_ROLE, "limit": 0}),
            parameters.CHECKPOINT,
            parameters.resize_pool(self.world),
            parameters.vacuum_table(self.world.targets.write_table),
        )
