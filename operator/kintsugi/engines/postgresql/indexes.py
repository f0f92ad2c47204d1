"""Which index could help a scan: columns, order, and whether there is one already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kintsugi.engines.engine import Row
from kintsugi.engines.postgresql.identifiers import NAME_BYTES
from kintsugi.engines.postgresql.plans import Scan

PREFIX = "kintsugi"
LARGE_TABLE = 10_000
"""Rows below which reading the whole table is as good as any index."""
MOST_COLUMNS = 3
SELECTIVE = 0.01
"""The largest part of a table that one value may select where there is no HypoPG to prove an index."""


@dataclass(frozen=True, slots=True)
class IndexIdea:
    """A btree index that might help a statement."""

    schema: str
    table: str
    columns: tuple[str, ...]


def ideas(scan: Scan, tables: Iterable[Row], indexes: Iterable[Row]) -> tuple[IndexIdea, ...]:
    """Indexes worth trying for a scan of a large table, the simplest first; none that exists already."""
    table = find_table(tables, scan.schema, scan.table)
    if table is None or rows_of(table) < LARGE_TABLE:
        return ()
    keys: list[tuple[str, ...]] = [(column,) for column in (*scan.equal, *scan.joined, *scan.ranged)]
    together = (*scan.equal, *scan.ranged[:1])
    if 1 < len(together) <= MOST_COLUMNS:
        keys.append(together)
    found = (IndexIdea(scan.schema, scan.table, columns) for columns in dict.fromkeys(keys))
    existing = list(indexes)
    return tuple(idea for idea in found if not any(serves(index, idea) for index in existing))


def find_table(tables: Iterable[Row], schema: str, name: str) -> Row | None:
    """The diagnostic row of a table."""
    return next((row for row in tables if (row["schema"], row["table"]) == (schema, name)), None)


def touch(schema: str, table: str) -> str:
    """The table as protections are checked against it; a name with a dot or a quote in it stands in quotes."""
    parts = (f'"{name.replace(chr(34), chr(34) * 2)}"' if {".", '"'} & set(name) else name for name in (schema, table))
    return f"table:{'.'.join(parts)}"


def rows_of(table: Row) -> float:
    """How many rows it has: the planner's number, or the statistics' where the planner has none or an old one."""
    return max(float(table["rows"]), float(table["n_live_tup"] or 0))


def serves(index: Row, idea: IndexIdea) -> bool:
    """Whether a valid index begins with the idea's columns."""
    usable = index["valid"] and not index["partial"] and not index["expressions"] and index["method"] == "btree"
    same_table = (index["schema"], index["table"]) == (idea.schema, idea.table)
    return bool(usable and same_table and tuple(index["columns"] or ())[: len(idea.columns)] == idea.columns)


def index_name(idea: IndexIdea) -> str:
    """`kintsugi_orders_customer_id_1f2e3d4c`: ours by prefix, this very index by hash, at most 63 bytes."""
    digest = fingerprint(idea.schema, idea.table, idea.columns)
    middle = "_".join((idea.table, *idea.columns))
    room = NAME_BYTES - len(PREFIX) - len(digest) - 2
    return f"{PREFIX}_{middle.encode()[:room].decode(errors='ignore')}_{digest}"


def fingerprint(schema: str, table: str, columns: Iterable[str]) -> str:
    """Eight hex digits that stand for this table and these columns in this order."""
    return hashlib.sha256("\0".join((schema, table, *columns)).encode()).hexdigest()[:8]


def rows_per_value(stats: Row, rows: float) -> float | None:
    """How many rows one value of a column selects; None without statistics."""
    if not stats["n_distinct"] or rows <= 0:
        return None
    distinct = float(stats["n_distinct"])
    values = distinct if distinct > 0 else -distinct * rows
    return rows * (1 - float(stats["null_frac"] or 0.0)) / max(values, 1.0)


def selective(columns: Mapping[str, Row], idea: IndexIdea, rows: float) -> bool:
    """Whether the first column alone selects at most a hundredth of the table, by pg_stats."""
    stats = columns.get(idea.columns[0])
    per_value = rows_per_value(stats, rows) if stats else None
    return per_value is not None and per_value <= SELECTIVE * rows
