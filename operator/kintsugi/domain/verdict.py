"""What verification says about an action."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Healed: back in the reference band. NotHealed: no. Harmed: worse than before it. Inconclusive: can't be told."""

    HEALED = "Healed"
    NOT_HEALED = "NotHealed"
    HARMED = "Harmed"
    INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True, slots=True)
class Measure:
    """One signal before and after an action, beside its fault-free reference (medians, in the signal's unit)."""

    signal: str
    unit: str
    before: float | None
    after: float | None
    reference: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome with every reason for it in words."""

    outcome: Outcome
    reasons: tuple[str, ...]
    measures: tuple[Measure, ...]
