"""Samples of one scrape, and the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Labels = Mapping[str, str]


@dataclass(slots=True)
class Exposition(Collector):
    """What one scrape found. Prometheus wants each metric's samples together, whoever they come from."""

    families: dict[str, Metric] = field(default_factory=dict)

    def add(self, name: str, help_text: str, value: float, labels: Labels) -> None:
        """One sample; a name that ends in `_total` is a counter, every other one a gauge."""
        family = self.families.get(name)
        if family is None:
            kind = "counter" if name.endswith("_total") else "gauge"
            family = self.families[name] = Metric(name.removesuffix("_total"), help_text, kind)
        family.add_sample(name, dict(labels), value)

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client asks for it."""
        return iter(self.families.values())

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self)


class Counters:
    """Counters that only grow, made of numbers that sometimes fall.

    Sums over tables or statements shrink when a table is dropped or a statement evicted. Handed on as they are,
    Prometheus would take that for a restart and count the whole sum again, a spike out of nothing. Here a fall counts
    as no progress; and each counter starts at zero, so that a restart of the collector is no spike either.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._total: dict[str, float] = {}

    def advance(self, name: str, reading: float) -> float:
        """The counter's value now that the server says `reading`."""
        progress = max(0.0, reading - self._last.get(name, reading))
        self._last[name] = reading
        total = self._total[name] = self._total.get(name, 0.0) + progress
        return total
