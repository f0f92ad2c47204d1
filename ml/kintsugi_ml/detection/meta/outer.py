"""The outer loop: many episodes of other classes, each with new examples, signals left out and a start moved."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.features import chosen
from kintsugi_ml.detection.meta import compared, fast
from kintsugi_ml.detection.meta.nets import descend, one_thread
from kintsugi_ml.detection.meta.tasks import Batch, Task, collate, draw
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.protocol import Run, by_class
from kintsugi_ml.detection.stack import Examples
from kintsugi_ml.detection.training import LEAST_REFERENCE, MOST_FOLDS, Seen, see, whole, zero_shot

BATCH: Final = 16
STEPS: Final = 200
RATE: Final = 3e-3

Scores = Callable[[Batch], torch.Tensor]
"""The queries' logits `[B, Q]` of a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A network that learns from tasks: how it begins, and how it scores."""

    name: str
    begin: Callable[[int], Any]
    scores: Callable[[Any, Batch], torch.Tensor]


KINDS: Final = (
    Kind("MAML, fast signal weights", fast.begin, lambda net, batch: fast.scores(net, batch, second_order=True)),
    Kind(
        "MAML, first order",
        fast.begin,
        lambda net, batch: fast.scores(net, batch, second_order=False),
    ),
    Kind("relation network", compared.begin, compared.scores),
)


def learn(kind: Kind, runs: Sequence[Run], seed: int, steps: int = STEPS) -> Any:
    """A network that has learned from these runs; the same arguments give the same one."""
    groups, logits = described(tuple(runs), seed)
    random = np.random.default_rng([seed, zlib.crc32(kind.name.encode())])
    net = kind.begin(seed)
    with one_thread():
        descend(
            net.parameters(),
            lambda: loss(kind, net, collate([draw(groups, logits, random) for _ in range(BATCH)])),
            steps,
            RATE,
        )
    return net


def loss(kind: Kind, net: Any, batch: Batch) -> torch.Tensor:
    """The cross-entropy of the queries, averaged over the episodes."""
    found = torch.nn.functional.binary_cross_entropy_with_logits(
        kind.scores(net, batch), batch.query_truth, batch.query_weight, reduction="sum"
    )
    return found / len(batch.points)


def apply(kind: Kind, net: Any, anchors: Singles, examples: Examples, points: Singles, logits: Floats) -> Floats:
    """Scores `[T]` of samples with points `[T, S]` and first-step logits `[T]`."""
    nothing = np.zeros(len(points))
    task = Task(anchors, examples, points, logits, nothing > 0, nothing)
    with one_thread():
        found: Floats = kind.scores(net, collate([task]))[0].detach().numpy().astype(np.float64)
    return found


@lru_cache(maxsize=8)
def described(runs: tuple[Run, ...], seed: int) -> tuple[list[list[Seen]], dict[int, Floats]]:
    """Per system and class its runs, as they are and with the start moved; by `id` their logits without that class."""
    groups: dict[str, list[Seen]] = {}
    logits: dict[int, Floats] = {}
    for fold in by_class(runs, MOST_FOLDS):
        forest = zero_shot(tuple(fold.train), seed)
        for run in fold.test:
            for seen in (whole(run), moved(run, seed)) if run.labels.any() else ():
                groups.setdefault(f"{run.system} {run.group}", []).append(seen)
                logits[id(seen)] = forest.logits(chosen(seen.features))
    return list(groups.values()), logits


@lru_cache(maxsize=1024)
def moved(run: Run, seed: int) -> Seen:
    """A run with a later start, and so another and shorter reference."""
    random = np.random.default_rng([seed, zlib.crc32(run.name.encode()), 1])
    return see(run, start=int(random.integers(0, max(run.reference - LEAST_REFERENCE, 0) + 1)))
