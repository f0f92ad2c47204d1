"""What all tests share: one cluster per run, a namespace per test, and a run that leaves nothing behind.

Every process that a run starts inherits the mark `KINTSUGI_RUN`, and every temporary file lies in the run's own folder.
When the run ends, a marked process that is still there fails it. What a killed run left is removed by the next one.
Fixtures of other systems live beside them (`kintsugi_dev.<system>.fixtures`) and are named in `pytest_plugins`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kintsugi_dev.cluster import Cluster, processes

pytest_plugins = ["kintsugi_dev.servers.fixtures"]

RUN_MARK = "KINTSUGI_RUN"
GRACE_S = 5.0
"""How long a process that was told to end may take after the last test."""


def pytest_configure(config: pytest.Config) -> None:
    _remove_what_killed_runs_left()
    run = f"{os.getpid()}-{processes.started(os.getpid())}"
    folder = _folder(run)
    folder.mkdir(mode=0o755)  # servers under another user have to pass through
    os.environ |= {RUN_MARK: run, "TMPDIR": str(folder)}
    tempfile.tempdir = None  # forget what it was before


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves processes behind, naming them; whatever it left is ended and removed."""
    run = os.environ[RUN_MARK]
    deadline = time.monotonic() + GRACE_S
    while (left := processes.marked(RUN_MARK, run, _folder(run))) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes.end(left)
    shutil.rmtree(_folder(run), ignore_errors=True)
    session.config.stash[LEFT_BEHIND] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(LEFT_BEHIND, [])
    if left:
        terminalreporter.section("processes left behind by this run (a fixture did not end them)", red=True)
        for process in left:
            terminalreporter.line(str(process))


LEFT_BEHIND = pytest.StashKey[list[processes.Process]]()


def _folder(run: str) -> Path:
    return Path("/tmp") / f"kintsugi-run-{run}"


def _remove_what_killed_runs_left() -> None:
    folders = {folder.name.removeprefix(_folder("").name) for folder in Path("/tmp").glob(_folder("*").name)}
    for run in processes.marks(RUN_MARK) | folders:
        pid, _, tick = run.partition("-")
        if pid.isdigit() and str(processes.started(int(pid))) != tick:
            processes.end(processes.marked(RUN_MARK, run, _folder(run)))
            shutil.rmtree(_folder(run), ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The run's one cluster, the chart installed and the operator itself off. Leave others' objects in it alone."""
    shared = Cluster.up(tmp_path_factory.mktemp("cluster"))
    try:
        yield shared
    finally:
        shared.down()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace for one test; its deletion is not waited for."""
    readable = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    name = f"{readable.removeprefix('test-')[:40].strip('-')}-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
