"""A test run that leaves a process behind fails; what a killed run left, the next one removes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kintsugi_dev.cluster import processes

TESTS = Path(__file__).parents[1]
LEAVES_A_PROCESS = """
import subprocess, tempfile
def test_it():
    subprocess.run(["setsid", "--fork", "sleep", "1000"], check=True)
    tempfile.mkdtemp()
"""
WIPES_ITS_ENVIRONMENT = """
import subprocess, sys, tempfile
def test_it():
    command = ["env", "--ignore-environment", "setsid", "--fork", "sleep", "1000"]
    subprocess.run(command, cwd=tempfile.mkdtemp(), check=True)
"""
HANGS = """
import subprocess, time
def test_it():
    subprocess.run(["setsid", "--fork", "sleep", "1000"], check=True)
    print("hanging", flush=True)
    time.sleep(1000)
"""
FINE = "def test_it(): pass"


def start(folder: Path, test: str) -> subprocess.Popen[str]:
    """A pytest run of one test, with this suite's conftest."""
    folder.mkdir()
    (folder / "test_it.py").write_text(test)
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", f"--rootdir={folder}", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("test", [LEAVES_A_PROCESS, WIPES_ITS_ENVIRONMENT])
def test_a_run_that_leaves_a_process_behind_fails_names_it_and_ends_it(tmp_path: Path, test: str) -> None:
    run = start(tmp_path / "leaky", test)
    output, _ = run.communicate()
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "left behind" in output
    assert "sleep 1000" in output
    assert not _left_by(run.pid)


def test_a_run_that_leaves_nothing_passes(tmp_path: Path) -> None:
    run = start(tmp_path / "clean", FINE)
    output, _ = run.communicate()
    assert run.returncode == pytest.ExitCode.OK
    assert "left behind" not in output


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    killed = start(tmp_path / "killed", HANGS)
    assert killed.stdout is not None
    while "hanging" not in killed.stdout.readline():
        assert killed.poll() is None
    left = processes.marked("KINTSUGI_RUN", f"{killed.pid}-{processes.started(killed.pid)}")
    killed.send_signal(signal.SIGKILL)
    killed.wait()  # not communicate(): what it left holds its output open
    assert any(process.alive() for process in left), "nothing was left, so nothing is proven"
    start(tmp_path / "next", FINE).communicate()
    assert not any(process.alive() for process in left)
    assert not _left_by(killed.pid)
    killed.stdout.close()


def _left_by(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"kintsugi-run-{pid}-*"))
