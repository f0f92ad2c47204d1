"""Which statements cost the time since the baseline, and how they have changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kintsugi.domain.text import human
from kintsugi.engines.engine import Row

SLOW_MEAN = 0.001
"""A statement that takes less than this on average, in seconds, is not slow."""
WORTH_A_LOOK = 0.05
"""A statement with less than this share of all time spent is left out."""


@dataclass(frozen=True, slots=True)
class SlowStatement:
    """A statement, what it cost since the baseline, and what it cost before; times are seconds.

    `before` is None for one that is new. `running` is how many sessions are at it now, `longest` for how long.
    """

    queryid: int
    role: str
    query: str
    calls: int
    seconds: float
    mean: float
    before: float | None
    share: float
    running: int = 0
    longest: float = 0.0

    @property
    def slower(self) -> float | None:
        """How many times slower than before; None when that is unknown."""
        return self.mean / self.before if self.before else None

    def sentence(self) -> str:
        """What a person wants to know of it."""
        change = f", {self.slower:.0f} times as long as before" if self.slower and self.slower >= 2 else ""
        now = f", {self.running} running now, the longest for {human(self.longest)}" if self.running else ""
        return f"{self.query} takes {human(self.mean)} on average{change}, {self.share:.0%} of all statement time{now}"


def slow_statements(rows: Mapping[str, tuple[Row, ...]]) -> tuple[SlowStatement, ...]:
    """The slow statements of a diagnosis' rows, the most expensive first; those running now count with their age."""
    before = _by_key(rows.get("statements_before", ()))
    running = _by_key(rows.get("running", ()))
    found = [
        _since(row, before.get(key), running.get(key), bool(before))
        for key, row in _by_key(rows.get("statements", ())).items()
    ]
    total = sum(statement.seconds for statement in found) or 1.0
    shared = (replace(statement, share=statement.seconds / total) for statement in found)
    slow = [s for s in shared if max(s.mean, s.longest) >= SLOW_MEAN and s.share >= WORTH_A_LOOK]
    return tuple(sorted(slow, key=lambda statement: -statement.seconds))


def _by_key(rows: Iterable[Row]) -> dict[tuple[int, str], Row]:
    return {(row["queryid"], row["role"]): row for row in rows}


def _since(row: Row, before: Row | None, running: Row | None, has_baseline: bool) -> SlowStatement:
    if before is not None and before["calls"] > row["calls"]:
        before = None  # the statistics were reset meanwhile
    calls = row["calls"] - (before["calls"] if before else 0)
    seconds = row["seconds"] - (before["seconds"] if before else 0.0)
    sessions = running["sessions"] if running else 0
    longest = running["longest"] if running else 0.0
    mean = seconds / calls if calls else longest
    former = before["seconds"] / before["calls"] if has_baseline and before and before["calls"] else None
    return SlowStatement(
        queryid=row["queryid"],
        role=row["role"],
        query=row["query"],
        calls=calls,
        seconds=seconds + sessions * longest,
        mean=mean,
        before=former,
        share=0.0,
        running=sessions,
        longest=longest,
    )
