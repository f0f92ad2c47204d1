"""What a log said lately: counts per second and class, which become columns of a frame, and its newest templates."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Floats
from kintsugi.domain.text import human
from kintsugi.engines.postgresql.logs.line import CLASSES, Line

Counts = NDArray[np.int64]

WINDOW_INTERVALS: Final = 4.0
"""A rate looks back as many scrape intervals as those of Prometheus do (engines/catalogue.py); one second at least."""

TEMPLATES: Final = 64
"""Distinct templates remembered; the one not seen for longest goes first."""
BINS: Final = 30
BIN_SECONDS: Final = 10.0
"""Per template, counts of ten seconds each, five minutes back and more where it is seldom."""
AHEAD: Final = 60.0
"""Seconds that the server's clock may be ahead of ours; what is further ahead is left out, and said."""
MOST: Final = 65535
"""Lines of one class in a second; more are counted as this many."""

EVIDENCE: Final = 5
ROUTINE: Final = ("connection", "autovacuum", "checkpoint", "other")
"""Classes that explain an incident only where nothing else was logged."""
EVIDENCE_CHARACTERS: Final = 240

_INDEX: Final = {name: index for index, name in enumerate(CLASSES)}


def tally(lines: Iterable[Line], start: float, end: float) -> Counts:
    """Lines per second and class `[T, C]` in `start <= t < end` (Unix s), the first row beginning at floor(start)."""
    first = math.floor(start)
    counts = np.zeros((max(0, math.ceil(end) - first), len(CLASSES)), dtype=np.int64)
    for line in lines:
        if start <= line.time < end:
            counts[int(line.time - first), _INDEX[line.kind]] += 1
    return counts


def classes_of(words: str) -> tuple[str, ...]:
    """The classes that a signal counts: `error_* deadlock` as in signals.yaml."""
    return tuple(name for name in CLASSES if any(fnmatchcase(name, word) for word in words.split()))


class Book:
    """One database's log in a fixed amount of memory: `span` seconds of counts, and the newest templates.

    Counts are known from `since` on and up to `until` (Unix s); both are 0 before anything was read.
    """

    def __init__(self, span: float) -> None:
        self._span = math.ceil(span + AHEAD)
        self._start = 0
        self._counts = np.zeros((0, len(CLASSES)), dtype=np.uint16)
        self._seen: dict[tuple[str, str, str, str], _Seen] = {}
        self.since = self.until = 0.0

    def begin(self, since: float) -> None:
        """What was logged before `since` is unknown: reading begins there, or had to leave something out."""
        self.since, self.until = max(self.since, since), max(self.until, since)

    def add(self, lines: Sequence[Line], until: float) -> None:
        """Lines that were read, and up to when (Unix s) everything has been.

        Lines of the next minute count in the rows that are to come, for clocks differ; later ones are left out.
        """
        self._reach(until)
        end = self._start + len(self._counts)
        known = [line for line in lines if self._start <= line.time < end]
        if known:
            first = math.floor(min(line.time for line in known))
            new = tally(known, first, max(line.time for line in known) + 1)
            rows = slice(first - self._start, first - self._start + len(new))
            added = np.minimum(self._counts[rows] + new[: len(self._counts[rows])], MOST)
            self._counts[rows] = added.astype(np.uint16)
        for line in known:
            self._remember(line)
        self.until = max(self.until, until)

    def columns(self, signals: Mapping[str, str], times: Floats, interval: float) -> dict[str, Floats]:
        """Lines per second `[T]` of each signal (name → words of classes) over the four intervals before each time.

        NaN where the log was not read for all of that: missing is not zero. `times` are Unix seconds; the second that
        begins with one is not part of it.
        """
        window = max(1, round(WINDOW_INTERVALS * interval))
        ends = np.floor(times).astype(np.int64) - self._start
        known = (times - window >= self.since) & (times <= self.until)
        known &= (ends >= window) & (ends <= len(self._counts))
        result = {}
        for name, words in signals.items():
            chosen = [_INDEX[kind] for kind in classes_of(words)]
            total = np.concatenate([[0], np.cumsum(self._counts[:, chosen].sum(axis=1, dtype=np.int64))])
            column = np.full(len(times), np.nan)
            column[known] = (total[ends[known]] - total[ends[known] - window]) / window
            result[name] = column
        return result

    def evidence(self, since: float, now: float, most: int = EVIDENCE) -> tuple[str, ...]:
        """The newest distinct templates since then, what is not routine first, each with its count and age."""
        found = [(key, seen.count(since), seen.newest) for key, seen in self._seen.items() if seen.newest >= since]
        found.sort(key=lambda one: (one[0][2] in ROUTINE and one[0][0] == "LOG", -one[2]))
        return tuple(_sentence(key, count, now - newest) for key, count, newest in found[:most])

    def _reach(self, until: float) -> None:
        """Rows up to `until` and a minute more; those older than the span go."""
        last = math.ceil(until + AHEAD)
        end = self._start + len(self._counts)
        if len(self._counts) == 0 or last - end > self._span:
            self._start = end = max(math.floor(self.since), last - self._span)
            self._counts = self._counts[:0]
        more = np.zeros((max(0, last - end), len(CLASSES)), dtype=np.uint16)
        spare = max(0, len(self._counts) + len(more) - self._span)
        self._counts = np.concatenate([self._counts, more])[spare:]
        self._start += spare

    def _remember(self, line: Line) -> None:
        key = (line.severity, line.state, line.kind, line.template)
        seen = self._seen.pop(key, None) or _Seen()
        seen.add(line.time)
        self._seen[key] = seen
        if len(self._seen) > TEMPLATES:
            del self._seen[next(iter(self._seen))]


class _Seen:
    """When one template was seen: the newest time, and counts per `BIN_SECONDS`."""

    def __init__(self) -> None:
        self.newest = 0.0
        self._bins: deque[list[float]] = deque(maxlen=BINS)

    def add(self, time: float) -> None:
        start = time // BIN_SECONDS * BIN_SECONDS
        if self._bins and start <= self._bins[-1][0]:
            self._bins[-1][1] += 1
        else:
            self._bins.append([start, 1])
        self.newest = max(self.newest, time)

    def count(self, since: float) -> int:
        return int(sum(count for start, count in self._bins if start + BIN_SECONDS > since))


def _sentence(key: tuple[str, str, str, str], count: int, age: float) -> str:
    severity, state, _, template = key
    code = f" {state}" if state and severity != "LOG" else ""
    text = template if len(template) <= EVIDENCE_CHARACTERS else template[: EVIDENCE_CHARACTERS - 1] + "…"
    return f"the log says {count} × {severity}{code} {text} (last {human(max(age, 0.0))} ago)"
