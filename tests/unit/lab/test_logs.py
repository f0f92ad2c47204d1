"""A run's log becomes counts and templates."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kintsugi_ml.lab import logs

START = datetime(2026, 11, 22, 3, 0, 0, tzinfo=UTC).timestamp()


def a_line(message: str, *, second: float = 0.5, severity: str = "LOG", state: str = "00000", **more: str) -> bytes:
    when = datetime.fromtimestamp(START + second, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    fields = {"timestamp": when, "pid": 7, "error_severity": severity, "state_code": state, "message": message}
    return json.dumps(fields | more, separators=(",", ":")).encode() + b"\n"


def counts(track: logs.LogTrack) -> dict[str, int]:
    totals = track.counts.sum(axis=0)
    return {name: int(total) for name, total in zip(track.classes, totals, strict=True) if total}


def test_each_message_counts_in_its_class_and_second(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    lines = [
        a_line("process 12 still waiting for ShareLock on transaction 9 after 500.1 ms", second=0.1),
        a_line("deadlock detected", second=1.0, severity="ERROR", state="40P01"),
        a_line("could not serialize access", second=1.1, severity="ERROR", state="40001"),
        a_line("sorry, too many clients already", second=1.2, severity="FATAL", state="53300"),
        a_line("checkpoint complete: wrote 12 buffers (0.1%)", second=2.0),
        a_line('temporary file: path "base/pgsql_tmp/pgsql_tmp1.0", size 140000', second=2.1),
        a_line("duration: 300.1 ms  statement: SELECT 1", second=2.2),
        a_line('duration: 600.1 ms  plan:\n{"Query Text": "SELECT 1", "Plan": {"Node Type": "Result"}}', second=2.3),
        a_line('automatic vacuum of table "lab.public.jobs": index scans: 1\npages: 0 removed', second=2.4),
        a_line("unexpected EOF on client connection with an open transaction", second=2.5, state="08006"),
        a_line("database system is ready to accept connections", second=2.6),
        a_line("too late", second=3.0),
    ]
    path.write_bytes(b"".join(lines))
    track = logs.read(path, START, START + 3)
    assert track.counts.sum(axis=1).tolist() == [1, 3, 7]
    assert counts(track) == {
        "lock_wait": 1,
        "deadlock": 1,
        "error_40": 1,
        "fatal": 1,
        "checkpoint": 1,
        "temp_file": 1,
        "slow_statement": 1,
        "auto_explain": 1,
        "autovacuum": 1,
        "connection": 1,
        "other": 1,
    }


def test_a_log_that_was_rotated_is_read_whole(tmp_path: Path) -> None:
    for name, second in (("server.json.1", 0.2), ("server-2026-11-22.json", 1.2), ("server.json", 2.2)):
        (tmp_path / name).write_bytes(a_line("hello", second=second))
    (tmp_path / "server.log").write_text("not JSON")
    (tmp_path / "server_other.json").write_bytes(a_line("another server's"))
    track = logs.read(tmp_path / "server.json", START, START + 3)
    assert [line.time - START for line in track.lines] == pytest.approx([0.2, 1.2, 2.2], abs=1e-3)


def test_junk_and_a_cut_last_line_are_survived_and_a_very_long_line_is_still_counted(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    long = a_line("duration: 900.0 ms  statement: SELECT '" + "x" * 1_000_000 + "secret'", second=0.3)
    cut = a_line("whole", second=2.0)[:30]
    path.write_bytes(b"\x00\xff\xfe junk\n[1, 2]\n{}\n" + long + a_line("whole", second=1.0) + cut)
    track = logs.read(path, START, START + 3)
    assert [line.kind for line in track.lines] == ["slow_statement", "other"]
    assert track.lines[0].template == "duration: # ms statement: SELECT ?"


def test_no_log_is_not_an_empty_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="jsonlog"):
        logs.read(tmp_path / "server.json", START, START + 3)


def test_times_of_an_unknown_zone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_bytes(a_line("x").replace(b"UTC", b"CEST"))
    with pytest.raises(logs.LogZoneError, match="log_timezone"):
        logs.read(tmp_path / "server.json", START, START + 3)
