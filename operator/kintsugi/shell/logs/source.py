"""What every log source offers: lines since a position, and the next position."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.records import Decoder
from kintsugi.shell.errors import ShellError

Mark = tuple[int, ...]
"""How far one stream was read; what the numbers mean is the source's own matter."""

NewDecoder = Callable[[float], Decoder]
"""A decoder that leaves out what was logged before this time (Unix s)."""


class LogError(ShellError):
    """A log can't be read: which one, why, and what to do. `reason` is CamelCase for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: nothing before `since` (Unix s) is wanted, and `marks` says how far each stream was read.

    As text it survives a restart of the operator: what was being put together is read again then.
    """

    since: float
    marks: Mapping[str, Mark] = field(default_factory=dict)

    def dump(self) -> str:
        """As text."""
        return json.dumps({"since": self.since, "marks": {key: list(mark) for key, mark in self.marks.items()}})

    @classmethod
    def load(cls, text: str) -> Position:
        """From text.

        Raises:
            LogError: it is none of ours.
        """
        try:
            known: Any = json.loads(text)
            marks = {str(key): tuple(int(number) for number in mark) for key, mark in known["marks"].items()}
            return cls(float(known["since"]), marks)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LogError("PositionUnreadable", f"{text[:80]!r} is no position in a log; begin anew") from error


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that were read, each stream's in its order, and where to go on.

    Everything up to `until` (Unix s) has been read, when `more` is False: else more can be had at once. Where something
    had to be left out, what is known begins at `complete_since`. `junk` counts lines that were no log lines. `zone` is
    what is wrong with the time zone of the newest lines, which were left out then.
    """

    lines: tuple[Line, ...]
    position: Position
    until: float
    more: bool = False
    complete_since: float | None = None
    junk: int = 0
    zone: str = ""


def known_from(begins: float | None, decoders: Iterable[Decoder]) -> float | None:
    """`complete_since` where decoders may have passed over lines, too: what was logged until then is unknown."""
    found = [one.resumed for one in decoders if one.resumed is not None]
    return max([*found, *([] if begins is None else [begins])], default=None)


class LogSource(Protocol):
    """One database's log. `every` is the least number of seconds between two reads."""

    every: float

    async def read(self, since: Position) -> Batch:
        """What was logged since.

        Raises:
            LogError: it can't be read.
            KubeError: the API server could not be asked.
        """

    async def close(self) -> None:
        """Give connections back."""
