"""How strongly the newest samples speak for an anomaly: one number per row, 1 is the flagging threshold.

- **Symptoms** open incidents; the worst one counts.
- A fault moves more than one thing, noise does not. So a symptom beyond its threshold flags when something else
  **corroborates** it: a second signal (symptom or cause) out of its band, or the residual of all the others. A lone
  one has to be twice as far out.
- Two of the newest three samples have to agree. A single sample counts when two signals at once are overwhelming.
- **Causes** therefore support and open nothing; **context** (the workload itself) is only part of the residual.

Thresholds come from the reference, so replaying it stays below 1. Hiding any sample can only lower the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.domain.signals import Catalogue, Role
from kintsugi.stages.baseline import THRESHOLD, Baseline, baseline, cells, neighbours, second_of_three, worst
from kintsugi.stages.residual import Plane, plane

EDGE: Final = 0.6
"""A signal leaves its band where it passes this share of its threshold; the reference itself stays below 2/3."""

LONE: Final = 2.0
"""How many thresholds a symptom must be out when nothing corroborates it."""

DOWN: Final = 4.0
"""The ratio of a server that does not answer."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything learned from one reference; `symptoms` and `causes` mark the roles of the baseline's signals."""

    normal: Baseline
    plane: Plane | None
    symptoms: Bools
    causes: Bools


@dataclass(frozen=True, slots=True)
class Rows:
    """The recent samples judged: `[T, S]` per signal, `[T]` per row.

    `deviation` is NaN where missing; `ratio` is the deviation over its threshold, sample by sample; `held` is what two
    of three samples reach, or one that is overwhelming; `evidence` decides. `tamed` is the evidence less what was
    allowed: the same where nothing was.
    """

    times: Floats
    values: Floats
    deviation: Floats
    ratio: Floats
    held: Floats
    evidence: Floats
    tamed: Floats


def learn(reference: Frame, catalogue: Catalogue, alive: str) -> Model:
    """Fit everything that judging needs to a fault-free reference; `alive` names the signal that says "up"."""
    normal = baseline(reference, catalogue)
    if alive in normal.names():
        normal = _up_or_down(normal, normal.names().index(alive))
    roles = np.array([signal.role.value for signal in normal.signals], dtype=np.str_)
    symptoms, causes = roles == Role.SYMPTOM.value, roles == Role.CAUSE.value
    return Model(normal, plane(_standardised(normal, reference)), symptoms, causes)


def judge(model: Model, recent: Frame, allowed: Sequence[Floats] = ()) -> Rows:
    """Judge every row of the recent samples `[T, S]`.

    Each of `allowed` `[S]` says how many thresholds every signal may be out at most, 1 or more; what stays within
    one of them is no evidence in `tamed`.
    """
    normal, near = model.normal, neighbours(recent)
    deviation = normal.deviations(recent)
    harm = worst(deviation)
    sustained, single = second_of_three(harm, near) / normal.threshold, harm / normal.single
    standardised = _standardised(normal, recent)

    def weighed(times: Floats | float) -> Floats:
        held = _sustained(model, sustained / times, standardised, near)
        return np.asarray(np.maximum(held, _sudden(model, single / times)), dtype=np.float64)

    evidence = weighed(1.0)
    tamed = np.minimum.reduce([evidence, *(weighed(times) for times in allowed)])
    held = np.maximum(sustained, single)
    values = cells(recent, normal.names())
    return Rows(recent.times, values, deviation, harm / normal.threshold, held, evidence, tamed)


def _sudden(model: Model, single: Floats) -> Floats:
    """Evidence of one sample alone: an overwhelming symptom, and a second signal as overwhelming as itself."""
    symptom = _highest(single[:, model.symptoms])
    return np.asarray(np.minimum(symptom, _second(single[:, model.symptoms | model.causes])), dtype=np.float64)


def _sustained(model: Model, held: Floats, standardised: Floats, near: Bools) -> Floats:
    symptom = _highest(held[:, model.symptoms])
    second = _second(held[:, model.symptoms | model.causes]) / EDGE
    for row in np.flatnonzero((symptom >= 1) & (second < 1)):
        worst_one = int(np.argmax(np.where(model.symptoms, held[row], -1.0)))
        second[row] = max(second[row], _residual_without(model, worst_one, standardised, near, int(row)))
    combined: Floats = np.maximum(symptom / LONE, np.minimum(symptom, second))
    return combined


def score(ratio: float) -> float:
    """A ratio as a score from 0 to 1; at the threshold it is 0.5."""
    return ratio / (1 + ratio)


def _up_or_down(normal: Baseline, index: int) -> Baseline:
    """A signal that is 1 or 0 needs no statistics: down is `DOWN` thresholds out, but never by one sample alone."""
    arrays = (normal.median, normal.scale, normal.threshold, normal.single)
    values = (1.0, 1 / (DOWN * THRESHOLD), THRESHOLD, np.inf)
    for array, value in zip(arrays, values, strict=True):
        array[index] = value
    return normal


def _standardised(normal: Baseline, frame: Frame) -> Floats:
    standardised: Floats = (cells(frame, normal.names()) - normal.median) / normal.scale
    return standardised


def _residual_without(model: Model, signal: int, standardised: Floats, near: Bools, row: int) -> float:
    """How strange the other signals are: the residual of this row and the two before with `signal` hidden."""
    if model.plane is None:
        return 0.0
    first = max(row - 2, 0)
    rows = standardised[first : row + 1].copy()
    rows[:, signal] = np.nan
    return float(second_of_three(model.plane.ratio(rows), near[first : row + 1])[-1])


def _highest(ratios: Floats) -> Floats:
    """The highest of each row `[T, K]`."""
    return np.asarray(ratios.max(axis=1, initial=0.0), dtype=np.float64)


def _second(ratios: Floats) -> Floats:
    """The second highest of each row `[T, K]`."""
    if ratios.shape[1] < 2:
        return np.zeros(len(ratios))
    return np.partition(ratios, -2, axis=1)[:, -2]
