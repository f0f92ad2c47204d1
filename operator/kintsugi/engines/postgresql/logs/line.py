"""One line of a log: when, how bad, of which class, and what it says without anybody's data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple

from kintsugi.engines.postgresql.logs import templates

STATES: Final = ("08", "22", "23", "25", "26", "28", "34", "40", "42", "53", "54", "55", "57", "58", "P0", "XX")
"""SQLSTATE classes counted by themselves (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
CLASSES: Final = (
    *(f"error_{state}" for state in STATES),
    "error",
    "fatal",
    "deadlock",
    "lock_wait",
    "checkpoint",
    "temp_file",
    "slow_statement",
    "auto_explain",
    "connection",
    "autovacuum",
    "other",
)
"""`error`: one of a class of SQLSTATE that is not in `STATES`, or of an unknown one."""

_DEADLOCK: Final = "40P01"
_MESSAGES: Final = (
    ("deadlock", re.compile(r"process \d+ (detected|avoided) deadlock")),
    ("lock_wait", re.compile(r"process \d+ (still waiting for|acquired) ")),
    ("checkpoint", re.compile(r"(checkpoint|restartpoint) (starting|complete)|checkpoints are occurring too")),
    ("temp_file", re.compile(r"temporary file: ")),
    ("auto_explain", re.compile(r"duration: \S+ ms +plan:")),
    ("slow_statement", re.compile(r"duration: ")),
    ("autovacuum", re.compile(r"automatic (aggressive )?(vacuum|analyze) ")),
    (
        "connection",
        re.compile(
            r"connection (received|authorized|authenticated)|replication connection|disconnection: "
            r"|unexpected EOF on client|could not (receive data from|send data to) client"
        ),
    ),
)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)(?: |(?=[+-]))(\S+)")
_UTC: Final = ("UTC", "GMT", "Etc/UTC", "Z")
_OFFSET: Final = re.compile(r"([+-])(\d\d):?(\d\d)?")


class LogZoneError(ValueError):
    """A log's times are in a time zone whose abbreviation says nothing certain; set log_timezone = 'UTC'."""


class Line(NamedTuple):
    """One line: Unix seconds, severity (LOG, ERROR …), SQLSTATE (empty when unknown), class of `CLASSES`, template.

    `templates.template_id` gives the template a short name.
    """

    time: float
    severity: str
    state: str
    kind: str
    template: str


def line_of(time: float, severity: str, state: str, message: str, context: str = "") -> Line:
    """The line that a message makes."""
    template = templates.of_message(message, state, context)
    return Line(time, severity, state, classify(severity, state, message), template)


def classify(severity: str, state: str, message: str) -> str:
    """The class of a line."""
    if severity in ("FATAL", "PANIC"):
        return "fatal"
    if state == _DEADLOCK:
        return "deadlock"
    if severity == "ERROR":
        return f"error_{state[:2]}" if state[:2] in STATES else "error"
    return next((name for name, pattern in _MESSAGES if pattern.match(message)), "other")


def time_of(text: object) -> float | None:
    """Unix seconds of `2026-11-22 03:00:00.123 UTC` or `… +01`; None for what is no time.

    Raises:
        LogZoneError: the zone is neither UTC nor an offset: CST, for one, is three zones.
    """
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    zone = _zone(found.group(2))
    try:
        return datetime.fromisoformat(found.group(1)).replace(tzinfo=zone).timestamp()
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _zone(name: str) -> timezone:
    if name in _UTC:
        return UTC
    if (found := _OFFSET.fullmatch(name)) is None:
        raise LogZoneError(f"the log's times are in {name[:20]}; set log_timezone = 'UTC'")
    away = timedelta(hours=int(found.group(2)), minutes=int(found.group(3) or 0))
    if away >= timedelta(hours=24):
        raise LogZoneError(f"the log's times are in {name}, which is no offset; set log_timezone = 'UTC'")
    return timezone(-away if found.group(1) == "-" else away)
