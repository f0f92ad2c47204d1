"""The demo's world: everything real that the operator meets, started once, stopped always.

    client load → PgBouncer → Service relay → PostgreSQL orders-0 → streams to orders-1 (synchronous)
    collector, node exporter and the load's own metrics → Prometheus (1 s) → operator → Kubernetes API server

The servers are local processes and the pods fake ones (kwok) that say where they are; the relay does what kube-proxy
does for a Service.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kintsugi_dev.cluster import Cluster
from kintsugi_dev.cluster.cluster import Runtime
from kintsugi_dev.demo import measures
from kintsugi_dev.demo.record import Second
from kintsugi_dev.load import Load, lost_writes
from kintsugi_dev.load.measure import Journal
from kintsugi_dev.load.schema import create_schema
from kintsugi_dev.servers import (
    NodeExporter,
    PgBouncer,
    PostgreSQL,
    Prometheus,
    Scrape,
    ServiceRelay,
    eventually,
    free_port,
)
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD
from kintsugi_dev.servers.postgresql import Settings, run_in_thread
from kintsugi_dev.servers.process import Process

NAMESPACE = "shop"
DATABASE = "orders"
APP, APP_PASSWORD = "shop_app", "app"
LABELS = {"namespace": NAMESPACE, "service": DATABASE}
ADDRESS = "demo.kintsugi.dev/address"
RATE = 100.0
LINES = 300_000
HISTORY = "INSERT INTO ledger (client, number, amount) SELECT 'history', n, 60 FROM generate_series(1, 50000) n"
POOL_SIZE = 12
SETTINGS: Settings = {"max_connections": 60, "shared_buffers": "128MB", "max_parallel_workers_per_gather": 0}
LEARNING = "25s"
SLO = "100ms"

APPROVER, APPROVERS = "ann", "dba-oncall"
STRANGER = "eve"

OBJECTS = Path(__file__).with_name("objects.yaml")
POLICY: dict[str, Any] = next(o for o in yaml.safe_load_all(OBJECTS.read_text()) if o["kind"] == "HealingPolicy")[
    "spec"
]
MODE: str = POLICY["mode"]
MAX_DATA_LOSS: str = POLICY["constraints"]["maxDataLoss"]


@dataclass
class World:
    """The running servers."""

    directory: Path
    cluster: Cluster
    primary: PostgreSQL
    replica: PostgreSQL
    pooler: PgBouncer
    relay: ServiceRelay
    load: Load
    prometheus: Prometheus
    operator_kubeconfig: Path

    def get(self, kind: str, name: str = "", *arguments: str) -> Any:
        """An object, or a list of them, as JSON."""
        text = self.cluster.kubectl("-n", NAMESPACE, "get", kind, *([name] if name else []), "-o", "json", *arguments)
        return json.loads(text)

    def database(self) -> dict[str, Any]:
        """The MonitoredDatabase as it is now."""
        found: dict[str, Any] = self.get("mdb", DATABASE)
        return found

    def actions(self) -> list[dict[str, Any]]:
        """All HealingActions, oldest first."""
        items: list[dict[str, Any]] = self.get("ha")["items"]
        return sorted(items, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def seconds(self) -> list[Second]:
        """What the client has felt so far, second by second."""
        return [measures.second_of(sample) for sample in self.load.samples()]

    def count_writes(self) -> tuple[int, int]:
        """Ends the load, then counts the writes that were acknowledged, and how many of them are gone.

        They are looked for in the primary that there is now; without one, in the replica.
        """
        self.load.stop()
        acknowledged = sum(len(numbers) for numbers in Journal.read(self.load.journal).values())
        server = self.primary if self.primary.running else self.replica
        dsn = server.dsn(DATABASE)
        return acknowledged, run_in_thread(lambda: lost_writes(self.load.journal, dsn))

    def rebuild_failed_primary(self) -> None:
        """Make the server that was killed a replica of the one that took its place: a DBA's work after a failover."""
        dead, successor = self.primary, self.replica
        dead.stop("immediate")
        self.primary = successor
        self.replica = successor.replica(dead.directory, name=f"{DATABASE}-0", synchronous=True, port=dead.port)


