"""Logs beside the cycle: into the same frame as the metrics, never in anybody's way, and what is wrong is said."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi.api.database import MonitoredDatabase
from kintsugi.loops.logs import CONDITION, LogReader, evidence, merge
from kintsugi.loops.watch import Watch, expected_signals, new_watch
from kintsugi.shell.prometheus import Samples
from kintsugi.shell.secrets import Secrets
from kintsugi.stages.policy import NO_CEILING, Ceiling
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import POSTGRESQL, MemoryKube

NOW = float(int(time.time()))
Pair = tuple[MonitoredDatabase, Watch]


def a_line(age: float, message: str = "deadlock detected", state: str = "40P01", zone: str = "UTC") -> bytes:
    when = datetime.fromtimestamp(NOW - age, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    fields = {"timestamp": f"{when} {zone}", "error_severity": "ERROR", "state_code": state, "message": message}
    return json.dumps(fields).encode() + b"\n"


class Watched:
    """One database with a log, and a reader."""

    def __init__(self, folder: Path, **logs: Any) -> None:
        self.path = folder / "server.json"
        self.path.write_bytes(b"")
        spec = {"file": {"path": str(self.path)}} | logs
        metrics = {"prometheus": "http://p", "matchers": {"service": "orders"}, "scrapeInterval": "1s"}
        self.database = a_database("orders", metrics=metrics, logs=spec)
        self.watch = new_watch(self.database, POSTGRESQL, NOW)
        kube = MemoryKube()
        self.reader = LogReader(kube, Secrets(kube), Ceiling(log_files=(str(folder),)))

    def sample(self, start: float, end: float) -> None:
        times = np.arange(start, end + 1)
        self.watch.buffer.append(Samples(times, {"postgres_up": np.ones(len(times))}))

    async def look(self, now: float = NOW) -> None:
        self.reader.begin([(self.database, self.watch)], now)
        await asyncio.gather(*self.reader._reading.values())
        merge(self.watch)

    def append(self, *lines: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(lines))

    def column(self, name: str = "log_deadlocks") -> list[float]:
        frame = self.watch.buffer.frame
        return [float(value) for value in frame.values[:, frame.signals.index(name)]]

    def said(self) -> tuple[bool, str, str]:
        return self.watch.beside[CONDITION]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


async def test_counts_stand_in_the_same_frame_as_the_metrics(watched: Watched) -> None:
    watched.append(a_line(8.5), a_line(6.5))
    watched.sample(NOW - 10, NOW)
    await watched.look()
    assert watched.column() == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.25, 0.25, 0, 0, 0]
    assert watched.column("postgres_up") == [1.0] * 11
    assert watched.said() == (True, "Reading", "the server's log is read")


async def test_a_line_that_was_written_late_changes_the_rows_that_it_belongs_to(watched: Watched) -> None:
    watched.sample(NOW - 10, NOW - 1)
    await watched.look(NOW - 1)
    watched.append(a_line(3.5))
    watched.sample(NOW - 10, NOW)
    await watched.look()
    assert watched.column()[-4:] == [0.25, 0.25, 0.25, 0.25]


async def test_without_a_log_the_signals_are_not_expected_and_with_one_they_are_found(watched: Watched) -> None:
    without = expected_signals(a_database("pay"), POSTGRESQL)
    assert not [name for name in without if name.startswith("log_")]
    assert "log_deadlocks" in expected_signals(watched.database, POSTGRESQL)
    assert "log_deadlocks" not in watched.watch.sources
    await watched.look()
    assert watched.watch.sources["log_deadlocks"] == ("logs",)


async def test_a_log_in_another_format_says_so_and_counts_nothing(watched: Watched) -> None:
    watched.append(*[b"2026-11-22 03:00:00.000 UTC [7] LOG:  hello\n"] * 30)
    watched.sample(NOW - 10, NOW)
    await watched.look()
    assert watched.said()[1] == "LogNotUnderstood"
    assert "check spec.logs.format" in watched.said()[2]
    assert np.isnan(watched.column()).all()


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({"format": "stderr", "linePrefix": "[%p] "}, "LinePrefix"),
        ({"file": {"path": "/etc/passwd"}}, "OutsideCeiling"),
        ({"file": None, "pods": {"selector": {"app": "orders"}}}, "KubernetesUnavailable"),
        (
            {
                "file": None,
                "loki": {"url": "http://l", "query": "{a='b'}", "auth": {"type": "basic", "secretRef": "x"}},
            },
            "SecretMissing",
        ),
    ],
)
async def test_what_is_wrong_stands_in_a_condition(tmp_path: Path, logs: dict[str, Any], reason: str) -> None:
    watched = Watched(tmp_path, **logs)
    await watched.look()
    assert watched.said()[:2] == (False, reason)


async def test_a_log_that_is_gone_leaves_gaps_and_comes_back(watched: Watched) -> None:
    watched.sample(NOW - 10, NOW)
    watched.append(a_line(6.5))
    await watched.look()
    watched.path.rename(watched.path.with_name("other"))
    watched.sample(NOW, NOW + 1)
    await watched.look(NOW + 1)
    assert watched.said()[1] == "NoLogFile"
    assert not np.isnan(watched.column()[5])
    watched.path.write_bytes(b"")
    await watched.look(NOW + 2)
    assert watched.said()[0]


async def test_a_zone_that_nobody_knows_is_told(watched: Watched) -> None:
    watched.sample(NOW - 30, NOW + 9)
    watched.append(a_line(3, zone="CEST"))
    await watched.look()
    assert watched.said()[:2] == (False, "LogTimeZone")
    assert np.isnan(watched.column()).all()
    await watched.look(NOW + 1)
    assert watched.said()[1] == "LogTimeZone"

    watched.append(a_line(-2))
    await watched.look(NOW + 2)
    assert watched.said()[:2] == (True, "Reading")


async def test_a_clock_that_is_far_ahead_is_told(watched: Watched) -> None:
    since_this_was_imported = time.time() - NOW
    watched.append(a_line(-600 - since_this_was_imported))
    await watched.look()
    assert watched.said()[:2] == (False, "LogClock")
    assert re.search("the server's clock is (10 m|9 m 5[5-9] s) ahead of the operator's", watched.said()[2])

    watched.append(a_line(0))
    await watched.look(NOW + 2)
    assert watched.said()[0]


async def test_a_clock_that_is_a_little_ahead_loses_nothing(watched: Watched) -> None:
    watched.sample(NOW - 30, NOW)
    watched.append(*[a_line(-4)] * 8)
    await watched.look()
    assert watched.said()[0]
    watched.sample(NOW + 1, NOW + 6)
    assert watched.watch.log is not None
    watched.watch.log.book.add([], NOW + 6)
    merge(watched.watch)
    assert watched.column()[-2:] == [2.0, 2.0]


async def test_evidence_names_what_was_logged_around_the_incident(watched: Watched) -> None:
    assert evidence(watched.watch, NOW, NOW) == ()
    watched.append(a_line(300, "could not serialize access", "40001"), a_line(4), a_line(3))
    await watched.look()
    assert evidence(watched.watch, NOW - 5, NOW) == ("the log says 2 × ERROR 40P01 deadlock detected (last 3 s ago)",)


async def test_a_log_that_hangs_keeps_nobody_waiting_and_is_not_asked_twice(watched: Watched) -> None:
    asked: list[float] = []

    async def hang(*_: Any) -> None:
        asked.append(time.monotonic())
        await asyncio.Event().wait()

    watched.reader._read = hang  # type: ignore[method-assign, assignment]
    for _ in range(3):
        watched.reader.begin([(watched.database, watched.watch)], NOW)
        await asyncio.sleep(0)
        merge(watched.watch)
    assert len(asked) == 1
    await watched.reader.close()


def test_files_are_read_only_where_whoever_runs_the_operator_says(tmp_path: Path) -> None:
    database = Watched(tmp_path).database
    assert "ask whoever runs it to mount the folder" in NO_CEILING.problems(database)[0]
    assert Ceiling(log_files=(str(tmp_path),)).problems(database) == ()
    assert Ceiling(log_files=("/logs",)).log_root("/logs-of-others/x.json") is None
    assert Ceiling(log_files=("/logs",)).log_root("/logs/../etc/passwd") is None
    assert Ceiling(log_files=("/logs/",)).log_root("/logs/orders/x.json") == "/logs/"


def test_a_loki_outside_the_ceiling_is_not_asked() -> None:
    database = a_database("orders", logs={"loki": {"url": "http://evil:3100", "query": '{a="b"}'}})
    assert "add it to ceiling.loki" in Ceiling(loki=("http://loki.monitoring:3100",)).problems(database)[0]
    assert NO_CEILING.problems(database) == ()
