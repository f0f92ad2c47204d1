"""Debian's Prometheus exporters as local processes: the host's figures, and PostgreSQL's as others export them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from kintsugi_dev.servers import http
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.binaries import program
from kintsugi_dev.servers.directories import prepare
from kintsugi_dev.servers.process import Process, free_port, server_user


class Exporter(LocalServer):
    """An exporter on 127.0.0.1 that serves `/metrics`."""

    program: ClassVar[str]
    environment: dict[str, str]
    flags: list[str]

    @property
    def url(self) -> str:
        """The URL of its metrics."""
        return f"http://{self.address}/metrics"

    def metrics(self) -> str:
        """What a scrape gets now."""
        return http.get(self.url)[1].decode()

    def _start_process(self) -> Process:
        command: list[str | Path] = [program(self.program, package=self.program)]
        command += [f"--web.listen-address={self.address}", *self.flags]
        environment = {"GOMAXPROCS": "1", **self.environment}
        name = f"{self.kind} on port {self.port}"
        return Process.start(name, command, log=self.log, user=server_user(), environment=environment)

    def _ready(self) -> bool:
        return http.answers(f"http://{self.address}/")


class NodeExporter(Exporter):
    """prometheus-node-exporter: CPU, memory, disks and pressure of this machine."""

    kind: ClassVar[str] = "Node exporter"
    program: ClassVar[str] = "prometheus-node-exporter"

    @classmethod
    def start(cls, directory: Path, *, flags: Sequence[str] = (), port: int | None = None) -> Self:
        """Serve this machine's figures."""
        server = cls(prepare(directory), port or free_port())
        server.flags = ["--log.level=error", *flags]
        server.environment = {}
        server.launch()
        return server


class PostgresExporter(Exporter):
    """prometheus-postgres-exporter 0.11 (it does not know PostgreSQL 17's moved columns)."""

    kind: ClassVar[str] = "Postgres exporter"
    program: ClassVar[str] = "prometheus-postgres-exporter"

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        dsn: str,
        queries: Path | None = None,
        flags: Sequence[str] = (),
        port: int | None = None,
    ) -> Self:
        """Serve the figures of the server behind `dsn` (give it an `sslmode`), with custom `queries` when given."""
        server = cls(prepare(directory), port or free_port())
        server.flags = ["--log.level=warn", *flags]
        if queries is not None:
            server.flags.append(f"--extend.query-path={queries}")
        server.environment = {"DATA_SOURCE_NAME": dsn}
        server.launch()
        return server
