"""What a person called normal, or an outcome showed to be harmless: how far each signal went then.

A label on a backup must have an effect, and one that whoever is on call can follow: **evidence is silenced while no
signal is further out than 1.5 times what it reached in one single such example**, in its own unit: how far that is in
scales and thresholds depends on the reference of the day. Two examples are never put together, and a server that is
down is never familiar.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi.stages.baseline import MARGIN
from kintsugi.stages.evidence import Model, judge, learn


def reached(reference: Frame, window: Frame, catalogue: Catalogue, alive: str) -> Mapping[str, float]:
    """How far out each signal was in `window` `[T, S]` in its own unit, judged by the reference `[R, S]` of that time.

    Only those that went where it hurts are named. `alive` says whether the server answers; it never gets an allowance.
    """
    model = learn(reference, catalogue, alive)
    if len(window) == 0 or not model.normal.signals:
        return {}
    normal = model.normal
    furthest = judge(model, window).held.max(axis=0) * normal.threshold * normal.scale
    return {name: float(far) for name, far in zip(normal.names(), furthest, strict=True) if far > 0 and name != alive}


def allowed(model: Model, far: Mapping[str, float]) -> Floats:
    """How many thresholds out each signal `[S]` of a model may be now: 1 where the example says nothing."""
    normal = model.normal
    out = np.array([far.get(name, 0.0) for name in normal.names()], dtype=np.float64)
    return np.asarray(np.maximum(1.0, MARGIN * out / (normal.threshold * normal.scale)), dtype=np.float64)
