"""A small stand for end-to-end tests: a cluster, one Prometheus and collector, and lanes to inject faults into.

    lane: client load → PostgreSQL of its own           operator: a local process under its own ServiceAccount
    collector → Prometheus (1 s) ← the loads' metrics

A fault in one lane leaves the others calm, so that a test takes the lane that has been calm the longest, and each needs
little time to learn what is normal. Any number of `MonitoredDatabase`s may describe a lane, rightly or wrongly.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kintsugi.shell.kube import load_api_client
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.faults import Fault
from kintsugi_dev.load import Load
from kintsugi_dev.load.schema import create_schema
from kintsugi_dev.people import Person, RefusedError
from kintsugi_dev.servers import PostgreSQL, Prometheus, Scrape, eventually, free_port
from kintsugi_dev.servers.postgresql import run_in_thread
from kintsugi_dev.servers.process import Process

Json = dict[str, Any]

DATABASE = "shop"
APP, APP_PASSWORD = "shop_app", "app"
HEALER, HEALER_PASSWORD = "kintsugi_healer", "healer"
MODE = "AutoMediumRisk"
RATE = 30.0
LANES = ("anvil", "birch", "cedar")
LINES = 150_000
LEARNING = 10.0
WINDOW = 25.0
CALM = LEARNING + 16.0
"""Seconds without a fault after which a lane can be learned anew: what is learned, the reference's guard, and some."""
ONCALL = "dba-oncall"

DATABASES, POLICIES, ACTIONS = "monitoreddatabases", "healingpolicies", "healingactions"


@dataclass
class Lane:
    """One PostgreSQL with the shop in it, its clients, and since when it has been calm (monotonic clock)."""

    name: str
    server: PostgreSQL
    load: Load
    calm_since: float
    busy: bool = False

    @property
    def dsn(self) -> str:
        """For the application."""
        return self.server.dsn(DATABASE, APP, APP_PASSWORD)

    @property
    def matchers(self) -> dict[str, str]:
        """What selects its series."""
        return {"namespace": "stand", "service": self.name}

    def wait_calm(self) -> None:
        """Return when nothing of an earlier fault would be learned."""
        time.sleep(max(0.0, self.calm_since + CALM - time.monotonic()))

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[Fault]:
        """Inject a fault; lift it at the end."""
        self.busy = True
        try:
            fault.inject()
            yield fault
        finally:
            fault.lift()
            self.busy = False
            self.calm_since = time.monotonic()

    @contextmanager
    def no_new_connections(self) -> Iterator[None]:
        """The server takes no new connection: what connects hangs. Sessions that exist go on."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    def rows(self, statement: str, *arguments: object) -> list[Json]:
        """What the superuser reads in the lane's database."""
        return self.server.fetch(statement, *arguments, database=DATABASE)

    def count(self, statement: str) -> int:
        """How often the operator has executed statements like this, as pg_stat_statements counts."""
        rows = self.rows(
            "SELECT coalesce(sum(s.calls), 0)::int AS n FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid"
            f" WHERE s.query LIKE $1 AND r.rolname = '{HEALER}'",
            statement,
        )
        return int(rows[0]["n"])


