"""A fault of the planner's statistics: a table has changed, and the planner still believes what was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
from kintsugi_ml.lab.faults.parameters import (
    CHECKPOINT,
    DISCARD_PLANS,
    analyze_table,
    create_index,
    resize_pool,
    vacuum_table,
)

TABLE: Final = "tasks"
"""The back office's, with autovacuum off: nobody analyses it by himself."""
PENDING: Final = "pending"
USUAL_STATE: Final = f"SELECT state FROM tasks WHERE state <> '{PENDING}' GROUP BY state ORDER BY count(*) DESC LIMIT 1"
REOPEN: Final = f"""
UPDATE tasks SET state = '{PENDING}' WHERE id IN (
    SELECT id FROM tasks WHERE state <> '{PENDING}' AND id > $1 ORDER BY id LIMIT $2) RETURNING id
"""


class StaleStatistics(Fault):
    """Severity: 4,000 to 16,000 of the 40,000 tasks become pending, where the planner expects hardly any.

    People look: 1 to 4 overviews a second in addition, which with fresh statistics are nothing.
    """

    name: ClassVar[str] = "stale-statistics"
    title: ClassVar[str] = "thousands of tasks are opened again, and statistics from before make a terrible plan"
    root: ClassVar[str] = "planner-statistics"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="statement_latency", factor=2.0)
    step_seconds: ClassVar[float] = 2.0

    async def prepare(self) -> None:
        """Note which state is usual."""
        self._usual: str = (await self.world.sql(USUAL_STATE))[0]["state"]
        self._reopened: list[int] = []

    async def inject(self, ramp: float) -> None:
        """Open them again, at once or in batches over `ramp` seconds."""
        await self.world.load.control(rate_factor=1.0, extra={"overview": self.scaled(1, 4)})
        session = await self.session("workflow-import")
        if ramp > 0:
            self.background(self._reopen(session, ramp))
        else:
            await self._reopen(session, 0.0)

    async def _reopen(self, session: asyncpg.Connection, ramp: float) -> None:
        total, first = round(self.scaled(4000, 16000)), self.random.randrange(20_000)
        async for level in self.grow(ramp, self.step_seconds):
            missing = round(total * level) - len(self._reopened)
            self._reopened += [row["id"] for row in await session.fetch(REOPEN, first, missing)]

    async def lift(self) -> None:
        """As few overviews as usual; the tasks stay open until `repair`."""
        await super().lift()
        await self.world.load.control(rate_factor=1.0, extra={})

    async def repair(self) -> None:
        """The tasks as they were, with statistics that say so and without the dead rows."""
        await self.world.sql("UPDATE tasks SET state = $1 WHERE id = ANY ($2)", self._usual, self._reopened)
        await self.world.sql("VACUUM (ANALYZE) tasks")

    def trials(self) -> Sequence[Trial]:
        """Fresh statistics."""
        to = self.world.targets
        return [
            analyze_table(self.world, TABLE, right=True),
            analyze_table(self.world, to.lookup_table),
            vacuum_table(TABLE),
            create_index(to.write_table, to.write_columns[0]),
            resize_pool(self.world),
            DISCARD_PLANS,
            CHECKPOINT,
        ]
