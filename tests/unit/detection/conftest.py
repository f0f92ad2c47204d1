"""Small systems to detect in, with defaults: each builder is a fixture of its own name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.baselines import ours
from kintsugi_ml.detection.model import Model
from kintsugi_ml.detection.protocol import Run


def _calm(rows: int = 60, signals: int = 12, seed: int = 0, databases: int | None = None) -> Floats:
    """Noise around levels of very different sizes `[T, S]`, or `[D, T, S]`."""
    random = np.random.default_rng(seed)
    level = 10.0 ** np.linspace(-2, 6, signals)
    shape = (rows, signals) if databases is None else (databases, rows, signals)
    return level * (1 + 0.05 * random.standard_normal(shape))


def _spiked(values: Floats, start: int, end: int, columns: Sequence[int], factor: float = 3.0) -> Floats:
    """The same with some signals raised from `start` to before `end`."""
    out = values.copy()
    out[..., start:end, columns] *= factor
    return out


def _a_run(
    name: str = "lock/0", group: str = "lock", rows: int = 100, start: int = 40, end: int = 70, **more: int
) -> Run:
    """A run whose signals 0–3 (or those that `first` says) treble while it is anomalous."""
    first = more.get("first", 0)
    values = _spiked(_calm(rows, seed=more.get("seed", 0)), start, end, range(first, first + 4))
    labels: Bools = np.zeros(rows, dtype=np.bool_)
    labels[start:end] = True
    signals = tuple(f"s{index}" for index in range(values.shape[1]))
    return Run(name, "toy", group, signals, values, labels, np.zeros(rows, dtype=np.bool_))


@pytest.fixture
def calm() -> Callable[..., Floats]:
    return _calm


@pytest.fixture
def spiked() -> Callable[..., Floats]:
    return _spiked


@pytest.fixture
def a_run() -> Callable[..., Run]:
    return _a_run


@pytest.fixture(scope="session")
def toy_runs() -> list[Run]:
    """Three classes of three runs; each class moves signals of its own."""
    return [
        _a_run(f"{group}/{number}", group, start=40 + 5 * number, first=first, seed=10 * first + number)
        for first, group in ((0, "lock"), (4, "disk"), (8, "cpu"))
        for number in range(3)
    ]


@pytest.fixture(scope="session")
def toy_model(toy_runs: list[Run]) -> Model:
    return ours.fit(toy_runs, 0, "toys")[0]
