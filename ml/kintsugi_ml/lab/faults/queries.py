"""Faults of the query engine: statements that cost far too much, or that are given far too little memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
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


class TempSpill(Fault):
    """Root query-engine, not storage: a statement's memory is what is wrong; its temporary files are what follows.

    Severity: 6 to 24 reports a second in addition, at the height of it.
    """

    name: ClassVar[str] = "temp-spill"
    title: ClassVar[str] = "work_mem has been set so low that sorts and hashes go to temporary files"
    root: ClassVar[str] = "query-engine"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="temp_bytes", factor=3.0)
    starved: ClassVar[str] = "64kB"

    async def inject(self, ramp: float) -> None:
        """Too little memory at once; more and more reports over `ramp` seconds."""
        await self.world.configure(work_mem=self.starved)
        self.background(self._report(ramp))

    async def _report(self, ramp: float) -> None:
        rate = self.scaled(6, 24)
        async for level in self.grow(ramp):
            await self.world.load.control(rate_factor=1.0, extra={"report": rate * level})

    async def lift(self) -> None:
        """The former setting and the former number of reports."""
        await super().lift()
        await self.world.reset("work_mem")
        await self.world.load.control(rate_factor=1.0, extra={})

    def trials(self) -> Sequence[Trial]:
        """The default again."""
        return [
            tune_setting("work_mem", "4MB", right=True),
            tune_setting("effective_io_concurrency", "16"),
            analyze_table(self.world, self.world.targets.big_table),
            resize_pool(self.world),
            CHECKPOINT,
        ]
