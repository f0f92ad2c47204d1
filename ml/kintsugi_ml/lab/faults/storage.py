"""Faults of storage and its cache: a bulk load that takes the disk, and hot data that is no longer in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.cgroups import forget_files
from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import LOST, Effect, Fault, Trial
from kintsugi_ml.lab.faults.hogs import without_groups
from kintsugi_ml.lab.world import World

IMPORT: Final = """\
DO $$ BEGIN LOOP
    INSERT INTO imports (reference, payload)
        SELECT md5(random()::text), repeat(md5(row::text), 12) FROM generate_series(1, 2000) row;
    COMMIT;
END LOOP; END $$"""
"""One statement until it is cancelled, so that a cancellation can't fall between two; 1.3 MB a batch with indexes."""
EXPORT: Final = """\
DO $$
DECLARE
    began timestamptz := clock_timestamp();
    size bigint := pg_relation_size('{table}') / 8192;
    part bigint := greatest(1, size / 10);
    start bigint := 0;
BEGIN LOOP
    PERFORM pg_prewarm('{table}', 'buffer', 'main', start, least(start + part, size) - 1);
    start := CASE WHEN start + part >= size THEN 0 ELSE start + part END;
    PERFORM pg_sleep(0.05 / least(1, 0.05 + extract(epoch FROM clock_timestamp() - began) / {ramp}));
END LOOP; END $$"""
"""Reads a table through shared buffers, a tenth at a time: one tenth a second at first, two tables in the end."""
DOCUMENTS: Final = "documents"
"""The back office's large table; together with a workload's largest, more than shared buffers."""
PASSES: Final = 5
"""The usage count of a hot buffer: so often does the clock sweep pass it by."""
EVICTING_SECONDS: Final = 28.0
"""So long are the caches emptied again and again by an abrupt loss; a remedy comes later (run.Timing)."""


class BulkInsert(Fault):
    """A batch import in several streams, at the wrong time of the day."""

    name: ClassVar[str] = "bulk-insert"
    title: ClassVar[str] = "a batch import inserts as fast as the disk can write"
    root: ClassVar[str] = "storage"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="rows_written", factor=5.0)

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """A fast disk takes it all."""
        return without_groups(world)

    async def inject(self, ramp: float) -> None:
        """Start the streams at once, or one after another."""
        self._streams: list[asyncpg.Connection] = []
        self.background(self._grow(ramp))

    async def _grow(self, ramp: float) -> None:
        streams = round(self.scaled(2, 7))
        async for level in self.grow(ramp):
            while len(self._streams) < level * streams:
                # A cancellation that hits a wait for the replica ends only that wait, and the loop would go on.
                session = await self.session("nightly-import", synchronous_commit="local")
                self._streams.append(session)
                self.background(self._import(session))

    async def _import(self, session: asyncpg.Connection) -> None:
        """Insert until cancelled: a batch that was cancelled is over, nobody starts it again at once."""
        await session.execute(IMPORT)

    async def repair(self) -> None:
        """Empty the table."""
        await self.world.sql("TRUNCATE imports")

    def trials(self) -> Sequence[Trial]:
        """Pause the batch."""
        targets = self.world.targets
        return (
            Trial(
                "cancel-query", right=True, parameters={"pids": [session.get_server_pid() for session in self._streams]}
            ),
            parameters.CHECKPOINT,
            parameters.analyze_table(self.world, targets.write_table),
            parameters.resize_pool(self.world),
        )


class ColdCache(Fault):
    """Hot data has left shared buffers and the page cache, and comes back block by block from a slow disk.

    Abrupt: both are emptied, as by a restart on another machine, and again every few seconds. Ramped: sessions read
    the largest table into shared buffers at a growing pace, and its blocks push the hot ones out.
    """

    name: ClassVar[str] = "cold-cache"
    title: ClassVar[str] = "hot data is no longer in memory and is read from a slow disk"
    root: ClassVar[str] = "buffer-pool"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="block_read_latency", factor=3.0)

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """With a fast disk and a page cache that nobody can empty, a cold shared_buffers is not felt."""
        return without_groups(world)

    async def inject(self, ramp: float) -> None:
        """Empty the caches, or begin to."""
        self._export: asyncpg.Connection | None = None
        if ramp == 0:
            await self._evict()
            self.background(self._evict_again())
        else:
            self._export = await self.session("export")
            reading = asyncio.create_task(self._read(self._export, ramp))
            self.background(self._reclaim(ramp, reading))

    async def _evict(self) -> None:
        """Read other tables into every shared buffer, then drop the page cache."""
        passes = "SELECT pg_prewarm(name::regclass) FROM generate_series(1, $2), unnest($1::text[]) name"
        await self.world.sql(passes, [self.world.targets.big_table, DOCUMENTS], PASSES)
        await asyncio.to_thread(self._drop_page_cache)

    async def _evict_again(self) -> None:
        pause = self.scaled(9.0, 4.0)
        for _ in range(int(EVICTING_SECONDS / pause)):
            await asyncio.sleep(pause)
            await self._evict()

    async def _read(self, session: asyncpg.Connection, ramp: float) -> None:
        with contextlib.suppress(*LOST):
            await session.execute(EXPORT.format(table=self.world.targets.big_table, ramp=ramp))

    async def _reclaim(self, ramp: float, reading: asyncio.Task[None]) -> None:
        """Drop the page cache ever more often while the export reads: it stands for a table too large for memory."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not reading.done():
            level = min(1.0, (loop.time() - began + 1) / ramp)
            await asyncio.sleep(min(self.scaled(1.5, 0.5) / level, ramp / 4))
            await asyncio.to_thread(self._drop_page_cache)

    def _drop_page_cache(self) -> None:
        assert self.world.groups is not None
        os.sync()  # unsaved pages stay
        self.world.groups.primary.drop_page_cache()
        forget_files(self.world.primary.data / "base")

    def trials(self) -> Sequence[Trial]:
        """Read the hot data back in one go; while an export throws it out again, end the export."""
        targets = self.world.targets
        wrong = (
            parameters.analyze_table(self.world, targets.lookup_table),
            parameters.CHECKPOINT,
            parameters.resize_pool(self.world),
        )
        if self._export is None:
            return (Trial("prewarm-cache", right=True, parameters={"relation": targets.lookup_table}), *wrong)
        cancel = Trial("cancel-query", right=True, parameters={"pids": [self._export.get_server_pid()]})
        return (cancel, parameters.prewarm_cache(targets.lookup_table), *wrong)
