"""What the harness keeps: a file of scores per method, fold, kind and number of examples, and seed; and their figures.

Scores are kept instead of figures, so that a new metric or another mask costs no new run, and methods can be compared
in pairs. A figure is computed for all bootstrap draws at once: W draws give each of R runs a weight, `[W, R]`; the
first draw is the data as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import metrics
from kintsugi_ml.detection.protocol import SLACK_S, Mask, Run, Source, left_out

RESAMPLES: Final = 1000
"""Of the runs of each fold, for the bootstrap's intervals."""

BUDGET: Final = 1.0
"""False alarms per normal hour at which the delay is given."""

WIDEST_S: Final = 10.0
"""The widest buffer of VUS-PR."""

BINS: Final = 10

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of the evaluation."""

    method: str
    fold: str
    source: Source
    k: int
    seed: int

    def file(self, folder: Path) -> Path:
        """Where its scores are kept."""
        words = [self.method, f"{self.source}-{self.k}-{self.seed}", self.fold]
        return folder.joinpath(
            *("".join(c if c.isalnum() or c == "-" else "_" for c in word) for word in words)
        ).with_suffix(".npz")


@dataclass(frozen=True, slots=True)
class Kept:
    """A unit's scores per run and which samples count; `thresholds` `[R, 2]`, for samples and for alarms."""

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
    """One run of a unit, the samples that count `[≤T]`: scores, labels, which are called anomalous, which alarm.

    `places` `[≤T]` are their numbers in the run, `truth` `[T]` the labels of all its samples, those of examples, too.
    """

    scores: Floats
    labels: Bools
    flags: Bools
    alarms: Bools
    interval: float
    group: str
    places: NDArray[np.int64]
    truth: Bools


def judgements(kept: Kept, runs: Sequence[Run], mask: Mask) -> list[Judgement]:
    """A unit's runs that have anything to score, without the samples that the mask leaves out."""
    out = []
    for scores, scored, levels, run in zip(kept.scores, kept.scored, kept.thresholds, runs, strict=True):
        counts = scored & ~left_out(run, mask)
        flags, alarms = (scores[counts] >= level for level in levels)
        out.append(
            Judgement(
                scores=scores[counts],
                labels=run.labels[counts],
                flags=flags,
                alarms=alarms,
                interval=run.interval,
                group=run.group,
                places=np.flatnonzero(counts),
                truth=run.labels,
            )
        )
    return out


Figure = Callable[[Sequence[Judgement], Floats], Floats]
"""A number per draw `[W]` from the R runs of a fold and their weights `[W, R]`; NaN where there is none."""