@contextmanager
def world(
    directory: Path,
    *,
    rate: float = RATE,
    cluster_directory: Path | None = None,
    runtime: Runtime = "kwok",
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[World]:
    """Start everything but the operator; stop it at the end, whatever happened. `say` is told of each step."""
    with ExitStack() as stack:
        say(f"a Kubernetes API server ({runtime}), with the chart's CRDs, roles and admission policies")
        cluster = Cluster.up(cluster_directory or directory / "cluster", chart=False, runtime=runtime)
        stack.callback(cluster.down)
        cluster.install_chart(f"ceiling.mode={MODE}")
        say(f"PostgreSQL {DATABASE}-0 with {LINES:,} order lines, and {DATABASE}-1 that replicates it synchronously")
        primary, replica = _databases(directory, stack)
        say(f"PgBouncer, {rate:.0f} client requests a second, the collector, Prometheus")
        _kubernetes(cluster, {"orders-0": primary, "orders-1": replica})
        relay = stack.enter_context(
            ServiceRelay.start(
                directory / "relay", kubeconfig=cluster.kubeconfig, namespace=NAMESPACE, service="orders-rw"
            )
        )
        pooler = stack.enter_context(
            PgBouncer.start(
                directory / "pgbouncer",
                databases={DATABASE: ("127.0.0.1", relay.port)},
                users={APP: APP_PASSWORD},
                pool_size=POOL_SIZE,
                settings={"max_client_conn": 500, "query_wait_timeout": 5, "server_login_retry": 1},
            )
        )
        load = stack.enter_context(
            Load.start(directory / "load", dsn=pooler.dsn(DATABASE, APP), rate=rate, lines=LINES, seed=1)
        )
        collector = _collector(directory, {"orders-0": primary, "orders-1": replica}, pooler, stack)
        prometheus = _prometheus(directory, collector, load, stack)
        _monitored(cluster, relay, pooler, prometheus, {"orders-0": primary, "orders-1": replica})
        kubeconfig = cluster.service_account_kubeconfig(
            "kintsugi-system", "kintsugi", directory / "operator-kubeconfig"
        )
        running = World(directory, cluster, primary, replica, pooler, relay, load, prometheus, kubeconfig)
        stack.callback(lambda: running.replica.stop("immediate"))  # it may be another than at the start
        yield running


def start_operator(world: World) -> Process:
    """The operator as a local process under its own ServiceAccount; its log is JSON lines."""
    config = world.directory / "operator.yaml"
    config.write_text(yaml.safe_dump({"ceiling": {"mode": MODE}, "listen": f"127.0.0.1:{free_port()}"}))
    command: Sequence[str | Path] = [
        sys.executable,
        "-m",
        "kintsugi.cli.main",
        "run",
        "--config",
        config,
        "--kubeconfig",
        world.operator_kubeconfig,
        "--port-file",
        world.directory / "operator.port",
    ]
    return Process.start("kintsugi", command, log=world.directory / "operator.log")


def _databases(directory: Path, stack: ExitStack) -> tuple[PostgreSQL, PostgreSQL]:
    primary = stack.enter_context(
        PostgreSQL.start(
            directory / "orders-0",
            settings=SETTINGS,
        )
    )
    primary.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
    primary.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
    primary.create_roles(DATABASE, owner=APP)
    run_in_thread(lambda: create_schema(primary.dsn(DATABASE, APP, APP_PASSWORD), lines=LINES))
    primary.execute(HISTORY, database=DATABASE)
    primary.execute("VACUUM ANALYZE", database=DATABASE)
    primary.execute("CREATE EXTENSION IF NOT EXISTS hypopg", database=DATABASE)
    replica = primary.replica(directory / "orders-1", name="orders-1", synchronous=True)
    stack.enter_context(replica)
    return primary, replica


def _kubernetes(cluster: Cluster, members: dict[str, PostgreSQL]) -> None:
    cluster.kubectl("apply", "-f", str(OBJECTS))
    for name, server in members.items():
        if not eventually(lambda name=name: name in cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name")):  # type: ignore[misc]
            raise TimeoutError(f"the pod {name} did not appear; is kube-controller-manager running?")
        cluster.kubectl("-n", NAMESPACE, "annotate", "pod", name, f"{ADDRESS}={server.address}")


def _collector(directory: Path, members: dict[str, PostgreSQL], pooler: PgBouncer, stack: ExitStack) -> str:
    """Start `kintsugi collect` for the database; its address."""
    config = {
        "databases": [
            {
                "name": DATABASE,
                "namespace": NAMESPACE,
                "members": [{"name": name, "host": "127.0.0.1", "port": s.port} for name, s in members.items()],
                "database": DATABASE,
                "username": "kintsugi_monitor",
                "password": "monitor",
                "tls": "disable",
                "pooler": {
                    "host": "127.0.0.1",
                    "port": pooler.port,
                    "username": ADMIN,
                    "password": ADMIN_PASSWORD,
                },
            }
        ]
    }
    path = directory / "collector.yaml"
    path.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "kintsugi.cli.main",
        "collect",
        "--config",
        path,
        "--listen",
        address,
    ]
    process = Process.start("collector", command, log=directory / "collector.log")
    stack.callback(process.stop)
    return address


def _prometheus(directory: Path, collector: str, load: Load, stack: ExitStack) -> Prometheus:
    node = stack.enter_context(NodeExporter.start(directory / "node"))
    return stack.enter_context(
        Prometheus.start(
            directory / "prometheus",
            {
                "collector": Scrape([collector]),
                "client": Scrape([load.address], LABELS),
                "node": Scrape([node.address], LABELS),
            },
        )
    )


def _monitored(
    cluster: Cluster, relay: ServiceRelay, pooler: PgBouncer, prometheus: Prometheus, members: dict[str, PostgreSQL]
) -> None:
    cluster.kubectl(
        "-n", NAMESPACE, "create", "secret", "generic", "orders-pooler-admin",
        f"--from-literal=username={ADMIN}", f"--from-literal=password={ADMIN_PASSWORD}",
    )  # fmt: skip
    body = {
        "apiVersion": "kintsugi.dev/v1alpha1",
        "kind": "MonitoredDatabase",
        "metadata": {"name": DATABASE, "namespace": NAMESPACE, "labels": {"tier": "critical"}},
        "spec": {
            "engine": "postgresql",
            "connection": {
                "host": "127.0.0.1",
                "port": relay.port,
                "database": DATABASE,
                "secretRef": "orders-kintsugi",
                "tls": "disable",
            },
            "metrics": {"prometheus": prometheus.url, "matchers": LABELS, "scrapeInterval": "1s"},
            "slo": {"signal": "client_latency_p99", "target": SLO},
            "reference": {"minimum": LEARNING, "window": "10m"},
            "pooler": {"pgbouncer": {"host": "127.0.0.1", "port": pooler.port, "secretRef": "orders-pooler-admin"}},
            "replication": {
                "streaming": {
                    "service": "orders-rw",
                    "members": [{"name": name, "host": "127.0.0.1", "port": s.port} for name, s in members.items()],
                }
            },
            "workloadRef": {"kind": "StatefulSet", "name": "orders"},
        },
    }
    cluster.kubectl("apply", "-f", "-", input=json.dumps(body))
