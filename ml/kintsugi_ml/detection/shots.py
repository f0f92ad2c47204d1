"""Training the second step on episodes of other classes: each is a run with examples and a first-step score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.normal import Singles, measured
from kintsugi_ml.detection.protocol import Episode, Run, Source, Thresholds, episode
from kintsugi_ml.detection.stack import Examples, Own, blend, familiar_inputs
from kintsugi_ml.detection.training import boost, decide, whole
from kintsugi_ml.detection.trees import Forest

SHOTS: Final = (1, 3, 5, 10)

SPOILT: Final = 0.3
"""Of the training episodes have a first-step score that is made worse."""

NOISE: Final = 1.5
"""How far a spoilt score is off, in logits (standard deviation, the same for the whole episode)."""

TREES: Final = 60
LEAVES: Final = 8
SMALLEST: Final = 100


def examples_of(chosen: Episode, logits: Mapping[str, Floats]) -> Examples | None:
    """An episode's examples as points and logits; the donor's own reference says where its points lie."""
    if chosen.support is None:
        return None
    donor, rows = chosen.support.run, chosen.support.rows
    return Examples(whole(donor).points[rows], logits[donor.name][rows], chosen.support.labels)


Decided = tuple[Calibration, Thresholds]


def decide_labelled(runs: Sequence[Run], logits: Mapping[str, Floats], seed: int, beta: float) -> Decided:
    """Calibration and thresholds with anomalous examples, from runs and their cross-fitted logits by name."""
    scores, labels = [], []
    for chosen, examples in episodes(runs, logits, seed, ("same", "other")):
        seen = whole(chosen.run)
        own = Own.beside(seen.anchors, examples)
        blended = blend(logits[chosen.run.name], seen.points, own, chosen.run.interval, measured(chosen.run.values))
        kept = counting(chosen)
        scores.append(blended[kept])
        labels.append(chosen.run.labels[kept])
    return decide(scores, labels, runs[0].interval, beta)


def train_familiar(runs: Sequence[Run], logits: Mapping[str, Floats], seed: int, beta: float) -> tuple[Forest, Decided]:
    """The trees that know normal examples only, calibrated on the half of the classes that it didn't see."""
    random = np.random.default_rng(seed)
    folds = {group: index % 2 for index, group in enumerate(dict.fromkeys(run.group for run in runs))}
    rows, truth, half = [], [], []
    for chosen, examples in episodes(runs, logits, seed, ("normals",)):
        seen, first = whole(chosen.run), logits[chosen.run.name]
        if random.random() < SPOILT:
            faith, off = random.uniform(0, 1), random.normal(0, NOISE)
            first, examples = first * faith + off, replace(examples, logits=examples.logits * faith + off)
        kept = counting(chosen)
        rows.append(familiar_inputs(first, seen.points, Own.beside(seen.anchors, examples))[kept])
        truth.append(chosen.run.labels[kept])
        half.append(np.full(int(kept.sum()), folds[chosen.run.group]))
    inputs, labels, fold = np.concatenate(rows), np.concatenate(truth), np.concatenate(half)
    scores = np.empty(len(labels))
    for one in (0, 1):
        scores[fold == one] = _small(inputs[fold != one], labels[fold != one], seed).logits(inputs[fold == one])
    per_run = np.split(scores, np.cumsum([len(one) for one in truth])[:-1])
    return _small(inputs, labels, seed), decide(per_run, truth, runs[0].interval, beta)


def episodes(
    runs: Sequence[Run], logits: Mapping[str, Floats], seed: int, sources: Sequence[Source]
) -> Iterator[tuple[Episode, Examples]]:
    """Every run with every kind and number of examples."""
    for run in runs:
        for source in sources:
            for k in SHOTS:
                chosen = episode(run, source, k, seed, runs)
                examples = examples_of(chosen, logits)
                if examples is not None and len(examples) and (source == "normals" or examples.labels.any()):
                    yield chosen, examples


def counting(chosen: Episode) -> Bools:
    """Which samples `[T]` of an episode say how good a score is: not the reference's, and no doubtful one."""
    kept = chosen.scored & ~chosen.run.doubtful
    kept[: chosen.run.reference] = False
    return kept


def _small(inputs: Singles, labels: Bools, seed: int) -> Forest:
    return boost(inputs, labels, seed=seed, trees=TREES, leaves=LEAVES, smallest=SMALLEST, share=1.0)
