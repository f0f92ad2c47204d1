"""What the baselines share: standardised values, thresholds, and a wrapper for those that only look at one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.normal import Singles, counters, learn, steps
from kintsugi_ml.detection.protocol import Episode, Judged, Run, Thresholds, thresholds
from kintsugi_ml.detection.tokens import SHORT_S, mean_over, samples

Judge = Callable[[Run], Floats]
"""Scores `[T]` of a run, from its reference and itself alone."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """A detector without anything learned, but for its thresholds."""

    judge: Judge
    thresholds: Thresholds

    def score(self, episode: Episode) -> Judged:
        """Judge a run by itself."""
        return Judged(self.judge(episode.run), *self.thresholds)


@dataclass(frozen=True, slots=True)
class Unlearned:
    """A method that looks at a run and its reference only; the training runs give its thresholds."""

    name: str
    judge: Judge
    uses_examples: bool = False
    probabilities: bool = False

    def train(self, runs: Sequence[Run], seed: int) -> Fixed:
        """Find the thresholds that separate best on these runs."""
        judge = partial(judged_by, self.judge)
        return Fixed(judge, thresholds_on(runs, judge))


@lru_cache(maxsize=8192)
def judged_by(judge: Judge, run: Run) -> Floats:
    """A run's scores, computed once, however many folds it is in."""
    return judge(run)


def thresholds_on(runs: Sequence[Run], judge: Judge) -> Thresholds:
    """The best thresholds over the samples of these runs that aren't doubtful."""
    scores = [judge(run)[~run.doubtful] for run in runs]
    return thresholds(scores, [run.labels[~run.doubtful] for run in runs], runs[0].interval)


@lru_cache(maxsize=256)
def standardised(run: Run) -> Singles:
    """A run's values `[T, S]` in scales of its reference, 0 where missing."""
    counting = counters(run.values[None, : run.reference])
    values = steps(run.values[None], counting)
    normal = learn(values[:, : run.reference])
    return np.asarray(np.nan_to_num(normal.standardise(values)[0], nan=0.0), dtype=np.float32)


@lru_cache(maxsize=256)
def smooth(run: Run) -> Singles:
    """The same, averaged over 3 s."""
    return np.asarray(mean_over(standardised(run)[None], samples(SHORT_S, run.interval))[0])
