"""Logs of pods and of Loki: stamps shared by lines, limits, restarts, and what the API server refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.shell.errors import ForbiddenError, KubeError, NotFoundError, UnavailableError
from kintsugi.shell.logs import pods as module
from kintsugi.shell.logs.pods import PodLogs
from kintsugi.shell.logs.source import Batch, LogError, Position
from kintsugi.shell.logs.stamped import NANOSECONDS, stamped
from kintsugi_dev.memory import MemoryKube

START = int(time.time()) - 300


def a_line(word: str, at: float = 0.0, wrote: str = "jsonlog") -> bytes:
    when = datetime.fromtimestamp(START + at, UTC)
    stamp, logged = when.strftime("%Y-%m-%dT%H:%M:%S.%f000Z"), when.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
    message = word if ":" in word else f"statement: SELECT {word}"
    if wrote == "stderr":
        return f"{stamp} {logged} [7] LOG:  {message}\n".encode()
    fields = {"timestamp": logged, "error_severity": "LOG", "state_code": "00000", "message": message}
    return f"{stamp} {json.dumps(fields)}\n".encode()


def said(batch: Batch) -> list[str]:
    return [line.template.removeprefix("statement: SELECT ") for line in batch.lines]


class Cluster(MemoryKube):
    """Pods and what they wrote, as the API server gives it: whole seconds of sinceTime, a limit in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, bytes] = {"orders-0": b""}
        self.previous: dict[str, bytes] = {}
        self.restarts = 0
        self.refusal: KubeError | None = None
        self.asked: list[Mapping[str, Any]] = []

    async def list_pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        assert selector == "app=orders"
        status = {"containerStatuses": [{"name": "postgres", "restartCount": self.restarts}]}
        return [{"metadata": {"uid": f"uid-{name}", "name": name}, "status": status} for name in self.logs]

    async def pod_log(self, namespace: str, pod: str, query: Mapping[str, Any]) -> bytes:
        self.asked.append(query)
        if self.refusal:
            raise self.refusal
        written = self.previous.get(pod, b"") if "previous" in query else self.logs[pod]
        since = datetime.fromisoformat(query["sinceTime"]).timestamp()
        lines = [line for line in written.splitlines(keepends=True) if _seconds(line) >= since]
        return b"".join(lines)[: query["limitBytes"]]


def _seconds(line: bytes) -> float:
    found = stamped(line)
    assert found is not None
    return found[0] / NANOSECONDS


class Reader:
    def __init__(self, cluster: Cluster, wrote: str = "jsonlog") -> None:
        self.cluster, self.wrote = cluster, wrote
        self.position = Position(START - 60)
        self.restart()

    def restart(self) -> None:
        self.source = PodLogs(
            self.cluster, "shop", {"app": "orders"}, "postgres", lambda since: decoder(self.wrote, None, since)
        )
        self.position = Position.load(self.position.dump())

    async def batch(self) -> Batch:
        batch = await self.source.read(self.position)
        self.position = batch.position
        return batch

    async def words(self) -> list[str]:
        return said(await self.batch())


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.mark.parametrize("restart", [False, True])
async def test_lines_of_the_same_second_are_read_once(cluster: Cluster, restart: bool) -> None:
    reader = Reader(cluster)
    cluster.logs["orders-0"] = a_line("one", 1.1) + a_line("two", 1.2)
    assert await reader.words() == ["one", "two"]
    cluster.logs["orders-0"] += a_line("three", 1.2) + a_line("four", 1.3)
    if restart:
        reader.restart()
    assert await reader.words() == ["three", "four"]
    assert await reader.words() == []


async def test_only_what_is_wanted_is_asked_for(cluster: Cluster) -> None:
    reader = Reader(cluster)
    cluster.logs["orders-0"] = a_line("old", -100) + a_line("one", 7.5)
    assert await reader.words() == ["one"]
    await reader.batch()
    since = datetime.fromtimestamp(START + 7, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert cluster.asked[-1]["sinceTime"] == since
    assert cluster.asked[-1]["container"] == "postgres"


@pytest.mark.parametrize("restart", [False, True])
async def test_a_message_that_is_not_whole_yet_is_not_lost(cluster: Cluster, restart: bool) -> None:
    reader = Reader(cluster, "stderr")
    cluster.logs["orders-0"] = a_line("one", 1, "stderr") + a_line("duration: 5.1 ms  statement: SELECT", 2, "stderr")
    assert await reader.words() == ["one"]
    cluster.logs["orders-0"] += a_line("", 3).split(b" ")[0] + b" \t'SECRET'\n"
    if restart:
        reader.restart()
    assert await reader.words() == []
    assert await reader.words() == ["duration: # ms statement: SELECT ?"]


@pytest.mark.parametrize("wrote", ["jsonlog", "stderr"])
async def test_an_unknown_time_zone_is_told_and_what_follows_it_is_read(cluster: Cluster, wrote: str) -> None:
    reader = Reader(cluster, wrote)
    cluster.logs["orders-0"] = b"".join(a_line("old", n, wrote) for n in range(5)).replace(b" UTC", b" CEST")
    batches = [await reader.batch(), await reader.batch()]
    assert any("log_timezone = 'UTC'" in batch.zone for batch in batches)
    assert sum(batch.junk for batch in batches) == 5
    cluster.logs["orders-0"] += a_line("new", 7, wrote) + a_line("newer", 8, wrote)
    batches = [await reader.batch(), await reader.batch()]
    assert [word for batch in batches for word in said(batch)] == ["new", "newer"]
    assert not any(batch.zone for batch in batches)


async def test_more_than_the_limit_comes_in_parts(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 1000)
    reader, words = Reader(cluster), [f"w{letter}" for letter in "abcdefghijklmnop"]
    cluster.logs["orders-0"] = b"".join(a_line(word, n) for n, word in enumerate(words))
    found, batch = list[str](), await reader.batch()
    assert batch.more
    while batch.more:
        found += said(batch)
        batch = await reader.batch()
    assert found + said(batch) == words


async def test_a_second_with_more_than_the_limit_is_left_out_in_part_and_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 500)
    reader = Reader(cluster)
    cluster.logs["orders-0"] = b"".join(a_line("many", 1 + n / 100) for n in range(20)) + a_line("after", 5)
    batches = [await reader.batch() for _ in range(4)]
    assert "after" in [word for batch in batches for word in said(batch)]
    assert [batch.complete_since for batch in batches if batch.complete_since] == [START + 2]


