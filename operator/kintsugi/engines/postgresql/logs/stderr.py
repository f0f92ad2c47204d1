"""`log_destination = stderr` with any log_line_prefix: what files without a format, and pods, mostly hold.

A message's further lines begin with a tab; its DETAIL, CONTEXT, STATEMENT and so on are lines with the same prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.prefix import DEBIAN, header
from kintsugi.engines.postgresql.logs.records import LINE_BYTES, Decoder

_PARTS: Final = ("DETAIL", "HINT", "QUERY", "CONTEXT", "STATEMENT", "LOCATION", "BACKTRACE")
_HEADER_CHARACTERS: Final = 2048
_OWN: Final = ("LOG", "FATAL", "PANIC")
"""Severities that need no SQLSTATE to be understood; of others without one no word is kept."""

_POSITION: Final = re.compile(r" at character \d+$")
"""Where in its statement an error lies; the other formats have a field of its own for that."""

_KNOWN_STATES: Final = tuple(
    (re.compile(pattern), state)
    for pattern, state in (
        ("deadlock detected$", "40P01"),
        ("could not serialize access", "40001"),
        ("canceling statement due to lock timeout$|could not obtain lock on row", "55P03"),
        ("canceling statement due to (statement timeout|user request|conflict with recovery)$", "57014"),
        ("canceling autovacuum task$", "57014"),
        ("terminating connection due to administrator command$", "57P01"),
        ("terminating connection due to idle-in-transaction timeout$", "25P03"),
        ("current transaction is aborted, commands ignored", "25P02"),
        ("duplicate key value violates unique constraint", "23505"),
        ('insert or update on table .* violates foreign key|update or delete on table ".*" violates', "23503"),
        ("null value in column .* violates not-null", "23502"),
        ("new row for relation .* violates check constraint", "23514"),
        ("division by zero$", "22012"),
        ("invalid input syntax for ", "22P02"),
        ("value too long for type ", "22001"),
        ("out of shared memory$|out of memory$", "53200"),
        ("could not (extend|write) .*: No space left on device$", "53100"),
        ("syntax error at ", "42601"),
        ("permission denied for ", "42501"),
        (r"relation .* does not exist$", "42P01"),
        (r"column .* does not exist$", "42703"),
        ("prepared statement .* does not exist$", "26000"),
    )
)
"""SQLSTATE of frequent messages, for a prefix without %e (src/backend/utils/errcodes.txt and the calls of ereport)."""


class Stderr(Decoder):
    """Records that begin with a prefix. Without one given, Debian's and the official image's are understood."""

    def __init__(self, prefix: str | None = None, since: float = 0.0) -> None:
        super().__init__(since)
        self._header = header(DEBIAN if prefix is None else prefix)
        self._first: re.Match[str] | None = None
        self._message: list[str] = []
        self._kept = 0
        self._context = ""
        self._part = ""

    def _line(self, raw: bytes, cut: bool, quotes: int, size: int) -> Iterator[Line]:
        text = raw.decode(errors="replace")
        if text.startswith("\t") and self._first:
            self._continued(text, size)
            return
        found = self._header.match(text[:_HEADER_CHARACTERS])
        if found is None:
            # Not the server's: the container's start script, for one.
            self.junk += bool(text.strip())
            yield from self._last()
        elif found["severity"] in _PARTS:
            self._further(found, size)
        else:
            yield from self._last()
            rest = text[_HEADER_CHARACTERS:]
            self._first, self._message, self._kept = found, [found["message"] + rest], len(text)
            self._part, self._context, self._open = "", "", size

    def _continued(self, text: str, size: int) -> None:
        """A further line of the message or of one of its parts."""
        self._open += size
        if not self._part and self._kept < LINE_BYTES:
            self._message.append(text[1:])
            self._kept += len(text)

    def _further(self, found: re.Match[str], size: int) -> None:
        """DETAIL, CONTEXT and so on: all of one message is written at once."""
        if self._first is None:
            return
        self._open += size
        self._part = found["severity"]
        if self._part == "CONTEXT" and not self._context:
            self._context = found["message"]

    def _last(self) -> Iterator[Line]:
        first, self._first, self._open = self._first, None, 0
        if first is None:
            return
        time = self._time(first)
        if time is None:
            self.junk += 1
            return
        severity, message = first["severity"], _POSITION.sub("", "\n".join(self._message))
        state = first.groupdict().get("state") or first["verbose"] or _state(severity, message)
        if severity not in _OWN and not state:
            message = "?"  # nobody knows whether the application worded it
        yield from self._said(time, severity, state, message, self._context)

    def _time(self, found: re.Match[str]) -> float | None:
        fields = found.groupdict()
        return float(fields["epoch"]) if fields.get("epoch") else self._time_of(fields.get("time"))


def _state(severity: str, message: str) -> str:
    """The SQLSTATE of a message that came without; empty when it is not known."""
    if severity == "LOG":
        return "00000"
    return next((state for pattern, state in _KNOWN_STATES if pattern.match(message)), "")
