"""The places where a learned model can stand instead of a simple stage. The simple stages fill them today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kintsugi.domain.actions import Candidate, Objectives, Proposal
from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.experience import Example
from kintsugi.domain.forecast import Forecast
from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi.domain.topology import Topology

Lesson: TypeAlias = tuple[Floats, Floats, float, bool]
"""One example: its own reference `[R, S]`, its samples `[T, S]`, the seconds between these, whether it is anomalous."""


@dataclass(frozen=True, slots=True)
class DetectorState:
    """What a detector remembers of one database between two cycles (hysteresis); part of no object, rebuilt in seconds.

    `first_at` maps a signal to when it left its band (Unix seconds) in the present incident. `silent_since` (Unix
    seconds) is since when evidence is silenced by what was labelled normal.
    """

    flagged: bool = False
    above: int = 0
    below: int = 0
    since: float | None = None
    first_at: Mapping[str, float] | None = None
    silent_since: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One database as detection sees it: its fault-free reference `[R, S]`, the newest samples `[T, S]`, its state.

    `key` names the normal that is learned: what was fitted under another one is not used. `uid` is what its examples
    are kept by; `learned` is False where a person wants the statistics alone.
    """

    key: str
    catalogue: Catalogue
    reference: Frame
    recent: Frame
    state: DetectorState
    minimum: float
    uid: str = ""
    learned: bool = True


class Detector(Protocol):
    """Scores all databases that are due in one call."""

    def detect(self, observed: Sequence[Observed], now: float) -> Sequence[tuple[Anomaly, DetectorState]]:
        """One anomaly and the next state per database, in the given order."""


class Scored(Protocol):
    """What a learned model says of D databases' T samples of S signals.

    `probability` `[D, T]` is 0 where `judged` `[D, T]` is False; `deviation` `[D, T', S]` is of the newest samples, in
    scales of each database's own reference; `threshold` `[D]` is the probability that an alarm begins at.
    """

    @property
    def probability(self) -> Floats: ...  # noqa: D102
    @property
    def judged(self) -> Bools: ...  # noqa: D102
    @property
    def deviation(self) -> Floats: ...  # noqa: D102
    @property
    def threshold(self) -> Floats: ...  # noqa: D102


class LearnedModel(Protocol):
    """A model that needs no training on what it judges. What `learn`, `teach` and `recall` return is its own."""

    name: str

    def learn(self, reference: Floats, interval: float, floor: Floats, hurts: Floats) -> Any:
        """One database's normal, from `[R, S]` with NaN for missing.

        Args:
            reference: fault-free samples, oldest first.
            interval: seconds between two samples.
            floor: `[S]`, the smallest change that could ever matter.
            hurts: `[S]`, 1 where a rise hurts, -1 where a fall does, 0 for both.
        """

    def teach(self, examples: Sequence[Lesson], floor: Floats, hurts: Floats) -> Any | None:
        """What a database's own examples teach; None when nothing can be learned from them."""

    def recall(self, learned: Any, taught: Any) -> Any:
        """One database's normal with what its examples teach beside it."""

    def shape(self, learned: Any) -> tuple[int, ...]:
        """What must be equal of all databases in one call, besides their interval and signals."""

    def score(self, learned: Sequence[Any], values: Floats) -> Scored:
        """Many databases in one call: samples `[D, T, S]`, oldest first, NaN for missing."""

    def classify(self, deviation: Floats, names: Sequence[str]) -> tuple[str, str, float]:
        """The fault class (or `unknown`), the nearest known one and its probability, from one `deviation` `[T', S]`."""


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
