"""Observing many databases: one Prometheus that hangs, fails or talks nonsense costs only its own databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from kintsugi.api.database import DatabaseStatus, IncidentStatus, MonitoredDatabase
from kintsugi.loops import observe as observe_module
from kintsugi.loops.observe import Observer
from kintsugi.loops.watch import Watch, new_watch
from kintsugi.shell.errors import PrometheusError
from kintsugi.shell.prometheus import Endpoint, Group, Samples, Subject
from kintsugi.shell.secrets import Secrets
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import POSTGRESQL, MemoryKube

NOW = 1_800_000_000.0
Pair = tuple[MonitoredDatabase, Watch]
OFFERS = {"postgres_up": ("kintsugi",)}


class Server:
    """A Prometheus that answers what a test says; remembers the ranges it was asked for."""

    def __init__(self, before: Callable[[], Awaitable[None]] | None = None, offers: bool = True) -> None:
        self.before = before
        self.offers = offers
        self.asked: list[tuple[float, float]] = []

    async def discover(self, group: Group, subjects: Sequence[Subject], now: float) -> Any:
        return {subject.key: OFFERS if self.offers else {} for subject in subjects}

    async def read(
        self, group: Group, subjects: Sequence[Subject], offers: Any, *, start: float, end: float
    ) -> dict[str, Samples]:
        if self.before:
            await self.before()
        self.asked.append((start, end))
        times = np.arange(start, end + 0.5, 1.0)
        return {subject.key: Samples(times, {"postgres_up": np.ones(len(times))}) for subject in subjects}

    async def value(self, query: str) -> float | None:
        if self.before:
            await self.before()
        return 0.25

    async def close(self) -> None:
        pass


class Watched:
    """An observer over databases, each with a Prometheus of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.observer = Observer(Secrets(MemoryKube()))
        self.pairs: list[Pair] = []
        self._servers: dict[str, Server] = {}
        monkeypatch.setattr(self.observer, "_client", lambda endpoint: self._servers[endpoint.url])
        monkeypatch.setattr(observe_module, "PATIENCE", 0.2)

    def add(self, name: str, server: Server, status: DatabaseStatus | None = None, **spec: Any) -> Watch:
        metrics = {"prometheus": f"http://{name}", "matchers": {"service": name}, "scrapeInterval": "1s"}
        database = a_database(name, metrics=metrics | spec.pop("metrics", {}), **spec)
        if status:
            database = database.model_copy(update={"status": status})
        self._servers[f"http://{name}"] = server
        self.pairs.append((database, new_watch(database, POSTGRESQL, NOW)))
        return self.pairs[-1][1]

    async def look(self, now: float = NOW) -> float:
        """Observe once; the seconds it took."""
        began = time.monotonic()
        await self.observer.observe(self.pairs, now)
        return time.monotonic() - began


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_the_window_is_read_once_and_then_only_what_is_new(watched: Watched) -> None:
    server = Server()
    watch = watched.add("orders", server, reference={"window": "60s", "minimum": "10s"})

    for second in range(3):
        await watched.look(NOW + second)

    assert server.asked == [(NOW - 61, NOW - 1), (NOW, NOW), (NOW + 1, NOW + 1), (NOW + 2, NOW + 2)]
    assert watch.metrics_problem is None
    assert watch.buffer.newest == NOW + 2


async def test_after_a_restart_the_window_before_the_open_incident_is_read(watched: Watched) -> None:
    server = Server()
    opened = datetime.fromtimestamp(NOW - 100, UTC)
    status = DatabaseStatus(incident=IncidentStatus(id="1402", opened_at=opened))
    watched.add("orders", server, status, reference={"window": "60s", "minimum": "10s"})

    await watched.look()

    assert server.asked[0][0] <= NOW - 100 - 60
    assert server.asked[0][1] == NOW - 1


async def test_one_that_hangs_delays_nobody_and_is_told(watched: Watched) -> None:
    slow = watched.add("slow", Server(forever))
    good = watched.add("good", Server())

    took = [await watched.look(NOW + second) for second in range(3)]

    assert max(took) < 1
    assert good.buffer.newest == NOW + 2
    assert slow.metrics_problem is not None
    assert slow.metrics_problem.reason == "PrometheusSlow"
    assert "http://slow takes longer than 0.2 s to answer" in slow.metrics_problem.message
    await watched.observer.close()


