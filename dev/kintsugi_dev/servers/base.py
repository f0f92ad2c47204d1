"""What all local servers share: a directory, a port, a log, and a life from `launch` to `stop`."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from kintsugi_dev.servers.errors import ServerError
from kintsugi_dev.servers.process import HOST, Process


class LocalServer(ABC):
    """A server on 127.0.0.1; made by its class' `start`, and as a context manager it stops at the end."""

    kind: ClassVar[str]
    ready_seconds: ClassVar[float] = 30.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 10.0

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.host = HOST
        self.port = port
        self._process: Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        """The server's log, kept over restarts."""
        return self.directory / f"{self.kind.lower().replace(' ', '-')}.log"

    @property
    def pid(self) -> int:
        """The process id; ServerError when it was never started."""
        if self._process is None:
            raise ServerError(f"{self.kind} in {self.directory} was never started; call launch()")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.running

    def tail(self) -> str:
        """The last lines of the log, for error messages."""
        return self._process.tail() if self._process is not None else f"{self.log} is empty"

    def last_words(self) -> str:
        """How the process ended and the last line of its log, on one line."""
        return self._process.last_words() if self._process is not None else "it was not started"

    def launch(self) -> None:
        """Start the server (again) on its directory and port and return once it is ready. Nothing when it runs."""
        if self.running:
            return
        self._process = self._start_process()
        self._process.wait_ready(self._ready, timeout=self.ready_seconds)

    def stop(self) -> None:
        """Ask the server to end, wait for it, and kill it when that takes too long. Nothing when it is stopped."""
        if self._process is not None:
            self._process.stop(self.stop_signal, timeout=self.stop_seconds)

    def kill(self) -> None:
        """SIGKILL the process and all its children at once, and return when none is left."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop (when it runs) and start again on the same directory and port."""
        self.stop()
        self.launch()

    @abstractmethod
    def _start_process(self) -> Process:
        """Start the process, without waiting."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the process that was just started serves."""
