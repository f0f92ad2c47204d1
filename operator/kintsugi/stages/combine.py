"""How a database's own examples change what the statistics say: one rule."""

from __future__ import annotations

from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi.stages.baseline import second_of_three
from kintsugi.stages.evidence import EDGE

MOST: Final = 1e6
"""Odds are cut here: beyond it more says nothing."""


def combined(evidence: Floats, tamed: Floats, likeness: Floats, symptom: Floats) -> Floats:
    """Evidence per row `[T]`, 1 is the flagging threshold.

    1. **Statistics decide**, as long as a database has no examples. A model that has never seen the database does not:
       on the lab's runs it found what the statistics found, as a rule no sooner, and raised twice as many false alarms
       (docs/detection.md). Its probability is shown, and that is all.
    2. **An anomaly that is known here opens sooner**: with anomalous examples of this database, two of three samples
       that the model finds like them are enough, if a symptom has left its band as well. It is the model that weighs
       which signals tell; the symptom keeps it from alarming at what hurts nobody.
    3. **What is known to be normal silences**, unless the model finds it like a known anomaly. Only a label can do
       that; the model alone never silences: with examples of other faults only, it took real ones for normal
       (docs/decisions/0011-statistics-decide.md).

    Args:
        evidence: what the statistics say.
        tamed: the same less what a single normal example explains (`familiar.py`).
        likeness: `likeness` of the model's probabilities; 0 without anomalous examples.
        symptom: how many thresholds the worst symptom is out.
    """
    opens = np.minimum(likeness, symptom / EDGE)
    calm = np.where(likeness >= 1, evidence, tamed)
    return np.asarray(np.maximum(calm, opens), dtype=np.float64)


def likeness_of(probability: Floats, threshold: float, near: Bools) -> Floats:
    """What two of three samples reach, of the odds `[T]` over the threshold's odds; `near` as in `second_of_three`."""
    share = np.clip(np.nan_to_num(probability, nan=0.0), 0.0, 1.0)
    limit = min(max(threshold, 1 / MOST), 1 - 1 / MOST)
    odds = share / np.maximum(1 - share, 1 / MOST) / (limit / (1 - limit))
    return second_of_three(np.minimum(odds, MOST), near)
