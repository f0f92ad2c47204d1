"""The data set on disk: what is written comes back, and what is damaged is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest

from kintsugi_ml.lab import dataset, manifest
from kintsugi_ml.lab.dataset import assemble, read_run, write_entry
from kintsugi_ml.lab.manifest import DamagedFileError, DatasetError, Entry, MissingDatasetError, WrongVersionError, load

Build = Callable[..., Any]
COMPONENTS, SIGNALS = ("client", "wal"), ("a", "b")


def assembled(directory: Path) -> bytes:
    assemble(directory, components=COMPONENTS, signals=SIGNALS)
    return (directory / manifest.FILE).read_bytes()


def test_a_run_comes_back_as_it_was_written(tmp_path: Path, recording: Build) -> None:
    made = recording()
    made.signal("lock_waiters", 0, 10, 46.0)

    back = read_run(tmp_path, made.write(tmp_path))

    assert back.frame.signals == made.frame.signals
    assert np.array_equal(back.frame.times, made.frame.times), "times are on the grid of whole Unix seconds again"
    assert np.array_equal(back.frame.mask, made.frame.mask)
    assert np.allclose(back.frame.values, made.frame.values, rtol=2**-14, equal_nan=True)
    assert set(back.frame.column("lock_waiters")[30:39]) == {46.0}, "whole numbers stay exact"
    assert back.truth.names == made.truth.names
    assert np.allclose(back.truth.times, made.truth.times, atol=1e-3)
    assert np.allclose(back.truth.values, made.truth.values, rtol=2**-14)
    stored = dataset.as_stored(made.truth, made.entry.injected_at)
    assert np.array_equal(back.truth.times, stored.times), "what is judged is what can be read again"
    assert np.array_equal(back.truth.values, stored.values, equal_nan=True)
    assert np.array_equal(back.logs.counts, made.logs.counts)
    assert [line[1:] for line in back.logs.lines] == [line[1:] for line in made.logs.lines]


def test_a_value_that_was_masked_is_not_written(tmp_path: Path, recording: Build) -> None:
    made = recording()
    made.frame.values[3, 5], made.frame.mask[3, 5] = 123.0, False

    back = read_run(tmp_path, made.write(tmp_path))

    assert np.isnan(back.frame.values[3, 5])
    assert not back.frame.mask[3, 5]


def test_what_others_know_about_an_outcome_survives(tmp_path: Path, entry: Build) -> None:
    known = entry(outcome={"restored_after": None, "harm": True, "lost_writes": 3, "p95": float("nan")})

    write_entry(tmp_path, known)

    back = dataset.entries(tmp_path)[0]
    assert back.outcome is not None
    assert back.outcome.model_extra == {"lost_writes": 3, "p95": None}


def test_the_same_runs_give_the_same_manifest_in_whatever_order_they_were_written(tmp_path: Path, entry: Build) -> None:
    runs = [entry(f"p0-{number:03d}-x", "x") for number in range(5)]
    for name, order in (("one", runs), ("other", runs[::-1])):
        for run_ in order:
            write_entry(tmp_path / name, run_)

    assert assembled(tmp_path / "one") == assembled(tmp_path / "other")


def test_a_skipped_class_is_listed_with_its_reason_and_is_no_run(tmp_path: Path, entry: Build) -> None:
    write_entry(tmp_path, entry("p0-001-x", "x"))
    write_entry(tmp_path, entry("p0-002-y", "y", status="skipped", reason="No control groups.", injected_at=None))

    made = assemble(tmp_path, components=COMPONENTS, signals=SIGNALS)

    assert [(item.fault, item.reason) for item in made.skipped] == [("y", "No control groups.")]
    assert [run_.id for run_ in made.runs] == ["p0-001-x"]


def a_data_set(directory: Path, recording: Build) -> Entry:
    written: Entry = recording().write(directory)
    assembled(directory)
    return written


@pytest.mark.parametrize("field", ["file", "truth_file", "log_file", "lines_file"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_file_is_named(tmp_path: Path, recording: Build, field: str, damage: str) -> None:
    path = tmp_path / getattr(a_data_set(tmp_path, recording), field)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-20] if damage == "cut" else content[:40] + b"\0" + content[41:] + b"x")

    with pytest.raises(DamagedFileError, match=path.name):
        load(tmp_path)


def test_a_cut_file_is_named_by_the_reader_too(tmp_path: Path, recording: Build) -> None:
    written = a_data_set(tmp_path, recording)
    path = tmp_path / str(written.truth_file)
    path.write_bytes(path.read_bytes()[:500])

    with pytest.raises(DamagedFileError, match=f"truth/{path.name}"):
        read_run(tmp_path, written)


def test_another_version_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / manifest.FILE).write_text(json.dumps({"version": "lab-v2", "runs": "elsewhere"}))

    with pytest.raises(WrongVersionError, match=r"lab-v2.*lab-v1"):
        load(tmp_path)


def test_a_damaged_manifest_says_where(tmp_path: Path, recording: Build) -> None:
    a_data_set(tmp_path, recording)
    path = tmp_path / manifest.FILE
    path.write_text(path.read_text().replace('"severity": 0.5', '"severity": "much"'))

    with pytest.raises(DamagedFileError, match=r"manifest.json is damaged at runs\.0\.severity"):
        load(tmp_path)


def test_a_manifest_cannot_point_outside_its_directory(tmp_path: Path, recording: Build) -> None:
    written = a_data_set(tmp_path, recording)
    path = tmp_path / manifest.FILE
    path.write_text(path.read_text().replace(str(written.file), "../../etc/passwd"))

    with pytest.raises(DamagedFileError, match=r"runs\.0\.file"):
        load(tmp_path)


def test_without_a_manifest_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingDatasetError, match="make lab-card"):
        load(tmp_path)


def test_a_run_that_recorded_nothing_says_so_when_read(tmp_path: Path, entry: Build) -> None:
    crashed = write_entry(tmp_path, entry(status="crashed", reason="the primary is gone"))

    with pytest.raises(DatasetError, match="the primary is gone"):
        read_run(tmp_path, crashed)


def test_an_interrupted_write_leaves_no_run(tmp_path: Path, recording: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "write_entry", full)
    with pytest.raises(OSError, match="No space"):
        recording().write(tmp_path)

    assert dataset.entries(tmp_path) == []


def test_the_data_set_is_read_without_the_labs_servers() -> None:
    program = (
        "import sys, kintsugi_ml.lab.dataset\n"
        "heavy = {'asyncpg', 'aiohttp', 'psycopg', 'kintsugi_dev', 'kintsugi.shell', 'matplotlib', 'kopf'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )

    finished = run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stderr