@dataclass
class Stand:
    """Everything that runs, and short ways to make objects."""

    directory: Path
    cluster: Cluster
    prometheus: Prometheus
    lanes: list[Lane]
    collector: Process
    collector_command: Sequence[str | Path]
    admin: Person
    kubeconfig: Path
    _namespaces: list[str] = field(default_factory=list)

    def calmest_lane(self) -> Lane:
        """The lane that has been calm the longest."""
        return min((each for each in self.lanes if not each.busy), key=lambda each: each.calm_since)

    def namespace(self, name: str) -> str:
        """A fresh namespace with the database's Secret, in which `ann` may edit, pause, approve and reject."""
        name = f"{name[:40].strip('-')}-{secrets.token_hex(3)}"
        self.admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.secret(name, "database", username=HEALER, password=HEALER_PASSWORD)
        for role in ("kintsugi-approver", "kintsugi-editor"):
            self.admin.request(
                "POST",
                f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings",
                {
                    "metadata": {"name": role},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": ONCALL}],
                },
            )
        self._namespaces.append(name)
        return name

    def close_namespace(self, name: str) -> None:
        """Delete it with all that is in it; returns when our objects are gone, so that nothing acts any more."""
        self.admin.request("DELETE", f"/api/v1/namespaces/{name}")
        with suppress(RefusedError):  # quicker than the namespace's own controller
            self.admin.delete(DATABASES, name)
        eventually(lambda: self._empty(name), 30)

    def _empty(self, namespace: str) -> bool:
        try:
            return not self.admin.request("GET", _path(DATABASES, namespace))["items"]
        except RefusedError:  # a CRD has just been changed
            return False

    @property
    def ann(self) -> Person:
        """Is on call."""
        return Person(self.admin.api, "ann", (ONCALL, "system:authenticated"))

    def secret(self, namespace: str, name: str, **values: str) -> None:
        """Create a Secret."""
        body = {"metadata": {"name": name}, "stringData": values}
        self.admin.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)

    def database(self, namespace: str, lane: Lane, name: str = "orders", **spec: Any) -> Json:
        """Create a `MonitoredDatabase` that describes a lane; `spec` replaces parts of it (None removes)."""
        whole = {
            "engine": "postgresql",
            "connection": {
                "host": lane.server.host,
                "port": lane.server.port,
                "database": DATABASE,
                "secretRef": "database",
                "tls": "disable",
            },
            "metrics": {"prometheus": self.prometheus.url, "matchers": lane.matchers, "scrapeInterval": "1s"},
            "reference": {"minimum": f"{LEARNING:.0f}s", "window": f"{WINDOW:.0f}s"},
            "slo": {"signal": "client_latency_p99", "target": "200ms"},
        } | spec
        body = {
            "apiVersion": "kintsugi.dev/v1alpha1",
            "kind": "MonitoredDatabase",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {key: value for key, value in whole.items() if value is not None},
        }
        return self.admin.create(DATABASES, namespace, body)

    def policy(self, namespace: str, name: str = "all", **spec: Any) -> Json:
        """Create a `HealingPolicy` for every database of the namespace, that acts at once."""
        whole = {
            "selector": {},
            "mode": MODE,
            "limits": {"perHour": 50, "cooldown": "1s"},
            "verification": {"window": "30s"},
        } | spec
        body = {
            "apiVersion": "kintsugi.dev/v1alpha1",
            "kind": "HealingPolicy",
            "metadata": {"name": name},
            "spec": whole,
        }
        return self.admin.create(POLICIES, namespace, body)

    def get(self, plural: str, namespace: str, name: str) -> Json:
        """One of our objects as it is now."""
        return self.admin.get(plural, namespace, name)

    def actions(self, namespace: str, action: str = "") -> list[Json]:
        """The namespace's `HealingAction`s, oldest first."""
        items = self.admin.request("GET", _path(ACTIONS, namespace))["items"]
        found = [item for item in items if action in ("", item["spec"]["action"])]
        return sorted(found, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def events(self, namespace: str, reason: str = "", about: str = "") -> list[Json]:
        """The namespace's Events of one reason, about objects of one name."""
        items = self.admin.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return [item for item in items if reason in ("", item["reason"]) and about in ("", item["regarding"]["name"])]

    def disturbed(self) -> None:
        """Something has disturbed every lane until now."""
        for lane in self.lanes:
            lane.calm_since = time.monotonic()

    def stop_collector(self) -> None:
        """Kill the collector."""
        self.collector.kill()

    def start_collector(self) -> None:
        """Start it (again)."""
        if not self.collector.running:
            self.collector = Process.start("collector", self.collector_command, log=self.directory / "collector.log")


@contextmanager
def stand(
    directory: Path, *, lanes: Sequence[str] = ("anvil", "birch", "cedar"), rate: float = RATE
) -> Iterator[Stand]:
    """Start everything but the operator; stop it at the end, whatever happened."""
    with ExitStack() as stack:
        cluster = Cluster.up(directory / "cluster", chart=False)
        stack.callback(cluster.down)
        cluster.install_chart(f"ceiling.mode={MODE}")
        running = [_lane(directory / name, name, rate, stack) for name in lanes]
        command = _collector_command(directory, running)
        jobs = {"collector": Scrape([str(command[-1])])}
        jobs |= {f"client-{lane.name}": Scrape([lane.load.address], lane.matchers) for lane in running}
        prometheus = stack.enter_context(Prometheus.start(directory / "prometheus", jobs))
        kubeconfig = cluster.service_account_kubeconfig(
            "kintsugi-system", "kintsugi", directory / "operator-kubeconfig"
        )
        collector = Process.start("collector", command, log=directory / "collector.log")
        admin = Person(load_api_client(str(cluster.kubeconfig)))
        whole = Stand(directory, cluster, prometheus, running, collector, command, admin, kubeconfig)
        stack.callback(lambda: whole.collector.stop())
        for lane in running:
            _wait_for_series(prometheus, lane)
            lane.calm_since = time.monotonic()
        yield whole


def _lane(directory: Path, name: str, rate: float, stack: ExitStack) -> Lane:
    server = stack.enter_context(
        PostgreSQL.start(directory, settings={"max_connections": 60, "shared_buffers": "48MB"})
    )
    server.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
    server.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
    server.create_roles(DATABASE, owner=APP)
    dsn = server.dsn(DATABASE, APP, APP_PASSWORD)
    run_in_thread(lambda: create_schema(dsn, lines=LINES))
    server.execute("VACUUM ANALYZE", database=DATABASE)
    server.execute("CREATE EXTENSION IF NOT EXISTS hypopg", database=DATABASE)
    load = stack.enter_context(
        Load.start(directory.with_name(f"{name}-load"), dsn=dsn, rate=rate, connections=15, lines=LINES, seed=1)
    )
    return Lane(name, server, load, time.monotonic())


def _collector_command(directory: Path, lanes: Sequence[Lane]) -> list[str | Path]:
    config = {
        "databases": [
            {
                "name": lane.name,
                "namespace": "stand",
                "members": [{"name": f"{lane.name}-0", "host": lane.server.host, "port": lane.server.port}],
                "database": DATABASE,
                "username": "kintsugi_monitor",
                "password": "monitor",
                "tls": "disable",
            }
            for lane in lanes
        ]
    }
    path = directory / "collector.yaml"
    path.write_text(yaml.safe_dump(config))
    program = [sys.executable, "-m", "kintsugi.cli.main", "collect"]
    return [*program, "--config", path, "--listen", f"127.0.0.1:{free_port()}"]


def _wait_for_series(prometheus: Prometheus, lane: Lane) -> None:
    selector = ",".join(f'{key}="{value}"' for key, value in lane.matchers.items())
    if not eventually(lambda: bool(prometheus.query(f"last_over_time(kintsugi_pg_up{{{selector}}}[5s])")), 30):
        raise TimeoutError(f"no series of {lane.name} in Prometheus; {prometheus.tail()}")


def _path(plural: str, namespace: str) -> str:
    return f"/apis/kintsugi.dev/v1alpha1/namespaces/{namespace}/{plural}"