async def test_one_that_hung_is_read_again_when_it_answers(watched: Watched) -> None:
    let_go = asyncio.Event()

    async def wait() -> None:
        await let_go.wait()

    slow = watched.add("slow", Server(wait))
    await watched.look()
    let_go.set()
    await asyncio.sleep(0.05)

    await watched.look(NOW + 2)
    await watched.look(NOW + 3)

    assert slow.metrics_problem is None
    assert slow.buffer.newest == NOW + 3


async def test_one_that_fails_or_surprises_is_told_and_costs_nobody_else(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse() -> None:
        raise PrometheusError("PrometheusFailing", "Prometheus at http://sick failed; see its log")

    async def surprise() -> None:
        raise RuntimeError("a defect")

    sick, odd, good = (
        watched.add("sick", Server(refuse)),
        watched.add("odd", Server(surprise)),
        watched.add("good", Server()),
    )

    await watched.look()

    assert sick.metrics_problem
    assert sick.metrics_problem.reason == "PrometheusFailing"
    assert odd.metrics_problem
    assert odd.metrics_problem.reason == "PrometheusNonsense"
    assert good.metrics_problem is None
    assert good.buffer.newest == NOW
    assert "a defect" in caplog.text


async def test_a_missing_secret_is_told_and_costs_nobody_else(watched: Watched) -> None:
    closed = watched.add("closed", Server(), metrics={"auth": {"type": "bearer", "secretRef": "token"}})
    good = watched.add("good", Server())

    await watched.look()

    assert closed.metrics_problem
    assert closed.metrics_problem.reason == "SecretMissing"
    assert good.metrics_problem is None


async def test_no_series_is_told_with_the_selector(watched: Watched) -> None:
    watch = watched.add("orders", Server(offers=False))

    await watched.look()

    assert watch.metrics_problem
    assert watch.metrics_problem.reason == "NoSeries"
    assert '{service="orders"}' in watch.metrics_problem.message


async def test_a_clock_set_back_begins_anew(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    watch = watched.add("orders", server)
    await watched.look()

    await watched.look(NOW - 3600)

    assert watch.buffer.newest == NOW - 3600
    assert "the clock was set back; shop/orders learns its reference anew" in caplog.text


async def test_a_free_latency_query_is_asked_every_half_minute_and_holds_nobody_up(watched: Watched) -> None:
    slo = {"latencyQuery": "vector(1)", "target": "1s"}
    quick = watched.add("quick", Server(), slo=slo)
    hanging = watched.add("hanging", Server(), slo=slo)
    server = watched._servers["http://hanging"]

    async def hang_on_values() -> None:
        if server.asked:
            await forever()

    server.before = hang_on_values
    took = await watched.look()

    assert took < 1
    assert quick.slo_value == 0.25
    assert hanging.slo_value is None
    await watched.observer.close()


async def test_an_endpoint_shows_no_secret() -> None:
    assert "s3cret" not in repr(Endpoint("http://p", token="s3cret", basic=("u", "s3cret"), ca="s3cret"))


async def test_the_past_is_read_as_one_frame_on_the_grid(watched: Watched) -> None:
    server = Server()
    watch = watched.add("orders", server)
    watch.offers = OFFERS

    frame = await watched.observer.past(watched.pairs[0][0], watch, NOW - 100.4, NOW - 50.2)

    assert server.asked == [(NOW - 101, NOW - 51)]
    assert frame.times.tolist() == list(np.arange(NOW - 101, NOW - 50))
    assert frame.signals == POSTGRESQL.catalogue.names()
    assert frame.column("postgres_up").tolist() == [1.0] * 51


async def test_a_past_that_prometheus_does_not_tell_is_an_error_and_no_gap(watched: Watched) -> None:
    async def away() -> None:
        raise PrometheusError("PrometheusUnreachable", "away")

    watch = watched.add("orders", Server(before=away))

    with pytest.raises(PrometheusError, match="away"):
        await watched.observer.past(watched.pairs[0][0], watch, NOW - 100, NOW - 50)

    assert watch.metrics_problem is None
