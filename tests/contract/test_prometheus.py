"""Reading Prometheus as the operator does: real servers that are down, empty, closed, odd, and full of gaps."""

from __future__ import annotations

import asyncio
import http.server
import json
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi.domain.signals import Catalogue, Hurts, Kind, Role, Signal
from kintsugi.shell.errors import PrometheusError
from kintsugi.shell.prometheus import Endpoint, Group, Prometheus, Samples, Subject
from kintsugi_dev.servers import Certificates, Scrape, eventually, free_port, server_directory
from kintsugi_dev.servers import Prometheus as Server
from kintsugi_dev.servers.prometheus import BearerProxy

LABELS = ("namespace", "service")


def a_signal(name: str, **sources: str) -> Signal:
    return Signal(name, "client", "s", Kind.GAUGE, Hurts.UP, Role.SYMPTOM, 0.1, name, sources)


GAUGE = "max by ($by) (last_over_time({}{{$sel}}[$gauge]))"
CATALOGUE = Catalogue(
    "postgresql",
    (
        a_signal("good", ours=GAUGE.format("demo_good")),
        a_signal("odd", ours=GAUGE.format("demo_odd")),
        a_signal("twice", ours=GAUGE.format("demo_ours"), theirs=GAUGE.format("demo_theirs")),
        # The same labels on both sides twice: Prometheus refuses to join them.
        a_signal(
            "refused", ours="sum by ($by) (demo_good{$sel} * on ($by) demo_many{$sel}) + 0 * " + "demo_good{$sel}"
        ),
    ),
)
SHOP = Subject("shop/orders", ("shop", "orders"))
BANK = Subject("bank/pay.v2+x", ("bank", "pay.v2+x"))
NOBODY = Subject("shop/nobody", ("shop", "nobody"))


