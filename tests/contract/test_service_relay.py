"""The relay that stands in for kube-proxy follows the Service, and outlives the API server."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kintsugi_dev.cluster import Cluster
from kintsugi_dev.servers import ServiceRelay, eventually


class _Talker(socketserver.BaseRequestHandler):
    """Says the server's name, then echoes."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _NamedServer)
        self.request.sendall(server.name.encode())
        while data := self.request.recv(65536):
            self.request.sendall(data)


class _NamedServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Talker)
        self.name = name


@contextmanager
def named_server(name: str) -> Iterator[int]:
    with _NamedServer(name) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def pod(name: str, port: int) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "orders", "pod": name},
            "annotations": {"demo.kintsugi.dev/address": f"127.0.0.1:{port}"},
        },
        "spec": {"containers": [{"name": "postgres", "image": "none"}]},
    }


def service(selector: dict[str, str]) -> dict[str, object]:
    spec = {"selector": selector, "ports": [{"port": 5432}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders-rw"}, "spec": spec}


def apply(cluster: Cluster, namespace: str, *objects: dict[str, object]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "-n", namespace, "-f-", input=json.dumps(items))


def answer(relay: ServiceRelay) -> str:
    """The name of the server behind the relay; empty when the connection was closed at once."""
    with socket.create_connection((relay.host, relay.port), timeout=5) as connection:
        return rest(connection)


def rest(connection: socket.socket) -> str:
    """What comes next; empty when the connection was closed."""
    try:
        return connection.recv(100).decode()
    except ConnectionResetError:
        return ""


@pytest.fixture
def two_pods(cluster: Cluster, namespace: str) -> Iterator[None]:
    with ExitStack() as stack:
        names = ("orders-0", "orders-1")
        apply(cluster, namespace, *(pod(name, stack.enter_context(named_server(name))) for name in names))
        yield


@pytest.fixture
def relay(cluster: Cluster, namespace: str, two_pods: None, server_dir: Path) -> Iterator[ServiceRelay]:
    apply(cluster, namespace, service({"app": "orders", "pod": "orders-0"}))
    with ServiceRelay.start(
        server_dir, kubeconfig=cluster.kubeconfig, namespace=namespace, service="orders-rw"
    ) as started:
        assert eventually(lambda: answer(started) == "orders-0"), started.tail()
        yield started


def test_a_changed_selector_moves_new_connections_and_cuts_old_ones(
    relay: ServiceRelay, cluster: Cluster, namespace: str
) -> None:
    with socket.create_connection((relay.host, relay.port), timeout=5) as old:
        assert old.recv(100) == b"orders-0"
        old.sendall(b"x" * 1_000_000)
        received = 0
        while received < 1_000_000:
            received += len(old.recv(65536))

        apply(cluster, namespace, service({"app": "orders", "pod": "orders-1"}))

        assert rest(old) == ""
    assert answer(relay) == "orders-1"


def test_without_a_matching_pod_connections_are_closed_at_once(
    relay: ServiceRelay, cluster: Cluster, namespace: str
) -> None:
    apply(cluster, namespace, service({"app": "orders", "pod": "nobody"}))
    assert eventually(lambda: answer(relay) == "")
    cluster.kubectl("label", "pod", "orders-1", "pod=nobody", "--overwrite", "-n", namespace)
    assert eventually(lambda: answer(relay) == "orders-1")
    cluster.kubectl("delete", "service", "orders-rw", "-n", namespace)
    assert eventually(lambda: answer(relay) == "")


@pytest.mark.slow
def test_the_last_known_pod_stays_while_the_api_server_is_away(
    relay: ServiceRelay, cluster: Cluster, namespace: str
) -> None:
    cluster.stop_apiserver()
    try:
        assert answer(relay) == "orders-0"
        time.sleep(2)
        assert answer(relay) == "orders-0"
    finally:
        cluster.start_apiserver()
    apply(cluster, namespace, service({"app": "orders", "pod": "orders-1"}))
    assert eventually(lambda: answer(relay) == "orders-1", timeout=30), relay.tail()
