"""Runs of the lab's data set as tests want them: made up, but of the shape and roughness of real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi.domain.frame import Frame
from kintsugi_ml.lab.dataset import write_run
from kintsugi_ml.lab.logs import Line, LogTrack
from kintsugi_ml.lab.manifest import NULL, Entry, GateEntry, OutcomeEntry, RemedyEntry
from kintsugi_ml.lab.parts import Parts
from kintsugi_ml.lab.signals import recorded
from kintsugi_ml.lab.truth.measures import MEASURES, Track

INJECTED = 1_790_000_030.25
SIGNALS = recorded().names()


def an_entry(id: str = "p0-000-deadlocks", fault: str = "deadlocks", **known: Any) -> Entry:
    """A run that counts, 30 s normal, 35 s fault, 25 s after; `known` overrides any field."""
    fields: dict[str, Any] = {
        "id": id,
        "fault": fault,
        "form": "abrupt",
        "workload": "tpcc",
        "level": "low",
        "pattern": "steady",
        "severity": 0.5,
        "seed": 7,
        "server": 15,
        "status": "counts",
        "root": None if fault == NULL else "lock-manager",
        "injected_at": INJECTED,
        "lifted_at": INJECTED + 37,
        "parts": Parts(INJECTED - 30, INJECTED, INJECTED + 35, INJECTED + 37, INJECTED + 60),
        "gate": GateEntry(passed=True, client_factor=3.0, signal_factor=10.0, sentence="p95 rose 3-fold."),
        "remedy": RemedyEntry(action="terminate-blocker", right=True, started=INJECTED + 35, ended=INJECTED + 37),
        "outcome": OutcomeEntry(restored_after=4.0, harm=False),
        "onsets": {"lock-manager": 0.5, "client": 1.5, "wal": None},
        "foreign_cpu": 0.02,
    }
    return Entry(**(fields | known))


@dataclass
class Recording:
    """What was recorded of one run, to be spoilt by a test before it is written."""

    entry: Entry
    frame: Frame
    truth: Track
    logs: LogTrack

    def signal(self, name: str, start: float, end: float, value: float) -> None:
        """Set a signal between two moments, in seconds since the injection."""
        times = self.frame.times - INJECTED
        self.frame.values[(times >= start) & (times < end), SIGNALS.index(name)] = value

    def write(self, directory: Path) -> Entry:
        return write_run(directory, self.entry, self.frame, self.truth, self.logs)


def a_recording(entry: Entry | None = None, seed: int = 0, before: int = 30, after: int = 60) -> Recording:
    """Noise of the right shape: `before` and `after` seconds around the injection, some samples missing."""
    random = np.random.default_rng(seed)
    times = np.arange(np.ceil(INJECTED - before), INJECTED + after)
    values = 100.0 * np.abs(random.normal(1.0, 0.1, (len(times), len(SIGNALS))))
    values[random.random(values.shape) < 0.01] = np.nan
    sampled = np.arange(INJECTED - before, INJECTED + after, 0.125)
    names = tuple(measure.name for measure in MEASURES)
    truth = np.abs(random.normal(1.0, 0.1, (len(sampled), len(names)))) * [measure.floor for measure in MEASURES]
    classes = ("lock_wait", "slow_statement", "other")
    counts = random.poisson(0.3, (len(times), len(classes)))
    lines = tuple(Line(float(time) + 0.5, "lock_wait", "process # still waiting for ShareLock") for time in times[::5])
    frame = Frame(SIGNALS, times, values, ~np.isnan(values), 1.0)
    return Recording(entry or an_entry(), frame, Track(sampled, names, truth), LogTrack(times, classes, counts, lines))


@pytest.fixture
def entry() -> Callable[..., Entry]:
    """Builds entries: `entry("p0-001-x", "x", workload="tpcc")`."""
    return an_entry


@pytest.fixture
def recording() -> Callable[..., Recording]:
    """Builds recordings: `recording(entry(…), seed=3)`."""
    return a_recording
