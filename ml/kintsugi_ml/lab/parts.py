"""When what happened in a run, and what a run is: the few values that everything else in the lab agrees on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["abrupt", "ramped"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The times of a run, Unix seconds.

    `normal` to `injected` is the run's own reference; `injected` to `remedied` the fault; `remedied` to `ended` the
    time after the remedy (or after nothing was done). `lifted` is when the fault was over: by the remedy, or by us.
    A null run has `injected` and everything after it like any other, but nothing was injected.
    """

    normal: float
    injected: float
    remedied: float
    lifted: float
    ended: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One run as it was planned, before anybody knows how it goes.

    `second` is the other fault of a compound one; `noise` names unrelated noise beside it. `remedy` is "right",
    "wrong" or "nothing".
    """

    id: str
    fault: str
    form: Form
    workload: str
    level: Literal["low", "high"]
    pattern: str
    severity: float
    seed: int
    remedy: Literal["right", "wrong", "nothing"]
    server: int
    second: str | None = None
    noise: str | None = None
