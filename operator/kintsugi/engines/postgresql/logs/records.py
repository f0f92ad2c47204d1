"""From bytes that come in pieces to lines, in a fixed amount of memory, whatever the bytes are."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

from kintsugi.engines.postgresql.logs.line import Line, LogZoneError, line_of, time_of

LINE_BYTES: Final = 256 * 1024
"""Of a longer line only its beginning is read: it holds time, severity, SQLSTATE and the message's first words."""

_SEVERITY: Final = re.compile(r"DEBUG[1-5]?|INFO|NOTICE|WARNING|ERROR|LOG|FATAL|PANIC")
_STATE: Final = re.compile(r"[0-9A-Z]{5}")


class Decoder(ABC):
    """One log file, or one container's output, from its beginning or from anywhere in it.

    `pending` bytes at the end of what was fed belong to a record that was not given out yet: who reads on later begins
    there. `junk` counts lines that were no log lines. What was logged before `since` (Unix s) is left out. `zone` says
    what is wrong with the time zone of the newest line, if it is one that says nothing certain; such lines are junk.
    `resumed` (Unix s) is when the first one after them was logged.
    """

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        self.junk = 0
        self.zone = ""
        self.resumed: float | None = None
        self._half = b""
        self._size = 0
        self._quotes = 0
        self._open = 0

    @property
    def pending(self) -> int:
        """Bytes fed that belong to a record not yet given out."""
        return self._open + self._size

    def feed(self, data: bytes) -> list[Line]:
        """The records that these bytes complete."""
        found: list[Line] = []
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._keep(piece)
            found += self._ended(cut=self._size + 1 > LINE_BYTES, newline=1)
        self._keep(rest)
        return found

    def idle(self) -> list[Line]:
        """Nothing was written for a while: the last record is whole, unless its last line is not."""
        return [] if self._size else list(self._last())

    def end(self) -> list[Line]:
        """Nothing will ever follow; the last line may lack its end."""
        found = self._ended(cut=True, newline=0) if self._size else []
        return [*found, *self._last()]

    @abstractmethod
    def _line(self, raw: bytes, cut: bool, quotes: int, size: int) -> Iterator[Line]:
        """The records that one line of `size` bytes completes; of a `cut` one `raw` is the beginning.

        What stays open is counted in `_open`; `quotes` are the double quotes in the whole line.
        """

    def _last(self) -> Iterator[Line]:
        """The open record, taken as whole."""
        yield from ()

    def _said(self, time: float, severity: str, state: str, message: str, context: str) -> Iterator[Line]:
        if _SEVERITY.fullmatch(severity) is None:
            self.junk += 1
        elif time >= self.since:
            yield line_of(time, severity, state if _STATE.fullmatch(state) else "", message, context)

    def _time_of(self, text: object) -> float | None:
        """As `time_of`; None also where the zone says nothing certain, which `zone` then tells."""
        try:
            time = time_of(text)
        except LogZoneError as error:
            self.zone = str(error)
            return None
        if time is not None and self.zone:
            self.zone, self.resumed = "", time
        return time

    def _keep(self, piece: bytes) -> None:
        self._quotes += piece.count(b'"')
        self._size += len(piece)
        if len(self._half) < LINE_BYTES:
            self._half += piece[: LINE_BYTES - len(self._half)]

    def _ended(self, *, cut: bool, newline: int) -> list[Line]:
        raw, quotes, size = self._half, self._quotes, self._size + newline
        self._half, self._quotes, self._size = b"", 0, 0
        return list(self._line(raw.removesuffix(b"\r"), cut, quotes, size))
