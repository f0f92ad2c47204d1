"""Another server behind the same name, or a level that a person accepted: what was normal before counts no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.frame import Floats
from kintsugi.loops.hub import Hub, _observed
from kintsugi.loops.watch import Watch
from kintsugi.shell.models import ModelsError
from kintsugi.shell.prometheus import Samples
from kintsugi.shell.telemetry import OperatorMetrics, Pulse
from kintsugi.stages.ports import LearnedModel
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import METRICS, Memory

KEY = "shop/orders"
START = 1_800_000_000.0
CALM, BUSY = 10.0, 40.0
LEARNED = 1800.0


def no_models() -> LearnedModel:
    raise ModelsError("NotInstalled", "the learned models are not installed: use the image")


class Server:
    """A hub over one database whose metrics are at a level that can be set."""

    def __init__(self, interval: float = 1.0) -> None:
        memory = Memory()
        self.hub = Hub(
            memory.kube,
            memory.ceiling,
            OperatorMetrics(),
            Pulse(time.monotonic),
            identity="operator/1",
            load_models=no_models,
        )
        self.interval = interval
        self.now = START
        self.random = np.random.default_rng(0)

    async def apply(self, generation: int = 1, uid: str = "uid-1", since: float | None = None) -> None:
        """The object as it is now in the API server."""
        body = a_database("orders", metrics={**METRICS, "scrapeInterval": f"{self.interval:g}s"})
        meta = body.metadata.model_copy(
            update={"resource_version": str(time.monotonic_ns()), "generation": generation, "uid": uid}
        )
        status = {"referenceSince": datetime.fromtimestamp(since, UTC).isoformat()} if since else {}
        raw = {"metadata": meta.model_dump(mode="json", by_alias=True), "spec": body.spec.to_json(), "status": status}
        self.hub.fleet.apply(MonitoredDatabase.PLURAL, raw)
        await self.hub._keep_watches()

    @property
    def watch(self) -> Watch:
        return self.hub.watches[KEY]

    def measured(self, times: Floats, level: float) -> None:
        names = ("client_latency_p95", "lock_waiters", "statement_latency")
        columns = {name: level * (1 + 0.02 * self.random.standard_normal(len(times))) for name in names}
        self.watch.buffer.append(Samples(times, {**columns, "postgres_up": np.ones(len(times))}))

    def judged(self) -> Anomaly:
        observed = _observed(self.hub.fleet.databases[KEY], self.watch, self.now, learned=False)
        [(anomaly, state)] = self.hub._detection.detect([observed], self.now)
        self.watch.judged(anomaly, state, self.now)
        return anomaly

    def history(self, level: float) -> Anomaly:
        self.measured(np.arange(self.now - LEARNED, self.now + self.interval / 2, self.interval), level)
        return self.judged()

    def goes_on(self, level: float) -> Anomaly:
        self.now += self.interval
        self.measured(np.array([self.now]), level)
        return self.judged()


async def an_edited_spec(server: Server) -> None:
    await server.apply(generation=2)


async def made_anew(server: Server) -> None:
    await server.apply(uid="uid-2")


async def deleted_and_made_anew(server: Server) -> None:
    server.hub.fleet.remove(MonitoredDatabase.PLURAL, KEY)
    await server.hub._keep_watches()
    await server.apply(uid="uid-2")


@pytest.mark.parametrize("change", [an_edited_spec, made_anew, deleted_and_made_anew])
async def test_another_server_behind_the_same_name_is_judged_by_its_own_normal(
    change: Callable[[Server], object],
) -> None:
    server = Server()
    await server.apply()
    assert not server.history(CALM).flagged

    await change(server)  # type: ignore[misc]

    assert not server.history(BUSY).flagged
    assert not any(server.goes_on(BUSY).suspected for _ in range(20))
    assert any(server.goes_on(CALM * 40).flagged for _ in range(5))


@pytest.mark.parametrize(("interval", "lasts"), [(1.0, 45.0), (15.0, 390.0), (30.0, 500.0)])
async def test_what_a_person_accepted_does_not_alarm_again(interval: float, lasts: float) -> None:
    server = Server(interval)
    await server.apply()
    server.history(CALM)
    while not server.goes_on(BUSY).flagged:
        assert server.now < START + 20 * interval
    opened = server.now
    server.watch.freeze(server.hub.fleet.databases[KEY], opened)
    server.watch.opened(opened)
    while server.now < opened + lasts:
        server.goes_on(BUSY)
    assert server.judged().flagged

    await server.apply(since=opened)
    server.watch.accept_present()

    assert not any((anomaly := server.goes_on(BUSY)).flagged or anomaly.suspected for _ in range(60))
