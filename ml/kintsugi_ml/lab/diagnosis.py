"""`python -m kintsugi_ml.lab.diagnosis`: what the recorded faults look like to production's detector, learned.

Here and not in `kintsugi_ml.detection`, because a diagnosis speaks of the catalogue's signals: their floors and the
direction that hurts come from production's catalogue. It learns from the data set's split `train` alone, and is judged
on all the others (docs/lab.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi_ml.detection import diagnose, lab_v1, results
from kintsugi_ml.detection.diagnose import UNKNOWN
from kintsugi_ml.detection.diagnose_fit import Signatures, choose_least, fit, macro_f1, said
from kintsugi_ml.detection.features import describe, refer
from kintsugi_ml.lab import dataset, manifest
from kintsugi_ml.lab.manifest import DatasetError, Entry
from kintsugi_ml.lab.signals import recorded

DATA_SET: Final = Path(__file__).resolve().parents[3] / "data" / "lab-v1"
WEIGHTS: Final = Path(diagnose.__file__).with_name("diagnosis.npz")
MOST: Final = 5
"""Moments of one run that are learned from, evenly spread over its anomaly."""
LAST_S: Final = 5
"""Seconds whose mean is a signature."""
SEEDS: Final = 5
LEARNED: Final = "train"
JUDGED: Final = {
    "known class, another workload": ("validation", "test-workload"),
    "class never seen": ("test-class", "test-both"),
}
"""What is asked, and of which splits' runs."""
ALL: Final = "all of them"
EACH: Final = "each class, called right"

Figures = Mapping[str, Mapping[str, Mapping[str, float | None]]]


@dataclass(frozen=True, slots=True)
class Answered:
    """Of R runs: the class, *unknown* if not learned; what was said, and what would be said without *unknown*."""

    truth: Sequence[str]
    said: Sequence[str]
    nearest: Sequence[str]


def signatures(directory: Path) -> Signatures:
    """Those of all single faults that count.

    Raises:
        DatasetError: there are none, or a file is damaged.
    """
    found = [(run, row) for run in dataset.entries(directory) for row in _of(directory, run)]
    if not found:
        raise DatasetError(f"{directory} holds no fault that counts; record some with `make lab`")
    return Signatures(
        signals=recorded().names(),
        values=np.array([row for _, row in found]),
        classes=np.array([run.fault for run, _ in found]),
        runs=np.array([run.id for run, _ in found]),
        workloads=np.array([run.workload for run, _ in found]),
    )


def _of(directory: Path, run: Entry) -> Iterator[Any]:
    if not run.counts or run.second is not None or run.root is None or run.negative:
        return
    frame = dataset.read_run(directory, run).frame
    assert run.parts is not None
    signals = recorded()
    values = np.where(frame.mask, frame.values, np.nan)
    normal = (frame.times >= run.parts.normal) & (frame.times < run.parts.injected)
    floor = np.array([signal.floor for signal in signals])
    hurts = np.array([signal.hurts.sign for signal in signals])
    reference = refer(values[None, normal], dataset.INTERVAL, floor=floor, hurts=hurts)
    deviation = describe(reference, values[None]).deviation[0]
    wrong, _ = lab_v1.label(frame.times - run.parts.injected, run.model_dump())
    rows = np.flatnonzero(wrong)[LAST_S - 1 :]
    for row in rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int))] if len(rows) else ():
        yield diagnose.squashed(deviation[row - LAST_S + 1 : row + 1]).mean(axis=0)


def evaluate(known: Signatures, splits: Mapping[str, Collection[str]], seeds: int = SEEDS) -> Figures:
    """How well runs that were not learned from are called by their class, and those of an unseen class *unknown*.

    `{set: {figure: {"mean", "low", "high"}}}`: means over the seeds, intervals by a 95 % bootstrap over the runs.

    Args:
        known: all signatures.
        splits: the runs of each split, by its name.
        seeds: how many times it is learned, each time with other signals hidden.
    """
    parts = {name: known.part(_in(known, splits, *names)) for name, names in JUDGED.items()}
    parts[ALL] = known.part(_in(known, splits, *(name for names in JUDGED.values() for name in names)))
    learned = known.part(_in(known, splits, LEARNED))
    answers: dict[str, list[Answered]] = {name: [] for name in parts}
    for seed in range(seeds):
        model = fit(learned, seed, least=choose_least(learned, seed))
        for name, asked in parts.items():
            answers[name].append(_answered(model, asked))
    return {name: _figures(found) for name, found in answers.items()} | {EACH: _each(parts[ALL], answers[ALL])}


