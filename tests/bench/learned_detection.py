"""What the learned model and a database's own examples change on the lab's runs: the tables of docs/detection.md.

    OPENBLAS_NUM_THREADS=1 .venv/bin/python tests/bench/learned_detection.py [--all] [--weaken 0.05] [--reference 10]

Every run is replayed second by second through the operator's own detector, all runs of one second in one call. The
reference is the run's own normal part, about 30 samples, and never grows. Runs that the shipped model has learned from
(the split `train`) are left out unless asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kintsugi.domain.experience import Example, LabelKind, Source
from kintsugi.domain.frame import Bools, Floats, Frame
from kintsugi.shell import models
from kintsugi.stages.learned import LearnedDetector
from kintsugi.stages.ports import DetectorState, Observed
from kintsugi_ml.lab import dataset, manifest
from kintsugi_ml.lab.manifest import NOTHING, Entry
from kintsugi_ml.lab.signals import recorded

CATALOGUE = recorded()
RECENT = 60
LABELLED_S = 10.0
"""Seconds of a run that a person labels; what follows is judged."""
CLOSE_AFTER = 5

Examples = Callable[["Case"], Sequence[Example]]


@dataclass(frozen=True)
class Case:
    """One run: seconds count from the injection; `effect` is when the client or the root component left its band."""

    entry: Entry
    reference: Frame
    frame: Frame
    effect: float

    @property
    def negative(self) -> bool:
        return self.entry.negative

    @property
    def times(self) -> Floats:
        return self.frame.times - float(self.entry.injected_at or 0)

    @property
    def lifted(self) -> float:
        return float(self.entry.lifted_at or 0) - float(self.entry.injected_at or 0)

    @property
    def harmless_until(self) -> float:
        """A remedy that nobody needed may do harm itself: what follows one is not judged in a harmless run."""
        entry = self.entry
        if not self.negative or entry.parts is None or entry.remedy is None or entry.remedy.action == NOTHING:
            return float("inf")
        return float(entry.parts.remedied - entry.parts.injected)

    def part(self, start: float, end: float) -> Frame:
        zero = float(self.entry.injected_at or 0)
        return self.frame.between(zero + start, zero + end)

    def example(self, start: float, end: float) -> Example:
        """The run's samples in an interval, as a person would label them."""
        window = self.part(start, end)
        kind = LabelKind.NORMAL if self.negative else LabelKind.ANOMALY
        name = f"{self.entry.id}/{start:.0f}"
        last = float(window.times[-1])
        return Example(
            name, "", last + start - end, last, kind, self.entry.fault, Source.PERSON, "ann", "", window, self.reference
        )


@dataclass(frozen=True)
class Verdicts:
    """Per second of one run: flagged by the rule, and the model's probability over its threshold."""

    flagged: Bools
    likeness: Floats


def cases(directory: Path, samples: int, *, learned_from: bool) -> list[Case]:
    """The runs that count, with the newest so many samples of their normal part as reference."""
    known = manifest.load(directory)
    left_out = set() if learned_from else {entry.id for entry in known.split("train")}
    found = []
    for entry in known.runs:
        if not entry.counts or entry.id in left_out or entry.parts is None:
            continue
        frame = dataset.read_run(directory, entry).frame
        normal = frame.between(entry.parts.normal, entry.parts.injected - 0.5)
        reference = normal.between(float(normal.times[-samples:][0]), np.inf)
        hurt = [at for name, at in entry.onsets.items() if at is not None and name in ("client", entry.root)]
        found.append(Case(entry, reference, frame, 0.0 if entry.negative or not hurt else max(0.0, min(hurt))))
    return found


def weakened(case: Case, share: float) -> Case:
    """The same run with every deviation from the reference's median a share of what it was, its noise kept."""
    values = case.frame.values.copy()
    late = case.times > 0
    middle = np.nanmedian(np.where(case.reference.mask, case.reference.values, np.nan), axis=0)
    random = np.random.default_rng(case.entry.seed)
    noise = case.reference.values[random.integers(len(case.reference), size=int(late.sum()))] - middle
    up = np.array([name.endswith("_up") for name in case.frame.signals])
    spoilt = middle + share * (values[late] - middle) + (1 - share) * np.nan_to_num(noise)
    values[late] = np.where(up, values[late], spoilt)
    return replace(case, frame=replace(case.frame, values=values))


