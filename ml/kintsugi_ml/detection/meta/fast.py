"""MAML whose fast weights are those of a database's own signals.

A pooled description forgets which signals moved, so adapting what lies behind the pooling gains little (DETECTION.md).
Here each signal has a weight of its own, and the examples adapt it: `STEPS` gradient steps on the examples and the
reference. They start from the regression that the shipped detector uses; how each moves away from there, how fast it
learns and how much its signal counts in distances is a meta-learned function of the signal's *token*, what the support
says of it, so the same network serves any signals. A small head of three weighs the first step's logit and the log
ratio of distances beside them. Untrained and without a step it is `stack.blend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from kintsugi_ml.detection.meta.inner import Parameters, adapt
from kintsugi_ml.detection.meta.nets import Net, forward, layers
from kintsugi_ml.detection.meta.tasks import Batch
from kintsugi_ml.detection.stack import FIRST, NEARER

STEPS: Final = 5
TOKEN: Final = 10
HIDDEN: Final = 16
HEAD: Final = 3
"""The weights of the first step's logit and of the log ratio of distances, and an offset."""

STILL: Final = -1.0
"""Rates begin at softplus of this."""

_LEAST: Final = 0.05  # added to distances before their ratio, as in `own_space`
_FAR: Final = 1e6
_TINY: Final = 1e-6  # a root's slope is infinite at 0


@dataclass(frozen=True, slots=True, eq=False)
class Fast:
    """What is meta-learned: a network over signals' tokens, one over their mean, and the decay of the weights."""

    of_signal: Net
    of_head: Net
    decay: torch.Tensor

    def parameters(self) -> list[torch.Tensor]:
        """All of it."""
        return [*self.of_signal, *self.of_head, self.decay]


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A batch with all that doesn't change in the inner loop, and where that begins.

    `start` and `rates` are weights `[B, S]` and head `[B, 3]`; `near` `[B, N]` and `query_near` `[B, Q]` the log ratios
    of distances.
    """

    batch: Batch
    start: Parameters
    rates: Parameters
    near: torch.Tensor
    query_near: torch.Tensor


def begin(seed: int) -> Fast:
    """A network that has learned nothing: all but still, and so `stack.blend`."""
    random = np.random.default_rng(seed)
    of_signal = layers((TOKEN, HIDDEN, 3), random, last=0.0)
    of_head = layers((TOKEN, 8, 2 * HEAD), random, last=0.0)
    with torch.no_grad():
        of_signal[-1] += torch.tensor([0.0, STILL, 0.5])
        of_head[-1] += torch.tensor([0.0] * HEAD + [STILL - 2] * HEAD)
    return Fast(of_signal, of_head, torch.zeros((), requires_grad=True))


def tokens(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Each signal's token `[B, S, 10]`, and how far the anomalous examples are from what is normal `[B, S]`."""
    shares = [batch.weight * kind for kind in (1 - batch.truth, batch.truth)]
    means, spreads = [], []
    for share in shares:
        part = (share / share.sum(1, keepdim=True).clamp(min=1e-9))[..., None]
        mean = (part * batch.points).sum(1)
        means.append(mean)
        spreads.append((part * (batch.points - mean[:, None]) ** 2).sum(1))
    apart = means[1] - means[0]
    telling = torch.log1p(apart**2 / (spreads[0] + 0.1)) / 3
    width = batch.signals.sum(1, keepdim=True)
    own = [apart.abs() / 3, (spreads[0] + 1e-6).sqrt(), (spreads[1] + 1e-6).sqrt(), telling, means[0].abs()]
    of_all = [(one * batch.signals).sum(1, keepdim=True) / width for one in (own[0], own[1], own[3])]
    few = torch.log1p((batch.truth * (batch.weight > 0)).sum(1, keepdim=True)) / 3
    whole = [one.expand_as(apart) for one in (*of_all, few, torch.log(width) / 5)]
    return torch.stack([*own, *whole], dim=-1) * batch.signals[..., None], apart


def prepare(fast: Fast, batch: Batch) -> Ready:
    """Everything before the first step."""
    token, apart = tokens(batch)
    out = forward(fast.of_signal, token) * batch.signals[..., None]
    width = batch.signals.sum(1, keepdim=True)
    head = forward(fast.of_head, token.sum(1) / width)
    few = (batch.truth * (batch.weight > 0)).sum(1, keepdim=True).clamp(min=1)
    blend = torch.cat([FIRST / few.sqrt(), torch.full_like(few, NEARER), batch.offset], dim=1)
    metric = torch.nn.functional.softplus(out[..., 2]) * batch.signals
    metric = metric * width / metric.sum(1, keepdim=True).clamp(min=1e-6)
    return Ready(
        batch,
        [batch.regression * width.sqrt() + apart * out[..., 0], blend + head[:, :HEAD]],
        [torch.nn.functional.softplus(out[..., 1]) * batch.signals, torch.nn.functional.softplus(head[:, HEAD:])],
        nearness(batch, batch.points, metric, itself=True),
        nearness(batch, batch.query, metric, itself=False),
    )


def support_loss(fast: Fast, ready: Ready, found: Parameters) -> torch.Tensor:
    """What the inner loop descends: the balanced cross-entropy on the support, summed over the batch, and decay."""
    batch = ready.batch
    logits = _score(batch, batch.points, batch.logits, ready.near, found)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.truth, batch.weight, reduction="sum")
    decay = torch.nn.functional.softplus(fast.decay)
    return loss + 0.5 * decay * (found[0] ** 2 / batch.signals.sum(1, keepdim=True)).sum()


def scores(fast: Fast, batch: Batch, *, second_order: bool, steps: int = STEPS) -> torch.Tensor:
    """The queries' logits `[B, Q]` after the inner loop."""
    ready = prepare(fast, batch)
    found = adapt(
        lambda parameters: support_loss(fast, ready, parameters),
        ready.start,
        ready.rates,
        steps,
        second_order=second_order,
    )
    return _score(batch, batch.query, batch.query_logits, ready.query_near, found)


def _score(
    batch: Batch, points: torch.Tensor, logits: torch.Tensor, near: torch.Tensor, found: Parameters
) -> torch.Tensor:
    weights, head = found
    own = torch.einsum("bns,bs->bn", points, weights) / batch.signals.sum(1, keepdim=True).sqrt()
    return own + head[:, :1] * logits + head[:, 1:2] * near + head[:, 2:]


def nearness(batch: Batch, points: torch.Tensor, metric: torch.Tensor, *, itself: bool) -> torch.Tensor:
    """Log ratio of the distances from points `[B, P, S]` to the support's nearest normal and nearest anomalous sample.

    A sample of the support isn't compared with itself; where that leaves nothing to compare with, the ratio is 0.
    """
    scale = (metric + _TINY).sqrt()[:, None]
    apart = torch.cdist(points * scale, batch.points * scale) / batch.signals.sum(1)[:, None, None].sqrt()
    barred = (batch.weight == 0)[:, None].expand_as(apart)
    if itself:
        barred = barred | torch.eye(points.shape[1], dtype=torch.bool)
    to_normal, to_wrong = (
        apart.masked_fill(barred | other[:, None].bool(), _FAR).amin(2) for other in (batch.truth, 1 - batch.truth)
    )
    ratio = torch.log((to_normal + _LEAST) / (to_wrong + _LEAST))
    return torch.where((to_normal < _FAR) & (to_wrong < _FAR), ratio, torch.zeros_like(ratio))
