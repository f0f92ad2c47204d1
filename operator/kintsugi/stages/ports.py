"""The places where a learned model can stand instead of a simple stage. The simple stages fill them today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kintsugi.domain.actions import Candidate, Objectives, Proposal
from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.experience import Example
from kintsugi.domain.forecast import Forecast
from kintsugi.domain.frame import Frame
from kintsugi.domain.signals import Catalogue
from kintsugi.domain.topology import Topology


@dataclass(frozen=True, slots=True)
class DetectorState:
    """What a detector remembers of one database between two cycles (hysteresis); part of no object, rebuilt in seconds.

    `first_at` maps a signal to when it left its band (Unix seconds) in the present incident.
    """

    flagged: bool = False
    above: int = 0
    below: int = 0
    since: float | None = None
    first_at: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One database as detection sees it: its fault-free reference `[R, S]`, the newest samples `[T, S]`, its state."""

    key: str
    catalogue: Catalogue
    reference: Frame
    recent: Frame
    state: DetectorState
    minimum: float


class Detector(Protocol):
    """Scores all databases that are due in one call."""

    def detect(self, observed: Sequence[Observed], now: float) -> Sequence[tuple[Anomaly, DetectorState]]:
        """One anomaly and the next state per database, in the given order."""


class Examples(Protocol):
    """What is known of each database from before: a detector adapts from it when it starts, and when it changed."""

    def examples_of(self, database: str) -> tuple[Example, ...]:
        """The examples of a database (by its uid), oldest first. It may read a file or ask a server: not each cycle."""


class Predictor(Protocol):
    """Says where an anomaly started and where it goes."""

    def predict(self, anomaly: Anomaly, topology: Topology, now: float) -> Forecast:
        """The forecast for one database; `NO_FORECAST` when nothing is flagged."""


class Recommender(Protocol):
    """Orders what the actions proposed."""

    def rank(
        self, proposals: Sequence[Proposal], forecast: Forecast, weights: Objectives, tried: Sequence[str]
    ) -> Sequence[Candidate]:
        """Candidates with compiled plans, best first; those already tried for this incident come without repetition."""
