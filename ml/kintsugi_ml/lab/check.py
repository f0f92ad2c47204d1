"""`make lab-check`: faults from scratch, each compared with the recorded runs of its class."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kintsugi_ml.lab import manifest
from kintsugi_ml.lab.compare import Comparison, compare
from kintsugi_ml.lab.manifest import NULL, DatasetError, Entry, Manifest
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.run import Timing
from kintsugi_ml.lab.session import Session


def check(directory: Path, fault: str | None, workload: str | None, say: Callable[[str], None]) -> int:
    """Carry the run out and print the comparison; status 1 when it is not like the recorded ones.

    Without `fault` all fault classes, those of one workload in one world; without `workload` that of a typical run.

    Raises:
        DatasetError: nothing of this class is recorded, or the data set is damaged.
        LabError: the lab can't run here.
    """
    known = manifest.load(directory)
    seed = int(time.time())
    planned = [planned_like(known, name, workload, seed=seed) for name in ([fault] if fault else fault_classes(known))]
    planned.sort(key=lambda run: (run.workload, run.level, run.server))
    alike: dict[str, bool] = {}

    def judge(fresh: Entry) -> None:
        comparison = compare(fresh, known.runs)
        for line in lines(fresh, comparison):
            say(line)
        alike[fresh.fault] = comparison.within

    with tempfile.TemporaryDirectory(prefix="kintsugi-lab-check-") as place:
        Session(Path(place), planned, say, draw=Timing.short, written=judge).go()
    for name in sorted({run.fault for run in planned} - alike.keys()):
        say(f"{name} was not recorded; see the lines above for why")
    like = sorted(name for name, within in alike.items() if within)
    if len(planned) > 1:
        say(f"{len(like)} of {len(planned)} classes are like the recorded runs: {', '.join(like)}")
    return 0 if len(like) == len(planned) else 1


def fault_classes(known: Manifest) -> list[str]:
    """The fault classes of which a run counts, in order; harmless ones are none."""
    return sorted({run.fault for run in known.counting() if not run.negative and run.fault != NULL})


def planned_like(known: Manifest, fault: str, workload: str | None, *, seed: int) -> Planned:
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
        workload=workload or model.workload,
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
