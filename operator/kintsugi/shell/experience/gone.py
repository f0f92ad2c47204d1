"""What people said that is no longer kept: remembered, so that it is neither taken in nor complained of again.

Labels and acknowledgements stand in annotations for months. Without this an operator that starts anew would take an
acknowledgement in again although a person has taken it back since, and read labels from Prometheus that gave way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from kintsugi.domain.experience import Fate, Source
from kintsugi.shell.experience.schema import EXAMPLES, GONE

GONE_KEPT: Final = 1000
"""Per database, the newest: an annotation holds 64 labels, so what still stands somewhere is among them."""


def remember(connection: Connection, database: str, id_: str, start: float, end: float, fate: Fate, now: float) -> None:
    """Note what became of one thing that a person said; the oldest notes of its database go."""
    back(connection, database, id_)
    row = {"database": database, "id": id_, "start_time": start, "end_time": end, "fate": fate.value, "created": now}
    connection.execute(insert(GONE).values(**row))
    mine = GONE.c.database == database
    oldest = select(GONE.c.id).where(mine).order_by(GONE.c.created.desc(), GONE.c.id).offset(GONE_KEPT)
    for (old,) in connection.execute(oldest).all():
        back(connection, database, old)


def back(connection: Connection, database: str, id_: str) -> None:
    """It is kept, or as if it had never been said."""
    connection.execute(delete(GONE).where(and_(GONE.c.database == database, GONE.c.id == id_)))


def let_go(connection: Connection, which: Any, fate: Fate, now: float) -> int:
    """Drop the examples `which`, and remember those of them that a person spoke of; how many there were."""
    columns = (EXAMPLES.c.database, EXAMPLES.c.id, EXAMPLES.c.start_time, EXAMPLES.c.end_time)
    said = select(*columns).where(and_(which, EXAMPLES.c.source == Source.PERSON.value))
    for database, id_, start, end in connection.execute(said).all():
        remember(connection, database, id_, start, end, fate, now)
    return int(connection.execute(delete(EXAMPLES).where(which)).rowcount)


def give_way(connection: Connection, which: Any, kept: int, now: float) -> None:
    """Of the examples `which`, keep the newest by the time that they are of."""
    key = (EXAMPLES.c.database, EXAMPLES.c.id)
    old = select(*key).where(which).order_by(EXAMPLES.c.end_time.desc(), *key).offset(kept)
    rows = connection.execute(old).all()
    if rows:
        these = or_(*(and_(EXAMPLES.c.database == database, EXAMPLES.c.id == id_) for database, id_ in rows))
        let_go(connection, these, Fate.GAVE_WAY, now)


def take_back(connection: Connection, which: Any) -> None:
    """What gave way and is `which` may be said again: a person has said something else about its time."""
    connection.execute(update(GONE).where(which).values(fate=Fate.TAKEN_BACK.value))


def spoken_of(connection: Connection, database: str, start: float, end: float) -> bool:
    """Whether something that only gave way to newer examples was said about a part of this time."""
    touches = and_(GONE.c.database == database, GONE.c.start_time < end, GONE.c.end_time > start)
    found = select(GONE.c.id).where(and_(touches, GONE.c.fate == Fate.GAVE_WAY.value))
    return connection.execute(found).first() is not None


def fates(connection: Connection, database: str) -> Mapping[str, Fate]:
    """What became of everything that is no longer kept of a database, by id."""
    rows = connection.execute(select(GONE.c.id, GONE.c.fate).where(GONE.c.database == database))
    return {id_: Fate(fate) for id_, fate in rows}
