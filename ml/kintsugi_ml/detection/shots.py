"""Training the second step: episodes of other classes, of which each is a run with examples and a first-step score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.calibrate import fit
from kintsugi_ml.detection.metrics import best_threshold
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.protocol import Episode, Run, Source, episode
from kintsugi_ml.detection.stack import RISING, Examples, Step, familiar_inputs, labelled_inputs
from kintsugi_ml.detection.training import boost, whole
from kintsugi_ml.detection.trees import Forest

SHOTS: Final = (1, 3, 5, 10)

SPOILT: Final = 0.3
"""Of the training episodes have a first-step score that is made worse."""

NOISE: Final = 1.5
"""How far a spoilt score is off, in logits (standard deviation, the same for the whole episode)."""

TREES: Final = 60
LEAVES: Final = 8
SMALLEST: Final = 100

LABELLED_SOURCES: Final[tuple[Source, ...]] = ("same", "other")


def examples_of(chosen: Episode, logits: Mapping[str, Floats]) -> Examples | None:
    """An episode's examples as points and logits; the donor's own reference says where its points lie."""
    if chosen.support is None:
        return None
    donor, rows = chosen.support.run, chosen.support.rows
    return Examples(whole(donor).points[rows], logits[donor.name][rows], chosen.support.labels)


def train_labelled(runs: Sequence[Run], logits: Mapping[str, Floats], seed: int) -> Step:
    """The step that knows anomalous and normal examples, from runs and their cross-fitted logits by name."""
    return _train(runs, logits, seed, LABELLED_SOURCES)


def train_familiar(runs: Sequence[Run], logits: Mapping[str, Floats], seed: int) -> Step:
    """The step that knows normal examples only."""
    return _train(runs, logits, seed, ("normals",))


def _train(runs: Sequence[Run], logits: Mapping[str, Floats], seed: int, sources: Sequence[Source]) -> Step:
    """Fit on one half of each class's runs and calibrate on the other, then fit on all of them."""
    inputs, labels, fold = _rows(runs, logits, seed, sources)
    rising = list(RISING) if "normals" not in sources else [1] * inputs.shape[1]
    scores = np.empty(len(labels))
    for half in (0, 1):
        learned = _small(inputs[fold != half], labels[fold != half], seed, rising)
        scores[fold == half] = learned.logits(inputs[fold == half])
    calibration = fit(scores, labels)
    forest = _small(inputs, labels, seed, rising)
    return Step(forest, calibration, best_threshold(calibration.probability(scores), labels))


def _small(inputs: Singles, labels: Bools, seed: int, rising: Sequence[int]) -> Forest:
    return boost(inputs, labels, seed=seed, trees=TREES, leaves=LEAVES, smallest=SMALLEST, share=1.0, monotone=rising)


def _rows(
    runs: Sequence[Run], logits: Mapping[str, Floats], seed: int, sources: Sequence[Source]
) -> tuple[Singles, Bools, Floats]:
    """Inputs `[N, F]`, labels and folds `[N]` (by class) of every run with every kind and number of examples."""
    random = np.random.default_rng(seed)
    folds = {group: index % 2 for index, group in enumerate(dict.fromkeys(run.group for run in runs))}
    inputs, labels, fold = [], [], []
    for run in runs:
        siblings = [one for one in runs if one.group == run.group]
        for source in sources:
            for k in SHOTS:
                found = _episode(episode(run, source, k, seed, siblings), logits, random)
                if found is not None:
                    inputs.append(found[0])
                    labels.append(found[1])
                    fold.append(np.full(len(found[1]), folds[run.group]))
    return np.concatenate(inputs), np.concatenate(labels), np.concatenate(fold)


def _episode(
    chosen: Episode, logits: Mapping[str, Floats], random: np.random.Generator
) -> tuple[Singles, Bools] | None:
    examples = examples_of(chosen, logits)
    if examples is None or not len(examples):
        return None
    seen, own = whole(chosen.run), logits[chosen.run.name]
    if random.random() < SPOILT:
        faith, off = random.uniform(0, 1), random.normal(0, NOISE)
        own = own * faith + off
        examples = Examples(examples.points, examples.logits * faith + off, examples.labels)
    kept = chosen.scored & ~chosen.run.doubtful
    kept[: chosen.run.reference] = False
    make = labelled_inputs if examples.labels.any() else familiar_inputs
    return make(own[kept], seen.points[kept], seen.anchors, examples), chosen.run.labels[kept]
