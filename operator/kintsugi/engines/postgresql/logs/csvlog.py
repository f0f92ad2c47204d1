"""`log_destination = csvlog`: records of 23 to 26 columns, in which a quoted message may span lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.records import LINE_BYTES, Decoder

_TIME, _SEVERITY, _STATE, _MESSAGE, _CONTEXT = 0, 11, 12, 13, 18
"""Columns (https://www.postgresql.org/docs/current/runtime-config-logging.html#RUNTIME-CONFIG-LOGGING-CSVLOG)."""

_FIELD: Final = r'(?:"[^"]*(?:""[^"]*)*"|[^",]*)'
_START: Final = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}} [^\s,]+,(?:{_FIELD},){{10}}[A-Z]+[1-5]?,")
_COLUMN: Final = re.compile(r'(?:"([^"]*(?:""[^"]*)*)(?:"|\Z)|([^",]*))(?:,|\Z)')


class CsvLog(Decoder):
    """A record ends with a line after which every quote is closed, or where another one clearly begins."""

    def __init__(self, since: float = 0.0) -> None:
        super().__init__(since)
        self._text = b""
        self._odd = False

    def _line(self, raw: bytes, cut: bool, quotes: int, size: int) -> Iterator[Line]:
        starts = _START.match(raw[:4096].decode(errors="replace")) is not None
        if starts:
            # Of an open one before it the end was never written: the server crashed, or reading began within it.
            yield from self._last()
        elif not self._open:
            self.junk += bool(raw.strip())
            return
        self._text = (self._text + b"\n" + raw if self._open else raw)[:LINE_BYTES]
        self._open += size
        self._odd ^= quotes % 2 == 1
        if not self._odd:
            yield from self._last()

    def _last(self) -> Iterator[Line]:
        text, opened = self._text.decode(errors="replace"), self._open > 0
        self._text, self._odd, self._open = b"", False, 0
        if opened:
            yield from self._decoded(text)

    def idle(self) -> list[Line]:
        """A record with an open quote is not whole, however long nothing comes."""
        return [] if self._odd else super().idle()

    def _decoded(self, text: str) -> Iterator[Line]:
        columns = [quoted.replace('""', '"') or plain for quoted, plain in _COLUMN.findall(text)]
        time = self._time_of(columns[_TIME]) if len(columns) > _MESSAGE else None
        if time is None:
            self.junk += 1
            return
        severity, state, message = columns[_SEVERITY], columns[_STATE], columns[_MESSAGE]
        context = columns[_CONTEXT] if len(columns) > _CONTEXT else ""
        yield from self._said(time, severity, state, message, context)
