"""Stands in for kube-proxy on a machine without nodes: a fixed local port that follows a Service's selector."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar, Self

from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.process import Process, free_port


class ServiceRelay(LocalServer):
    """Forwards connections to the pod that a Service selects, at the address in its `demo.kintsugi.dev/address`."""

    kind: ClassVar[str] = "Service relay"

    def __init__(self, directory: Path, port: int, kubeconfig: Path, namespace: str, service: str) -> None:
        super().__init__(directory, port)
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.service = service

    @classmethod
    def start(cls, directory: Path, *, kubeconfig: Path, namespace: str, service: str, port: int | None = None) -> Self:
        """Follow `namespace`/`service` at the API server of `kubeconfig`; returns once that was read and the port open.

        When the selector or the pods change, connections to the old pod are cut; while none matches, or the Service
        does not exist, connections are closed at once; while the API server is away, the last known pod stays.
        """
        directory.mkdir(parents=True, exist_ok=True)
        relay = cls(directory, port or free_port(), kubeconfig, namespace, service)
        relay.launch()
        return relay

    @property
    def _ready_file(self) -> Path:
        return self.directory / "service-relay.ready"

    def _start_process(self) -> Process:
        self._ready_file.unlink(missing_ok=True)
        command: list[str | Path] = [sys.executable, "-m", "kintsugi_dev.servers.relay_process"]
        command += ["--kubeconfig", self.kubeconfig.absolute(), "--namespace", self.namespace]
        command += ["--service", self.service, "--listen", self.address, "--ready-file", self._ready_file]
        return Process.start(f"Relay of {self.namespace}/{self.service}", command, log=self.log)

    def _ready(self) -> bool:
        return self._ready_file.exists()
