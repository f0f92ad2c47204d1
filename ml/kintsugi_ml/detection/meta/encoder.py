"""What pools first and adapts afterwards: pre-training with fine-tuning, ProtoNet and ANIL on one and the same encoder.

Their input is the row of pooled features that the first step sees, so they know no signal apart. E is the encoding's
width, F the number of features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.features import FEATURES
from kintsugi_ml.detection.meta.inner import adapt
from kintsugi_ml.detection.meta.nets import Net, descend, forward, layers, tensor
from kintsugi_ml.detection.meta.tasks import QUERIES, SHOTS, balanced
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.protocol import Run, support
from kintsugi_ml.detection.training import Seen, copies, rows

WIDTH: Final = 32
ENCODED: Final = 16
PRETRAINING: Final = 600
EPISODES: Final = 400
TUNING: Final = 30
INNER: Final = 5
BATCH: Final = 8
ROWS: Final = 512

_RATE: Final = 3e-3
_DECAY: Final = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Features `[…, F]` to encodings `[…, E]`; `centre` and `scale` `[F]` are those of the training rows."""

    centre: torch.Tensor
    scale: torch.Tensor
    net: Net

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Encode."""
        return forward(self.net, (features - self.centre) / self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Headed:
    """An encoder and a linear head: weights `[E]` and offset, `[E + 1]` together. `rates` `[E + 1]` are ANIL's."""

    encoder: Encoder
    head: torch.Tensor
    rates: torch.Tensor

    def logits(self, features: Singles) -> Floats:
        """Scores `[N]` without any example."""
        return _numbers(_linear(self.encoder(tensor(features)), self.head))


@dataclass(frozen=True, slots=True, eq=False)
class Shots:
    """Examples as features `[K, F]` and labels `[K]`, some of each kind."""

    features: Singles
    labels: Bools


_HeadFor = Callable[[Shots], torch.Tensor]


