"""PostgreSQL's jsonlog as counts per second and class, and as lines without anybody's data, as production decodes it.

A log is read as it is found: rotated, cut in the middle of a line, with junk in it, with lines of any length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Floats
from kintsugi.engines.postgresql.logs import book, line
from kintsugi.engines.postgresql.logs.jsonlog import JsonLog
from kintsugi.engines.postgresql.logs.line import CLASSES, LogZoneError

__all__ = ["CLASSES", "Line", "LogTrack", "LogZoneError", "empty", "read"]

_CHUNK: Final = 1 << 20


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
        LogZoneError: its times are not in UTC, nor with an offset.
    """
    lines = [one for file in _files(path) for one in _lines(file, start) if one.time < end]
    found = sorted(Line(one.time, one.kind, one.template) for one in lines)
    return LogTrack(_seconds(start, end), CLASSES, book.tally(lines, start, end), found)


def empty(start: float, end: float) -> LogTrack:
    """The track of a server whose log can't be read."""
    return LogTrack(_seconds(start, end), CLASSES, book.tally((), start, end), ())


def _seconds(start: float, end: float) -> Floats:
    return np.arange(math.floor(start), math.ceil(end), dtype=np.float64)


def _files(path: Path) -> list[Path]:
    """The log and what it was rotated to: server.json, server.json.1, server-2026-11-22.json."""
    pattern = re.compile(rf"{re.escape(path.stem)}(-.*)?{re.escape(path.suffix)}(\.\d+)?")
    found = sorted(file for file in path.parent.glob(f"{path.stem}*") if pattern.fullmatch(file.name))
    if not found:
        raise FileNotFoundError(f"there is no log {path}; log_destination must be jsonlog (PostgreSQL 15 and later)")
    return found


def _lines(path: Path, start: float) -> Iterator[line.Line]:
    decoder = JsonLog(since=start)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield from decoder.feed(chunk)
    yield from decoder.end()
    if decoder.zone:
        raise LogZoneError(f"{path}: {decoder.zone}")
