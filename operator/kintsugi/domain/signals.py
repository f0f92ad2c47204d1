"""A signal is one number per sample; the catalogue of an engine is data made of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LOGS: Final = "logs"
"""The one source that Prometheus is not asked for: classes of the server's log lines."""


class Hurts(StrEnum):
    """The direction in which a signal's change means harm."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"

    @property
    def sign(self) -> float:
        """1 where a rise hurts, -1 where a fall does, 0 for both."""
        return {Hurts.UP: 1.0, Hurts.DOWN: -1.0, Hurts.BOTH: 0.0}[self]


class Role(StrEnum):
    """What a signal's deviation says.

    `symptom`: somebody waits or fails (ages, waits, latency, errors); may open an incident by itself.
    `cause`: explains (temp files, dead tuples, sequential reads); supports an incident but opens none.
    `context`: the workload itself (calls, connections, throughput); never an anomaly by itself.
    """

    SYMPTOM = "symptom"
    CAUSE = "cause"
    CONTEXT = "context"


class Kind(StrEnum):
    """How the number behaves over time."""

    GAUGE = "gauge"
    RATE = "rate"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class Signal:
    """One number per sample.

    `floor` is the smallest change, in `unit`, that could ever matter: a scale below it is measurement noise, and a
    deviation is never divided by less. `sources` maps an exporter's name to its PromQL template (see
    `engines/catalogue.py` for the placeholders), and `logs` to the classes of log lines that are counted.
    """

    name: str
    component: str
    unit: str
    kind: Kind
    hurts: Hurts
    role: Role
    floor: float
    description: str
    sources: Mapping[str, str]

    @property
    def exporters(self) -> tuple[str, ...]:
        """The sources that Prometheus can be asked for, preferred one first."""
        return tuple(source for source in self.sources if source != LOGS)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All signals that an engine knows, in a fixed order."""

    engine: str
    signals: tuple[Signal, ...]

    def __iter__(self) -> Iterator[Signal]:
        return iter(self.signals)

    def __len__(self) -> int:
        return len(self.signals)

    def names(self) -> tuple[str, ...]:
        """The signals' names, in the catalogue's order."""
        return tuple(signal.name for signal in self.signals)

    def get(self, name: str) -> Signal | None:
        """The signal called `name`, or None."""
        return next((signal for signal in self.signals if signal.name == name), None)

    def logged(self) -> Mapping[str, str]:
        """The signals that are counted in the server's log: name, and the classes of lines."""
        return {signal.name: signal.sources[LOGS] for signal in self.signals if LOGS in signal.sources}
