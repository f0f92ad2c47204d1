"""Streams whose lines carry a time stamp of their own: a container's output, a stream of Loki's.

They are asked for again from the newest stamp on, which several lines may share, and what was read already is left out.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable
from typing import Final

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.records import Decoder
from kintsugi.shell.logs.source import Mark

NANOSECONDS: Final = 1_000_000_000
_STAMP: Final = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d)) ")

Entry = tuple[int, bytes]
"""Nanoseconds since the epoch, and a line without its end."""


class Stream:
    """One stream: `stamp` (ns) is the newest that was read, and `same` how many lines had it."""

    def __init__(self, decoder: Decoder, mark: Mark = (0, 0)) -> None:
        self.decoder = decoder
        self.stamp, self.same = mark[0], mark[1]
        self._whole: Mark = (self.stamp, self.same)

    @property
    def mark(self) -> Mark:
        """How far everything was given out: who begins anew begins there."""
        return (self.stamp, self.same) if self.decoder.pending == 0 else self._whole

    def take(self, entries: Iterable[Entry]) -> tuple[list[Line], bool]:
        """The lines that these entries complete, and whether any entry was new."""
        before, again, found, news = (self.stamp, self.same), 0, list[Line](), False
        for stamp, text in entries:
            if stamp < before[0]:
                continue
            if stamp == before[0] and again < before[1]:
                again += 1
                continue
            news = True
            earlier = (self.stamp, self.same)
            found += self.decoder.feed(text + b"\n")
            self.same = self.same + 1 if stamp == self.stamp else 1
            self.stamp = max(self.stamp, stamp)
            if self.decoder.pending <= len(text) + 1:
                self._whole = earlier
        return found, news


def stamped(line: bytes) -> Entry | None:
    """The stamp and the rest of `2026-11-22T03:00:00.123456789Z …`; None for anything else."""
    found = _STAMP.match(line)
    if found is None:
        return None
    numbers = tuple(int(part) for part in found.groups()[:6])
    seconds = calendar.timegm(numbers)
    if found.group(8):
        away = 3600 * int(found.group(9)) + 60 * int(found.group(10))
        seconds += away if found.group(8) == b"-" else -away
    fraction = (found.group(7) or b"").ljust(9, b"0")
    return seconds * NANOSECONDS + int(fraction), line[found.end() :]
