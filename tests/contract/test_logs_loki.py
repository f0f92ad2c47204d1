"""Reading Loki over HTTP: pages, shared stamps, streams, credentials, and answers that are none of Loki's.

What this server takes for granted is asked of a real Loki in test_logs_loki_real.py (`make test-full`).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.shell.logs import loki as module
from kintsugi.shell.logs.loki import Loki
from kintsugi.shell.logs.source import Batch, LogError, Position
from kintsugi.shell.prometheus import Endpoint

QUERY = '{app="orders"}'
START = int(time.time()) - 300
PAST = Position(START - 60)


def entry(word: str, at: float, stamp: int | None = None) -> list[str]:
    when = datetime.fromtimestamp(START + at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    fields = {"timestamp": when, "error_severity": "LOG", "state_code": "00000", "message": f"statement: SELECT {word}"}
    return [str(stamp or int((START + at) * 1e9)), json.dumps(fields)]


def said(batch: Batch) -> list[str]:
    return [line.template.removeprefix("statement: SELECT ") for line in batch.lines]


class Server:
    """As Loki answers: the oldest entries of a range, `limit` of them over all streams."""

    def __init__(self) -> None:
        self.streams: dict[str, list[list[str]]] = {"a": []}
        self.answer: web.Response | None = None
        self.asked: list[web.Request] = []

    async def query_range(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if self.answer:
            return web.Response(status=self.answer.status, body=self.answer.body)
        start, end, limit = (int(request.query[name]) for name in ("start", "end", "limit"))
        assert request.query["direction"] == "forward"
        assert request.query["query"] == QUERY
        assert request.headers["X-Loki-Response-Encoding-Flags"] == "categorize-labels"
        found = sorted((one for own in self.streams.values() for one in own), key=lambda one: int(one[0]))
        found = [one for one in found if start <= int(one[0]) < end][:limit]
        result: list[dict[str, Any]] = [
            {"stream": {"pod": name}, "values": own}
            for name, every in self.streams.items()
            if (own := [one for one in every if one in found])
        ]
        return web.json_response({"status": "success", "data": {"resultType": "streams", "result": result}})


@asynccontextmanager
async def a_loki(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/loki/api/v1/query_range", server.query_range)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Reader:
    def __init__(self, url: str, tenant: str | None = None, **credentials: Any) -> None:
        new = lambda since: decoder("jsonlog", None, since)  # noqa: E731
        self.source = Loki(Endpoint(url, **credentials), QUERY, tenant, new)
        self.position = PAST

    async def batch(self) -> Batch:
        batch = await self.source.read(self.position)
        self.position = batch.position
        return batch

    async def words(self) -> list[str]:
        return said(await self.batch())


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def reader(server: Server) -> AsyncIterator[Reader]:
    async with a_loki(server) as url:
        reader = Reader(url)
        yield reader
        await reader.source.close()


async def test_only_what_is_new_is_read_also_with_shared_stamps(server: Server, reader: Reader) -> None:
    server.streams["a"] = [entry("one", 1), entry("two", 1)]
    assert await reader.words() == ["one", "two"]
    server.streams["a"] += [entry("three", 1), entry("four", 2)]
    assert await reader.words() == ["three", "four"]
    assert await reader.words() == []


async def test_pages_are_put_together_over_all_streams(
    server: Server, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES", 4)
    server.streams = {
        "a": [entry(f"a{chr(97 + n)}", n) for n in range(9)],
        "b": [entry(f"b{chr(97 + n)}", n + 0.5) for n in range(9)],
    }
    batch = await reader.batch()
    assert batch.more
    words = said(batch) + await reader.words() + await reader.words()
    assert sorted(words) == sorted([f"{stream}{chr(97 + n)}" for stream in "ab" for n in range(9)])


async def test_more_of_one_stamp_than_a_page_is_left_out_and_told(
    server: Server, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES", 3)
    server.streams["a"] = [entry(f"w{chr(97 + n)}", 1) for n in range(7)] + [entry("after", 2)]
    batch = await reader.batch()
    assert said(batch) == ["wa", "wb", "wc", "after"]
    assert batch.complete_since is not None


async def test_an_unknown_time_zone_is_told_and_what_follows_it_is_read(server: Server, reader: Reader) -> None:
    server.streams["a"] = [
        [stamp, line.replace(" UTC", " CEST")] for stamp, line in (entry("old", n) for n in range(5))
    ]
    batch = await reader.batch()
    assert "log_timezone = 'UTC'" in batch.zone
    assert (said(batch), batch.junk) == ([], 5)
    server.streams["a"].append(entry("new", 7))
    batch = await reader.batch()
    assert (said(batch), batch.zone) == (["new"], "")


async def test_what_is_younger_than_the_lag_is_left_for_later(server: Server, reader: Reader) -> None:
    server.streams["a"] = [entry("one", 1), entry("young", time.time() - START)]
    batch = await reader.batch()
    assert said(batch) == ["one"]
    assert batch.until == pytest.approx(time.time() - module.LAG, abs=2)


async def test_an_answer_that_is_too_large_is_asked_for_in_smaller_pages(
    server: Server, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES", 64)
    monkeypatch.setattr(module, "BODY_BYTES", 3000)
    server.streams["a"] = [entry(f"w{chr(97 + n)}", n) for n in range(20)]
    words = [word for _ in range(3) for word in await reader.words()]
    assert words == [f"w{chr(97 + n)}" for n in range(20)]


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({"token": "t0k"}, ("Authorization", "Bearer t0k")),
        ({"basic": ("ann", "pw")}, ("Authorization", "Basic YW5uOnB3")),
        ({"tenant": "shop"}, ("X-Scope-OrgID", "shop")),
    ],
)
async def test_credentials_and_tenant_are_sent(
    server: Server, credentials: dict[str, Any], header: tuple[str, str]
) -> None:
    async with a_loki(server) as url:
        reader = Reader(url, **credentials)
        await reader.batch()
        await reader.source.close()
    assert server.asked[0].headers[header[0]] == header[1]
    assert "pw" not in repr(reader.source.endpoint)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, "no", "LokiUnauthorized"),
        (400, "parse error at line 1, col 1", "LokiRefused"),
        (503, "too busy", "LokiFailing"),
        (200, "<html>", "LokiNonsense"),
        (200, '{"data": {"resultType": "matrix", "result": []}}', "LokiNonsense"),
        (200, '{"data": {"resultType": "streams", "result": [{"stream": {}, "values": [["x", 1]]}]}}', "LokiNonsense"),
    ],
)
async def test_what_goes_wrong_has_a_reason_and_a_remedy(
    server: Server, reader: Reader, status: int, body: str, reason: str
) -> None:
    server.answer = web.Response(status=status, body=body.encode())
    with pytest.raises(LogError) as refused:
        await reader.batch()
    assert refused.value.reason == reason
    server.answer = None
    server.streams["a"] = [entry("one", 1)]
    assert await reader.words() == ["one"]


async def test_a_loki_that_is_not_there_is_told() -> None:
    reader = Reader("http://127.0.0.1:1")
    with pytest.raises(LogError, match="can't be reached") as refused:
        await reader.batch()
    assert refused.value.reason == "LokiUnreachable"
    await reader.source.close()
