"""What the operator says of itself: liveness by the last finished cycle, JSON logs that carry the incident."""

from __future__ import annotations

import json
import logging

import aiohttp
import pytest

from kintsugi.shell import telemetry
from kintsugi.shell.telemetry import STALE_AFTER, JsonFormatter, OperatorMetrics, Pulse, serve


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("kintsugi.loops", level, __file__, 1, message, (), None)


async def answers(pulse: Pulse, path: str) -> tuple[int, str]:
    runner, port = await serve("127.0.0.1", 0, OperatorMetrics(), pulse)
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()
    finally:
        await runner.cleanup()


async def test_healthz_turns_503_when_cycles_hang() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.beat()
    assert (await answers(pulse, "/healthz"))[0] == 200

    clock.now += STALE_AFTER + 1

    status, text = await answers(pulse, "/healthz")
    assert status == 503
    assert text == "last cycle finished 31.0 s ago\n"


async def test_a_finished_cycle_brings_healthz_back() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    clock.now += STALE_AFTER + 1
    pulse.beat()

    assert (await answers(pulse, "/healthz"))[0] == 200


async def test_readyz_waits_for_the_first_listing() -> None:
    pulse = Pulse()
    assert (await answers(pulse, "/readyz"))[0] == 503

    pulse.ready = True

    assert (await answers(pulse, "/readyz"))[0] == 200


async def test_metrics_are_served_as_prometheus_reads_them() -> None:
    status, text = await answers(Pulse(), "/metrics")

    assert status == 200
    assert "kintsugi_cycles_total 0.0" in text


def test_a_log_line_is_one_json_object_with_the_incident_at_hand() -> None:
    tokens = telemetry.incident.set("a1b2"), telemetry.database.set("shop/orders")
    try:
        line = json.loads(JsonFormatter().format(record("lines\nand “quotes”")))
    finally:
        telemetry.incident.reset(tokens[0])
        telemetry.database.reset(tokens[1])

    assert line["message"] == "lines\nand “quotes”"
    assert (line["level"], line["incident"], line["database"]) == ("info", "a1b2", "shop/orders")


def test_outside_an_incident_there_is_no_such_field() -> None:
    assert "incident" not in json.loads(JsonFormatter().format(record("watching")))


def test_an_exception_stands_in_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        failed = record("failed")
        failed.exc_info = (type(error), error, error.__traceback__)

    line = JsonFormatter().format(failed)

    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["exception"]


@pytest.mark.parametrize("quiet", ["kopf", "aiohttp.access", "urllib3"])
def test_libraries_do_not_fill_the_log(quiet: str) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        telemetry.log_json()
        assert logging.getLogger(quiet).getEffectiveLevel() == logging.WARNING
    finally:
        logging.getLogger().handlers[:], level = before[0], before[1]
        logging.getLogger().setLevel(level)
