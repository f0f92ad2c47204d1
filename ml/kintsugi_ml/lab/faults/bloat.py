"""A fault of vacuum: an old snapshot keeps every dead row, and a queue that turns over fast fills with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import Effect, Trial
from kintsugi_ml.lab.faults.parameters import CHECKPOINT, analyze_table, resize_pool, vacuum_table
from kintsugi_ml.lab.faults.service import ServiceFault

TABLE: Final = "jobs"
"""The back office's queue: every `dequeue` looks for the oldest ready job, past all the dead ones."""
MAKE: Final = """
INSERT INTO jobs (state, payload) SELECT 'ready', 'thumbnail' FROM generate_series(1, $1) RETURNING id
"""
FINISH: Final = "DELETE FROM jobs WHERE id = ANY ($1)"
FORGET: Final = "DELETE FROM jobs WHERE payload = 'thumbnail'"
STEP_SECONDS: Final = 1.0
ROWS_A_BATCH: Final = 5000
"""A batch is live for a moment only, so that the application's own jobs hardly wait behind it."""
BATCH_PAUSE_SECONDS: Final = 0.3
"""Not faster than some 15,000 rows a second: the disk must not be what hurts."""


class Bloat(ServiceFault):
    """Severity: 200,000 to 340,000 dead jobs at the height of it; half a percent of it is added each second after.

    The queue is busier for the application, too: 6 to 20 jobs a second in addition, nothing for a clean table.
    """

    name: ClassVar[str] = "bloat"
    title: ClassVar[str] = "a forgotten snapshot keeps dead rows while a job queue turns over fast"
    root: ClassVar[str] = "autovacuum"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="statement_latency", factor=2.0)
    application: ClassVar[str] = "nightly-export"

    async def inject(self, ramp: float) -> None:
        """Take the snapshot, then let the queue turn over: much at once, or evenly over `ramp` seconds."""
        snapshot = await self.open()
        await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await snapshot.fetch("SELECT state FROM jobs LIMIT 1")
        jobs = self.scaled(6, 20)
        await self.world.load.control(rate_factor=1.0, extra={"enqueue": jobs, "dequeue": jobs})
        self.background(self._turn_over(await self.open("thumbnails"), ramp))

    async def _turn_over(self, workers: asyncpg.Connection, ramp: float) -> None:
        total, done = round(self.scaled(200_000, 340_000)), 0
        async for level in self.grow(ramp, STEP_SECONDS):
            while done < round(total * level):
                done += await _batch(workers, min(ROWS_A_BATCH, round(total * level) - done))
                await asyncio.sleep(BATCH_PAUSE_SECONDS)
        while True:
            await asyncio.sleep(STEP_SECONDS)
            await _batch(workers, total // 200)

    async def lift(self) -> None:
        """As few jobs as usual, and no snapshot; the dead rows stay until `repair`."""
        await super().lift()
        await self.world.load.control(rate_factor=1.0, extra={})

    async def repair(self) -> None:
        """None of its jobs, and the queue's usual size again."""
        await super().repair()
        await self.world.sql(FORGET)
        await self.world.sql("VACUUM (ANALYZE) jobs")
        await self.world.sql("REINDEX TABLE jobs")

    def trials(self) -> Sequence[Trial]:
        """End the snapshot's session: readers then clean the index as they pass. VACUUM is of use only after that."""
        return [
            *(Trial("terminate-idle-in-transaction", True, one) for one in self.transactions()),
            vacuum_table(TABLE),
            analyze_table(self.world, TABLE),
            resize_pool(self.world),
            CHECKPOINT,
        ]


async def _batch(workers: asyncpg.Connection, rows: int) -> int:
    made = await workers.fetch(MAKE, rows)
    await workers.execute(FINISH, [row["id"] for row in made])
    return len(made)
