"""An index that the commonest query needs is gone: every such query reads the whole table."""

from __future__ import annotations

from typing import ClassVar

from kintsugi_dev.faults.base import Fault
from kintsugi_dev.servers import PostgreSQL

INDEXES = """
SELECT indexrelid::regclass::text AS name FROM pg_index
WHERE indrelid = $1::text::regclass AND NOT indisprimary
AND pg_get_indexdef(indexrelid, 1, false) = $2
"""


class DroppedIndex(Fault):
    """A migration dropped the wrong index."""

    name: ClassVar[str] = "dropped-index"
    title: ClassVar[str] = "the index that the commonest query needs is dropped"

    def __init__(self, server: PostgreSQL, database: str, table: str = "order_lines", column: str = "order_id") -> None:
        self._server = server
        self._database = database
        self._table = table
        self._column = column

    def inject(self) -> None:
        """Drop every index on the column."""
        for row in self._indexes():
            self._server.execute(f"DROP INDEX {row['name']}", database=self._database)

    def lift(self) -> None:
        """Create one again if nobody has."""
        if not self._indexes():
            self._server.execute(f"CREATE INDEX ON {self._table} ({self._column})", database=self._database)

    def _indexes(self) -> list[dict[str, str]]:
        return self._server.fetch(INDEXES, self._table, self._column, database=self._database)