def begin(runs: Sequence[Run], seed: int) -> tuple[Headed, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An encoder with a head that has learned nothing, and the training rows: features, labels, weights."""
    features, labels, weights = rows(runs, seed, slow=False)
    random = np.random.default_rng(seed)
    net = layers((len(FEATURES), WIDTH, ENCODED), random, last=1.0)
    encoder = Encoder(tensor(features.mean(axis=0)), tensor(features.std(axis=0) + 1e-3), net)
    head = tensor(random.normal(0, 0.1, ENCODED + 1)).requires_grad_()
    rates = torch.full((ENCODED + 1,), -1.0).requires_grad_()
    return Headed(encoder, head, rates), tensor(features), tensor(labels), tensor(weights)


def pretrain(runs: Sequence[Run], seed: int, steps: int = PRETRAINING) -> Headed:
    """Encoder and head on all samples of these runs, whatever their class."""
    found, features, labels, weights = begin(runs, seed)
    random = np.random.default_rng([seed, 1])

    def loss() -> torch.Tensor:
        some = torch.from_numpy(random.integers(len(features), size=ROWS))
        logits = _linear(found.encoder(features[some]), found.head)
        return binary_cross_entropy_with_logits(logits, labels[some], weights[some])

    descend([*found.encoder.net, found.head], loss, steps, _RATE, decay=_DECAY)
    return found


def tuned(found: Headed, shots: Shots, features: Singles, steps: int = TUNING) -> Floats:
    """Scores `[N]` after every weight was fitted further to the examples."""
    net = [one.detach().clone().requires_grad_() for one in found.encoder.net]
    head = found.head.detach().clone().requires_grad_()
    encoder = Encoder(found.encoder.centre, found.encoder.scale, net)
    given, truth, weight = tensor(shots.features), tensor(shots.labels), tensor(balanced(shots.labels))

    def loss() -> torch.Tensor:
        return binary_cross_entropy_with_logits(_linear(encoder(given), head), truth, weight, reduction="sum")

    descend([*net, head], loss, steps, _RATE)
    return _numbers(_linear(encoder(tensor(features)), head))


def anil(runs: Sequence[Run], seed: int, steps: int = EPISODES) -> Headed:
    """ANIL (Raghu et al., ICLR 2020): only the head adapts; the encoder, where it starts and its rates are learned."""
    found, *_ = begin(runs, seed)
    _episodes(found, runs, seed, steps, lambda shots: _adapted(found, shots))
    return found


def adapted(found: Headed, shots: Shots, features: Singles) -> Floats:
    """ANIL's scores `[N]`."""
    return _numbers(_linear(found.encoder(tensor(features)), _adapted(found, shots)))


def prototypes(runs: Sequence[Run], seed: int, steps: int = EPISODES) -> Headed:
    """ProtoNet (Snell et al., NeurIPS 2017): an encoder in which classes gather around their means."""
    found, *_ = begin(runs, seed)
    _episodes(found, runs, seed, steps, lambda shots: _between(found, shots))
    return found


def nearer(found: Headed, shots: Shots, features: Singles) -> Floats:
    """ProtoNet's scores `[N]`: how much nearer the anomalous examples' mean is than the normal ones'."""
    return _numbers(_linear(found.encoder(tensor(features)), _between(found, shots)))


def _episodes(found: Headed, runs: Sequence[Run], seed: int, steps: int, head_for: _HeadFor) -> None:
    random = np.random.default_rng([seed, 2])
    seen = [[one for run in group for one in copies(run, seed)] for group in tasks(runs)]

    def loss() -> torch.Tensor:
        total = torch.zeros(())
        for _ in range(BATCH):
            shots, asked, truth = _draw(seen, random)
            logits = _linear(found.encoder(tensor(asked)), head_for(shots))
            total = total + binary_cross_entropy_with_logits(logits, tensor(truth))
        return total / BATCH

    descend([*found.encoder.net, found.head, found.rates], loss, steps, _RATE, decay=_DECAY)


def tasks(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in which something is wrong, by system and class: of what one learns, the others are examples."""
    known: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.labels.any():
            known.setdefault((run.system, run.group), []).append(run)
    return list(known.values())


def _draw(groups: Sequence[Sequence[Seen]], random: np.random.Generator) -> tuple[Shots, Singles, Bools]:
    group = groups[int(random.integers(len(groups)))]
    seen, donor = (group[int(random.integers(len(group)))] for _ in range(2))
    given = support(donor.run, int(random.choice(SHOTS)), random)
    free = np.flatnonzero(~seen.run.doubtful & (np.arange(len(seen.features)) >= seen.reference))
    asked = random.permutation(free)[:QUERIES]
    return Shots(donor.features[given.rows], given.labels), seen.features[asked], seen.run.labels[asked]


def _adapted(found: Headed, shots: Shots) -> torch.Tensor:
    encoded, truth = found.encoder(tensor(shots.features)), tensor(shots.labels)
    weight = tensor(balanced(shots.labels))
    rates = torch.nn.functional.softplus(found.rates)
    (head,) = adapt(
        lambda found: binary_cross_entropy_with_logits(_linear(encoded, found[0]), truth, weight, reduction="sum"),
        [found.head],
        [rates],
        INNER,
        second_order=True,
    )
    return head


def _between(found: Headed, shots: Shots) -> torch.Tensor:
    """The linear head that is the difference of squared distances; normality itself stands in for normal examples."""
    kinds = [shots.features[shots.labels], shots.features[~shots.labels]]
    calm = np.zeros((1, len(FEATURES)), dtype=np.float32)
    wrong, normal = (found.encoder(tensor(one if len(one) else calm)).mean(0) for one in kinds)
    return torch.cat([2 * (wrong - normal), ((normal**2).sum() - (wrong**2).sum())[None]])


def _linear(encoded: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return encoded @ head[:-1] + head[-1]


def _numbers(values: torch.Tensor) -> Floats:
    found: Floats = values.detach().numpy().astype(np.float64)
    return found
