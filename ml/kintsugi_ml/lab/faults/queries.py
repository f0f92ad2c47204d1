"""Faults of the query engine: statements that cost far too much, or that are given far too little memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import Effect, Trial
from kintsugi_ml.lab.faults.parameters import CHECKPOINT, DISCARD_PLANS, analyze_table, resize_pool, tune_setting
from kintsugi_ml.lab.faults.service import ServiceFault

CARTESIAN: Final = "SELECT count(*) FROM task_parts p, tasks t WHERE p.weight + t.id < 0"
"""Eight thousand million pairs of rows, with nothing to join them by: minutes of computing."""


class RunawayQuery(ServiceFault):
    """Severity: how many run at once, 2 to 8."""

    name: ClassVar[str] = "runaway-query"
    title: ClassVar[str] = "somebody's joins lack their condition and compute without end"
    root: ClassVar[str] = "query-engine"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="on_cpu_sessions", factor=3.0)
    application: ClassVar[str] = "ad-hoc-analysis"

    async def inject(self, ramp: float) -> None:
        """Start them, one every few seconds."""
        count = round(self.scaled(2, 8))
        self.background(self._start(count, ramp / count))

    async def _start(self, count: int, pause: float) -> None:
        for _ in range(count):
            self.background(_compute(await self.open()))
            await asyncio.sleep(pause)

    def trials(self) -> Sequence[Trial]:
        """Cancel exactly these statements; indexes, statistics or more connections don't shorten a product."""
        sessions = self.transactions()
        return [
            Trial("cancel-query", True, {"pids": [one["pid"] for one in sessions], "sessions": sessions}),
            analyze_table(self.world, "tasks"),
            resize_pool(self.world),
            CHECKPOINT,
            DISCARD_PLANS,
        ]


async def _compute(session: asyncpg.Connection) -> None:
    await session.execute(CARTESIAN)


WITHOUT_TASK: Final = """
SELECT count(*) FROM task_parts WHERE id BETWEEN $1::bigint AND $1::bigint + $2::bigint - 1
AND task_id NOT IN (SELECT id + 0 FROM tasks)
"""
"""With 4 MB the tasks' keys are hashed in memory, some 10 ms. With 64 kB they are written to a temporary file, which is
read from its beginning for each of the parts."""
PARTS: Final = 200_000
PAUSE_SECONDS: Final = 0.15


class TempSpill(ServiceFault):
    """Root query-engine, not storage: a statement's memory is what is wrong; its temporary files are what follows.

    Severity: how many checks of 50 to 250 parts run beside one another, 2 to 6; each rests for a moment after each.
    """

    name: ClassVar[str] = "temp-spill"
    title: ClassVar[str] = "work_mem has been set so low that checks and sorts go to temporary files"
    root: ClassVar[str] = "query-engine"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="statement_latency", factor=2.0)
    application: ClassVar[str] = "reconciliation"
    starved: ClassVar[str] = "64kB"

    async def inject(self, ramp: float) -> None:
        """Too little memory at once; more and more checks over `ramp` seconds."""
        await self.world.configure(work_mem=self.starved)
        count = round(self.scaled(2, 6))
        self.background(self._start(count, ramp / count))

    async def _start(self, count: int, pause: float) -> None:
        for _ in range(count):
            self.background(self._check(await self.open()))
            await asyncio.sleep(pause)

    async def _check(self, session: asyncpg.Connection) -> None:
        parts = round(self.scaled(50, 250))
        while True:
            await session.fetchval(WITHOUT_TASK, self.random.randint(1, PARTS - parts), parts)
            await asyncio.sleep(PAUSE_SECONDS)

    async def lift(self) -> None:
        """The former setting, and no more checks."""
        await self.world.reset("work_mem")
        await super().lift()

    def trials(self) -> Sequence[Trial]:
        """The default again."""
        return [
            tune_setting("work_mem", "4MB", right=True),
            tune_setting("effective_io_concurrency", "16"),
            analyze_table(self.world, "task_parts"),
            resize_pool(self.world),
            CHECKPOINT,
        ]
