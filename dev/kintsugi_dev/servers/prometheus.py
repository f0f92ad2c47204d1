"""Prometheus as a local process, open or behind basic authentication, TLS, or a proxy that asks for a bearer token."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

import bcrypt
import yaml

from kintsugi_dev.servers import http
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.binaries import program
from kintsugi_dev.servers.certificates import Certificates
from kintsugi_dev.servers.directories import prepare, write
from kintsugi_dev.servers.errors import ServerError
from kintsugi_dev.servers.process import POLL_SECONDS, Process, accepts_connections, free_port, server_user

RELOADED = "prometheus_config_last_reload_success_timestamp_seconds"
RELOAD_SECONDS = 10.0
BCRYPT_ROUNDS = 4  # cheap: Prometheus verifies the password with every request


@dataclass(frozen=True)
class Scrape:
    """One scrape job: its targets (`host:port`), labels for all their series, interval in seconds, path."""

    targets: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    interval: float = 1.0
    path: str = "/metrics"

    def config(self, job: str) -> dict[str, Any]:
        """The job as Prometheus' configuration spells it."""
        interval = f"{round(self.interval * 1000)}ms"
        return {
            "job_name": job,
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "metrics_path": self.path,
            "static_configs": [{"targets": list(self.targets), "labels": dict(self.labels)}],
        }


class Prometheus(LocalServer):
    """A Prometheus on 127.0.0.1."""

    kind: ClassVar[str] = "Prometheus"

    def __init__(
        self,
        directory: Path,
        port: int,
        jobs: Mapping[str, Scrape],
        *,
        login: tuple[str, str] | None,
        tls: Certificates | None,
        flags: Sequence[str],
    ) -> None:
        super().__init__(directory, port)
        self.jobs: dict[str, Scrape] = dict(jobs)
        self.login = login
        self.tls = tls
        self.flags = list(flags)

    @classmethod
    def start(
        cls,
        directory: Path,
        jobs: Mapping[str, Scrape] | None = None,
        *,
        login: tuple[str, str] | None = None,
        tls: Certificates | None = None,
        flags: Sequence[str] = (),
        port: int | None = None,
    ) -> Self:
        """Scrape `jobs` (name → Scrape) and serve queries; `login` asks for basic authentication, `tls` serves https.

        `flags` are further command-line flags. Data is kept for two hours. New targets are first scraped after up to
        6 s (Prometheus hands them over every 5 s), after the start as after `reload`.
        """
        server = cls(prepare(directory), port or free_port(), jobs or {}, login=login, tls=tls, flags=flags)
        server.launch()
        return server

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    def reload(self, jobs: Mapping[str, Scrape] | None = None) -> None:
        """Read the configuration again, with other `jobs` when given; returns once it is in force."""
        self.jobs = dict(jobs) if jobs is not None else self.jobs
        self._write_files()
        if self._process is None:
            return
        before = self._metric(RELOADED)
        self._process.popen.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while self._metric(RELOADED) == before:
            if time.monotonic() > deadline:
                raise ServerError(f"Prometheus did not take the new configuration; {self.tail()}")
            time.sleep(POLL_SECONDS)

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The result of an instant query: `[{"metric": {…}, "value": [time, "text"]}, …]`; ServerError when refused."""
        return self._api("query", query=promql)

    def query_range(self, promql: str, *, start: float, end: float, step: float = 1.0) -> list[dict[str, Any]]:
        """The result of a range query: `[{"metric": {…}, "values": [[time, "text"], …]}, …]`."""
        return self._api("query_range", query=promql, start=start, end=end, step=step)

    def value(self, promql: str) -> float | None:
        """The value of a query that yields one series; None when it yields none; ServerError when several."""
        result = self.query(promql)
        if len(result) > 1:
            raise ServerError(f"{promql} yields {len(result)} series where one is expected; add matchers")
        return float(result[0]["value"][1]) if result else None

    def _api(self, name: str, **parameters: str | float) -> list[dict[str, Any]]:
        status, body = self._get(f"/api/v1/{name}?{urlencode(parameters)}")
        answer: dict[str, Any] = json.loads(body) if body.startswith(b"{") else {"error": body.decode(errors="replace")}
        if status != 200:
            raise ServerError(f"Prometheus refused {parameters['query']!r} with {status}: {answer.get('error')}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def _get(self, path: str) -> tuple[int, bytes]:
        headers = http.basic_authorization(*self.login) if self.login else {}
        return http.get(self.url + path, headers=headers, authority=self.tls.authority if self.tls else None)

    def _metric(self, name: str) -> float:
        lines = self._get("/metrics")[1].decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def _start_process(self) -> Process:
        self._write_files()
        command: list[str | Path] = [
            program("prometheus", package="prometheus"),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--web.config.file={self.directory / 'web.yml'}",
            f"--web.listen-address={self.address}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            "--storage.tsdb.retention.time=2h",
            "--log.level=warn",
            *self.flags,
        ]
        name = f"Prometheus on port {self.port}"
        return Process.start(name, command, log=self.log, user=server_user(), environment={"GOMAXPROCS": "1"})

    def _ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _write_files(self) -> None:
        config = {"global": {}, "scrape_configs": [job.config(name) for name, job in self.jobs.items()]}
        write(self.directory / "prometheus.yml", yaml.safe_dump(config))
        web: dict[str, Any] = {}
        if self.tls is not None:
            web["tls_server_config"] = {"cert_file": str(self.tls.certificate), "key_file": str(self.tls.key)}
        if self.login is not None:
            user, password = self.login
            hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
            web["basic_auth_users"] = {user: hashed}
        write(self.directory / "web.yml", yaml.safe_dump(web))


class BearerProxy(LocalServer):
    """A reverse proxy that forwards requests carrying `Authorization: Bearer <token>` and answers 401 to others."""

    kind: ClassVar[str] = "Bearer proxy"

    def __init__(self, directory: Path, port: int, upstream: str, token: str) -> None:
        super().__init__(directory, port)
        self.upstream = upstream
        self.token = token

    @classmethod
    def start(cls, directory: Path, *, upstream: str, token: str | None = None, port: int | None = None) -> Self:
        """Guard `upstream` (a base URL) with `token` (drawn at random when not given; see `.token`)."""
        server = cls(prepare(directory), port or free_port(), upstream.rstrip("/"), token or secrets.token_urlsafe(24))
        server.launch()
        return server

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.address}"

    def _start_process(self) -> Process:
        command: list[str | Path] = [sys.executable, "-m", "kintsugi_dev.servers.bearer_proxy"]
        command += ["--listen", self.address, "--upstream", self.upstream]
        name = f"Bearer proxy on port {self.port}"
        return Process.start(name, command, log=self.log, environment={"BEARER_TOKEN": self.token})

    def _ready(self) -> bool:
        return accepts_connections(self.port)
