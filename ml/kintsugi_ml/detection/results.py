"""What the harness keeps: a file of scores per method, class, kind and number of examples, and seed; and their figures.

Scores are kept instead of figures, so that a new metric or another mask costs no new run, and pairs can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import metrics
from kintsugi_ml.detection.protocol import Run, Source

RESAMPLES: Final = 1000
"""Of the runs of each class, for the bootstrap's intervals."""

BUDGET: Final = 1.0
"""False alarms per normal hour at which the delay is given."""

WIDEST_S: Final = 10.0
"""The widest buffer of VUS-PR."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of the evaluation."""

    method: str
    group: str
    source: Source
    k: int
    seed: int

    def file(self, folder: Path) -> Path:
        """Where its scores are kept."""
        words = [self.method, f"{self.source}-{self.k}-{self.seed}", self.group]
        return folder.joinpath(
            *("".join(c if c.isalnum() or c == "-" else "_" for c in word) for word in words)
        ).with_suffix(".npz")


@dataclass(frozen=True, slots=True)
class Kept:
    """A unit's scores per run: which samples count, and from which score on they are flagged."""

    scores: tuple[Floats, ...]
    scored: tuple[Bools, ...]
    thresholds: Floats

    def save(self, file: Path) -> None:
        """Write, and only then put in place, so that a stopped run leaves nothing half done."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        np.savez_compressed(
            partial,
            lengths=[len(one) for one in self.scores],
            scores=np.concatenate(self.scores).astype(np.float32),
            scored=np.concatenate(self.scored),
            thresholds=self.thresholds,
        )
        partial.replace(file)


def read(file: Path) -> Kept:
    """Read what `Kept.save` wrote."""
    with np.load(file, allow_pickle=False) as content:
        cuts = np.cumsum(content["lengths"])[:-1]
        scores, scored = np.split(content["scores"].astype(np.float64), cuts), np.split(content["scored"], cuts)
        return Kept(tuple(scores), tuple(scored), content["thresholds"])


@dataclass(frozen=True, slots=True)
class Judgement:
    """One run of a unit: scores, labels and flags of the samples that count, all `[≤T]`."""

    scores: Floats
    labels: Bools
    flags: Bools
    interval: float


Figure = Callable[[Sequence[Judgement]], float]
"""A number from the runs of one class."""


def _precision(runs: Sequence[Judgement]) -> float:
    return metrics.average_precision(np.concatenate([r.scores for r in runs]), np.concatenate([r.labels for r in runs]))


def _f1(runs: Sequence[Judgement]) -> float:
    return metrics.f1(np.concatenate([r.flags for r in runs]), np.concatenate([r.labels for r in runs]))


def _vus(runs: Sequence[Judgement]) -> float:
    found = [metrics.vus_pr(r.scores, r.labels, round(WIDEST_S / r.interval)) for r in runs if r.labels.any()]
    return float(np.mean(found)) if found else float("nan")


def _event_f1(runs: Sequence[Judgement]) -> float:
    return metrics.event_f1([r.flags for r in runs], [r.labels for r in runs], slack=round(3 / runs[0].interval))


def _false_alarms(runs: Sequence[Judgement]) -> float:
    return metrics.false_alarms([r.flags for r in runs], [r.labels for r in runs], runs[0].interval)


def _delay(runs: Sequence[Judgement]) -> float:
    """The median delay at the budget's own threshold: what the scores could do, not what the threshold does."""
    scores, labels = [r.scores for r in runs], [r.labels for r in runs]
    threshold = metrics.threshold_for(scores, labels, BUDGET, runs[0].interval)
    found = metrics.delays([one >= threshold for one in scores], labels, runs[0].interval)
    return float(np.median(found)) if len(found) else float("nan")


def _calibration(runs: Sequence[Judgement]) -> float:
    scores, labels = np.concatenate([r.scores for r in runs]), np.concatenate([r.labels for r in runs])
    return metrics.calibration_error(np.clip(scores, 0, 1), labels)


FIGURES: Final[Mapping[str, Figure]] = {
    "AP": _precision,
    "F1": _f1,
    "VUS-PR": _vus,
    "event F1": _event_f1,
    "false alarms per hour": _false_alarms,
    "delay": _delay,
    "ECE": _calibration,
}


def judgements(kept: Kept, runs: Sequence[Run], *, masked: bool, reference: bool) -> list[Judgement]:
    """A unit's runs, without doubtful samples if `masked`, and with those of the references only if `reference`."""
    out = []
    for scores, scored, threshold, run in zip(kept.scores, kept.scored, kept.thresholds, runs, strict=True):
        counts = scored & ~run.doubtful if masked else scored.copy()
        if not reference:
            counts[: run.reference] = False
        flags = scores >= threshold
        out.append(Judgement(scores[counts], run.labels[counts], flags[counts], run.interval))
    return out


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def interval(draws: Sequence[float], mean: float) -> Interval:
    """The interval of a figure from its bootstrap draws."""
    known = np.array([draw for draw in draws if np.isfinite(draw)])
    if not len(known):
        return Interval(mean, float("nan"), float("nan"))
    return Interval(mean, float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975)))


def over_classes(
    units: Iterable[tuple[str, Sequence[Judgement]]], figure: Figure, picks: Mapping[str, Sequence[int]] | None = None
) -> float:
    """The mean over classes (and seeds) of a figure; `picks` names the runs of each class that a draw uses."""
    found = [figure(list(runs) if picks is None else [runs[index] for index in picks[group]]) for group, runs in units]
    finite = [one for one in found if np.isfinite(one)]
    return float(np.mean(finite)) if finite else float("nan")


def resamples(sizes: Mapping[str, int], count: int = RESAMPLES, seed: int = 0) -> list[dict[str, list[int]]]:
    """Bootstrap draws of each class's runs; the same for every method, so that differences are paired."""
    random = np.random.default_rng(seed)
    return [{group: random.integers(size, size=size).tolist() for group, size in sizes.items()} for _ in range(count)]
