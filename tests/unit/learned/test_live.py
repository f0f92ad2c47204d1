"""A label on a live database: from the annotation through the store to the next cycle, across a restart."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import LABEL, LABELLED_BY
from kintsugi.domain.anomaly import Anomaly, Effect
from kintsugi.domain.signals import Hurts, Role
from kintsugi.engines.registry import ENGINES
from kintsugi.loops.detection import READY
from kintsugi.loops.hub import Hub
from kintsugi.shell.experience import ExperienceStore
from kintsugi.shell.prometheus import Samples
from kintsugi.shell.telemetry import OperatorMetrics, Pulse
from kintsugi.stages.ports import LearnedModel
from kintsugi_dev.builders import a_database
from kintsugi_dev.judged import Says
from kintsugi_dev.memory import METRICS, Memory

KEY = "shop/orders"
CATALOGUE = ENGINES["postgresql"].catalogue
LOUD = [s.name for s in CATALOGUE if s.role is Role.SYMPTOM and s.hurts is Hurts.UP and s.unit == "s" and s.exporters][
    :2
]
LEARNED, FAULT = 400, 30


class Operator:
    """A hub over one database, whose samples a test makes; nothing is asked over a network."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, store: Path, *, at: float, model: LearnedModel, **spec: Any
    ) -> None:
        memory = Memory()
        self.at = at
        self.hub = Hub(
            memory.kube,
            memory.ceiling,
            OperatorMetrics(),
            Pulse(),
            identity="operator/1",
            experience=lambda: ExperienceStore(f"sqlite:///{store}"),
            load_models=lambda: model,
        )
        self.spec: dict[str, Any] = {"metrics": METRICS, "reference": {"minimum": "60s", "window": "10m"}} | spec
        self.label()
        self.hub.fleet.complete = True

        async def nothing(*_: Any) -> None:
            return None

        monkeypatch.setattr(self.hub._observer, "observe", nothing)
        monkeypatch.setattr(self.hub._databases, "cycle", nothing)

    def label(self, **annotations: str) -> None:
        """The object as it is now, annotated by a person and stamped by the API server."""
        body = a_database("orders", **self.spec)
        meta = body.metadata.model_copy(update={"resource_version": str(time.monotonic_ns())})
        raw = {"metadata": meta.model_dump(mode="json", by_alias=True), "spec": body.spec.to_json(), "status": {}}
        raw["metadata"]["annotations"] = annotations
        self.hub.fleet.apply(MonitoredDatabase.PLURAL, raw)

    async def begin(self) -> None:
        """Minutes of quiet and half a minute of trouble are read, and the models."""
        await self.hub._keep_watches()
        random = np.random.default_rng(1)
        times = self.at - np.arange(LEARNED + FAULT, 0, -1, dtype=np.float64)
        columns = {name: random.normal(5.0, 1.0, len(times)) for name in CATALOGUE.names()}
        columns |= {signal.name: np.ones(len(times)) for signal in CATALOGUE if signal.name.endswith("_up")}
        for name in LOUD:
            columns[name][-FAULT:] = 500.0
        watch = self.hub.watches[KEY]
        watch.offers = dict.fromkeys(columns, ("kintsugi",))
        watch.buffer.append(Samples(times, columns))
        watch.incidents = [(self.at - FAULT, self.at)]  # as it was found when the buffer was filled
        self.hub._detection.keep(wanted=True)
        loading = self.hub._detection._loading
        assert loading is not None
        await loading

    async def cycle(self) -> Anomaly:
        watch = self.hub.watches[KEY]
        await self.hub._cycle([(self.hub.fleet.databases[KEY], watch)], self.at)
        assert watch.anomaly is not None
        return watch.anomaly

    async def look(self) -> None:
        assert self.hub._experience is not None
        assert await self.hub._experience.look(self.at)


@pytest.fixture
def now() -> float:
    return float(int(time.time()))


async def test_a_label_on_a_live_database_changes_its_next_cycle_and_survives_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: float
) -> None:
    operator = Operator(monkeypatch, tmp_path / "experience.db", at=now, model=Says(0.2))
    await operator.begin()
    assert (await operator.cycle()).flagged
    start = datetime.fromtimestamp(now - FAULT, UTC).isoformat()

    operator.label(**{LABEL: f"normal:backup@{start}/PT{FAULT}S", LABELLED_BY: "ann"})
    await operator.look()

    after = await operator.cycle()
    assert not after.flagged
    assert after.opinion is not None
    assert (after.opinion.normals, after.opinion.effect) == (1, Effect.SILENCED)
    assert operator.hub.watches[KEY].beside[READY] == (True, "Loaded", "bundle 7 (a test)")

    again = Operator(monkeypatch, tmp_path / "experience.db", at=now, model=Says(0.2))
    await again.begin()
    await again.look()
    assert not (await again.cycle()).flagged


async def test_who_switched_the_learned_detector_off_is_judged_without_examples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: float
) -> None:
    operator = Operator(monkeypatch, tmp_path / "experience.db", at=now, model=Says(0.2), detector="Statistical")
    await operator.begin()
    start = datetime.fromtimestamp(now - FAULT, UTC).isoformat()
    operator.label(**{LABEL: f"normal:backup@{start}/PT{FAULT}S", LABELLED_BY: "ann"})
    await operator.look()

    anomaly = await operator.cycle()

    assert anomaly.flagged
    assert anomaly.opinion is None
    assert operator.hub.watches[KEY].beside[READY][1] == "NotUsed"
