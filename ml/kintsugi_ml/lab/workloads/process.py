"""The clients as a local process beside the servers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp

from kintsugi_dev.load.client import TIMEOUT_SECONDS
from kintsugi_dev.servers import http
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.errors import ServerError
from kintsugi_dev.servers.process import Process, free_port
from kintsugi_ml.lab.workloads import WORKLOADS, backoffice
from kintsugi_ml.lab.workloads.base import Workload

CONTROL_SECONDS = 5.0


def base_rates(workload: Workload, level: str) -> dict[str, float]:
    """Requests per second by kind at factor 1: the workload's own and the back office's."""
    main = {kind: share * workload.rates[level] for kind, share in workload.shares().items()}
    return {**main, **backoffice.rates(level)}


class Load(LocalServer):
    """A running open-loop load; its tables must have been made by the workload's `create`."""

    kind: ClassVar[str] = "Load"
    stop_seconds: ClassVar[float] = TIMEOUT_SECONDS + 3

    def __init__(
        self, directory: Path, port: int, dsn: str, workload: str, level: str, pattern: str, seed: int
    ) -> None:
        super().__init__(directory, port)
        self.dsn = dsn
        self.workload = workload
        self.level = level
        self._arguments = ("--workload", workload, "--level", level, "--pattern", pattern, "--seed", str(seed))

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        dsn: str,
        workload: str,
        level: str,
        pattern: str = "steady",
        seed: int = 0,
        port: int | None = None,
    ) -> Self:
        """Send the workload's requests at the rate of `level` to `dsn`; returned once the metrics are served."""
        directory.mkdir(parents=True, exist_ok=True)
        load = cls(directory, port or free_port(), dsn, workload, level, pattern, seed)
        load.launch()
        return load

    @property
    def url(self) -> str:
        """Where metrics and controls are."""
        return f"http://{self.address}"

    @property
    def requests_file(self) -> Path:
        """One line per ended request, `scheduled_unix,kind,latency_seconds,outcome`; at most .25 s late."""
        return self.directory / "requests.csv"

    @property
    def journal(self) -> Path:
        """The acknowledged ledger entries, for `backoffice.lost_writes`."""
        return self.directory / "journal.txt"

    @property
    def base_rate(self) -> float:
        """Requests per second at factor 1, the back office's included."""
        return sum(base_rates(WORKLOADS[self.workload](), self.level).values())

    async def control(
        self,
        *,
        rate_factor: float | None = None,
        extra: Mapping[str, float] | None = None,
        pattern: str | None = None,
    ) -> dict[str, float]:
        """Change what is given and leave the rest; `extra` (requests per second by kind) replaces the one before.

        Returns the requests per second by kind that hold from now on. ServerError when the clients refuse.
        """
        wanted: dict[str, Any] = {"rate_factor": rate_factor, "extra": extra, "pattern": pattern}
        body = {name: value for name, value in wanted.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=CONTROL_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{self.url}/control", json=body) as answer,
        ):
            if answer.status != 200:
                raise ServerError(f"the load on port {self.port} refused {body}: {await answer.text()}")
            rates: dict[str, float] = (await answer.json())["rates"]
            return rates

    def _start_process(self) -> Process:
        command: list[str | Path] = [sys.executable, "-m", "kintsugi_ml.lab.workloads", *self._arguments]
        command += ["--listen", self.address, "--requests", self.requests_file, "--journal", self.journal]
        return Process.start(f"Load on port {self.port}", command, log=self.log, environment={"LOAD_DSN": self.dsn})

    def _ready(self) -> bool:
        return http.answers(f"{self.url}/metrics")
