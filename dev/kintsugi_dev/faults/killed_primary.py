"""The primary is killed without warning and does not come back."""

from __future__ import annotations

from typing import ClassVar

from kintsugi_dev.faults.base import Fault
from kintsugi_dev.servers import PostgreSQL


class KilledPrimary(Fault):
    """SIGKILL to the postmaster and everything that it started."""

    name: ClassVar[str] = "killed-primary"
    title: ClassVar[str] = "the primary is killed with SIGKILL"

    def __init__(self, primary: PostgreSQL) -> None:
        self._primary = primary

    def inject(self) -> None:
        """Kill it."""
        self._primary.kill()

    def lift(self) -> None:
        """Nothing: a dead primary that came back beside its successor would make it worse."""
