"""`python -m kintsugi_ml.lab.diagnosis`: what the recorded faults look like to production's detector, learned.

Here and not in `kintsugi_ml.detection`, because a diagnosis speaks of the catalogue's signals: their floors and the
direction that hurts come from production's catalogue.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi_ml.detection import diagnose, diagnose_fit, lab_v1
from kintsugi_ml.detection.diagnose_fit import FOLDS, Signatures, choose_least, fit, macro_f1, said
from kintsugi_ml.detection.features import describe, refer
from kintsugi_ml.lab import dataset
from kintsugi_ml.lab.manifest import DatasetError, Entry
from kintsugi_ml.lab.signals import recorded

DATA_SET: Final = Path(__file__).resolve().parents[3] / "data" / "lab-v1"
WEIGHTS: Final = Path(diagnose.__file__).with_name("diagnosis.npz")
MOST: Final = 5
"""Moments of one run that are learned from, evenly spread over its anomaly."""
LAST_S: Final = 5
"""Seconds whose mean is a signature."""


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


def evaluate(known: Signatures, seed: int) -> dict[str, float]:
    """How well runs of an unseen workload are called by their class, and an unseen class unknown."""
    truth: list[str] = []
    answers: list[str] = []
    forced: list[str] = []
    refused: list[bool] = []
    for workload in sorted(set(known.workloads.tolist())):
        here = known.workloads == workload
        others = known.part(~here)
        least = choose_least(others, seed)
        model = fit(others, seed, least=least)
        asked = known.part(here & np.isin(known.classes, others.classes))
        of_run = dict(zip(asked.runs.tolist(), asked.classes.tolist(), strict=True))
        mine = said(model, asked)
        always = said(replace(model, least=0.0), asked)
        truth += [of_run[run] for run in mine]
        answers += list(mine.values())
        forced += [always[run] for run in mine]
        names = sorted(set(known.classes.tolist()))
        for fold in range(FOLDS):
            hidden = np.isin(known.classes, names[fold::FOLDS])
            found = said(fit(known.part(~here & ~hidden), seed, least=least), known.part(here & hidden))
            refused += [answer == diagnose.UNKNOWN for answer in found.values()]
    return {
        "runs": len(truth),
        "classes": len(set(truth)),
        "macro-F1": macro_f1(truth, answers),
        "macro-F1 without unknown": macro_f1(truth, forced),
        "called by its name": float(np.mean([t == a for t, a in zip(truth, answers, strict=True)])),
        "right where it names one": _share(
            [t == a for t, a in zip(truth, answers, strict=True) if a != diagnose.UNKNOWN]
        ),
        "unseen class called unknown": _share(refused),
    }


def _share(found: Sequence[bool]) -> float:
    return float(np.mean(found)) if found else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn, say how good it is, and with `--write` keep the weights."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.lab.diagnosis", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DATA_SET)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="write what was measured there, as JSON")
    parser.add_argument("--write", action="store_true", help=f"keep the weights in {WEIGHTS.name}")
    given = parser.parse_args(arguments)
    try:
        known = signatures(given.directory)
    except DatasetError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    measured = evaluate(known, given.seed)
    for name, value in measured.items():
        sys.stdout.write(f"{name:30} {value:.3g}\n")
    if given.results:
        given.results.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if given.write:
        least = diagnose_fit.choose_least(known, given.seed)
        trained_on = f"{len(set(known.runs.tolist()))} runs of lab-v1"
        fit(known, given.seed, trained_on, least=least).save(WEIGHTS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
