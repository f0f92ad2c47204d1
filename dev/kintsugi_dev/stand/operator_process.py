"""The operator as a local process that tests may kill and start again."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kintsugi_dev.servers.process import Process
from kintsugi_dev.stand.stand import MODE, Json, Stand


class Operator:
    """The operator as a local process, which may be killed and started again; its log and audit file go on."""

    def __init__(self, stand: Stand, *, config: Mapping[str, Any] | None = None) -> None:
        self._stand = stand
        self._directory = stand.directory / f"operator-{secrets.token_hex(3)}"
        self._directory.mkdir()
        self.audit = self._directory / "audit.jsonl"
        self._config = self._directory / "config.yaml"
        whole = {"ceiling": {"mode": MODE}, "audit": str(self.audit), "listen": "127.0.0.1:0"} | dict(config or {})
        self._config.write_text(yaml.safe_dump(whole))
        self.log = self._directory / "operator.log"
        self._port_file = self._directory / "port"
        self.process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.running

    @property
    def url(self) -> str:
        """Where it serves /healthz, /readyz and /metrics."""
        return f"http://127.0.0.1:{self._port_file.read_text()}"

    def start(self) -> None:
        """Start it, unless it runs; returns once it serves."""
        if self.running:
            return
        self._port_file.unlink(missing_ok=True)
        command: list[str | Path] = [sys.executable, "-m", "kintsugi.cli.main", "run", "--config", self._config]
        command += ["--kubeconfig", self._stand.kubeconfig, "--port-file", self._port_file]
        self.process = Process.start("operator", command, log=self.log)
        self.process.wait_ready(lambda: self._port_file.exists() and bool(self._port_file.read_text()), timeout=60)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None:
            self.process.stop()

    def lines(self) -> list[Json]:
        """The log, line by line; what is no JSON as a message."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"level": "raw", "message": line})
        return found

    def audited(self, action: str, phase: str = "") -> list[Json]:
        """The audit chain's lines about one action."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []
        return [line for line in lines if line["name"] == action and phase in ("", line["phase"])]

    def wait(self, check: Callable[[], Any], what: str | Callable[[], str], seconds: float = 60.0) -> Any:
        """The first true answer of `check`; AssertionError with the log's tail when there is none in time."""
        deadline = time.monotonic() + seconds
        while not (answer := check()):
            if time.monotonic() > deadline:
                lines = [line for line in self.lines() if line.get("logger") != "kintsugi.audit"]
                said = "\n".join(f"    {line.get('level')} {line.get('message')}" for line in lines[-25:])
                what = what if isinstance(what, str) else what()
                raise AssertionError(f"{what} was not so after {seconds:.0f} s; the operator said:\n{said}")
            time.sleep(0.1)
        return answer
