"""A key-value store in one table: point reads with a skew, some multi-reads, one request in ten an update."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import md5
from random import Random
from typing import ClassVar, Final

from kintsugi_ml.lab.workloads.base import Connection, Targets, Work, Workload, skewed

ENTRIES: Final = 220_000

TABLES: Final = f"""
CREATE TABLE entries (
    id bigint PRIMARY KEY,
    key text NOT NULL,
    value text NOT NULL,
    version integer NOT NULL DEFAULT 0,
    size integer NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90);
INSERT INTO entries (id, key, value, size)
    SELECT n, md5(n::text), (SELECT string_agg(md5((n * 8 + part)::text), '') FROM generate_series(0, 6) part), 224
    FROM generate_series(1::bigint, {ENTRIES}) n;
CREATE INDEX entries_key ON entries (key);
"""

GET: Final = "SELECT value, version FROM entries WHERE key = $1"
GET_MANY: Final = "SELECT key, value, version FROM entries WHERE key = ANY($1::text[])"
PUT: Final = "UPDATE entries SET value = $2, version = version + 1, updated_at = now() WHERE id = $1"


def _key(number: int) -> str:
    return md5(str(number).encode(), usedforsecurity=False).hexdigest()


async def get(connection: Connection, random: Random) -> None:
    """One entry by its key."""
    await connection.fetchrow(GET, _key(skewed(random, ENTRIES)))


async def get_many(connection: Connection, random: Random) -> None:
    """Ten entries by their keys."""
    await connection.fetch(GET_MANY, [_key(skewed(random, ENTRIES)) for _ in range(10)])


async def put(connection: Connection, random: Random) -> None:
    """A new value of the same length."""
    await connection.execute(PUT, skewed(random, ENTRIES), _key(random.randrange(10**9)) * 7)


class KeyValue(Workload):
    """Many tiny requests on one table, most of them reads of few hot rows."""

    name = "keyvalue"
    title = "Key-value store: skewed point reads, a tenth updates"
    rates: ClassVar[Mapping[str, float]] = {"low": 90, "high": 230}
    buffered: ClassVar[bool] = True
    tables = TABLES
    targets = Targets(
        hot_table="entries",
        hot_key="id",
        hot_number="version",
        lookup_table="entries",
        lookup_column="key",
        lookup_index="entries_key",
        write_table="entries",
        write_columns=("updated_at", "version", "size", "value"),
        big_table="entries",
    )

    def work(self) -> Mapping[str, Work]:
        """Two reads and an update."""
        return {"get": get, "get_many": get_many, "put": put}

    def shares(self) -> Mapping[str, float]:
        """One request in ten writes."""
        return {"get": 0.82, "get_many": 0.08, "put": 0.10}
