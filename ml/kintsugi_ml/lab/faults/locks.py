"""Faults of the lock manager: who holds a lock works on, sits idle, or takes locks in the wrong order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import Effect, Trial
from kintsugi_ml.lab.faults.parameters import CHECKPOINT, analyze_table, resize_pool, vacuum_table
from kintsugi_ml.lab.faults.service import ROLE, ServiceFault

HOT_ROWS: Final = 10
WORK: Final = "SELECT pg_sleep($1) FROM (SELECT sum(n) FROM generate_series(1, 50000) AS n) AS computed"
"""What a batch job does between two locks: some computing, then a wait for something else; state `active`."""
WORK_SECONDS: Final = 5.0
TABLES_SHARE: Final = 0.3
"""So many of the batch jobs lock whole tables against writers instead of rows."""


class _HotRows(ServiceFault):
    root: ClassVar[str] = "lock-manager"

    def update(self) -> str:
        """Lock one hot row ($1 is its key) without changing what it says."""
        to = self.world.targets
        return f"UPDATE {to.hot_table} SET {to.hot_number} = {to.hot_number} + 0 WHERE {to.hot_key} = $1"

    def keys(self) -> list[int]:
        """The hot rows' keys in an order of this run's own."""
        return self.random.sample(range(1, HOT_ROWS + 1), HOT_ROWS)

    def useless(self) -> tuple[Trial, ...]:
        """What somebody might try who sees slow requests and a full pool."""
        table = self.world.targets.hot_table
        return resize_pool(self.world), analyze_table(self.world, table), CHECKPOINT, vacuum_table(table)


class LockContention(_HotRows):
    """Severity: how many of the ten hot rows are locked, 3 to 10; or how many tables, 1 to 3."""

    name: ClassVar[str] = "lock-contention"
    title: ClassVar[str] = "a batch job locks the busiest rows, or whole tables, and works on in the same transaction"
    effect: ClassVar[Effect] = Effect(client=2.0, signal="lock_waiters", factor=3.0)
    application: ClassVar[str] = "nightly-correction"
    deadlock_timeout: ClassVar[str] = "60s"

    async def inject(self, ramp: float) -> None:
        """Take the locks one after the other, over `ramp` seconds."""
        locks = self._tables() if self.random.random() < TABLES_SHARE else self._rows()
        session = await self.open()
        await session.execute("BEGIN")
        self.background(_lock(session, locks, ramp / len(locks)))

    def _rows(self) -> list[str]:
        keys = sorted(self.keys()[: round(self.scaled(3, HOT_ROWS))])
        return [self.update().replace("$1", str(key)) for key in keys]

    def _tables(self) -> list[str]:
        to = self.world.targets
        tables = list(dict.fromkeys((to.hot_table, to.write_table, "jobs")))[: round(self.scaled(1, 3))]
        return [f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE" for table in tables]

    def trials(self) -> Sequence[Trial]:
        """End the job's session."""
        return [*(Trial("terminate-blocker", True, one) for one in self.transactions()), *self.useless()]


class IdleInTransaction(_HotRows):
    """Severity: how many sessions sit there, 2 to 5, with two hot rows each."""

    name: ClassVar[str] = "idle-in-transaction"
    title: ClassVar[str] = "sessions lock busy rows and then do nothing, their transactions left open"
    effect: ClassVar[Effect] = Effect(client=2.0, signal="lock_waiters", factor=3.0)
    application: ClassVar[str] = "support-console"
    deadlock_timeout: ClassVar[str] = "60s"

    async def inject(self, ramp: float) -> None:
        """Open them, one every few seconds."""
        keys, count = self.keys(), round(self.scaled(2, HOT_ROWS / 2))
        await self._hold(keys[:2])
        self.background(self._more(keys[2 : 2 * count], ramp / count))

    async def _more(self, keys: Sequence[int], pause: float) -> None:
        for place in range(0, len(keys), 2):
            await asyncio.sleep(pause)
            await self._hold(keys[place : place + 2])

    async def _hold(self, keys: Sequence[int]) -> None:
        session = await self.open()
        await session.execute("BEGIN")
        for key in sorted(keys):
            await session.execute(self.update(), key)

    def trials(self) -> Sequence[Trial]:
        """End each of the sessions, as production does it: one at a time."""
        sessions = self.transactions()
        return [*(Trial("terminate-idle-in-transaction", True, one) for one in sessions), *self.useless()]


class Deadlocks(_HotRows):
    """Severity: how many pairs of sessions fight, 2 to 5, each over two hot rows."""

    name: ClassVar[str] = "deadlocks"
    title: ClassVar[str] = "a new job updates busy rows in the opposite order of its twin, again and again"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="deadlocks", factor=3.0)
    application: ClassVar[str] = "loyalty-points"
    held_seconds: ClassVar[float] = 0.1
    """Between the two updates of a transaction."""

    async def inject(self, ramp: float) -> None:
        """Start the pairs, one after the other over `ramp` seconds."""
        keys, count = self.keys(), round(self.scaled(2, HOT_ROWS / 2))
        self.background(self._start(keys[: 2 * count], ramp / count))

    async def _start(self, keys: Sequence[int], pause: float) -> None:
        for place in range(0, len(keys), 2):
            one, other = keys[place : place + 2]
            for order in ((one, other), (other, one)):
                self.background(self._fight(await self.open(), *order))
            await asyncio.sleep(pause)

    async def _fight(self, session: asyncpg.Connection, first: int, second: int) -> None:
        while True:
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                async with session.transaction():
                    await session.execute(self.update(), first)
                    await asyncio.sleep(self.held_seconds)
                    await session.execute(self.update(), second)
            await asyncio.sleep(self.random.uniform(0.0, 0.05))

    def trials(self) -> Sequence[Trial]:
        """Shut the job out. (Its transactions are too short to be named when one would be terminated.)"""
        return [Trial("limit-role", True, {"role": ROLE, "limit": 0}), *self.useless()]


async def _lock(session: asyncpg.Connection, locks: Sequence[str], pause: float) -> None:
    """Take the locks, busy in between and, with all of them, for good."""
    for lock in locks:
        await session.execute(lock)
        await session.execute(WORK, pause)
    while True:
        await session.execute(WORK, WORK_SECONDS)
