"""What one cycle of the database loop decided, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why a candidate may not run now.

    `reason` is CamelCase for conditions and metrics; `message` is the sentence a user reads; `retry_after` is in
    seconds, None when only a change of circumstances helps.
    """

    reason: str
    message: str
    retry_after: float | None = None


class DatabasePhase(StrEnum):
    """What a database's status says in one word."""

    LEARNING = "Learning"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    HEALING = "Healing"
    BLIND = "Blind"
    PAUSED = "Paused"
