"""Training the shipped detector: pooled boosting on other systems' runs, then how far to trust a system's own examples.

Three things make it carry over (each was measured, see docs/models/detection.md): every run is seen several times, with
its start moved and signals left out, and as a slower scrape would have seen it; all features are monotone; and while
the second step is learned, the first one's score is made worse in a part of the episodes, as it will be where a class
is new.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import protocol
from kintsugi_ml.detection.calibrate import Calibration, fit
from kintsugi_ml.detection.features import CLOSE, LEAN, chosen, describe, refer
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.protocol import Run, Thresholds
from kintsugi_ml.detection.trees import MOST_LEAVES, Forest, from_boosting

COPIES: Final = 4
"""Times that each run is seen: once as it is, else with another start and fewer signals."""

THINNED: Final = (2, 6)
"""Of a run's first copy every second sample is used, of the others every sixth: neighbours say the same."""

LEAST_REFERENCE: Final = 14
"""Samples of the shortest reference in training."""

LEAST_SIGNALS: Final = 6

DEEP: Final = 60
"""Trees of the boosting that sees all the named features, of `MOST_LEAVES` leaves each."""

FLAT: Final = 40
"""Trees of the boosting that sees relations only, of four leaves each."""

BINS: Final = 64
"""Values that a feature is cut into; scikit-learn's 255 give the same AP."""

SLOW_S: Final = 5.0
"""Seconds between the samples of the copy that teaches what a slower scrape sees."""

SLOW_SHARE: Final = 1 / 3
"""Of each run's weight lies on its slow copy. More intervals were worse on the lab (docs/models/detection.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A run described: `features` `[T, F]`, `points` `[T, S]`, and the reference's points `[A, S]`."""

    run: Run
    features: Singles
    points: Singles
    anchors: Singles
    reference: int


def see(run: Run, *, start: int = 0, columns: NDArray[np.int64] | None = None) -> Seen:
    """Describe a run from sample `start` on, with some of its signals; the samples before are dropped."""
    chosen = slice(None) if columns is None else columns
    values = run.values[start:, chosen]
    used = max(run.reference - start, 1)
    reference = refer(values[None, :used], run.interval)
    described = describe(reference, values[None])
    return Seen(
        protocol.part(run, start), described.features[0], described.points[0], reference.anchors.points[0], used
    )


@lru_cache(maxsize=1024)
def whole(run: Run) -> Seen:
    """A run as it is, described once."""
    return see(run)


@lru_cache(maxsize=1024)
def copies(run: Run, seed: int) -> tuple[Seen, ...]:
    """A run as it is, and the same with its start moved and signals left out at random."""
    random = np.random.default_rng([seed, zlib.crc32(run.name.encode())])
    out = [whole(run)]
    width = run.values.shape[1]
    for _ in range(COPIES - 1):
        start = int(random.integers(0, max(run.reference - LEAST_REFERENCE, 0) + 1))
        many = int(np.exp(random.uniform(np.log(min(LEAST_SIGNALS, width)), np.log(width))).round())
        out.append(see(run, start=start, columns=np.sort(random.permutation(width)[:many])))
    return tuple(out)


@lru_cache(maxsize=1024)
def slowed(run: Run) -> Seen:
    """A run as a scrape every `SLOW_S` seconds would have seen it, described once."""
    return see(protocol.every(run, SLOW_S))


def views(run: Run, seed: int, *, changed: bool, slow: bool) -> Iterator[tuple[Seen, float, slice]]:
    """How a run is shown to a boosting: what is seen, its share of the run's weight, and the samples that are used."""
    quick = 1 - SLOW_SHARE if slow else 1.0
    for number, seen in enumerate(copies(run, seed) if changed else (whole(run),)):
        share = 1.0 if not changed else 0.5 if number == 0 else 0.5 / (COPIES - 1)
        step = THINNED[number > 0]
        yield seen, quick * share, slice(number % step, None, step)
    if slow:
        yield slowed(run), SLOW_SHARE, slice(None)


def rows(runs: Sequence[Run], seed: int, *, changed: bool = True, slow: bool = True) -> tuple[Singles, Bools, Floats]:
    """All samples after the references that aren't doubtful: features `[N, F]`, labels and weights `[N]`.

    Every run weighs the same. Of what isn't on its slow copy half is on the first, unchanged one, or all where changed
    ones are out.
    """
    features, labels, weights = [], [], []
    for run in runs:
        for seen, share, used in views(run, seed, changed=changed, slow=slow):
            kept = np.zeros(len(seen.run.labels), dtype=np.bool_)
            kept[used] = True
            kept[: seen.reference] = False
            kept &= ~seen.run.doubtful
            features.append(seen.features[kept])
            labels.append(seen.run.labels[kept])
            weights.append(np.full(int(kept.sum()), share / max(int(kept.sum()), 1)))
    stacked = np.concatenate(weights)
    return np.concatenate(features), np.concatenate(labels), stacked * (len(stacked) / stacked.sum())


