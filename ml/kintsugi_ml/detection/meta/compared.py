"""A relation network (Sung et al., CVPR 2018) over signals: each signal of a sample against the same in the examples.

Nothing adapts by gradient. Every signal's relation goes through one small network, their mean through another; so it is
as indifferent to the signals' number and order as `fast`, whose input it shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from kintsugi_ml.detection.meta.fast import TOKEN, nearness, tokens
from kintsugi_ml.detection.meta.nets import Net, forward, layers
from kintsugi_ml.detection.meta.tasks import Batch

WIDTH: Final = 12
_RELATION: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A network for a signal's relation; one for a sample's: their mean, the first step's logit and the nearness."""

    of_signal: Net
    of_sample: Net

    def parameters(self) -> list[torch.Tensor]:
        """All of it."""
        return [*self.of_signal, *self.of_sample]


def begin(seed: int) -> Compared:
    """A network that has learned nothing; it starts as a plain sum of logit and nearness."""
    random = np.random.default_rng(seed)
    return Compared(layers((TOKEN + _RELATION, WIDTH, WIDTH), random, last=1.0), layers((WIDTH + 2, WIDTH, 1), random))


def scores(net: Compared, batch: Batch) -> torch.Tensor:
    """The queries' logits `[B, Q]`."""
    token, apart = tokens(batch)
    towards = torch.sign(apart)[:, None] * batch.query / 3
    size = (apart.abs() / 3)[:, None].expand_as(towards)
    relation = torch.stack([towards, (towards - size).abs(), towards * size, batch.query.abs() / 3], dim=-1)
    joined = torch.cat([relation, token[:, None].expand(-1, batch.query.shape[1], -1, -1)], dim=-1)
    found = torch.tanh(forward(net.of_signal, joined)) * batch.signals[:, None, :, None]
    pooled = found.sum(2) / batch.signals.sum(1)[:, None, None]
    near = nearness(batch, batch.query, batch.signals, itself=False)
    plain = 0.5 * batch.query_logits + 0.7 * near
    inputs = torch.cat([pooled, batch.query_logits[..., None] / 3, near[..., None]], dim=-1)
    return plain + forward(net.of_sample, inputs)[..., 0]
