"""A container's log through a real API server, which asks kwok as it would ask a kubelet."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.shell.kube import Kube, load_api_client
from kintsugi.shell.logs.pods import PodLogs
from kintsugi.shell.logs.source import LogError, Position
from kintsugi_dev.cluster import Cluster, CommandError
from kintsugi_dev.servers import eventually

LABELS = {"app": "orders"}
CONTAINER = "postgres"


class Pod:
    """A pod whose container writes into a file, and the reader of its log; the log began two minutes ago."""

    def __init__(self, cluster: Cluster, namespace: str, file: Path, kube: Kube) -> None:
        self.cluster, self.namespace, self.file = cluster, namespace, file
        self.start = int(time.time()) - 120
        self.source = PodLogs(kube, namespace, LABELS, CONTAINER, lambda since: decoder("jsonlog", None, since))
        self.position = Position(self.start - 60)
        file.touch()
        cluster.kubectl("create", "namespace", namespace)
        assert self._done("apply", "-f", "-", input=json.dumps(self._logs()))
        # A new namespace gets its service account a little later, and kwok hears of Logs a little later.
        assert eventually(lambda: self._done("apply", "-f", "-", input=json.dumps(self._pod())), 30)
        cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/orders-0", "--timeout=60s")
        assert eventually(lambda: self._done("-n", namespace, "logs", "orders-0", "-c", CONTAINER), 30)

    def _pod(self) -> dict[str, Any]:
        containers = [{"name": name, "image": "postgres:15"} for name in (CONTAINER, "exporter")]
        metadata = {"name": "orders-0", "namespace": self.namespace, "labels": LABELS}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}

    def _logs(self) -> dict[str, Any]:
        spec = {"logs": [{"containers": [CONTAINER], "logsFile": str(self.file)}]}
        metadata = {"name": "orders-0", "namespace": self.namespace}
        return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Logs", "metadata": metadata, "spec": spec}

    def _done(self, *arguments: str, input: str | None = None) -> bool:
        try:
            self.cluster.kubectl(*arguments, input=input)
        except CommandError:
            return False
        return True

    def writes(self, word: str, at: float) -> None:
        """As a container runtime keeps it: time, stream, whether the line is whole, the line."""
        when = datetime.fromtimestamp(self.start + at, UTC)
        fields = {"timestamp": f"{when:%Y-%m-%d %H:%M:%S}.000 UTC", "error_severity": "LOG", "state_code": "00000"}
        fields["message"] = f"statement: SELECT {word}"
        with self.file.open("a") as log:
            log.write(f"{when:%Y-%m-%dT%H:%M:%S.%f}000Z stdout F {json.dumps(fields)}\n")

    async def words(self) -> list[str]:
        batch = await self.source.read(self.position)
        self.position = batch.position
        return [line.template.removeprefix("statement: SELECT ") for line in batch.lines]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own: in the shared one, after all that other tests do to it, kwok didn't hear of new Logs."""
    fresh = Cluster.up(tmp_path_factory.mktemp("logs"), chart=False)
    try:
        yield fresh
    finally:
        fresh.down()


@pytest.fixture
def kube(fresh: Cluster) -> Iterator[Kube]:
    kube = Kube(load_api_client(str(fresh.kubeconfig)))
    yield kube
    kube.close()


async def test_only_what_a_container_wrote_since_is_read(fresh: Cluster, tmp_path: Path, kube: Kube) -> None:
    pod = Pod(fresh, "shop", tmp_path / "orders.log", kube)
    pod.writes("one", 1)
    pod.writes("two", 1)
    assert await pod.words() == ["one", "two"]
    pod.writes("three", 1)
    pod.writes("four", 2)
    assert await pod.words() == ["three", "four"]
    assert await pod.words() == []


async def test_a_container_that_is_not_there_is_told(fresh: Cluster, tmp_path: Path, kube: Kube) -> None:
    pod = Pod(fresh, "stock", tmp_path / "orders.log", kube)
    pod.source = PodLogs(kube, pod.namespace, LABELS, "pooler", lambda since: decoder("jsonlog", None, since))
    with pytest.raises(LogError, match="pooler"):
        await pod.words()
