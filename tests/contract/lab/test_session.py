"""A session with real servers, from a fault to its entry in the data set."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import pytest

from kintsugi_ml.lab import cgroups, dataset, session, start
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.run import Timing
from kintsugi_ml.lab.session import Session
from kintsugi_ml.lab.world import World

pytestmark = pytest.mark.timeout(300)


def short(random: Random, form: str) -> Timing:
    """A run of half a minute."""
    del random, form
    return Timing(settle=2.0, normal=12.0, fault=10.0, ramp=0.0, after=8.0)


def planned(id: str, fault: str, remedy: str = "right", *, busy: bool = False) -> Planned:
    return Planned(
        id=id,
        fault=fault,
        form="abrupt",
        workload="tpcc" if busy else "keyvalue",
        level="high" if busy else "low",
        pattern="steady",
        severity=0.6,
        seed=3,
        remedy="right" if remedy == "right" else "nothing",
        server=15,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WARM_SECONDS", 3.0)
    # Other tests of this run use the CPUs, too; what makes a run void has a test of its own.
    monkeypatch.setattr("kintsugi_ml.lab.recording.VOID_SHARE", math.inf)


@pytest.mark.slow
def test_a_fault_is_recorded_judged_and_healed_and_a_second_call_has_nothing_to_do(tmp_path: Path) -> None:
    said: list[str] = []
    runs = [planned("a", "lock-contention", busy=True), planned("b", "null", "nothing", busy=True)]

    counts = Session(tmp_path, runs, said.append, draw=short).go()

    fault, null = dataset.entries(tmp_path)
    assert counts == 2, said
    assert fault.root == "lock-manager"
    assert fault.gate is not None
    assert fault.gate.client_factor is not None
    assert fault.gate.client_factor > 2
    assert fault.onsets["lock-manager"] == pytest.approx(0.5, abs=1.5)
    assert fault.remedy is not None
    assert (fault.remedy.action, fault.remedy.ok) == ("terminate-blocker", True)
    assert fault.outcome is not None
    assert fault.outcome.restored_after is not None
    assert null.negative
    assert null.root is None
    read = dataset.read_run(tmp_path, fault)
    assert len(read.frame) == pytest.approx(32, abs=3)
    waiting = read.frame.between(fault.parts.injected + 2, fault.parts.remedied) if fault.parts else read.frame
    assert np.nanmax(waiting.column("lock_waiters")) >= 1
    assert len(read.truth.times) > 6 * len(read.frame)

    said.clear()
    assert Session(tmp_path, runs, said.append, draw=short).go() == 2
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize(("server", "said"), [("primary", ""), ("pooler", "PgBouncer is gone: ")])
def test_a_server_that_crashes_in_the_middle_is_noted_cleaned_up_and_the_run_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, said: str
) -> None:
    crashes = iter([True, False])

    @contextlib.contextmanager
    def world(*arguments: Any, **options: Any) -> Iterator[World]:
        with start.world(*arguments, **options) as made:
            if next(crashes):
                threading.Timer(12.0, getattr(made, server).kill).start()
            yield made

    monkeypatch.setattr(session, "world", world)
    assert Session(tmp_path, [planned("a", "null", "nothing")], print, draw=short).go() == 1

    crashed, again = dataset.entries(tmp_path)
    assert (crashed.id, crashed.status) == ("a", "crashed")
    assert crashed.reason
    assert crashed.reason.startswith(said)
    assert (again.id, again.status) == ("a.2", "counts")
    assert not list((cgroups.ROOT / "cpu").glob(f"{cgroups.PARENT}/*/cgroup.procs"))
    assert not [child for child in psutil.Process().children(recursive=True) if "postgres" in child.name()]
