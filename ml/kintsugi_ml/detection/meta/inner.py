"""A few steps of gradient descent that can themselves be differentiated, by `higher`; nothing else here knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import higher
import torch

Parameters = list[torch.Tensor]


def adapt(
    loss: Callable[[Parameters], torch.Tensor],
    start: Sequence[torch.Tensor],
    rates: Sequence[torch.Tensor],
    steps: int,
    *,
    second_order: bool,
) -> Parameters:
    """Parameters after `steps` steps down the loss, each element with a rate of its own.

    Gradients flow back to `start` and `rates`; with `second_order` through the steps' own gradients as well (MAML, Finn
    et al., ICML 2017), else these count as constants (first order).

    Args:
        loss: a scalar of the parameters. Batched episodes may be summed in it: each has parameters of its own.
        start: where to begin; must require gradients.
        rates: of the same shapes.
        steps: how many.
        second_order: whether the steps' gradients are differentiated.
    """
    places = [torch.nn.Parameter(torch.empty(one.shape)) for one in start]
    plain = torch.optim.SGD([{"params": [one]} for one in places], lr=1.0)
    descent = higher.optim.DifferentiableSGD(
        plain, places, override={"lr": list(rates)}, grad_callback=None if second_order else _constant
    )
    found = list(start)
    for _ in range(steps):
        found = list(descent.step(loss(found), params=found))
    return found


def _constant(gradients: Sequence[torch.Tensor]) -> Parameters:
    return [one.detach() for one in gradients]
