"""What detection says about one database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kintsugi.domain.text import quantity

UNKNOWN: Final = "unknown"
"""The class of a fault that is like none of those that are known."""


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


class Effect(StrEnum):
    """What a database's own examples changed of what the statistics alone would have said."""

    NOTHING = ""
    OPENED = "flagged because it looks like an anomaly that was labelled or healed here"
    SILENCED = "not flagged because it goes no further than what was labelled normal here"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the learned model says of the newest sample, beside the statistics.

    `probability` 0..1 is calibrated; `threshold` is what it alone would alarm from. `anomalies` and `normals` count the
    database's own examples that were used. `unusual` are the signals that it finds furthest from normal, with their
    deviation in scales of the reference. `fault_class` is empty where nothing is wrong and nobody asked; where it is
    unknown, `nearest_class` is what comes closest, and `class_probability` is of that one. `model` names the bundle;
    empty when only the examples count. `silent_since` (Unix seconds) is since when something is silenced by an example.
    """

    model: str
    probability: float
    threshold: float
    anomalies: int = 0
    normals: int = 0
    unusual: tuple[tuple[str, float], ...] = ()
    fault_class: str = ""
    nearest_class: str = ""
    class_probability: float = 0.0
    effect: Effect = Effect.NOTHING
    silent_since: float | None = None

    @property
    def sentence(self) -> str:
        """All of it in words and numbers."""
        parts = []
        if self.model:
            beyond = "from its threshold" if self.probability >= self.threshold else "below its threshold"
            parts.append(f"the learned model gives {self.probability:.2f}, {beyond} {self.threshold:.2f}")
        parts.append(f"examples: {self.anomalies} of anomalies, {self.normals} of normal times")
        if self.effect:
            parts.append(self.effect.value)
        if self.unusual:
            parts.append("most unusual: " + ", ".join(f"{name} ({_scales(far)})" for name, far in self.unusual))
        if self.fault_class == UNKNOWN:
            nearest = f" (nearest: {self.nearest_class}, {self.class_probability:.2f})" if self.nearest_class else ""
            parts.append(f"looks like no class of fault that it knows{nearest}")
        elif self.fault_class:
            parts.append(f"looks like {self.fault_class} ({self.class_probability:.2f})")
        return "; ".join(parts)


def _scales(deviation: float) -> str:
    return quantity(round(deviation, 1), "scales")


@dataclass(frozen=True, slots=True)
class Anomaly:
    """The state of one database as its metrics show it.

    `score` is 0..1 (0.5 is the flagging threshold). `components` maps a component to its score 0..1. `since` is when
    the present state of anomaly began (Unix seconds). `reason` says why the database can't be judged when `health` is
    LEARNING or BLIND. `suspected` is True while LEARNING when what was learned so far already speaks for an anomaly:
    people are told, nothing is done. `opinion` is the learned model's, where there is one.
    """

    health: Health
    score: float
    since: float | None
    contributions: tuple[Contribution, ...]
    components: Mapping[str, float]
    reason: str = ""
    suspected: bool = False
    opinion: Opinion | None = None

    @property
    def fault_class(self) -> str:
        """What kind of fault it looks like; `unknown` when nothing says."""
        return (self.opinion.fault_class if self.opinion else "") or UNKNOWN

    @property
    def flagged(self) -> bool:
        """Whether there is an anomaly now."""
        return self.health is Health.ANOMALOUS
