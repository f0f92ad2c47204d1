"""PostgreSQL's jsonlog as counts per second and class, and as lines without anybody's data (templates.py).

A log is read as it is found: rotated, cut in the middle of a line, with junk in it, with lines of any length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Floats
from kintsugi_ml.lab import templates

LINE_BYTES: Final = 256 * 1024
"""Of a longer line only its beginning is read: it holds time, severity, SQLSTATE and the message's first words."""

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
"""`error`: one of a class of SQLSTATE that is not in `STATES`."""

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
_CUT: Final = re.compile(r'"(timestamp|error_severity|state_code|message)":"((?:[^"\\]|\\.)*)', re.S)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) (\S+)")
_UTC: Final = ("UTC", "GMT", "Etc/UTC")


class LogZoneError(ValueError):
    """A log's times are in a time zone whose abbreviation says nothing certain; set log_timezone = 'UTC'."""


class Line(NamedTuple):
    """One line: Unix seconds, its class, and its template; `templates.template_id` gives that a short name."""

    time: float
    kind: str
    template: str


@dataclass(frozen=True, slots=True)
class LogTrack:
    """Lines per whole second `times` `[T]` (Unix s) and class: `counts` `[T, C]`; and the lines themselves, by time."""

    times: Floats
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    lines: Sequence[Line]


def read(path: Path, start: float, end: float) -> LogTrack:
    """What was logged in `start <= t < end` (Unix s) into `path` and the files that it was rotated to.

    Raises:
        FileNotFoundError: there is no such log at all, which is not the same as one without lines.
        LogZoneError: its times are not in UTC.
    """
    found = sorted(line for file in _files(path) for line in _lines(file, start, end))
    times = np.arange(math.floor(start), math.ceil(end), dtype=np.float64)
    counts = np.zeros((len(times), len(CLASSES)), dtype=np.int64)
    for line in found:
        counts[int(line.time - times[0]), CLASSES.index(line.kind)] += 1
    return LogTrack(times, CLASSES, counts, found)


def empty(start: float, end: float) -> LogTrack:
    """The track of a server whose log can't be read."""
    times = np.arange(math.floor(start), math.ceil(end), dtype=np.float64)
    return LogTrack(times, CLASSES, np.zeros((len(times), len(CLASSES)), dtype=np.int64), ())


def classify(severity: str, state: str, message: str) -> str:
    """The class of a line."""
    if severity in ("FATAL", "PANIC"):
        return "fatal"
    if state == _DEADLOCK:
        return "deadlock"
    if severity == "ERROR":
        return f"error_{state[:2]}" if state[:2] in STATES else "error"
    return next((name for name, pattern in _MESSAGES if pattern.match(message)), "other")


def _files(path: Path) -> list[Path]:
    """The log and what it was rotated to: server.json, server.json.1, server-2026-11-22.json."""
    pattern = re.compile(rf"{re.escape(path.stem)}(-.*)?{re.escape(path.suffix)}(\.\d+)?")
    found = sorted(file for file in path.parent.glob(f"{path.stem}*") if pattern.fullmatch(file.name))
    if not found:
        raise FileNotFoundError(f"there is no log {path}; log_destination must be jsonlog (PostgreSQL 15 and later)")
    return found


def _lines(path: Path, start: float, end: float) -> Iterator[Line]:
    with path.open("rb") as file:
        for raw, cut in _raw(file):
            known = _fields(raw, cut)
            if known is None or (time := _time(known.get("timestamp"))) is None or not start <= time < end:
                continue
            message, state = str(known.get("message", "")), str(known.get("state_code", ""))
            kind = classify(str(known.get("error_severity", "")), state, message)
            yield Line(time, kind, templates.of_message(message, state, str(known.get("context", ""))))


def _raw(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether only its beginning."""
    while raw := file.readline(LINE_BYTES):
        cut = not raw.endswith(b"\n")
        yield raw, cut
        while cut and (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
            pass


def _fields(raw: bytes, cut: bool) -> dict[str, Any] | None:
    text = raw.decode(errors="replace")
    try:
        known = json.loads(text)
    except ValueError:
        # The first of each: a later one may stand in what a user wrote.
        fields = dict(reversed(_CUT.findall(text)))
        if not cut or "timestamp" not in fields or "error_severity" not in fields:
            return None
        known = {name: _unescaped(value) for name, value in fields.items()}
        # The context, which says who raised it, was cut off.
        return known if known["error_severity"] == "LOG" else known | {"message": "?"}
    return known if isinstance(known, dict) else None


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return "?"


def _time(text: object) -> float | None:
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    if found.group(2) not in _UTC:
        raise LogZoneError(f"the log's times are in {found.group(2)}; set log_timezone = 'UTC'")
    try:
        return datetime.fromisoformat(found.group(1)).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
