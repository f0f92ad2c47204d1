"""Past trouble in the metrics that an operator finds when it starts: it must not become part of what is normal.

While it runs, the operator keeps its own incidents out of the reference. After a restart it fills the reference from
Prometheus, and whatever went wrong meanwhile, or before it was installed, is in there; thresholds learned from it would
be blind to the same fault. Medians survive a minority of bad samples, so the bad ones can be found against them.
A database that does the same thing again and again is noisy, not ill: then everything stays in.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue, Role
from kintsugi.stages.baseline import THRESHOLD, baseline, worst

SIGNALS: Final = 2
"""Symptoms that must be out at once: a fault moves more than one thing."""

FAR: Final = 2 * THRESHOLD
"""Robust deviations beyond which a sample is suspect; the median of a contaminated window is a little off."""

SHORTEST: Final = 3
"""Suspect samples that make an episode; less is a spike that thresholds are meant to learn."""

DENSE: Final = 0.5
"""Of an episode's samples must be suspect; spikes now and then are no episode, however close they follow each other."""

BRIDGE: Final = 10.0
"""Seconds between suspect samples that still belong to one episode."""

AFTER: Final = 5.0
"""Seconds after the last suspect sample until everything that rates remember is over."""

EPISODES: Final = 3
"""More episodes than this are how the database is."""

SHARE: Final = 0.3
"""Of the window, at most: a median over more than that is no longer the healthy one."""


def past_episodes(frame: Frame, catalogue: Catalogue) -> tuple[tuple[float, float], ...]:
    """Start and end (Unix seconds) of what were probably incidents; empty when there were none, or too many."""
    normal = baseline(frame, catalogue)
    symptoms = np.array([signal.role is Role.SYMPTOM for signal in normal.signals], dtype=np.bool_)
    if not symptoms.any():
        return ()
    out = worst(np.nan_to_num(normal.deviations(frame), nan=0.0))[:, symptoms] > FAR
    suspect = frame.times[out.sum(axis=1) >= SIGNALS]
    if len(suspect) == 0:
        return ()
    gaps = np.flatnonzero(np.diff(suspect) > max(BRIDGE, 2 * frame.interval)) + 1
    runs = [run for run in np.split(suspect, gaps) if len(run) >= max(SHORTEST, DENSE * _span(frame, run))]
    if len(runs) > EPISODES or sum(_span(frame, run) for run in runs) > SHARE * len(frame):
        return ()
    return tuple((float(run[0]), float(run[-1]) + AFTER) for run in runs)


def _span(frame: Frame, run: Floats) -> int:
    """How many samples there are from the first to the last of `run`, which are times."""
    return int(((frame.times >= run[0]) & (frame.times <= run[-1])).sum())