def boost(
    features: Singles,
    labels: Bools,
    weights: Floats | None = None,
    *,
    seed: int,
    trees: int = 60,
    leaves: int = MOST_LEAVES,
    rate: float = 0.1,
    smallest: int = 30,
    share: float = 1.0,
    monotone: Sequence[int] | None = None,
) -> Forest:
    """Boosted trees for rows `[N, F]`, monotone in every feature unless said otherwise."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    boosting: Any = HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=rate,
        max_leaf_nodes=leaves,
        min_samples_leaf=smallest,
        l2_regularization=1.0,
        max_features=share,
        max_bins=BINS,
        early_stopping=False,
        monotonic_cst=[1] * features.shape[1] if monotone is None else list(monotone),
        random_state=seed,
    )
    # scikit-learn would cut them at the same places, but sorts a column anew for each cut: nine tenths of a fit
    cuts = np.quantile(features, np.linspace(0, 1, BINS + 1)[1:-1], axis=0, weights=weights, method="inverted_cdf")
    binned = np.stack([np.searchsorted(*one) for one in zip(cuts.T, features.T, strict=True)], axis=1)
    boosting.fit(binned, labels, sample_weight=weights)
    forest = from_boosting(boosting, features.shape[1])
    return replace(forest, threshold=cuts[forest.threshold.astype(np.int64), forest.feature])


@lru_cache(maxsize=256)
def zero_shot(runs: tuple[Run, ...], seed: int, names: tuple[str, ...] = LEAN) -> Forest:
    """The model that needs no examples, from these runs: the mean of two boostings, both monotone.

    Small trees on the named relations, taught with signals left out, say what is close to the reference; larger ones on
    all the named features, from the runs as they are, say how far away the rest is. Measured with DBSherlock's classes
    left out in turn, and trained on it for the lab's PostgreSQL: without the monotony the larger trees are better on
    the former and useless on the latter (docs/models/detection.md).
    """
    close = np.flatnonzero([name in CLOSE for name in names])
    features, labels, weights = rows(runs, seed)
    flat = boost(chosen(features, names)[:, close], labels, weights, seed=seed, trees=FLAT, leaves=4, rate=0.12)
    features, labels, weights = rows(runs, seed, changed=False)
    deep = boost(chosen(features, names), labels, weights, seed=seed, trees=DEEP, leaves=MOST_LEAVES, smallest=20)
    return mean_of(replace(flat, feature=close[flat.feature].astype(np.int16), width=len(names)), deep)


def mean_of(one: Forest, other: Forest) -> Forest:
    """The forest whose logits are the mean of those of two that look at the same features."""
    return Forest(
        feature=np.concatenate([one.feature, other.feature]),
        threshold=np.concatenate([one.threshold, other.threshold]),
        cleared=np.concatenate([one.cleared, other.cleared]),
        first=np.concatenate([one.first, other.first[1:] + one.first[-1]]).astype(np.int32),
        leaves=(np.concatenate([one.leaves, other.leaves]) / 2).astype(np.float32),
        base=(one.base + other.base) / 2,
        width=one.width,
    )


Learn = Callable[[tuple[Run, ...], int, tuple[str, ...]], Forest]

MOST_FOLDS: Final = 9
"""Times that the first step is fitted so that each class is scored by one that doesn't know it."""


def crossfit(
    runs: Sequence[Run], seed: int, names: tuple[str, ...] = LEAN, learn: Learn = zero_shot
) -> dict[str, Floats]:
    """For each run, by name, the logits `[T]` of a model that knows none of its class; `learn` makes one."""
    out = {}
    for fold in protocol.by_class(runs, MOST_FOLDS):
        forest = learn(tuple(fold.train), seed, names)
        for run in fold.test:
            out[run.name] = forest.logits(chosen(whole(run).features, names))
    return out


def calibrate(runs: Sequence[Run], logits: dict[str, Floats], beta: float = 1.0) -> tuple[Calibration, Thresholds]:
    """The calibration of cross-fitted logits, and the probabilities that separate best; `beta` as in `decide`."""
    kept = [~run.doubtful for run in runs]
    scores = [logits[run.name][keep] for run, keep in zip(runs, kept, strict=True)]
    return decide(scores, [run.labels[keep] for run, keep in zip(runs, kept, strict=True)], runs[0].interval, beta)


def decide(
    scores: Sequence[Floats], labels: Sequence[Bools], interval: float, beta: float = 1.0
) -> tuple[Calibration, Thresholds]:
    """Calibration, and thresholds of the probability, for the scores `[T]` of several runs; `beta` is for alarms."""
    calibration = fit(np.concatenate(list(scores)), np.concatenate(list(labels)))
    said = [calibration.probability(one) for one in scores]
    return calibration, protocol.thresholds(said, labels, interval, beta)
