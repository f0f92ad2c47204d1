"""Small networks as lists of tensors, so that their weights are arrays that numpy can use as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Net = list[torch.Tensor]
"""Weights `[in, out]` and offsets `[out]` of each layer, in turn."""


def layers(sizes: Sequence[int], random: np.random.Generator, *, last: float = 0.1) -> Net:
    """A network with these widths; the last layer begins at `last` of the usual size."""
    net: Net = []
    for index, (inner, outer) in enumerate(pairwise(sizes)):
        size = (last if index == len(sizes) - 2 else 1.0) / np.sqrt(inner)
        net += [tensor(random.normal(0, size, (inner, outer))), torch.zeros(outer)]
    return [one.requires_grad_() for one in net]


def forward(net: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Outputs `[…, out]` for inputs `[…, in]`; tanh between the layers."""
    for index in range(0, len(net), 2):
        inputs = inputs @ net[index] + net[index + 1]
        if index + 2 < len(net):
            inputs = torch.tanh(inputs)
    return inputs


def tensor(values: NDArray[Any]) -> torch.Tensor:
    """A float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def descend(
    parameters: Sequence[torch.Tensor], loss: Callable[[], torch.Tensor], steps: int, rate: float, *, decay: float = 0.0
) -> None:
    """Adam with a rate that falls to nothing along half a cosine, and gradients of at most norm 1."""
    optimiser = torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        falling.step()


@contextmanager
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads, and sums then depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
