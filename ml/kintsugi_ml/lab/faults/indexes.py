"""Faults of indexes: one too few for what is read, or many too many for what is written."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
from kintsugi_ml.lab.faults.parameters import (
    CHECKPOINT,
    SCHEMA,
    analyze_table,
    create_index,
    resize_pool,
    tune_setting,
    vacuum_table,
)
from kintsugi_ml.lab.faults.service import ServiceFault

SEARCHED: Final = ("documents", "email", "documents_email")
"""The back office's table, column and index that its `search` requests need."""

DEFINITION: Final = "SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND indexname = $2"
MADE_BY_REMEDIES: Final = """
SELECT indexname FROM pg_indexes WHERE schemaname = $1 AND tablename = $2 AND indexname LIKE 'kintsugi\\_%'
"""
DROP_SECONDS: Final = 2.0
"""DROP INDEX waits so long for its lock, which holds everybody else up, before it lets go and tries again."""


class MissingIndex(Fault):
    """Abrupt: the commonest read's index. Ramped: `search` needs one, and there are more and more searches.

    Severity, ramped: up to 20 to 90 searches a second in addition.
    """

    name: ClassVar[str] = "missing-index"
    title: ClassVar[str] = "a migration has dropped an index that a frequent statement needs"
    root: ClassVar[str] = "query-engine"
    effect: ClassVar[Effect] = Effect(client=2.0, signal="sequential_rows_read", factor=3.0)
    _table: str
    _column: str
    _definition: str | None = None

    async def inject(self, ramp: float) -> None:
        """Drop the index; then, in the ramped form, let the searches grow over `ramp` seconds."""
        to = self.world.targets
        self._table, self._column, index = (
            SEARCHED if ramp > 0 else (to.lookup_table, to.lookup_column, to.lookup_index)
        )
        rows = await self.world.sql(DEFINITION, SCHEMA, index)
        self._definition = rows[0]["indexdef"]
        await self._drop(index)
        if ramp > 0:
            self.background(self._search(ramp))

    async def _drop(self, index: str) -> None:
        session = await self.session("migration", user="postgres", lock_timeout=f"{DROP_SECONDS:.0f}s")
        while True:
            with contextlib.suppress(asyncpg.LockNotAvailableError):
                await session.execute(f"DROP INDEX {SCHEMA}.{index}")
                return

    async def _search(self, ramp: float) -> None:
        rate = self.scaled(20, 90)
        async for level in self.grow(ramp):
            await self.world.load.control(rate_factor=1.0, extra={"search": rate * level})

    async def lift(self) -> None:
        """No more searches than usual; the index stays away until `repair`."""
        await super().lift()
        await self.world.load.control(rate_factor=1.0, extra={})

    async def repair(self) -> None:
        """The index as it was, and none that a remedy has made instead; quickly, with hardly any load meanwhile."""
        if self._definition is None:
            return
        await self.world.load.control(rate_factor=0.1, extra={})
        try:
            for row in await self.world.sql(MADE_BY_REMEDIES, SCHEMA, self._table):
                await self.world.sql(f"DROP INDEX {SCHEMA}.{row['indexname']}")
            await self.world.sql(self._definition.replace("INDEX", "INDEX IF NOT EXISTS", 1))
        finally:
            await self.world.load.control(rate_factor=1.0, extra={})

    def trials(self) -> Sequence[Trial]:
        """The index again. Another one, other statistics or a larger pool are of no use."""
        return [
            create_index(self._table, self._column, right=True),
            create_index(self.world.targets.write_table, self.world.targets.write_columns[0]),
            analyze_table(self.world, self._table),
            resize_pool(self.world),
        ]


PREFIX: Final = "extra_index_"
EXTRA_INDEXES: Final = f"""
SELECT indexname FROM pg_indexes WHERE schemaname = $1 AND tablename = $2 AND starts_with(indexname, '{PREFIX}')
ORDER BY indexname
"""
IMPORTS: Final = "imports"
"""The back office's table, empty but for an import: building on it is not felt, keeping it up is."""
COLUMNS: Final = tuple(order for n in (1, 2, 3) for order in itertools.permutations(("reference", "payload", "id"), n))
"""What a tool without sense would index: every column, pair and triple in every order."""
ROWS_A_BATCH: Final = 500
BATCH_SECONDS: Final = 0.25
"""A batch so often, as long as the server keeps up: 2,000 rows a second, each an entry of some 100 bytes in every
index: 1 MB/s of WAL with the usual two indexes, 4 MB/s and half a core with fourteen more."""
IMPORT: Final = f"""
INSERT INTO {IMPORTS} (reference, payload)
    SELECT md5(random()::text), md5(random()::text) || md5(row::text) FROM generate_series(1, $1) row
"""


class TooManyIndexes(ServiceFault):
    """Severity: how many, 6 to 14. Ramped: the import begins with little and takes in more and more.

    They are made before, on a table that is empty but for the import: otherwise building them would be felt more than
    having them.
    """

    name: ClassVar[str] = "too-many-indexes"
    title: ClassVar[str] = "a tool has put many further indexes on the table that an import fills"
    root: ClassVar[str] = "storage"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="wal_bytes", factor=2.0)
    application: ClassVar[str] = "nightly-import"
    _share: float

    async def inject(self, ramp: float) -> None:
        """Make the indexes and start the import, at its full rate or growing over `ramp` seconds."""
        builder = await self.open("index-advisor")
        for number, indexed in enumerate(COLUMNS[: round(self.scaled(6, 14))]):
            await builder.execute(f"CREATE INDEX {PREFIX}{number:02d} ON {IMPORTS} ({', '.join(indexed)})")
        self._share = 0.0
        self.background(self._more(ramp))
        self.background(self._import(await self.open()))

    async def _more(self, ramp: float) -> None:
        async for level in self.grow(ramp):
            self._share = level

    async def _import(self, session: asyncpg.Connection) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + BATCH_SECONDS
            await session.execute(IMPORT, max(1, round(ROWS_A_BATCH * self._share)))
            await asyncio.sleep(max(0.0, due - clock()))

    async def repair(self) -> None:
        """Drop whatever indexes are left, and empty the table."""
        await super().repair()
        for row in await self.world.sql(EXTRA_INDEXES, SCHEMA, IMPORTS):
            await self.world.sql(f"DROP INDEX {SCHEMA}.{row['indexname']}")
        await self.world.sql(f"TRUNCATE {IMPORTS}")

    def trials(self) -> Sequence[Trial]:
        """Drop all of them; the import goes on."""
        rows = self.world.primary.fetch(EXTRA_INDEXES, SCHEMA, IMPORTS, database=self.world.database)
        indexes = [row["indexname"] for row in rows]
        return [
            Trial("drop-redundant-index", True, {"schema": SCHEMA, "table": IMPORTS, "indexes": indexes}),
            analyze_table(self.world, IMPORTS),
            CHECKPOINT,
            resize_pool(self.world),
            vacuum_table(IMPORTS),
            tune_setting("work_mem", "8MB"),
        ]