class Exporter:
    """What a test exports, until it says something else."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = ("\n".join(exporter.lines) + "\n").encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    exporter.lines = [
        *(_line("demo_good", subject, value) for subject, value in ((SHOP, "1.5"), (BANK, "2.5"))),
        _line("demo_odd", SHOP, "NaN"),
        _line("demo_odd", BANK, "+Inf"),
        _line("demo_ours", SHOP, "7"),
        _line("demo_theirs", SHOP, "8"),
        _line("demo_theirs", BANK, "9"),
        _line("demo_many", SHOP, "1", 'n="1"'),
        _line("demo_many", SHOP, "1", 'n="2"'),
    ]
    yield exporter
    exporter.close()


@pytest.fixture(scope="module")
def server(exporter: Exporter) -> Iterator[Server]:
    with (
        server_directory("kintsugi-prometheus-") as directory,
        Server.start(directory / "prometheus", {"demo": Scrape([exporter.address])}) as running,
    ):
        assert eventually(lambda: (running.value("count(count_over_time(demo_good[10s]) > 4)") or 0) == 2, 30)
        yield running


def _line(metric: str, subject: Subject, value: str, more: str = "") -> str:
    labels = ",".join([*(f'{name}="{value}"' for name, value in zip(LABELS, subject.values, strict=True)), more])
    return f"{metric}{{{labels.strip(',')}}} {value}"


def a_group(url: str, **credentials: Any) -> Group:
    return Group(Endpoint(url, **credentials), LABELS, 1.0, "postgresql", CATALOGUE)


@asynccontextmanager
async def a_client(group: Group) -> AsyncIterator[Prometheus]:
    client = Prometheus(group.endpoint)
    try:
        yield client
    finally:
        await client.close()


async def read(group: Group, *subjects: Subject, seconds: float = 3) -> dict[str, Samples]:
    end = math.floor(time.time())
    async with a_client(group) as client:
        offers = await client.discover(group, subjects, end)
        return await client.read(group, subjects, offers, start=end - seconds, end=end)


async def refusal(group: Group) -> PrometheusError:
    with pytest.raises(PrometheusError) as caught:
        await read(group, SHOP)
    return caught.value


async def test_many_databases_are_read_at_once_and_never_mixed(server: Server) -> None:
    found = await read(a_group(server.url), SHOP, BANK, NOBODY)

    assert found[SHOP.key].columns["good"].tolist() == [1.5] * 4
    assert found[BANK.key].columns["good"].tolist() == [2.5] * 4
    assert found[NOBODY.key].columns == {}


async def test_two_databases_described_alike_are_both_read(server: Server) -> None:
    twin = Subject("other/orders", SHOP.values)

    found = await read(a_group(server.url), SHOP, twin)

    assert found[SHOP.key].columns["good"].tolist() == found[twin.key].columns["good"].tolist() == [1.5] * 4


async def test_nan_and_infinity_are_missing(server: Server) -> None:
    found = await read(a_group(server.url), SHOP, BANK)

    assert np.isnan(found[SHOP.key].columns["odd"]).all()
    assert np.isnan(found[BANK.key].columns["odd"]).all()


async def test_the_preferred_exporter_is_read_and_the_other_where_it_alone_offers(server: Server) -> None:
    found = await read(a_group(server.url), SHOP, BANK)

    assert found[SHOP.key].columns["twice"].tolist() == [7] * 4
    assert found[BANK.key].columns["twice"].tolist() == [9] * 4


async def test_one_refused_expression_does_not_cost_the_others(server: Server) -> None:
    found = await read(a_group(server.url), SHOP)

    assert "refused" not in found[SHOP.key].columns
    assert found[SHOP.key].columns["good"].tolist() == [1.5] * 4


async def test_a_series_that_ends_shows_as_a_gap_and_not_as_its_last_value(server: Server, exporter: Exporter) -> None:
    ending = next(line for line in exporter.lines if line.startswith("demo_good") and 'service="orders"' in line)
    exporter.lines.remove(ending)
    try:
        await asyncio.sleep(5)
        found = await read(a_group(server.url), SHOP, BANK, seconds=8)
    finally:
        exporter.lines.append(ending)
        await asyncio.sleep(5)

    column = found[SHOP.key].columns["good"]
    assert column[0] == 1.5
    assert np.isnan(column[-1])
    assert not np.isnan(found[BANK.key].columns["good"]).any()


async def test_an_empty_prometheus_offers_nothing(start_prometheus: Callable[..., Server]) -> None:
    found = await read(a_group(start_prometheus().url), SHOP)

    assert found[SHOP.key].columns == {}


async def test_down_is_said_with_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    error = await refusal(a_group(url))

    assert error.reason == "PrometheusUnreachable"
    assert f"{url} can't be reached" in str(error)
    assert "check metrics.prometheus" in str(error)


async def test_hanging_gives_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        began = time.monotonic()
        error = await refusal(a_group(f"http://127.0.0.1:{listening.getsockname()[1]}"))

    assert error.reason == "PrometheusUnreachable"
    assert "did not answer in time" in str(error)
    assert time.monotonic() - began < 10


MATRIX = {"status": "success", "data": {"resultType": "matrix", "result": []}}
NONSENSE = {
    "a web page": "<html>Sign in</html>",
    "another JSON": '{"hello": "world"}',
    "a list": "[]",
    "a number": "7",
    "nothing": "",
    "a vector": json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}),
    "a scalar": json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}}),
    "series without values": json.dumps(
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}}]}}
    ),
    "series of others": json.dumps(
        {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"a": "b"}, "values": []}]}}
    ),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
async def test_what_is_no_prometheus_is_told(answer: str) -> None:
    with _saying(answer) as url:
        error = await refusal(a_group(url))

    assert error.reason == "PrometheusNonsense"
    assert f"{url} does not answer like Prometheus" in str(error)


async def test_values_that_are_no_numbers_are_missing() -> None:
    metric = {"namespace": "shop", "service": "orders", "kintsugi_signal": "good/ours"}
    end = math.floor(time.time())
    points: list[list[Any]] = [[end - 1, "many"], [end, None]]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": metric, "values": points}]}}
    with _saying(json.dumps(answer)) as url:
        found = await read(a_group(url), SHOP, seconds=1)

    assert np.isnan(found[SHOP.key].columns["good"]).all()


async def test_a_bearer_token_is_sent_and_a_wrong_one_is_told(server: Server, server_dir: Path) -> None:
    with BearerProxy.start(server_dir / "proxy", upstream=server.url, token="s3cret") as proxy:
        found = await read(a_group(proxy.url, token="s3cret"), SHOP)
        refused = [await refusal(a_group(proxy.url)), await refusal(a_group(proxy.url, token="stale"))]

    assert found[SHOP.key].columns["good"].tolist() == [1.5] * 4
    assert {error.reason for error in refused} == {"PrometheusUnauthorized"}
    assert "stale" not in str(refused[1])
    assert "check metrics.auth and its Secret" in str(refused[1])


async def test_basic_authentication_behind_a_private_ca(
    start_prometheus: Callable[..., Server], exporter: Exporter, server_dir: Path
) -> None:
    ours, theirs = Certificates.make(server_dir / "tls"), Certificates.make(server_dir / "other")
    closed = start_prometheus({"demo": Scrape([exporter.address])}, login=("kintsugi", "pw"), tls=ours)
    assert eventually(lambda: bool(closed.query("count_over_time(demo_good[10s]) > 4")), 30)
    ca = ours.authority.read_text()

    found = await read(a_group(closed.url, basic=("kintsugi", "pw"), ca=ca), SHOP)
    wrong_password = await refusal(a_group(closed.url, basic=("kintsugi", "no"), ca=ca))
    unknown_ca = await refusal(a_group(closed.url, basic=("kintsugi", "pw")))
    wrong_ca = await refusal(a_group(closed.url, basic=("kintsugi", "pw"), ca=theirs.authority.read_text()))
    no_ca = await refusal(a_group(closed.url, basic=("kintsugi", "pw"), ca="no certificate"))

    assert found[SHOP.key].columns["good"].tolist() == [1.5] * 4
    assert wrong_password.reason == "PrometheusUnauthorized"
    assert {unknown_ca.reason, wrong_ca.reason, no_ca.reason} == {"PrometheusTLS"}
    assert "put its CA as ca.crt into a Secret" in str(unknown_ca)
    assert "correct ca.crt in the Secret" in str(no_ca)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("scalar(vector(3))", None),  # neither a single series nor ours to guess
        ("vector(3)", 3.0),
        ("vector(NaN)", None),
        ("demo_good", None),  # two series
        ("no_such_metric", None),
        ('demo_good{service="orders"}[5s]', None),
        ('"text"', None),
    ],
)
async def test_a_free_query_gives_one_number_or_none(server: Server, query: str, value: float | None) -> None:
    async with a_client(a_group(server.url)) as client:
        assert await client.value(query) == value


async def test_a_free_query_that_is_wrong_is_told_with_what_prometheus_said(server: Server) -> None:
    async with a_client(a_group(server.url)) as client:
        with pytest.raises(PrometheusError, match=r"refused the query 'sum\(' *:.*correct it") as caught:
            await client.value("sum(")

    assert caught.value.reason == "QueryRefused"


async def test_credentials_stand_in_no_representation(server: Server) -> None:
    group = a_group(server.url, token="s3cret", basic=("user", "s3cret"), ca="s3cret")

    assert "s3cret" not in repr(group)


@contextmanager
def _saying(text: str) -> Iterator[str]:
    exporter = Exporter()
    exporter.lines = [text]
    try:
        yield f"http://{exporter.address}"
    finally:
        exporter.close()
