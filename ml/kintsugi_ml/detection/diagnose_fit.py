"""Learning what fault classes look like, and how good that is on classes and workloads that were never seen.

Signatures are those of `diagnose.Diagnosis`; `group` is what must not be on both sides of a split (a run, a workload).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.diagnose import UNKNOWN, Diagnosis

PENALTY: Final = 0.3
"""Of the regressions' weights (scikit-learn's C), for signatures whose entries are between -4 and 4."""

DROPPED: Final = 0.3
"""Share of the signals that is hidden in a second copy of every signature: databases without a pooler or a node
exporter are diagnosed, too."""

FOLDS: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """N signatures `[N, S]` of anomalies with their fault class `[N]`, run `[N]` and workload `[N]`."""

    signals: tuple[str, ...]
    values: Floats
    classes: NDArray[np.str_]
    runs: NDArray[np.str_]
    workloads: NDArray[np.str_]

    def part(self, rows: Bools) -> Signatures:
        """Some of them."""
        return replace(
            self,
            values=self.values[rows],
            classes=self.classes[rows],
            runs=self.runs[rows],
            workloads=self.workloads[rows],
        )


def fit(known: Signatures, seed: int, trained_on: str = "", *, least: float = 0.5) -> Diagnosis:
    """Learn from all of them: each class against all others, each run counting alike.

    Raises:
        ValueError: there are fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression

    classes = tuple(sorted(set(known.classes.tolist())))
    if len(classes) < 2:
        raise ValueError(f"a diagnosis needs at least two classes, there are {len(classes)}")
    random = np.random.default_rng([seed, len(known.runs)])
    hidden = np.where(random.random(known.values.shape) < DROPPED, 0.0, known.values)
    values = np.concatenate([known.values, hidden])
    weight = np.tile(_weights(known), 2)
    weights, offsets = [], []
    for name in classes:
        mine = np.tile(known.classes == name, 2)
        balanced = weight * np.where(mine, 0.5 / weight[mine].sum(), 0.5 / weight[~mine].sum()) * len(weight)
        found = LogisticRegression(C=PENALTY, solver="newton-cholesky").fit(values, mine, sample_weight=balanced)
        weights.append(found.coef_[0])
        offsets.append(float(found.intercept_[0]))
    return Diagnosis(classes, known.signals, np.array(weights), np.array(offsets), least, trained_on)


def said(model: Diagnosis, asked: Signatures) -> dict[str, str]:
    """What is said of each run, by its mean probabilities."""
    probabilities = model.probabilities(asked.values)
    answers = {}
    for run in dict.fromkeys(asked.runs.tolist()):
        mean = probabilities[asked.runs == run].mean(axis=0)
        best = int(mean.argmax())
        answers[run] = model.classes[best] if mean[best] >= model.least else UNKNOWN
    return answers


def choose_least(known: Signatures, seed: int) -> float:
    """The probability below which an anomaly is unknown: that with the best mean of two rates on what is known.

    The classes are left out a fifth at a time, with each workload: their runs should be unknown, those of the other
    classes on that workload be called by their name.
    """
    own: list[tuple[float, bool]] = []
    strange: list[float] = []
    names = sorted(set(known.classes.tolist()))
    for workload in sorted(set(known.workloads.tolist())):
        here = known.workloads == workload
        for fold in range(FOLDS):
            hidden = np.isin(known.classes, names[fold::FOLDS])
            model = fit(known.part(~here & ~hidden), seed)
            for run in dict.fromkeys(known.runs[here].tolist()):
                rows = known.runs == run
                mean = model.probabilities(known.values[rows]).mean(axis=0)
                best = int(mean.argmax())
                truth = str(known.classes[rows][0])
                if hidden[rows].any():
                    strange.append(float(mean[best]))
                elif truth in model.classes:
                    own.append((float(mean[best]), model.classes[best] == truth))
    grid = np.linspace(0.05, 0.95, 91)
    right = [np.mean([score >= least and correct for score, correct in own]) for least in grid]
    refused = [np.mean([score < least for score in strange]) for least in grid]
    return float(grid[int(np.argmax(np.add(right, refused)))])


def macro_f1(truth: Sequence[str], answers: Sequence[str]) -> float:
    """The mean over the classes that occur of each one's F1."""
    scores = []
    for name in sorted(set(truth)):
        hit = sum(t == name == a for t, a in zip(truth, answers, strict=True))
        wrong = sum((t == name) != (a == name) for t, a in zip(truth, answers, strict=True))
        scores.append(2 * hit / (2 * hit + wrong))
    return float(np.mean(scores))


def _weights(known: Signatures) -> Floats:
    """Each run 1 altogether."""
    count = {run: int((known.runs == run).sum()) for run in set(known.runs.tolist())}
    return np.array([1 / count[run] for run in known.runs.tolist()])