def _in(known: Signatures, splits: Mapping[str, Collection[str]], *names: str) -> Any:
    return np.isin(known.runs, sorted(run for name in names for run in splits[name]))


def _answered(model: diagnose.Diagnosis, asked: Signatures) -> Answered:
    classes = dict(zip(asked.runs.tolist(), asked.classes.tolist(), strict=True))
    mine, always = said(model, asked), said(replace(model, least=0.0), asked)
    truth = [classes[run] if classes[run] in model.classes else UNKNOWN for run in mine]
    return Answered(truth, list(mine.values()), [always[run] for run in mine])


def _figures(found: Sequence[Answered]) -> Mapping[str, Mapping[str, float | None]]:
    runs = len(found[0].truth)
    out: dict[str, Mapping[str, float | None]] = {"runs": asdict(results.Interval(runs))}
    weights = results.resamples({"": runs}, results.RESAMPLES)[""].astype(int)
    known = set(found[0].truth) != {UNKNOWN}
    for name, figure in FIGURES.items() if known else [("called unknown", FIGURES["called right"])]:
        draws = [[figure(_drawn(one, weight)) for weight in weights] for one in found]
        out[name] = asdict(results.interval(results.mean([np.array(each) for each in draws])))
    return out


def _each(asked: Signatures, found: Sequence[Answered]) -> Mapping[str, Mapping[str, float | None]]:
    classes = dict(zip(asked.runs.tolist(), asked.classes.tolist(), strict=True))
    right = np.mean([[t == a for t, a in zip(one.truth, one.said, strict=True)] for one in found], axis=0)
    names = np.array(list(classes.values()))
    return {
        name: asdict(results.Interval(round(float(right[names == name].mean()), 4)))
        for name in sorted(set(classes.values()))
    }


def _drawn(found: Answered, times: Any) -> Answered:
    def drawn(names: Sequence[str]) -> list[str]:
        return np.repeat(np.array(names), times).tolist()

    return Answered(drawn(found.truth), drawn(found.said), drawn(found.nearest))


FIGURES: Final[Mapping[str, Callable[[Answered], float]]] = {
    "macro-F1": lambda found: macro_f1(found.truth, found.said),
    "macro-F1 of the nearest class": lambda found: macro_f1(found.truth, found.nearest),
    "called right": lambda found: _share([t == a for t, a in zip(found.truth, found.said, strict=True)]),
    "right where it names a class": lambda found: _share(
        [t == a for t, a in zip(found.truth, found.said, strict=True) if a != UNKNOWN]
    ),
    "nearest is right where it says unknown": lambda found: _share(
        [t == n for t, a, n in zip(found.truth, found.said, found.nearest, strict=True) if a == UNKNOWN != t]
    ),
}
"""*Unknown* is the right answer for a class that was not learned, and a class of its own in the macro-F1."""


def _share(found: Sequence[bool]) -> float:
    return float(np.mean(found)) if found else float("nan")


def keep(measured: Figures, file: Path) -> None:
    """Put the figures into the results, under `diagnosis`, and leave the rest of them as it is."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**known, "diagnosis": measured}, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn, say how good it is, and with `--write` keep the weights."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.lab.diagnosis", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DATA_SET)
    parser.add_argument("--seed", type=int, default=0, help="of the weights that are kept")
    parser.add_argument("--results", type=Path, help="put what was measured into this JSON file, too")
    parser.add_argument("--write", action="store_true", help=f"keep the weights in {WEIGHTS.name}")
    given = parser.parse_args(arguments)
    try:
        known = signatures(given.directory)
        splits = manifest.load(given.directory, verify=False).splits
    except DatasetError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    measured = evaluate(known, splits)
    for name, figures in measured.items():
        for figure, value in figures.items():
            sys.stdout.write(f"{name:32}{figure:42}{_said(value)}\n")
    if given.results:
        keep(measured, given.results)
    if given.write:
        learned = known.part(_in(known, splits, LEARNED))
        trained_on = f"{len(set(learned.runs.tolist()))} runs of lab-v1's split {LEARNED}"
        fit(learned, given.seed, trained_on, least=choose_least(learned, given.seed)).save(WEIGHTS)
    return 0


def _said(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None or value["low"] is None:
        return "–" if value["mean"] is None else f"{value['mean']:g}"
    return f"{value['mean']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
