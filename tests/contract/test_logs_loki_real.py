"""What test_logs_loki.py takes for granted, asked of a real Loki: it is built for this, so it is slow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.shell.logs import loki as module
from kintsugi.shell.logs.loki import Loki
from kintsugi.shell.logs.source import LogError, Position
from kintsugi.shell.prometheus import Endpoint
from kintsugi_dev import servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # building takes six minutes on two cores

TENANT = "shop"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Loki]:
    with (
        servers.server_directory("kintsugi-loki-") as directory,
        servers.Loki.start(directory, tenants=True) as running,
    ):
        yield running


class Log:
    """A log of its own in the shared Loki, from five minutes ago on, and its reader."""

    def __init__(self, server: servers.Loki, app: str, format_: str = "jsonlog", query: str = "") -> None:
        self.server, self.app = server, app
        self.start = int(time.time()) - 300
        endpoint, query = Endpoint(server.url), query or f'{{app="{app}"}}'
        self.source = Loki(endpoint, query, TENANT, lambda since: decoder(format_, None, since))
        self.position = Position(self.start - 60)

    def stamp(self, at: float) -> str:
        return datetime.fromtimestamp(self.start + at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"

    def json(self, word: str, at: float, severity: str = "LOG") -> tuple[float, str]:
        fields = {"timestamp": self.stamp(at), "error_severity": severity, "state_code": "00000"}
        fields["message"] = f"statement: SELECT {word}"
        return at, json.dumps(fields)

    def push(self, *lines: tuple[float, str], pod: str = "a") -> None:
        values = [(int((self.start + at) * 1e9), line) for at, line in lines]
        self.server.push({"app": self.app, "pod": pod}, values, tenant=TENANT)

    async def words(self) -> list[str]:
        batch = await self.source.read(self.position)
        self.position = batch.position
        return [line.template.removeprefix("statement: SELECT ") for line in batch.lines]


async def test_only_what_is_new_is_read_also_with_shared_stamps(server: servers.Loki) -> None:
    log = Log(server, "shared-stamps")
    log.push(log.json("one", 1), log.json("two", 1))
    assert await log.words() == ["one", "two"]
    log.push(log.json("three", 1), log.json("four", 2))
    assert await log.words() == ["three", "four"]
    assert await log.words() == []
    await log.source.close()


async def test_pages_are_put_together_over_all_streams(server: servers.Loki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 4)
    log = Log(server, "pages")
    for pod in "ab":
        log.push(*(log.json(f"{pod}{chr(97 + n)}", n + (pod == "b") / 2) for n in range(9)), pod=pod)
    words = [word for _ in range(4) for word in await log.words()]
    assert sorted(words) == sorted(f"{pod}{chr(97 + n)}" for pod in "ab" for n in range(9))
    await log.source.close()


async def test_a_record_of_several_lines_is_not_taken_apart_by_the_level_that_loki_guesses(
    server: servers.Loki,
) -> None:
    log = Log(server, "levels", "stderr")
    before = f"{log.stamp(1)} [7] app@shop "
    log.push(
        (1.000, f"{before}LOG:  duration: 5.1 ms  statement: SELECT item"),
        (1.001, "\tFROM errors WHERE level = 'error'"),
        (1.002, f"{before}ERROR:  deadlock detected"),
        (1.003, f"{before}WARNING:  there is no transaction in progress"),
    )
    batch = await log.source.read(log.position)
    assert [line.template for line in batch.lines][:2] == [
        "duration: # ms statement: SELECT item FROM errors WHERE level = ?",
        "deadlock detected",
    ]
    assert len(batch.position.marks) == 1, "one stream"
    await log.source.close()


async def test_a_query_that_loki_refuses_or_that_gives_numbers_is_told(server: servers.Loki) -> None:
    for query, reason in (
        ('{app="x"', "LokiRefused"),
        ("{}", "LokiRefused"),
        ('rate({app="x"}[1m])', "LokiNonsense"),
    ):
        log = Log(server, "x", query=query)
        with pytest.raises(LogError) as refused:
            await log.words()
        assert refused.value.reason == reason, query
        await log.source.close()


async def test_a_missing_tenant_is_told(server: servers.Loki) -> None:
    source = Loki(Endpoint(server.url), '{app="x"}', None, lambda since: decoder("jsonlog", None, since))
    with pytest.raises(LogError, match="tenant") as refused:
        await source.read(Position(time.time() - 60))
    assert refused.value.reason == "LokiUnauthorized"
    await source.close()
