"""Every signal that node exporter or Debian's postgres_exporter offers is found in the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kintsugi.domain.signals import Signal
from kintsugi.engines.catalogue import load, render
from kintsugi_dev.servers import (
    NodeExporter,
    PostgresExporter,
    PostgreSQL,
    Prometheus,
    Scrape,
    eventually,
    server_directory,
)

LABELS = {"namespace": "shop", "service": "orders"}
SELECTOR = 'namespace=~"shop",service=~"orders"'
CATALOGUE = load("postgresql")


@pytest.fixture(scope="module")
def scraped() -> Iterator[Prometheus]:
    """A Prometheus that has scraped both exporters; the PostgreSQL behind one has a replica."""
    with server_directory("kintsugi-exporters-") as directory, ExitStack() as stack:
        primary = stack.enter_context(PostgreSQL.start(directory / "primary", version=15))
        stack.enter_context(primary.replica(directory / "replica"))
        exporter = PostgresExporter.start(directory / "postgres", dsn=primary.dsn(sslmode="disable"))
        node = NodeExporter.start(directory / "node")
        jobs = {
            "postgres": Scrape([stack.enter_context(exporter).address], LABELS),
            "node": Scrape([stack.enter_context(node).address], LABELS),
        }
        prometheus = stack.enter_context(Prometheus.start(directory / "prometheus", jobs))
        seen = "min(count_over_time(up[1m])) >= 4 and sum(up) == 2"
        assert eventually(lambda: prometheus.value(seen) is not None, timeout=30)
        yield prometheus


def offered_by(source: str) -> list[Signal]:
    return [signal for signal in CATALOGUE if source in signal.sources]


def value(prometheus: Prometheus, signal: Signal, source: str) -> float:
    found = prometheus.query(render(signal, source, tuple(LABELS), SELECTOR, 1.0))
    assert [series["metric"] for series in found] == [LABELS]
    return float(found[0]["value"][1])


@pytest.mark.parametrize("signal", offered_by("postgres_exporter"), ids=lambda signal: signal.name)
def test_postgres_exporter_has_the_signal(scraped: Prometheus, signal: Signal) -> None:
    assert value(scraped, signal, "postgres_exporter") >= 0


@pytest.mark.parametrize("signal", offered_by("node_exporter"), ids=lambda signal: signal.name)
def test_node_exporter_has_the_signal(scraped: Prometheus, signal: Signal) -> None:
    if "node_pressure" in signal.sources["node_exporter"] and not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel has no pressure stall information")
    assert value(scraped, signal, "node_exporter") >= 0


def test_postgres_exporter_tells_a_quiet_server_with_one_replica(scraped: Prometheus) -> None:
    used = CATALOGUE.get("connections_used")
    up = CATALOGUE.get("postgres_up")
    replicas = CATALOGUE.get("replicas_streaming")
    assert used is not None
    assert up is not None
    assert replicas is not None
    assert 0 < value(scraped, used, "postgres_exporter") < 0.5
    assert value(scraped, up, "postgres_exporter") == 1
    assert value(scraped, replicas, "postgres_exporter") == 1
