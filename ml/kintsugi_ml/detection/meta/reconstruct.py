"""An LSTM autoencoder (Malhotra et al., 2016), fitted to each run's reference: what it can't rebuild is not normal."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.baselines.classical import CLIP
from kintsugi_ml.detection.baselines.common import Unlearned, standardised
from kintsugi_ml.detection.meta.nets import descend, one_thread, tensor
from kintsugi_ml.detection.protocol import Run

WINDOW_S: Final = 5.0
HIDDEN: Final = 16
STEPS: Final = 80
RATE: Final = 1e-2


@lru_cache(maxsize=512)
def rebuilt(run: Run) -> Floats:
    """The root mean square error `[T]` of each newest sample, rebuilt from the code of its window."""
    width = max(2, round(WINDOW_S / run.interval))
    values = np.clip(standardised(run), -CLIP, CLIP) / CLIP
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, ((width - 1, 0), (0, 0)), "edge"), width, axis=0)
    every = tensor(windows.transpose(0, 2, 1))  # [T, W, S]
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = _parts(every.shape[2])
        weights = [weight for part in parts for weight in part.parameters()]
        known = every[width - 1 : max(run.reference, width)]
        descend(weights, lambda: ((_rebuild(parts, known) - known) ** 2).mean(), STEPS, RATE)
        with torch.no_grad():
            apart = (_rebuild(parts, every)[:, -1] - every[:, -1]).numpy()
    error: Floats = np.sqrt((apart.astype(np.float64) ** 2).mean(axis=1))
    return error


def _parts(width: int) -> tuple[Any, Any, Any]:
    """Reader, writer, and from the writer's state to the signals."""
    return (
        torch.nn.LSTM(width, HIDDEN, batch_first=True),
        torch.nn.LSTM(HIDDEN, HIDDEN, batch_first=True),
        torch.nn.Linear(HIDDEN, width),
    )


def _rebuild(parts: tuple[Any, Any, Any], windows: torch.Tensor) -> torch.Tensor:
    reader, writer, out = parts
    _, (code, _) = reader(windows)
    told, _ = writer(code[-1][:, None].expand(-1, windows.shape[1], -1))
    return out(told)


METHOD: Final = Unlearned("LSTM autoencoder", rebuilt)
