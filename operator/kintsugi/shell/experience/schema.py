"""The store's tables, and how an older store becomes a present one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)

from kintsugi.shell.experience.errors import CorruptExperienceError, NewerExperienceError

TABLES: Final = MetaData()

META: Final = Table(
    "kintsugi_meta", TABLES, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False)
)

EXAMPLES: Final = Table(
    "kintsugi_examples",
    TABLES,
    Column("database", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("start_time", Double, nullable=False),
    Column("end_time", Double, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("fault_class", String(64), nullable=False),
    Column("source", String(16), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("created", Double, nullable=False),
    Column("window", LargeBinary, nullable=False),
    Column("reference", LargeBinary, nullable=False),
    Index("kintsugi_examples_by_class", "database", "kind", "fault_class", "end_time"),
)

OUTCOMES: Final = Table(
    "kintsugi_outcomes",
    TABLES,
    Column("action", String(64), primary_key=True),
    Column("database", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", String(253), nullable=False),
    Column("incident", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("forecast", Text, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("predicted", Text, nullable=False),
    Column("measured", Text, nullable=False),
    Column("verdict", String(32), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("ended", Double, nullable=False),
    Column("created", Double, nullable=False),
    Index("kintsugi_outcomes_by_database", "database", "ended"),
)

GONE: Final = Table(
    "kintsugi_gone",
    TABLES,
    Column("database", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("start_time", Double, nullable=False),
    Column("end_time", Double, nullable=False),
    Column("fate", String(16), nullable=False),
    Column("created", Double, nullable=False),
)
"""What people said that is no longer kept, and why (`gone.py`)."""

LOCK: Final = 0x6B696E74
"""PostgreSQL's advisory lock for migrations: "kint" in ASCII. SQLite's write lock is the whole file's."""


def _first(connection: Connection) -> None:
    TABLES.create_all(connection, tables=[META, EXAMPLES, OUTCOMES])


def _second(connection: Connection) -> None:
    TABLES.create_all(connection, tables=[GONE])


MIGRATIONS: Final[tuple[Callable[[Connection], None], ...]] = (_first, _second)
"""Each makes the next version of the one before; a store's version is how many it has had."""


def migrate(connection: Connection, where: str) -> None:
    """Bring the store to the present version, within the transaction that is open.

    Raises:
        NewerExperienceError: a newer Kintsugi has written it.
        CorruptExperienceError: its version is no number.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    there = inspect(connection).has_table(META.name)
    found = connection.execute(select(META.c.value).where(META.c.key == "schema")).scalar() if there else "0"
    if not str(found).isdigit():
        raise CorruptExperienceError(f"the experience store {where} has no version ({found!r}); move it away")
    version = int(str(found))
    if version > len(MIGRATIONS):
        raise NewerExperienceError(
            f"the experience store {where} was written by a newer Kintsugi (schema {version}, this one knows "
            f"{len(MIGRATIONS)}); upgrade the operator again, or give this one another experience.url"
        )
    if version == len(MIGRATIONS):
        return
    for step in MIGRATIONS[version:]:
        step(connection)
    present = {"value": str(len(MIGRATIONS))}
    if version == 0:
        connection.execute(insert(META).values(key="schema", **present))
    else:
        connection.execute(update(META).where(META.c.key == "schema").values(**present))


__all__ = ["EXAMPLES", "GONE", "META", "MIGRATIONS", "OUTCOMES", "TABLES", "migrate"]
