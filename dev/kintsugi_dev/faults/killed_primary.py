"""The primary is killed without warning and does not come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from kintsugi_dev.faults.base import Fault
from kintsugi_dev.servers import PostgreSQL


class KilledPrimary(Fault):
    """SIGKILL to the postmaster and everything that it started."""

    name: ClassVar[str] = "killed-primary"
    title: ClassVar[str] = "the primary is killed with SIGKILL"
    repair_title: ClassVar[str] = "a DBA rebuilds the dead server as a replica of the new primary"

    def __init__(self, primary: PostgreSQL, rebuild: Callable[[], None]) -> None:
        self._primary = primary
        self._rebuild = rebuild

    def inject(self) -> None:
        """Kill it."""
        self._primary.kill()

    def repair(self) -> None:
        """Rebuild it beside its successor; until then the database has no replica, and is rightly called degraded."""
        self._rebuild()

    def lift(self) -> None:
        """Nothing: a dead primary that came back by itself beside its successor would make it worse."""