def precision(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """Average precision over all samples of the fold; ties are one step."""
    scores, labels, which = _joined(runs)
    order = np.argsort(-scores, kind="stable")
    of_sample = weights[:, which[order]]
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    hits = np.cumsum(of_sample * labels[order], axis=1)[:, ends]
    raised = np.cumsum(of_sample, axis=1)[:, ends]
    steps = np.diff(hits, prepend=0.0, axis=1)
    return _ratio((steps * _ratio(hits, raised, 0.0)).sum(axis=1), hits[:, -1] if len(ends) else np.zeros(len(weights)))


def f1(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """F1 per sample at the method's own threshold; there is none where nothing is anomalous."""
    counts = [
        (np.count_nonzero(r.flags & r.labels), np.count_nonzero(r.flags != r.labels), r.labels.any()) for r in runs
    ]
    right, wrong, events = (weights @ np.array(counts, dtype=np.float64)).T
    return np.where(events > 0, _ratio(2 * right, 2 * right + wrong), np.nan)


def volume(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """VUS-PR, averaged over the runs that have an event."""
    with_event = [r.labels.any() for r in runs]
    found = [metrics.vus_pr(r.scores, r.labels, round(WIDEST_S / r.interval)) if r.labels.any() else 0.0 for r in runs]
    return _ratio(weights @ np.array(found), weights @ np.array(with_event, dtype=np.float64))


def event_f1(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """F1 over events."""
    counts = [metrics.event_counts(r.alarms, r.labels, _slack(r)) for r in runs]
    found, events, true, alarms = (weights @ np.array(counts, dtype=np.float64)).T
    recall, exact = _ratio(found, events), _ratio(true, alarms, 0.0)
    return np.where(np.isnan(recall), np.nan, _ratio(2 * recall * exact, recall + exact, 0.0))


def false_alarms(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """Alarms that begin within no event, per normal hour."""
    counts = [(_false(r), np.count_nonzero(~r.labels) * r.interval / 3600) for r in runs]
    wrong, hours = (weights @ np.array(counts, dtype=np.float64)).T
    return _ratio(wrong, hours)


def delay(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """The median delay in seconds at the budget's own threshold: what the scores could do, not the threshold.

    It counts from an event's first sample, so that with examples of the same run, which are the event's first samples
    and are not scored, it is at least their length. A missed event counts as late as it is long.
    """
    scores, labels = [r.scores for r in runs], [r.labels for r in runs]
    threshold = metrics.threshold_for(scores, labels, BUDGET, runs[0].interval, _slack(runs[0]))
    late = [_late(run, threshold) for run in runs]
    flat = np.concatenate(late)
    if not len(flat):
        return np.full(len(weights), np.nan)
    order = np.argsort(flat)
    reached = np.cumsum(weights[:, np.repeat(np.arange(len(runs)), [len(one) for one in late])[order]], axis=1)
    place = (reached >= reached[:, -1:] / 2).argmax(axis=1)
    return np.where(reached[:, -1] > 0, flat[order][place], np.nan)


def _late(run: Judgement, threshold: float) -> Floats:
    """Seconds until the first score over the threshold, of each event of which anything is scored."""
    over, scored = np.zeros_like(run.truth), np.zeros_like(run.truth)
    over[run.places], scored[run.places] = run.scores >= threshold, True
    events = [slice(first, last + 1) for first, last in metrics.spans(run.truth)]
    lengths = np.array([event.stop - event.start for event in events]) * run.interval
    judged = np.array([scored[event].any() for event in events], dtype=np.bool_)
    return np.minimum(metrics.delays([over], [run.truth], run.interval), lengths)[judged]


def calibration(runs: Sequence[Judgement], weights: Floats) -> Floats:
    """Expected calibration error over bins of equal width."""
    said, seen = np.zeros((len(runs), BINS)), np.zeros((len(runs), BINS))
    for index, run in enumerate(runs):
        probabilities = np.clip(run.scores, 0, 1)
        bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
        said[index] = np.bincount(bins, weights=probabilities, minlength=BINS)
        seen[index] = np.bincount(bins, weights=run.labels.astype(np.float64), minlength=BINS)
    many = np.array([len(run.scores) for run in runs], dtype=np.float64)
    return _ratio(np.abs(weights @ (said - seen)).sum(axis=1), weights @ many)


FIGURES: Final[Mapping[str, Figure]] = {
    "AP": precision,
    "F1": f1,
    "VUS-PR": volume,
    "event F1": event_f1,
    "false alarms per hour": false_alarms,
    "delay": delay,
    "ECE": calibration,
}


def base_rate(runs: Sequence[Judgement]) -> float:
    """The share of samples that are anomalous: what a score that says nothing has as AP."""
    return float(np.mean(np.concatenate([r.labels for r in runs])))


def harmless(runs: Sequence[Judgement]) -> tuple[int, float]:
    """False alarms in the runs in which all is normal, and how many hours these are."""
    calm = [r for r in runs if not r.truth.any()]
    wrong = sum(_false(r) for r in calm)
    return wrong, sum(len(r.labels) * r.interval for r in calm) / 3600


def most_per_day(count: float, hours: float) -> float:
    """The 95 % upper bound of a rate per day, of which `count` were seen in so many hours (Poisson, exact).

    `count` may be a mean over seeds.
    """
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, 2 * count + 2) / 2 / (hours * 3600 / _DAY_S)) if hours else float("nan")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval; None where the data give none."""

    mean: float | None
    low: float | None = None
    high: float | None = None


def interval(draws: Floats) -> Interval:
    """From a figure's draws `[W]`, of which the first is the figure itself."""
    known = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return Interval(*(round(float(one), 4) if np.isfinite(one) else None for one in (draws[0], low, high)))


def mean(parts: Sequence[Floats]) -> Floats:
    """The mean `[W]` over folds and seeds of a figure's draws, of those that have one."""
    stacked = np.stack(parts)
    known = np.isfinite(stacked)
    return _ratio(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def resamples(sizes: Mapping[str, int], count: int = RESAMPLES, seed: int = 0) -> dict[str, Floats]:
    """Each fold's bootstrap weights `[1 + count, R]`; the same for every method, so that differences are paired."""
    random = np.random.default_rng(seed)
    return {
        fold: np.concatenate([np.ones((1, size)), random.multinomial(size, np.full(size, 1 / size), size=count)])
        for fold, size in sizes.items()
    }


def _slack(run: Judgement) -> int:
    return round(SLACK_S / run.interval)


def _false(run: Judgement) -> int:
    return metrics.false_count(run.alarms, run.labels, _slack(run))


def _joined(runs: Sequence[Judgement]) -> tuple[Floats, Bools, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    which = np.repeat(np.arange(len(runs)), [len(run.scores) for run in runs])
    return np.concatenate([run.scores for run in runs]), np.concatenate([run.labels for run in runs]), which


def _ratio(one: Floats, other: Floats, nothing: float = np.nan) -> Floats:
    out: Floats = np.full(np.shape(one), nothing)
    np.divide(one, other, out=out, where=other > 0)
    return out