def replay(chosen: Sequence[Case], examples: Examples, *, learned: bool) -> list[Verdicts]:
    """Every run, a second at a time."""
    detector = LearnedDetector(models.load(), _stop)
    for number, case in enumerate(chosen):
        detector.hear(str(number), examples(case))
    states = [DetectorState() for _ in chosen]
    first = [int((case.times <= 0).sum()) for case in chosen]
    found = [Verdicts(np.zeros(len(case.frame), dtype=np.bool_), np.zeros(len(case.frame))) for case in chosen]
    for second in range(max(len(case.frame) for case in chosen)):
        due = [n for n, case in enumerate(chosen) if first[n] + second < len(case.frame)]
        observed = [_observed(chosen[n], first[n] + second, states[n], str(n), learned=learned) for n in due]
        for n, (anomaly, states[n]) in zip(due, detector.detect(observed, second + 1.2), strict=True):
            found[n].flagged[first[n] + second] = anomaly.flagged
            if anomaly.opinion is not None:
                found[n].likeness[first[n] + second] = anomaly.opinion.probability / anomaly.opinion.threshold
    return found


def _observed(case: Case, row: int, state: DetectorState, uid: str, *, learned: bool) -> Observed:
    rows = slice(max(0, row - RECENT + 1), row + 1)
    frame = case.frame
    recent = Frame(frame.signals, case.times[rows], frame.values[rows], frame.mask[rows], frame.interval)
    return Observed(uid, CATALOGUE, case.reference, recent, state, 1, uid, learned)


def _stop(error: Exception) -> None:
    raise error


def alone(verdicts: Verdicts) -> Verdicts:
    """What the model alone would flag: two of three samples over its threshold, until five in a row are not."""
    over = verdicts.likeness >= 1
    agreed = over & (np.roll(over, 1) | np.roll(over, 2))
    flagged, quiet, out = False, 0, np.zeros_like(over)
    for row, now in enumerate(agreed):
        quiet = 0 if now else quiet + 1
        flagged = bool(now) or (flagged and quiet < CLOSE_AFTER)
        out[row] = flagged
    return Verdicts(out, verdicts.likeness)


def line(name: str, chosen: Sequence[Case], verdicts: Sequence[Verdicts], after: Mapping[str, float]) -> str:
    """One row of the table; `after` says from when on a run is judged, where not from its beginning."""
    found, faults, delays, alarms, seconds, loud = 0, 0, [], 0, 0.0, 0.0
    for case, verdict in zip(chosen, verdicts, strict=True):
        begin = after.get(case.entry.id, 0.0)
        judged = (case.times > begin) & (case.times < case.harmless_until)
        flags = verdict.flagged & judged
        if case.negative:
            seconds += float(judged.sum())
            loud += float(flags.sum())
            alarms += int((flags & ~np.concatenate([[False], flags[:-1]])).sum())
            continue
        faults += 1
        inside = flags & (case.times >= max(case.effect - 1, begin)) & (case.times <= case.lifted)
        if inside.any():
            found += 1
            delays.append(max(0.0, float(case.times[int(np.argmax(inside))]) - max(case.effect, begin)))
    spread = f"{np.median(delays):.1f} s, {np.quantile(delays, 0.9):.1f} s" if delays else "–"
    share = f"{loud / max(seconds, 1):.0%} of {seconds / 60:.1f} min"
    return f"| {name} | {found} of {faults} | {spread} | {alarms} | {share} |\n"


def _others(chosen: Sequence[Case], kinds: str) -> Examples:
    """Examples from other classes' runs on the same workload and level."""

    def of(case: Case) -> Sequence[Example]:
        like = (case.entry.workload, case.entry.level)
        return [
            other.example(other.effect + 2, float(other.entry.parts.remedied - other.entry.parts.injected))
            for other in chosen
            if other.entry.parts is not None
            and other.entry.fault != case.entry.fault
            and (other.entry.workload, other.entry.level) == like
            and ("negative" if other.negative else "fault") in kinds
        ]

    return of


