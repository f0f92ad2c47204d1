"""How a class' cascade usually goes: who moves when, over its runs. What the card tells and the pictures draw."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from kintsugi_ml.lab.manifest import NULL, Entry


@dataclass(frozen=True, slots=True)
class Lag:
    """A component in a class: its median onset (s since the injection) in the runs where it moved, and their share."""

    component: str
    seconds: float
    share: float


def by_class(runs: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The single runs that count of each class, faults before negatives, by name; null runs have none."""
    single = [run for run in runs if run.counts and run.second is None and run.fault != NULL]
    names = sorted({(run.negative, run.fault) for run in single})
    return {fault: [run for run in single if run.fault == fault] for _, fault in names}


def lags(runs: Sequence[Entry], least_share: float = 0.5) -> list[Lag]:
    """The components that moved in at least this share of the runs, first one first."""
    onsets: dict[str, list[float]] = {}
    for run in runs:
        for component, onset in run.movers():
            onsets.setdefault(component, []).append(onset)
    found = (Lag(component, median(known), len(known) / len(runs)) for component, known in onsets.items())
    return sorted((lag for lag in found if lag.share >= least_share), key=lambda lag: (lag.seconds, lag.component))


def first_movers(runs: Sequence[Entry]) -> list[tuple[str, int]]:
    """In how many of a class' runs each component moved first, most often first; of equals the root, then by name."""
    counts = Counter(component for run in runs for component in run.first_movers())
    return sorted(counts.items(), key=lambda one: (-one[1], one[0] != runs[0].root, one[0]))


def typical(runs: Sequence[Entry]) -> Entry:
    """The run whose onsets are closest to the medians of its class; a healed one if that makes no difference."""
    usual = {lag.component: lag.seconds for lag in lags(runs)}
    return min(runs, key=lambda run: (_distance(run, usual), not (run.remedy and run.remedy.right), run.id))


def _distance(run: Entry, usual: dict[str, float]) -> float:
    """Mean difference of log onsets; a component that moved in only one of the two counts as a factor of ten."""
    own = dict(run.movers())
    every = sorted(own.keys() | usual.keys())
    differences = [
        abs(math.log1p(own[name]) - math.log1p(usual[name])) if name in own and name in usual else math.log(10)
        for name in every
    ]
    return round(sum(differences) / len(differences), 3) if differences else 0.0
