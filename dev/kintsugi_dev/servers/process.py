"""One server process: started unprivileged, awaited until ready, stopped for certain.

Every child carries a parent death signal (`setpriv --pdeathsig`), so that it ends with us even when we are killed with
SIGKILL. Linux sends that signal when the *thread* that started the child ends; therefore one thread, which lives as
long as the interpreter, starts them all, and callers may use any thread (`asyncio.to_thread` included).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

from kintsugi_dev.servers.errors import StartError

HOST = "127.0.0.1"
LOG_TAIL_LINES = 15
POLL_SECONDS = 0.02
# Below Linux's ephemeral ports (32768…), so that no outgoing connection takes the port before the server does.
PORTS = range(15000, 32000)

Command = Sequence[str | Path]
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")


@cache
def server_user() -> pwd.struct_passwd | None:
    """The user that servers run as: None (ourselves) unless we are root; then `postgres`, or `nobody` without it."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on at this moment."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise StartError(f"no free port: 200 ports of {PORTS.start}–{PORTS.stop} on {HOST} are taken; stop other servers")


def accepts_connections(port: int) -> bool:
    """Whether something listens on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def eventually(check: Callable[[], bool], timeout: float = 15.0) -> bool:
    """Whether `check()` became true within `timeout` seconds; asked every 20 ms. For tests and the demo."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@dataclass(frozen=True)
class Process:
    """A running server process and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        name: str,
        command: Command,
        *,
        log: Path,
        user: pwd.struct_passwd | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> Self:
        """Start `command` as `user` (None: as ourselves), its output appended to `log`; it dies when we die."""
        environment = {**os.environ, **(environment or {})}
        full = [*_setpriv(user, death_signal), *map(str, command)]

        def spawn() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    full,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=directory or log.parent,
                    start_new_session=True,
                )

        return cls(name, _spawner.submit(spawn).result(), log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.popen.poll() is None

    def wait_ready(self, ready: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Return once `ready()`; StartError with the log's tail when the process ends first or `timeout` s pass."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise StartError(f"{self.name} ended at its start with status {self.popen.returncode}; {self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartError(f"{self.name} was not ready after {timeout:.0f} s and was stopped; {self.tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self, stop_signal: signal.Signals = signal.SIGTERM, *, timeout: float = 10.0) -> None:
        """Ask the process to end, wait for it and its children, and kill what is left after `timeout` seconds."""
        children = self.children()
        if self.running:
            self.popen.send_signal(stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout)
        self.kill(children)

    def kill(self, known_children: Sequence[psutil.Process] = ()) -> None:
        """SIGKILL the process and all its children, and return when none is left."""
        if self.running:
            # Stopped first, so that no child is born between the listing and the killing.
            self.popen.send_signal(signal.SIGSTOP)
        victims = [*self.children(), *known_children]
        if self.running:
            self.popen.kill()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        self.popen.wait()
        _wait_gone(victims)

    def children(self) -> list[psutil.Process]:
        """All descendants that live now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def tail(self) -> str:
        """The last lines of the log, as they stand in error messages."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return f"the end of {self.log}:\n" + "\n".join(f"    {line}" for line in lines)

    def last_words(self) -> str:
        """How it ended and the last line of its log, on one line."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"status {self.popen.poll()}, {lines[-1].strip() if lines else 'and it said nothing'}"


def run_as(
    user: pwd.struct_passwd | None, command: Command, *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a short command as `user` to its end (it dies with us); returns its status and output, checks nothing."""
    full = [*_setpriv(user, signal.SIGKILL), *map(str, command)]
    environment = {**os.environ, **(environment or {})}
    job = _spawner.submit(subprocess.run, full, capture_output=True, text=True, env=environment, cwd="/", check=False)
    return job.result()


def _setpriv(user: pwd.struct_passwd | None, death_signal: signal.Signals) -> list[str]:
    prefix = ["setpriv", "--pdeathsig", death_signal.name.removeprefix("SIG")]
    if user is not None:
        prefix += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return prefix


def _wait_gone(processes: Sequence[psutil.Process], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while any(_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
