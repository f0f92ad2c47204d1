"""What every fault has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class Fault(ABC):
    """Something that goes wrong. `name` is its short name, `title` says what happens in a sentence."""

    name: ClassVar[str]
    title: ClassVar[str]
    repair_title: ClassVar[str] = ""
    """What `repair` does, in a sentence; empty where nothing is left to do."""

    @abstractmethod
    def inject(self) -> None:
        """Make it happen; return once it has."""

    @abstractmethod
    def lift(self) -> None:
        """End whatever of it is left; fine when something else has healed it already."""

    def repair(self) -> None:
        """What people do afterwards, once it is healed; nothing for most faults."""
        return
