"""Episodes as tensors: what a database's examples and reference are, and what is to be scored.

B episodes, N support samples (the reference's, then the examples), Q queries, S signals; padded, with weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.meta.nets import tensor
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.own_space import remember
from kintsugi_ml.detection.protocol import Run, Source, support
from kintsugi_ml.detection.shots import NOISE, SPOILT
from kintsugi_ml.detection.stack import Examples
from kintsugi_ml.detection.training import LEAST_SIGNALS, Seen

SHOTS: Final = (1, 3, 5, 10)
QUERIES: Final = 48
MOST_ANCHORS: Final = 32
"""Of the reference's samples are used in an episode."""

QUIET: Final = -2.0
"""The first step's logit of the reference's samples: it has seen these, so what it says of them means nothing."""

WHOLE: Final = 0.4
"""Of the training episodes keep all signals; the others a random part of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One episode: the reference's points `[A, S]`, the examples, and queries: points `[Q, S]` and logits `[Q]`.

    `truth` `[Q]` and `weight` `[Q]` are for training only.
    """

    anchors: Singles
    examples: Examples
    points: Singles
    logits: Floats
    truth: Bools
    weight: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B episodes: support points `[B, N, S]`, logits, truth and weight `[B, N]`, the queries' likewise with Q.

    The weights of each class in a support sum to one half. `signals` `[B, S]` is 1 where there is one. `regression`
    `[B, S]` and `offset` `[B, 1]` are the logistic regression's of `own_space`.
    """

    points: torch.Tensor
    logits: torch.Tensor
    truth: torch.Tensor
    weight: torch.Tensor
    signals: torch.Tensor
    regression: torch.Tensor
    offset: torch.Tensor
    query: torch.Tensor
    query_logits: torch.Tensor
    query_truth: torch.Tensor
    query_weight: torch.Tensor


def collate(tasks: Sequence[Task]) -> Batch:
    """Pad episodes to the same sizes."""
    rows = [thin(task.anchors) for task in tasks]
    many = max(len(anchors) + len(task.examples) for anchors, task in zip(rows, tasks, strict=True))
    queries, width = max(len(task.points) for task in tasks), max(task.points.shape[1] for task in tasks)
    points, query = np.zeros((len(tasks), many, width)), np.zeros((len(tasks), queries, width))
    flat = {name: np.zeros((len(tasks), many)) for name in ("logits", "truth", "weight")}
    asked = {f"query_{name}": np.zeros((len(tasks), queries)) for name in ("logits", "truth", "weight")}
    signals, regression, offset = (
        np.zeros((len(tasks), width)),
        np.zeros((len(tasks), width)),
        np.zeros((len(tasks), 1)),
    )
    for at, (anchors, task) in enumerate(zip(rows, tasks, strict=True)):
        known, end, asking, wide = (
            len(anchors),
            len(anchors) + len(task.examples),
            len(task.points),
            task.points.shape[1],
        )
        points[at, :known, :wide], points[at, known:end, :wide] = anchors, task.examples.points
        flat["logits"][at, :known], flat["logits"][at, known:end] = QUIET, task.examples.logits
        flat["truth"][at, known:end] = task.examples.labels
        flat["weight"][at, :end] = balanced(np.concatenate([np.zeros(known, dtype=np.bool_), task.examples.labels]))
        memory = remember(anchors, task.examples.points, task.examples.labels)
        regression[at, :wide], offset[at] = memory.weights, memory.offset
        query[at, :asking, :wide], signals[at, :wide] = task.points, 1.0
        for name, values in (("logits", task.logits), ("truth", task.truth), ("weight", task.weight)):
            asked[f"query_{name}"][at, :asking] = values
    arrays = {"points": points, "signals": signals, "query": query, "regression": regression, "offset": offset}
    return Batch(**{name: tensor(values) for name, values in (arrays | flat | asked).items()})


def thin(anchors: Singles) -> Singles:
    """At most `MOST_ANCHORS` of the reference's points, evenly spaced."""
    if len(anchors) <= MOST_ANCHORS:
        return anchors
    return np.asarray(anchors[np.linspace(0, len(anchors) - 1, MOST_ANCHORS).round().astype(np.int64)])


def balanced(labels: Bools) -> Floats:
    """Weights `[N]` of which each class has one half."""
    many = np.maximum([np.count_nonzero(~labels), np.count_nonzero(labels)], 1)
    out: Floats = np.where(labels, 0.5 / many[1], 0.5 / many[0])
    return out


def draw(
    groups: Sequence[Sequence[Seen]], logits: Mapping[int, Floats], random: np.random.Generator, *, spoil: bool = True
) -> Task:
    """A training episode.

    Args:
        groups: for each class, its runs, described.
        logits: for each of these, by `id`, the first step's logits `[T]` from other classes.
        random: the choices.
        spoil: whether signals are left out and the first step's logits are made worse, as in `shots`.
    """
    group = groups[int(random.integers(len(groups)))]
    seen = group[int(random.integers(len(group)))]
    source: Source = "same" if random.random() < 0.5 else "other"
    donor = seen if source == "same" else group[int(random.integers(len(group)))]
    given = support(donor.run, int(random.choice(SHOTS)), random)
    free = ~seen.run.doubtful
    free[: seen.reference] = False
    if donor.run.name == seen.run.name:
        free[given.rows + len(seen.run.labels) - len(donor.run.labels)] = False
    asked = _asked(seen.run, free, random)
    task = Task(
        anchors=seen.anchors,
        examples=Examples(donor.points[given.rows], logits[id(donor)][given.rows], given.labels),
        points=seen.points[asked],
        logits=logits[id(seen)][asked],
        truth=seen.run.labels[asked],
        weight=np.full(len(asked), 1 / max(len(asked), 1)),
    )
    return _spoilt(task, random) if spoil else task


def _asked(run: Run, free: Bools, random: np.random.Generator) -> NDArray[np.int64]:
    """Queries, half of them anomalous where there are enough."""
    wrong, right = (random.permutation(np.flatnonzero(free & kind)) for kind in (run.labels, ~run.labels))
    half = wrong[: QUERIES // 2]
    return np.concatenate([half, right[: QUERIES - len(half)]])


def _spoilt(task: Task, random: np.random.Generator) -> Task:
    width = task.points.shape[1]
    kept = np.arange(width)
    if random.random() > WHOLE:
        many = int(np.exp(random.uniform(np.log(min(LEAST_SIGNALS, width)), np.log(width))).round())
        kept = np.sort(random.permutation(width)[:many])
    faith, off = (random.uniform(0, 1), random.normal(0, NOISE)) if random.random() < SPOILT else (1.0, 0.0)
    examples = Examples(task.examples.points[:, kept], task.examples.logits * faith + off, task.examples.labels)
    return replace(
        task,
        anchors=task.anchors[:, kept],
        examples=examples,
        points=task.points[:, kept],
        logits=task.logits * faith + off,
    )
