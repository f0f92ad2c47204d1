"""`make lab-check`: one fault from scratch, compared with the recorded runs of its class."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kintsugi_ml.lab import dataset, manifest
from kintsugi_ml.lab.compare import Comparison, compare
from kintsugi_ml.lab.manifest import DatasetError, Entry, Manifest
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.run import Timing
from kintsugi_ml.lab.session import Session


def check(directory: Path, fault: str, workload: str, say: Callable[[str], None]) -> int:
    """Carry the run out and print the comparison; status 1 when it is not like the recorded ones.

    Raises:
        DatasetError: nothing of this class is recorded, or the data set is damaged.
        LabError: the lab can't run here.
    """
    known = manifest.load(directory)
    planned = planned_like(known, fault, workload, seed=int(time.time()))
    with tempfile.TemporaryDirectory(prefix="kintsugi-lab-check-") as place:
        Session(Path(place), [planned], say, draw=Timing.short).go()
        fresh = dataset.entries(Path(place))
    if not fresh:
        say(f"{fault} on {workload} was not recorded; see the lines above for why")
        return 1
    comparison = compare(fresh[-1], known.runs)
    for line in lines(fresh[-1], comparison):
        say(line)
    return 0 if comparison.within else 1


def planned_like(known: Manifest, fault: str, workload: str, *, seed: int) -> Planned:
    """A run like the typical recorded one of the class on this workload, or on any other if there is none."""
    alike = [run for run in known.counting() if run.fault == fault and run.second is None]
    if not alike:
        there = ", ".join(sorted({run.fault for run in known.counting()}))
        raise DatasetError(f"no run of {fault!r} that counts is recorded; there are {there}")
    here = [run for run in alike if run.workload == workload] or alike
    here = [run for run in here if run.form == "abrupt"] or here  # a ramp takes more than a minute
    severity = statistics.median_low(run.severity for run in here)
    model = next(run for run in here if run.severity == severity)
    return Planned(
        id=f"check-{fault}",
        fault=fault,
        form=model.form,
        workload=workload,
        level=model.level,
        pattern="steady",
        severity=severity,
        seed=seed,
        remedy="right",
        server=model.server,
    )


def lines(fresh: Entry, comparison: Comparison) -> list[str]:
    """The comparison as a person reads it."""
    head = (
        f"{fresh.fault}, {fresh.form}, on {fresh.workload}, severity {fresh.severity:.2f}: "
        f"compared with {len(comparison.peers)} recorded runs"
    )
    marks = [f"  {'ok ' if finding.within else 'NOT'} {finding.sentence}" for finding in comparison.findings]
    verdict = "like the recorded runs" if comparison.within else "not like the recorded runs"
    return [head, *marks, f"{fresh.fault}: {verdict}"]
