"""The hub: what hangs, fails or steps back in time in one place must not stop the rest, and must not look alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import LABEL
from kintsugi.loops.hub import Hub
from kintsugi.loops.people import UNDERSTOOD
from kintsugi.shell.models import ModelsError
from kintsugi.shell.telemetry import STALE_AFTER, OperatorMetrics, Pulse
from kintsugi.stages.ports import LearnedModel
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import METRICS, Memory

DATABASES = MonitoredDatabase.PLURAL


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def no_models() -> LearnedModel:
    raise ModelsError("NotInstalled", "the learned models are not installed: use the image")


class Cared:
    """A hub over some databases whose observing and cycles a test replaces; nothing is asked over a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.clock = Clock()
        self.pulse = Pulse(self.clock)
        self.hub = Hub(
            Memory().kube,
            Memory().ceiling,
            OperatorMetrics(),
            self.pulse,
            identity="operator/1",
            load_models=no_models,
        )
        self.cycled: list[str] = []
        self.observed: list[float] = []
        for name in names:
            body = a_database(name, metrics=METRICS)
            meta = body.metadata.model_copy(update={"resource_version": "1"})
            raw = {"metadata": meta.model_dump(mode="json", by_alias=True), "spec": body.spec.to_json(), "status": {}}
            self.hub.fleet.apply(DATABASES, raw)
        self.hub.fleet.complete = True
        self.hub._listed_at = 0.0

        async def observe(_: Any, now: float) -> None:
            self.observed.append(now)

        async def cycle(database: MonitoredDatabase, *_: Any) -> None:
            self.cycled.append(database.metadata.name)

        monkeypatch.setattr(self.hub._observer, "observe", observe)
        monkeypatch.setattr(self.hub._databases, "cycle", cycle)

    async def runs(self, seconds: float, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Let the hub's loop over databases run for a while."""
        task = asyncio.create_task(work or self.hub._databases_for_ever())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_finished_cycle_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    cared.clock.now = STALE_AFTER + 1

    await cared.runs(0.05)

    assert cared.cycled == ["orders"]
    assert cared.pulse.alive


async def test_a_cycle_that_hangs_does_not_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    cared.clock.now = STALE_AFTER + 1

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(cared.hub._databases, "cycle", hang)
    await cared.runs(0.1)

    assert not cared.pulse.alive


async def test_a_fleet_whose_every_cycle_fails_does_not_beat(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cared = Cared(monkeypatch, "orders")
    cared.clock.now = STALE_AFTER + 1

    async def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(cared.hub._observer, "observe", broken)
    await cared.runs(0.1)

    assert not cared.pulse.alive
    assert "a cycle of the whole fleet failed" in caplog.text


async def test_one_database_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cared = Cared(monkeypatch, "bad", "good")
    healthy = cared.hub._databases.cycle

    async def cycle(database: MonitoredDatabase, *rest: Any) -> None:
        if database.metadata.name == "bad":
            raise RuntimeError("a defect")
        await healthy(database, *rest)

    monkeypatch.setattr(cared.hub._databases, "cycle", cycle)
    await cared.runs(0.1)

    assert cared.cycled == ["good"]
    assert "the cycle of shop/bad failed" in caplog.text


@pytest.mark.parametrize("step", [-3600.0, -40.0, 3600.0], ids=["an hour back", "forty seconds back", "an hour on"])
async def test_a_wall_clock_that_is_set_does_not_stop_the_loops(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    cared = Cared(monkeypatch, "orders")
    wall = [1_800_000_000.0]
    monkeypatch.setattr("kintsugi.loops.hub.time.time", lambda: wall[0])
    await cared.runs(0.05)

    wall[0] += step
    await cared.runs(1.3)

    assert len(cared.cycled) >= 2
    assert cared.observed[-1] == wall[0]


async def test_before_everything_is_listed_no_database_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    cared.hub._listed_at = None

    await cared.runs(0.05)

    assert cared.cycled == []


async def test_a_gate_that_cannot_be_asked_does_not_end_the_operator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cared = Cared(monkeypatch)

    def broken() -> None:
        raise RuntimeError("odd answer")

    monkeypatch.setattr(cared.hub.services.gate, "check", broken)
    task = asyncio.create_task(cared.hub._test_the_gate_for_ever())
    await asyncio.sleep(0.05)

    assert not task.done()
    assert "the approval gate's self-test failed" in caplog.text
    task.cancel()


async def test_our_own_status_coming_back_makes_no_new_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    await cared.runs(0.05)
    database = cared.hub.fleet.databases["shop/orders"]
    meta = database.metadata.model_dump(mode="json", by_alias=True) | {"resourceVersion": "2"}
    body = {"metadata": meta, "spec": database.spec.to_json(), "status": {"phase": "Healthy"}}

    cared.hub.on_event(DATABASES, "MODIFIED", body)
    await cared.runs(0.05)
    assert cared.cycled == ["orders"]

    body["metadata"] = meta | {"resourceVersion": "3", "annotations": {"kintsugi.dev/pause": "now"}}
    cared.hub.on_event(DATABASES, "MODIFIED", body)
    await cared.runs(0.05)
    assert cared.cycled == ["orders", "orders"]


async def test_a_database_made_anew_under_the_same_name_is_learned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    await cared.runs(0.05)
    first = cared.hub.watches["shop/orders"]
    database = cared.hub.fleet.databases["shop/orders"]
    meta = database.metadata.model_dump(mode="json", by_alias=True) | {"uid": "another", "resourceVersion": "9"}

    cared.hub.on_event(DATABASES, "ADDED", {"metadata": meta, "spec": database.spec.to_json(), "status": {}})
    await cared.runs(0.05)

    assert cared.hub.watches["shop/orders"] is not first


async def test_a_deleted_database_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    await cared.runs(0.05)
    meta = cared.hub.fleet.databases["shop/orders"].metadata.model_dump(mode="json", by_alias=True)

    cared.hub.on_event(DATABASES, "DELETED", {"metadata": meta})
    await cared.runs(0.05)

    assert cared.hub.watches == {}


async def test_a_label_that_nobody_keeps_is_answered_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    cared = Cared(monkeypatch, "orders")
    await cared.runs(0.05)
    beside = cared.hub.watches["shop/orders"].beside
    assert UNDERSTOOD not in beside
    database = cared.hub.fleet.databases["shop/orders"]
    meta = database.metadata.model_dump(mode="json", by_alias=True) | {"resourceVersion": "9"}
    labelled = meta | {"annotations": {LABEL: "normal:backup@2026-01-02T01:00:00Z/PT2M"}}

    for metadata in (labelled, meta | {"resourceVersion": "10"}):
        cared.hub.on_event(DATABASES, "MODIFIED", {"metadata": metadata, "spec": database.spec.to_json(), "status": {}})
        await cared.runs(0.05)
        said = cared.hub.watches["shop/orders"].beside.get(UNDERSTOOD)
        if metadata is labelled:
            assert said is not None
            assert said[:2] == (False, "NotKept")
            assert "experience.enabled" in said[2]
    assert said is None


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
