"""Degraded, not down: whatever is wrong with the models, databases are judged, and it is said what to do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kintsugi.domain.experience import LabelKind
from kintsugi.loops.detection import READY, RETRY, Detection
from kintsugi.shell import models
from kintsugi.shell.models import ModelsError
from kintsugi.stages.ports import DetectorState, LearnedModel
from kintsugi_dev.judged import Database, Says, an_example, now_of
from kintsugi_dev.memory import Memory
from kintsugi_ml import bundle
from kintsugi_ml.detection import model as detection

KEY = "shop/orders"
FAULT = {"wait_age": 40.0, "waiters": 40.0}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Operator:
    """The part of a hub that detects: one database in a fault, cycle by cycle."""

    def __init__(self, load: Callable[[], LearnedModel]) -> None:
        memory = Memory()
        memory.database(incident="")
        self.watch = memory.services().watches[KEY]
        self.clock = Clock()
        self.detection = Detection(load, self.clock)
        self.database = Database(spoilt=FAULT)

    async def cycle(self, samples: int = 3, *, learned: bool = True) -> bool:
        """One cycle; whether the fault is flagged. What is loaded meanwhile is waited for."""
        self.detection.keep(wanted=learned)
        if self.detection._loading is not None:
            await asyncio.wait([self.detection._loading])
        self.database.learned = learned
        observed = replace(self.database.observed(samples), key=self.watch.normal)
        [(anomaly, state)] = self.detection.detect([observed], now_of(observed))
        self.watch.anomaly, self.watch.state = anomaly, state
        self.detection.say([(self.watch, learned)])
        return anomaly.flagged

    @property
    def condition(self) -> tuple[bool, str, str]:
        return self.watch.beside[READY]


def a_bundle(directory: Path) -> Path:
    bundle.write(directory, {bundle.DETECTION: detection.SHIPPED.read_bytes()}, version="7", trained_on="a test")
    return directory


def missing(directory: Path) -> None:
    (directory / bundle.MANIFEST).unlink()


def damaged(directory: Path) -> None:
    (directory / bundle.DETECTION).write_bytes(detection.SHIPPED.read_bytes()[:-1] + b"?")


def of_another_version(directory: Path) -> None:
    path = directory / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": bundle.FORMAT + 1}))


@pytest.mark.parametrize(
    ("spoil", "reason", "what_to_do"),
    [
        (missing, "BundleMissing", "correct the path, or install the package again"),
        (damaged, "BundleDamaged", "copy it there again"),
        (of_another_version, "BundleWrongVersion", "use the bundle that came with it"),
    ],
)
async def test_with_a_bundle_that_cannot_be_used_the_statistics_go_on_and_it_is_said_once_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], reason: str, what_to_do: str
) -> None:
    spoil(a_bundle(tmp_path))
    operator = Operator(partial(models.load, tmp_path))

    for _ in range(3):
        assert await operator.cycle()
        operator.clock.now += RETRY

    assert operator.watch.anomaly is not None
    assert operator.watch.anomaly.opinion is None
    ready, why, message = operator.condition
    assert (ready, why) == (False, reason)
    assert what_to_do in message
    assert "the statistics judge alone until then" in message
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1

    a_bundle(tmp_path)
    assert await operator.cycle()
    assert operator.condition[:2] == (True, "Loaded")
    assert operator.watch.anomaly.opinion is not None


async def test_a_broken_bundle_is_not_read_in_each_cycle(tmp_path: Path) -> None:
    tried = 0

    def load() -> LearnedModel:
        nonlocal tried
        tried += 1
        raise ModelsError("BundleMissing", "there is none: install it")

    operator = Operator(load)
    for _ in range(10):
        await operator.cycle()
        operator.clock.now += RETRY / 5

    assert tried == 2


async def test_an_exception_in_the_model_costs_the_model_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Says(0.99, error=FloatingPointError("a defect"))
    operator = Operator(lambda: model)

    for _ in range(4):
        assert await operator.cycle()
        ready, reason, message = operator.condition
        assert (ready, reason) == (False, "ModelFailed")
        assert "FloatingPointError: a defect" in message
        operator.clock.now += RETRY

    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert len(model.batches) == 4

    model.error = None
    assert await operator.cycle()
    assert operator.condition == (True, "Loaded", "bundle 7 (a test)")


async def test_a_model_that_cannot_even_be_loaded_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> LearnedModel:
        raise OSError("the disk is on fire")

    operator = Operator(load)

    assert await operator.cycle()
    assert operator.condition[:2] == (False, "Unusable")
    assert "the disk is on fire" in caplog.text


async def test_who_wants_the_statistics_alone_gets_them_without_a_model_being_read() -> None:
    def load() -> LearnedModel:
        raise AssertionError("nobody wants it")

    operator = Operator(load)
    operator.detection.hear("uid-orders", (an_example(LabelKind.NORMAL, FAULT),))

    assert await operator.cycle(learned=False)
    assert operator.condition[:2] == (True, "NotUsed")
    assert operator.watch.anomaly is not None
    assert operator.watch.anomaly.opinion is None


async def test_what_was_labelled_keeps_its_effect_when_the_model_is_lost_and_found() -> None:
    model = Says(0.0)
    operator = Operator(lambda: model)
    operator.detection.hear("uid-orders", (an_example(LabelKind.NORMAL, FAULT),))
    assert not await operator.cycle()

    model.error = ValueError("for a while")
    assert not await operator.cycle()
    assert operator.condition[0] is False
    model.error = None
    operator.database.state = DetectorState()

    assert not await operator.cycle(3 + int(RETRY))
    assert operator.condition[0] is True


async def test_where_the_model_fails_on_one_database_that_one_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Says(0.2)
    operator = Operator(lambda: model)
    await operator.cycle()
    model.error = ValueError("a defect")

    for samples in (4, 5, 4 + int(RETRY)):
        await operator.cycle(samples)
        ready, reason, message = operator.condition
        assert (ready, reason) == (False, "ModelFailed")
        assert "failed on this database (ValueError: a defect): report it" in message

    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["the learned models failed on shop/orders; others go on"]
    assert errors[0].exc_info is not None


async def test_another_bundle_is_taught_what_people_said() -> None:
    model = Says(error=ValueError("never worked"))
    operator = Operator(lambda: model)
    lesson = an_example(LabelKind.ANOMALY, FAULT)
    operator.detection.hear("uid-orders", (lesson,))
    await operator.cycle()
    assert operator.detection.unheard() == {"uid-orders"}

    operator.detection.hear("uid-orders", (lesson,))
    model.error = None
    operator.clock.now += RETRY
    await operator.cycle()

    assert operator.condition[:2] == (True, "Loaded")
    assert model.recalled == 2
    assert operator.detection.unheard() == set()
