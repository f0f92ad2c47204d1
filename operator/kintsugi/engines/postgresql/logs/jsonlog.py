"""`log_destination = jsonlog` (PostgreSQL 15 and later), plain or as CloudNativePG's pods wrap it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.records import Decoder

_CUT: Final = re.compile(
    r'"(timestamp|log_time|error_severity|state_code|sql_state_code|message)":\s*"((?:[^"\\]|\\.)*)', re.S
)
_WRAPPED: Final = {"timestamp": "log_time", "state_code": "sql_state_code"}
"""What CloudNativePG calls them inside of `record` (its instance manager reads csvlog)."""

SUCCESS: Final = "00000"
"""What csvlog says of lines that are no errors; jsonlog leaves the field out (src/backend/utils/error/jsonlog.c)."""


class JsonLog(Decoder):
    """Each line is a record of its own."""

    def _line(self, raw: bytes, cut: bool, quotes: int, size: int) -> Iterator[Line]:
        known = _fields(raw.decode(errors="replace"), cut)
        time = self._time_of(known.get("timestamp")) if known else None
        if known is None or time is None or "error_severity" not in known:
            self.junk += bool(raw.strip())
            return
        severity, message, context = (str(known.get(name) or "") for name in ("error_severity", "message", "context"))
        yield from self._said(time, severity, str(known.get("state_code") or SUCCESS), message, context)


def _fields(text: str, cut: bool) -> Mapping[str, Any] | None:
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        return _beginning(text) if cut else None
    if not isinstance(known, dict):
        return None
    record = known.get("record")
    if known.get("logger") == "postgres" and isinstance(record, dict):
        return {**record, **{ours: record.get(theirs) for ours, theirs in _WRAPPED.items()}}
    return known


def _beginning(text: str) -> Mapping[str, Any] | None:
    """What the beginning of a long line says."""
    # The first of each: a later one may stand in what a user wrote.
    fields = dict(reversed(_CUT.findall(text)))
    known = {name: _unescaped(value) for name, value in fields.items()}
    known |= {ours: known[theirs] for ours, theirs in _WRAPPED.items() if theirs in known}
    return known if "error_severity" in known else None


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return "?"