def _same(chosen: Sequence[Case]) -> Examples:
    """Examples from the other runs of the same class on the same workload: what happened before, happens again."""

    def of(case: Case) -> Sequence[Example]:
        return [
            other.example(other.effect + 2, float(other.entry.parts.remedied - other.entry.parts.injected))
            for other in chosen
            if other.entry.parts is not None
            and other.entry.id != case.entry.id
            and (other.entry.fault, other.entry.workload) == (case.entry.fault, case.entry.workload)
        ]

    return of


def _own(begins: Mapping[str, float]) -> Examples:
    """The run's own first seconds from its first alarm (a negative) or its effect (a fault) on."""
    return lambda case: [case.example(at - 2, at + LABELLED_S)] if (at := begins.get(case.entry.id)) is not None else []


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/lab-v1"))
    parser.add_argument("--weaken", type=float, default=0.05, help="share of a fault's deviations that is left")
    parser.add_argument("--reference", type=int, default=60, help="samples of normal time, at most")
    parser.add_argument("--all", action="store_true", help="the runs, too, that the model has learned from")
    options = parser.parse_args()
    write, runs = sys.stdout.write, cases(options.data, options.reference, learned_from=options.all)
    head = "| judged by | faults found | delay, median and 90 % | alarms at harmless runs | share of their time |\n"
    write(f"{len(runs)} runs, {sum(not case.negative for case in runs)} with a fault\n{head}|---|---|---|---|---|\n")

    def table(name: str, chosen: Sequence[Case], verdicts: Sequence[Verdicts], after: Mapping[str, float]) -> None:
        write(line(name, chosen, verdicts, after))
        sys.stdout.flush()

    plain = replay(runs, lambda _: (), learned=True)
    table("the statistics; the rule without examples", runs, plain, {})
    table("the model alone, without examples", runs, [alone(one) for one in plain], {})
    for kinds, words in (("fault", "other faults"), ("negative", "other harmless things"), ("fault negative", "both")):
        taught = replay(runs, _others(runs, kinds), learned=True)
        table(f"the rule, with examples of {words}", runs, taught, {})
        if "fault" in kinds:  # of normal examples alone the operator's model makes nothing
            table(f"the model alone, with examples of {words}", runs, [alone(one) for one in taught], {})
    begins = {
        case.entry.id: float(case.times[int(np.argmax(verdict.flagged))])
        for case, verdict in zip(runs, plain, strict=True)
        if case.negative and verdict.flagged.any()
    }
    after = {name: at + LABELLED_S for name, at in begins.items()}
    write(
        f"\nAfter the first {LABELLED_S:.0f} s of each alarm at a harmless run were labelled normal\n\n"
        f"{head}|---|---|---|---|---|\n"
    )
    table("the statistics", runs, plain, after)
    table("the rule", runs, replay(runs, _own(begins), learned=True), after)
    known = _same(runs)
    again = [(case, verdict) for case, verdict in zip(runs, plain, strict=True) if known(case)]
    chosen = [case for case, _ in again]
    write("\nRuns of which another run of the same class, on the same workload, was labelled\n\n")
    write(f"{head}|---|---|---|---|---|\n")
    table("the statistics", chosen, [verdict for _, verdict in again], {})
    table("the rule", chosen, replay(chosen, known, learned=True), {})
    weak = [weakened(case, options.weaken) for case in runs if not case.negative]
    hurt = {case.entry.id: case.effect + 2 for case in weak}
    late = {name: at + LABELLED_S for name, at in hurt.items()}
    write(f"\nFaults at {options.weaken:.0%} of their size, after their first {LABELLED_S:.0f} s were labelled\n\n")
    write(f"{head}|---|---|---|---|---|\n")
    table("the statistics", weak, replay(weak, lambda _: (), learned=True), late)
    table("the rule", weak, replay(weak, _own(hurt), learned=True), late)


if __name__ == "__main__":
    main()
