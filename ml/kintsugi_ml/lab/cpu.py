"""How much of this machine others used while a run was recorded: two cores are few, and a build spoils a run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kintsugi_ml.lab import cgroups
from kintsugi_ml.lab.cgroups import PARENT, ROOT

VOID_SHARE = 0.15
"""A run with more foreign CPU than this is void and repeated."""
OURS_FIRST = 8192
"""cpu.shares of everything that the lab runs, eight times what others have."""


@dataclass(frozen=True, slots=True)
class CpuUse:
    """A moment to measure from; `ours` is None where control groups can't be had."""

    at: float
    busy: float
    ours: float | None

    @classmethod
    def start(cls) -> CpuUse:
        """Now."""
        ours = cgroups.parent_used() if cgroups.unavailable() is None else None
        return cls(time.monotonic(), cgroups.busy_seconds(), ours)

    def foreign(self) -> float:
        """The share of all cores that processes outside the lab used since then; NaN where that can't be told."""
        now = CpuUse.start()
        if now.ours is None or self.ours is None:
            return float("nan")
        seconds = (now.busy - self.busy) - (now.ours - self.ours)
        return max(0.0, seconds / ((now.at - self.at) * (os.cpu_count() or 1)))


@contextlib.contextmanager
def accounted() -> Iterator[None]:
    """Count this process and all that it starts as the lab's, for as long as it lasts."""
    if cgroups.unavailable() is not None:
        yield
        return
    with cgroups.group("runner") as group:
        group.add(os.getpid())
        for shared in (PARENT, str(Path(PARENT).parent)):
            (ROOT / "cpu" / shared / "cpu.shares").write_text(str(OURS_FIRST))
        try:
            yield
        finally:
            for controller in cgroups.CONTROLLERS:
                (ROOT / controller / "cgroup.procs").write_text(str(os.getpid()))
    cgroups.remove_parent()


__all__ = ["VOID_SHARE", "CpuUse", "accounted"]
