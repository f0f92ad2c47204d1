"""What `make lab-check` runs is like a typical recorded run, and what it finds is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kintsugi_ml.lab import check, dataset
from kintsugi_ml.lab.manifest import NULL, DatasetError, Entry, Manifest
from kintsugi_ml.lab.session import Session
from kintsugi_ml.lab.signals import recorded

Make = Callable[..., Entry]


def assembled(directory: Path, runs: Sequence[Entry]) -> Manifest:
    for run in runs:
        dataset.write_entry(directory, run)
    return dataset.assemble(directory, components=["client"], signals=recorded().names())


def test_it_is_abrupt_where_it_can_be_and_of_middling_severity(tmp_path: Path, entry: Make) -> None:
    known = assembled(
        tmp_path,
        [
            entry("a", severity=0.2, workload="ingest"),
            entry("b", severity=0.5, workload="keyvalue", level="high", server=18),
            entry("c", severity=0.9),
            entry("d", severity=0.5, form="ramped"),
            entry("e", severity=0.5, second="cpu-hog"),
        ],
    )
    planned = check.planned_like(known, "deadlocks", None, seed=3)
    assert (planned.form, planned.severity, planned.remedy, planned.seed) == ("abrupt", 0.5, "right", 3)
    assert (planned.workload, planned.level, planned.server) == ("keyvalue", "high", 18)
    assert check.planned_like(known, "deadlocks", "ingest", seed=3).severity == 0.2
    assert check.planned_like(known, "deadlocks", "reporting", seed=3).workload == "reporting"


def test_a_class_that_was_never_recorded_is_refused_with_those_that_were(tmp_path: Path, entry: Make) -> None:
    known = assembled(tmp_path, [entry("a")])
    with pytest.raises(DatasetError, match="no run of 'bloat' that counts is recorded; there are deadlocks"):
        check.planned_like(known, "bloat", None, seed=1)


def test_all_runs_every_fault_class_once_and_says_how_many_are_alike(
    tmp_path: Path, entry: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembled(
        tmp_path / "known",
        [
            entry("a"),
            entry("b", fault="cpu-hog", root="host-cpu", onsets={"host-cpu": 0.2}),
            entry("c", fault="deploy", negative=True),
            entry("d", fault=NULL),
            entry("e", fault="bloat", status="gate-failed"),
        ],
    )

    def go(session: Session) -> int:
        for planned in session.planned:
            onsets = {"lock-manager": 0.5, "client": 1.5} if planned.fault == "deadlocks" else {"client": 0.2}
            session.written(entry(planned.id, planned.fault, onsets=onsets))
        return 0

    monkeypatch.setattr(Session, "go", go)
    said: list[str] = []
    assert check.check(tmp_path / "known", None, None, said.append) == 1
    assert said[-1] == "1 of 2 classes are like the recorded runs: deadlocks"
    assert check.check(tmp_path / "known", "deadlocks", "tpcc", said.append) == 0
    monkeypatch.setattr(Session, "go", lambda _: 0)
    assert check.check(tmp_path / "known", "deadlocks", "tpcc", said.append) == 1
    assert said[-1] == "deadlocks was not recorded; see the lines above for why"
