"""Finding and ending our own processes by a mark that they inherit, never by name.

A mark is an environment variable set before the first process is started; every child has it in `/proc/<pid>/environ`.
PostgreSQL's backends overwrite that memory with their titles: they are known by the folder they work in instead. A
shell that somebody left in that folder has an environment without our mark, and is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GONE = (FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError)
"""What reading `/proc` says of a process that has ended meanwhile, or belongs to somebody else."""


@dataclass(frozen=True)
class Process:
    """A running process: its id, the clock tick at which it started (ids are used again), and its command line."""

    pid: int
    started: int
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pid} {' '.join(self.command)[:120]}"

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return started(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def started(pid: int) -> int | None:
    """The clock tick at which a process started, or nothing if there is no such process or it is a zombie."""
    with suppress(*GONE):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def marked(variable: str, value: str, folder: Path | None = None) -> list[Process]:
    """Every process, except this one, that was started with `variable=value` in its environment.

    With `folder`, also those that have overwritten their environment and work inside that folder.
    """
    mark = f"{variable}={value}".encode()
    return [
        process
        for process, environment in _others()
        if mark in environment or (folder is not None and _wiped(environment) and _works_in(process.pid, folder))
    ]


def marks(variable: str) -> set[str]:
    """The values that `variable` has in the environment of any running process except this one."""
    start = f"{variable}=".encode()
    return {
        entry.removeprefix(start).decode(errors="replace")
        for _, environment in _others()
        for entry in environment
        if entry.startswith(start)
    }


def end(processes: Iterable[Process], *, timeout_s: float = 10.0) -> None:
    """Kill processes at once (SIGKILL) and wait until they are gone."""
    doomed = list(processes)
    for process in doomed:
        process.signal(signal.SIGKILL)
    deadline = time.monotonic() + timeout_s
    while any(process.alive() for process in doomed) and time.monotonic() < deadline:
        time.sleep(0.01)


def _others() -> Iterator[tuple[Process, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(*GONE):
            tick = started(int(entry.name))
            if tick is None:
                continue
            command = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            yield Process(int(entry.name), tick, tuple(command)), (entry / "environ").read_bytes().split(b"\0")


def _wiped(environment: list[bytes]) -> bool:
    return not any(b"=" in entry for entry in environment)


def _works_in(pid: int, folder: Path) -> bool:
    with suppress(*GONE):
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder.resolve())
    return False
