"""Effect: what an action did, as a vector of objectives measured on the database itself; never one number.

Per signal: how much of its deviation from normal went, of what it was before and after, whichever is larger. What
deviates by less than a threshold counts as much less. The signal that was furthest out speaks for its objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from kintsugi.domain.frame import Frame
from kintsugi.domain.signals import Catalogue, Hurts, Role, Signal
from kintsugi.stages.baseline import THRESHOLD, baseline, median, worst

OBJECTIVES: Final = ("latency", "throughput", "resources", "consistency")

SETTLED: Final = 5
"""Samples whose median stands for before and for after an action."""

NOTHING_MEASURED: Final[Mapping[str, float | None]] = dict.fromkeys(OBJECTIVES)


def effect(before: Frame, after: Frame, normal: Frame, catalogue: Catalogue) -> dict[str, float | None]:
    """What happened to each objective from `before` to `after` (the newest samples of each count).

    Returns:
        Per objective -1 (from normal to far out) to 1 (back to normal); None where nothing was measured both times.
    """
    learned = baseline(normal, catalogue)
    then, now = (median(learned.deviations(frame)[-SETTLED:]) for frame in (before, after))
    known = ~np.isnan(then) & ~np.isnan(now)
    then, now = worst(then), worst(now)
    result: dict[str, float | None] = dict(NOTHING_MEASURED)
    furthest = dict.fromkeys(OBJECTIVES, -1.0)
    for index in np.flatnonzero(known):
        objective, most = _objective(learned.signals[index]), float(max(then[index], now[index]))
        if objective and most > furthest[objective]:
            furthest[objective] = most
            result[objective] = round(float(then[index] - now[index]) / max(most, THRESHOLD), 3)
    return result


def _objective(signal: Signal) -> str:
    """What a signal says something about; nothing where it could be several things."""
    if signal.component == "replication":
        return "consistency"
    if signal.component.startswith("host-"):
        return "resources"
    if signal.role is Role.CONTEXT and signal.hurts is Hurts.DOWN:
        return "throughput"
    return "latency" if signal.role is Role.SYMPTOM and signal.unit == "s" else ""
