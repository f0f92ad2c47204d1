"""Grafana Loki as a local process: everything in one, files in its directory, nothing sent anywhere."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from kintsugi_dev.cluster.binaries import on_demand
from kintsugi_dev.servers import http
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.directories import prepare, write
from kintsugi_dev.servers.process import HOST, Process, free_port

Values = Sequence[tuple[int, str]]
"""Nanoseconds since the epoch, and the line."""


class Loki(LocalServer):
    """A Loki on 127.0.0.1."""

    kind: ClassVar[str] = "Loki"
    ready_seconds: ClassVar[float] = 90.0  # it waits 15 s for others to join, whatever it is told

    def __init__(self, directory: Path, port: int, *, tenants: bool) -> None:
        super().__init__(directory, port)
        self.tenants = tenants

    @classmethod
    def start(cls, directory: Path, *, tenants: bool = False, port: int | None = None) -> Self:
        """Take lines and serve queries; with `tenants` each request must name one (`X-Scope-OrgID`).

        Raises:
            MissingToolError: it was not built yet and could not be.
            ServerError: it did not start.
        """
        server = cls(prepare(directory), port or free_port(), tenants=tenants)
        server.launch()
        return server

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.address}"

    def push(self, labels: Mapping[str, str], values: Values, *, tenant: str | None = None) -> None:
        """Add lines to the stream with these labels; OSError when Loki refuses them."""
        lines = [[str(stamp), line] for stamp, line in values]
        body = json.dumps({"streams": [{"stream": dict(labels), "values": lines}]}).encode()
        headers = {"Content-Type": "application/json"} | ({"X-Scope-OrgID": tenant} if tenant else {})
        request = urllib.request.Request(f"{self.url}/loki/api/v1/push", data=body, headers=headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=http.TIMEOUT_SECONDS):
            pass

    def _start_process(self) -> Process:
        file = self.directory / "loki.yml"
        write(file, yaml.safe_dump(self._configuration()))
        command: list[str | Path] = [on_demand("loki"), f"-config.file={file}"]
        return Process.start(f"Loki on port {self.port}", command, log=self.log, environment={"GOMAXPROCS": "1"})

    def _configuration(self) -> dict[str, Any]:
        return {
            "auth_enabled": self.tenants,
            "server": {
                "http_listen_address": HOST,
                "http_listen_port": self.port,
                "grpc_listen_address": HOST,
                "grpc_listen_port": free_port(),
                "log_level": "warn",
            },
            "common": {
                "instance_addr": HOST,
                "path_prefix": str(self.directory / "data"),
                "storage": {
                    "filesystem": {
                        "chunks_directory": str(self.directory / "data/chunks"),
                        "rules_directory": str(self.directory / "data/rules"),
                    }
                },
                "replication_factor": 1,
                "ring": {"kvstore": {"store": "inmemory"}},
            },
            "schema_config": {
                "configs": [
                    {
                        "from": "2024-01-01",
                        "store": "tsdb",
                        "object_store": "filesystem",
                        "schema": "v13",
                        "index": {"prefix": "index_", "period": "24h"},
                    }
                ]
            },
            "analytics": {"reporting_enabled": False},
        }

    def _ready(self) -> bool:
        return http.answers(f"{self.url}/ready")
