"""What detection says about one database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What the detector can say at all."""

    LEARNING = "Learning"
    NORMAL = "Normal"
    ANOMALOUS = "Anomalous"
    BLIND = "Blind"


@dataclass(frozen=True, slots=True)
class Contribution:
    """One signal's part in a score, in numbers and in words.

    `deviation` is in robust standard deviations of the reference window, positive in the direction that hurts.
    `first_at` is when it left its band in this incident (Unix seconds), or None.
    """

    signal: str
    component: str
    deviation: float
    value: float
    reference: float
    unit: str
    sentence: str
    first_at: float | None = None


@dataclass(frozen=True, slots=True)
class Anomaly:
    """The state of one database as its metrics show it.

    `score` is 0..1 (0.5 is the flagging threshold). `components` maps a component to its score 0..1. `since` is when
    the present state of anomaly began (Unix seconds). `reason` says why the database can't be judged when `health` is
    LEARNING or BLIND.
    """

    health: Health
    score: float
    since: float | None
    contributions: tuple[Contribution, ...]
    components: Mapping[str, float]
    reason: str = ""
    fault_class: str = "unknown"

    @property
    def flagged(self) -> bool:
        """Whether there is an anomaly now."""
        return self.health is Health.ANOMALOUS
