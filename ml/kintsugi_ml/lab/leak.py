"""Does one signal alone give a class away? And does it before anything was injected?

A signal's AUC is the probability that a run of the class shows more of it than another run does, .5 when it says
nothing. A difference up to the signal's floor is none: detection doesn't look at it either. Runs are compared only
within the same workload, level and server, so that an uneven plan looks like nothing (with null runs, which are few,
within the same workload).
A run is one number per signal and part, three ways: the mean, the peak, and the share of samples that are missing;
windows of the same run are no independent witnesses.

- normal part, AUC > .95 or < .05: a leak by preparation, to be mended. With four runs of a class, chance finds about
  one such signal in 15,000; with six, one in 500,000.
- fault part against all other faults, > .99 or < .01: to be judged by a person; `expected.EXPECTED` holds what was.
- fault part against null runs: not a leak; it says how easily the class is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi_ml.lab.expected import EXPECTED
from kintsugi_ml.lab.manifest import NULL, Entry

PREPARATION_AUC: Final = 0.95
GIVEAWAY_AUC: Final = 0.99
MIN_RUNS: Final = 4
"""A class with fewer runs is not judged: chance alone would find something."""
WAYS: Final = ("mean", "peak", "missing")

Where = Literal["normal", "fault"]


@dataclass(frozen=True, slots=True)
class Summary:
    """One run as numbers: `normal` and `fault` are `[3 S]`, for each of WAYS the S signals."""

    entry: Entry
    normal: Floats
    fault: Floats

    def stratum(self, fine: bool) -> tuple[str, ...]:
        """What else than its class sets a run apart; only its workload unless `fine`."""
        entry = self.entry
        return (entry.workload, entry.level, str(entry.server)) if fine else (entry.workload,)


@dataclass(frozen=True, slots=True)
class Finding:
    """A signal that tells a class from the others. `expected` is the sentence why it may; None asks for a person."""

    fault: str
    where: Where
    signal: str
    way: str
    auc: float
    runs: int
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `seen` is each class' best signal against null runs; `unjudged` classes have too few runs.

    `areas` are the AUCs `[3 S]` of each judged class against all others: normal part and fault part.
    """

    leaks: tuple[Finding, ...]
    giveaways: tuple[Finding, ...]
    seen: Mapping[str, Finding]
    unjudged: tuple[str, ...]
    areas: Mapping[str, tuple[Floats, Floats]]


def summary(entry: Entry, frame: Frame) -> Summary:
    """One run as numbers, from its metrics."""
    if entry.parts is None:
        raise ValueError(f"run {entry.id} has no parts ({entry.status}); only runs that count can be summed up")
    parts = entry.parts
    normal, fault = frame.between(parts.normal, parts.injected), frame.between(parts.injected, parts.remedied)
    return Summary(entry, _numbers(normal), _numbers(fault))


def auc(positive: Floats, negative: Floats, floor: Floats) -> tuple[Floats, Floats]:
    """Over all pairs of `[P, F]` and `[N, F]`: how many the positive wins, and how many there are.

    A tie is half; what differs by no more than `floor` `[F]` is one.
    """
    usable = ~np.isnan(positive)[:, None] & ~np.isnan(negative)[None]
    more = positive[:, None] - negative[None]
    above = (more > floor) + 0.5 * (np.abs(more) <= floor)
    wins: Floats = np.where(usable, above, 0.0).sum(axis=(0, 1))
    return wins, usable.sum(axis=(0, 1)).astype(np.float64)


def stratified_auc(
    positive: Sequence[Summary], negative: Sequence[Summary], where: Where, floor: Floats, *, fine: bool = True
) -> Floats:
    """AUC `[3 S]` over the pairs that share a stratum; NaN where there is no such pair."""
    totals: list[tuple[Floats, Floats]] = []
    for stratum in sorted({run.stratum(fine) for run in positive}):
        ours, theirs = (
            np.array([_part(run, where) for run in runs if run.stratum(fine) == stratum])
            for runs in (positive, negative)
        )
        if len(ours) and len(theirs):
            totals.append(auc(ours, theirs, floor))
    if not totals:
        return np.full(len(_part(positive[0], where)), np.nan)
    wins, pairs = np.sum([pair[0] for pair in totals], axis=0), np.sum([pair[1] for pair in totals], axis=0)
    areas: Floats = np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)
    return areas


