"""Whether something that an action touches is protected.

Two notations meet here. A *touch* comes from evidence and names an object as the catalogue has it: `role:app`,
`table:shop.Order`, `table:shop."my.table"`. An *entry* comes from a person: `shop.orders`, `role:backup`,
`database:orders`, `application:pg_dump`; `*` stands for anything. Where they could mean two things, the reading that
protects more is taken: an unquoted entry matches in any case, one without a schema in every schema; a quoted name
matches exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ALWAYS = (
    "client:walsender",
    "client:logical replication*",
    "application:pg_dump*",
    "application:pg_basebackup*",
    "application:pg_receivewal*",
    "application:pgbackrest*",
    "application:barman*",
    "application:wal-g*",
    "application:pg_probackup*",
)
"""Replication and backups: harmed by automatic repair elsewhere, so no policy has to name them."""

_KINDS = ("role", "database", "application", "client", "table")
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def protector(touch: str, entries: Iterable[str]) -> str | None:
    """The first of `entries` or `ALWAYS` that protects `touch`, or None."""
    return next((entry for entry in (*entries, *ALWAYS) if _covers(entry, touch)), None)


def _covers(entry: str, touch: str) -> bool:
    kind, wanted = _split(entry)
    touched_kind, name = _split(touch)
    if kind != touched_kind:
        return False
    if kind == "table":
        return _covers_table(_parts(wanted), _parts(name))
    return _pattern(wanted, exact=kind != "application").fullmatch(name) is not None


def _covers_table(wanted: list[tuple[str, bool]], name: list[tuple[str, bool]]) -> bool:
    if len(wanted) == 1:
        name = name[-1:]
    if len(wanted) != len(name):
        return False
    return all(
        _pattern(w, exact=quoted).fullmatch(n) is not None for (w, quoted), (n, _) in zip(wanted, name, strict=True)
    )


def _split(text: str) -> tuple[str, str]:
    kind, colon, rest = text.partition(":")
    return (kind, rest) if colon and kind in _KINDS else ("table", text)


def _parts(name: str) -> list[tuple[str, bool]]:
    """The dotted parts of a name, each with whether it was quoted."""
    return [(quoted.replace('""', '"') or plain, bool(quoted)) for quoted, plain in _PART.findall(name)]


def _pattern(text: str, *, exact: bool) -> re.Pattern[str]:
    anything = ".*".join(re.escape(part) for part in text.split("*"))
    return re.compile(anything, re.DOTALL if exact else re.DOTALL | re.IGNORECASE)
