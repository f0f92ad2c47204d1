"""For tests: databases as detection sees them, and a learned model that says what it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from kintsugi.domain.experience import Example, LabelKind, Source
from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.domain.signals import Catalogue, Hurts, Kind, Role, Signal
from kintsugi.stages.ports import DetectorState, Lesson, Observed

START = 1_000_000.0
LEARNED = 120


def a_signal(name: str, role: Role, component: str, hurts: Hurts = Hurts.UP) -> Signal:
    """A gauge in seconds."""
    return Signal(name, component, "s", Kind.GAUGE, hurts, role, 0.1, f"How {name} is measured.", {})


CATALOGUE = Catalogue(
    "postgresql",
    (
        a_signal("wait_age", Role.SYMPTOM, "lock-manager"),
        a_signal("waiters", Role.SYMPTOM, "lock-manager"),
        a_signal("latency", Role.SYMPTOM, "client"),
        a_signal("reads", Role.CAUSE, "buffer-pool"),
        a_signal("calls", Role.CONTEXT, "query-engine", Hurts.BOTH),
        a_signal("postgres_up", Role.SYMPTOM, "connections", Hurts.DOWN),
    ),
)
NAMES = CATALOGUE.names()


def a_frame(
    samples: int,
    seed: int,
    start: float = START,
    signals: tuple[str, ...] = NAMES,
    spoilt: Mapping[str, float] = MappingProxyType({}),
) -> Frame:
    """Quiet samples, one a second; `spoilt` sets a signal throughout."""
    values = np.random.default_rng(seed).normal(5.0, 1.0, size=(samples, len(signals)))
    for name, value in {"postgres_up": 1.0, **spoilt}.items():
        if name in signals:
            values[:, signals.index(name)] = value
    return Frame(signals, start + np.arange(samples, dtype=np.float64), values, ~np.isnan(values), 1.0)


def joined(one: Frame, other: Frame) -> Frame:
    """One after the other."""
    values = np.concatenate([one.values, other.values])
    return Frame(one.signals, np.concatenate([one.times, other.times]), values, ~np.isnan(values), one.interval)


def an_example(
    kind: LabelKind,
    spoilt: Mapping[str, float] = MappingProxyType({}),
    *,
    samples: int = 30,
    signals: tuple[str, ...] = NAMES,
) -> Example:
    """An hour earlier, this happened for so many seconds."""
    before = a_frame(60, 7, START - 3600, signals)
    window = a_frame(samples, 8, START - 3500, signals, spoilt)
    return Example(
        id=f"{kind}-{samples}-{sorted(spoilt.items())}",
        database="uid-orders",
        start=float(window.times[0]),
        end=float(window.times[-1]) + 1,
        kind=kind,
        fault_class="backup" if kind is LabelKind.NORMAL else "lock-contention",
        source=Source.PERSON,
        who="ann",
        action="",
        window=window,
        reference=before,
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says."""

    probability: Floats
    judged: Bools
    deviation: Floats
    threshold: Floats


@dataclass
class Database:
    """A database that was quiet for two minutes; since then `spoilt` holds for as long as it is asked about."""

    name: str = "orders"
    seed: int = 1
    learned: bool = True
    spoilt: dict[str, float] = field(default_factory=dict)
    state: DetectorState = field(default_factory=DetectorState)
    reference_samples: int = LEARNED
    minimum: float = 60.0

    def observed(self, samples: int, quiet: int = 20) -> Observed:
        """After `quiet` quiet seconds and `samples` spoilt ones."""
        reference = a_frame(self.reference_samples, self.seed, START + LEARNED - self.reference_samples)
        after = float(reference.times[-1]) + 1
        recent = a_frame(quiet, self.seed + 1000, after)
        if samples:
            recent = joined(recent, a_frame(samples, self.seed + 2000, after + quiet, spoilt=self.spoilt))
        rows = slice(max(0, len(recent) - 60), None)
        recent = Frame(NAMES, recent.times[rows], recent.values[rows], recent.mask[rows], 1.0)
        key = f"shop/{self.name}"
        return Observed(key, CATALOGUE, reference, recent, self.state, self.minimum, f"uid-{self.name}", self.learned)


def now_of(observed: Observed) -> float:
    """Just after the newest sample."""
    return float(observed.recent.times[-1]) + 0.2


class Says:
    """A model that says what a test wants, and counts how often it is asked."""

    def __init__(self, probability: float = 0.0, threshold: float = 0.5, error: Exception | None = None) -> None:
        self.name = "7 (a test)"
        self.probability, self.threshold, self.error = probability, threshold, error
        self.fault_class = ("lock-contention", "lock-contention", 0.8)
        self.learned, self.recalled = 0, 0
        self.batches: list[tuple[int, ...]] = []
        self.lessons: list[Sequence[Lesson]] = []

    def learn(self, reference: Floats, interval: float, floor: Floats, hurts: Floats) -> Any:
        """Count it."""
        self.learned += 1
        return len(reference)

    def teach(self, examples: Sequence[Lesson], floor: Floats, hurts: Floats) -> Any | None:
        """Remember them."""
        self.lessons.append(examples)
        return ["taught"] if any(anomalous for *_, anomalous in examples) else None

    def shape(self, learned: Any) -> tuple[int, ...]:
        """By the length of the reference."""
        return (min(learned, 128),)

    def recall(self, learned: Any, taught: Any) -> Any:
        """Count it."""
        self.recalled += 1
        return learned

    def score(self, learned: Sequence[Any], values: Floats) -> Said:
        """The same of every sample, or the error."""
        self.batches.append(values.shape)
        if self.error is not None:
            raise self.error
        shape = values.shape[:2]
        return Said(
            np.full(shape, self.probability),
            np.ones(shape, dtype=np.bool_),
            np.zeros(values.shape),
            np.full(len(values), self.threshold),
        )

    def classify(self, deviation: Floats, names: Sequence[str]) -> tuple[str, str, float]:
        """Always the same."""
        return self.fault_class