async def test_a_line_larger_than_the_limit_does_not_stop_reading(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 500)
    reader = Reader(cluster)
    cluster.logs["orders-0"] = a_line("x" * 2000, 1) + a_line("after", 3)
    assert [word for _ in range(3) for word in await reader.words()] == ["after"]


async def test_the_last_words_before_a_restart_are_read(cluster: Cluster) -> None:
    reader = Reader(cluster)
    cluster.logs["orders-0"] = a_line("one", 1)
    await reader.batch()
    cluster.previous["orders-0"] = a_line("one", 1) + a_line("shut down", 2)
    cluster.logs["orders-0"], cluster.restarts = a_line("ready", 3), 1
    assert await reader.words() == ["shut down", "ready"]


async def test_a_pod_that_comes_and_one_that_goes_are_followed(cluster: Cluster) -> None:
    reader = Reader(cluster)
    cluster.logs["orders-0"] = a_line("one", 1)
    await reader.batch()
    del cluster.logs["orders-0"]
    cluster.logs["orders-1"] = a_line("two", 2)
    assert await reader.words() == ["two"]
    assert list(reader.position.marks) == ["uid-orders-1"]


async def test_a_container_that_waits_to_start_has_no_log_yet(cluster: Cluster) -> None:
    cluster.refusal = KubeError(
        'container "postgres" in pod "orders-0" is waiting to start: ContainerCreating (HTTP 400)'
    )
    assert await Reader(cluster).words() == []


async def test_a_pod_that_is_gone_meanwhile_is_left_out(cluster: Cluster) -> None:
    cluster.refusal = NotFoundError("pods orders-0 not found")
    assert await Reader(cluster).words() == []


@pytest.mark.parametrize(
    ("refusal", "reason", "sentence"),
    [
        (ForbiddenError("no"), "PodLogForbidden", "install the chart with logs.pods=true"),
        (KubeError("container x is not valid for pod orders-0"), "PodLogRefused", "check spec.logs.pods.container"),
    ],
)
async def test_a_refusal_says_what_to_do(cluster: Cluster, refusal: KubeError, reason: str, sentence: str) -> None:
    cluster.refusal = refusal
    with pytest.raises(LogError, match=sentence) as refused:
        await Reader(cluster).batch()
    assert refused.value.reason == reason


async def test_after_an_outage_nothing_is_missing(cluster: Cluster) -> None:
    reader = Reader(cluster)
    cluster.logs["orders-0"] = a_line("one", 1)
    await reader.batch()
    cluster.logs["orders-0"] += a_line("two", 2)
    cluster.refusal = UnavailableError("down")
    with pytest.raises(UnavailableError):
        await reader.batch()
    cluster.refusal = None
    assert await reader.words() == ["two"]


async def test_no_pod_says_which_labels_to_correct(cluster: Cluster) -> None:
    cluster.logs.clear()
    with pytest.raises(LogError, match="no pod in shop has the labels app=orders"):
        await Reader(cluster).batch()


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"2027-01-15T08:00:00Z x", 0),
        (b"2027-01-15T08:00:00.000000001Z x", 1),
        (b"2027-01-15T08:00:00.5Z x", 500_000_000),
        (b"2027-01-15T09:30:00.25+01:30 x", 250_000_000),
        (b"2027-01-15T03:00:00-05:00 x", 0),
    ],
)
def test_stamps_are_read_to_the_nanosecond(text: bytes, nanoseconds: int) -> None:
    assert stamped(text) == (1_800_000_000 * NANOSECONDS + nanoseconds, b"x")


def test_what_has_no_stamp_is_no_entry() -> None:
    assert stamped(b"unable to retrieve container logs for containerd://x") is None