def check(runs: Iterable[Summary], catalogue: Catalogue) -> Report:
    """Look at every class, null runs too; compound runs and runs that don't count stay out.

    The runs' signals are those of `catalogue`, in its order.
    """
    signals, floor = catalogue.names(), _floors(catalogue)
    single = [run for run in runs if run.entry.counts and run.entry.second is None]
    classes = sorted({run.entry.fault for run in single})
    nulls = [run for run in single if run.entry.fault == NULL]
    leaks: list[Finding] = []
    giveaways: list[Finding] = []
    seen: dict[str, Finding] = {}
    unjudged: list[str] = []
    areas: dict[str, tuple[Floats, Floats]] = {}
    for fault in classes:
        own = [run for run in single if run.entry.fault == fault]
        others = [run for run in single if run.entry.fault != fault]
        if len(own) < MIN_RUNS:
            unjudged.append(fault)
            continue
        faults = [run for run in others if run.entry.fault != NULL]
        before, after = (
            stratified_auc(own, others, "normal", floor),
            stratified_auc(own, faults, "fault", floor),
        )
        areas[fault] = (before, after)
        leaks += _found(fault, "normal", before, signals, PREPARATION_AUC, len(own))
        if fault == NULL:
            continue
        giveaways += _found(fault, "fault", after, signals, GIVEAWAY_AUC, len(own))
        against_null = stratified_auc(own, nulls, "fault", floor, fine=False)
        against_nulls = _found(fault, "fault", against_null, signals, 0.5, len(own))
        if against_nulls:
            effects = dict(zip(signals, _effects(own, nulls), strict=True))
            seen[fault] = max(against_nulls, key=lambda finding: (abs(finding.auc - 0.5), effects[finding.signal]))
    return Report(tuple(leaks), tuple(giveaways), seen, tuple(unjudged), areas)


def rows(report: Report, signals: Sequence[str]) -> Iterator[str]:
    """Every signal's AUC for every judged class, as lines of a CSV file; empty where nothing can be compared."""
    yield ",".join(["class", "signal", *(f"{where}_{way}" for where in ("normal", "fault") for way in WAYS)])
    for fault, parts in report.areas.items():
        by_signal = np.concatenate([part.reshape(len(WAYS), len(signals)) for part in parts]).T
        for signal, known in zip(signals, by_signal, strict=True):
            yield ",".join([fault, signal, *("" if np.isnan(area) else f"{area:.3f}" for area in known)])


def _found(fault: str, where: Where, areas: Floats, signals: Sequence[str], bound: float, runs: int) -> list[Finding]:
    """The signals beyond the bound on either side, each with its most telling way, most telling first."""
    by_way = areas.reshape(len(WAYS), len(signals))
    distance = np.nan_to_num(np.abs(by_way - 0.5))
    best = distance.argmax(axis=0)
    order = sorted(np.flatnonzero(distance.max(axis=0) > bound - 0.5), key=lambda index: -distance[best[index], index])
    why = EXPECTED.get(fault, {}) if where == "fault" else {}
    return [
        Finding(fault, where, signals[i], WAYS[best[i]], float(by_way[best[i], i]), runs, why.get(signals[i]))
        for i in map(int, order)
    ]


def _floors(catalogue: Catalogue) -> Floats:
    """What counts as no difference `[3 S]`: the signal's floor; of the share of samples that are missing, nothing."""
    floors = np.array([signal.floor for signal in catalogue])
    return np.concatenate([floors, floors, np.zeros(len(floors))])


def _effects(own: Sequence[Summary], nulls: Sequence[Summary]) -> Floats:
    """How far apart the means are, in the null runs' standard deviations `[S]`; decides between equal areas."""
    width = len(own[0].fault) // len(WAYS)
    ours, theirs = (np.array([run.fault[:width] for run in runs]) for runs in (own, nulls))
    distance = np.nan_to_num(np.abs(np.median(ours, axis=0) - np.median(theirs, axis=0)))
    spread = np.nan_to_num(theirs.std(axis=0))
    effects: Floats = np.divide(distance, spread, out=np.where(distance > 0, np.inf, 0.0), where=spread > 0)
    return effects


def _numbers(frame: Frame) -> Floats:
    missing = ~frame.mask
    values = np.where(frame.mask, frame.values, 0.0)
    measured = frame.mask.sum(axis=0)
    mean = np.divide(values.sum(axis=0), measured, out=np.full(len(measured), np.nan), where=measured > 0)
    peak = np.where(frame.mask, frame.values, -np.inf).max(axis=0, initial=-np.inf)
    share = missing.mean(axis=0) if len(frame) else np.full(len(measured), np.nan)
    return np.concatenate([mean, np.where(np.isfinite(peak), peak, np.nan), share])


def _part(run: Summary, where: Where) -> Floats:
    return run.normal if where == "normal" else run.fault
