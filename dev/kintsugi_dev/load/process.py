"""The clients as a local process beside the servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

from kintsugi_dev.load import schema
from kintsugi_dev.load.client import TIMEOUT_SECONDS, Options
from kintsugi_dev.servers import http
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.process import Process, free_port


class Load(LocalServer):
    """A running open-loop load; its tables must have been made by `create_schema`."""

    kind: ClassVar[str] = "Load"
    stop_seconds: ClassVar[float] = TIMEOUT_SECONDS + 3

    def __init__(self, directory: Path, port: int, options: Options, lines: int) -> None:
        super().__init__(directory, port)
        self.options = options
        self.lines = lines

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        dsn: str,
        rate: float = Options.rate,
        connections: int = Options.connections,
        lines: int = schema.LINES,
        seed: int | None = None,
        port: int | None = None,
    ) -> Self:
        """Send `rate` requests per second to `dsn` over at most `connections`; `lines` as `create_schema` was told."""
        directory.mkdir(parents=True, exist_ok=True)
        load = cls(directory, port or free_port(), Options(dsn, rate, connections, seed=seed), lines)
        load.launch()
        return load

    @property
    def url(self) -> str:
        """The URL of its metrics."""
        return f"http://{self.address}/metrics"

    @property
    def journal(self) -> Path:
        """The acknowledged ledger entries, for `lost_writes`."""
        return self.directory / "journal.txt"

    @property
    def samples_file(self) -> Path:
        """One JSON line per second; see `samples`."""
        return self.directory / "samples.jsonl"

    def samples(self) -> list[dict[str, Any]]:
        """Each second's requests by scheduled start: `second`, `count`, `p50_ms`, `p95_ms`, `p99_ms`, `errors`.

        A second appears once all its requests have ended, at most 5 s late.
        """
        if not self.samples_file.exists():
            return []
        lines = self.samples_file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _start_process(self) -> Process:
        command: list[str | Path] = [sys.executable, "-m", "kintsugi_dev.load", "run", "--listen", self.address]
        command += ["--rate", str(self.options.rate), "--connections", str(self.options.connections)]
        command += ["--lines", str(self.lines), "--samples", self.samples_file, "--journal", self.journal]
        if self.options.seed is not None:
            command += ["--seed", str(self.options.seed)]
        environment = {"LOAD_DSN": self.options.dsn}
        return Process.start(f"Load on port {self.port}", command, log=self.log, environment=environment)

    def _ready(self) -> bool:
        return http.answers(self.url)
