"""PgBouncer, Prometheus, the exporters and the client load serve as the operator will meet them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from kintsugi_dev.load import Load, create_schema, lost_writes
from kintsugi_dev.load.measure import Samples
from kintsugi_dev.servers import (
    BearerProxy,
    Certificates,
    Database,
    NodeExporter,
    PgBouncer,
    PostgresExporter,
    PostgreSQL,
    Prometheus,
    Scrape,
    ServerError,
    eventually,
    http,
)

LINES = 5_000
RATE = 60.0


@pytest.fixture
def pooler(postgres: PostgreSQL, database: Database, server_dir: Path) -> Iterator[PgBouncer]:
    addresses = {database.name: (postgres.host, postgres.port)}
    users = {"postgres": postgres.password}
    with PgBouncer.start(server_dir / "pgbouncer", databases=addresses, users=users, pool_size=3) as started:
        yield started


@pytest.fixture
def shop(database: Database) -> Database:
    asyncio.run(create_schema(database.dsn(), lines=LINES))
    return database


def total(load: Load, outcome: str) -> float:
    """How many requests ended so, as the load's own metrics say."""
    lines = http.get(load.url)[1].decode().splitlines()
    wanted = (line for line in lines if line.startswith("kintsugi_client_requests_total") and f'"{outcome}"' in line)
    return sum(float(line.split()[-1]) for line in wanted)


def test_pgbouncer_pools_transactions_and_its_admin_console_resizes(pooler: PgBouncer, database: Database) -> None:
    async def held_transactions(connection: asyncpg.Connection) -> list[dict[str, str]]:
        async with connection.transaction():
            await connection.fetch("SELECT 1")
            return await asyncio.to_thread(pooler.admin, "SHOW POOLS")

    pools = database.server.run(held_transactions, dsn=pooler.dsn(database.name, "postgres"))
    mine = next(pool for pool in pools if pool["database"] == database.name)
    assert (mine["sv_active"], mine["pool_mode"]) == ("1", "transaction")
    pooler.admin("SET default_pool_size = 8")
    sizes = {row["key"]: row["value"] for row in pooler.admin("SHOW CONFIG")}
    assert sizes["default_pool_size"] == "8"


def test_pgbouncer_refuses_a_wrong_password_and_an_unknown_command(pooler: PgBouncer, database: Database) -> None:
    async def ping(connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT 1")

    with pytest.raises(asyncpg.PostgresError, match="authentication failed"):
        database.server.run(ping, dsn=pooler.dsn(database.name, "postgres", "wrong"))
    with pytest.raises(ServerError, match="SHOW NONSENSE"):
        pooler.admin("SHOW NONSENSE")


def test_prometheus_scrapes_the_load_and_takes_new_targets(
    shop: Database, pooler: PgBouncer, server_dir: Path, start_prometheus: Callable[..., Prometheus]
) -> None:
    dsn = pooler.dsn(shop.name, "postgres")
    with Load.start(server_dir / "load", dsn=dsn, rate=RATE, connections=5, lines=LINES) as load:
        prometheus = start_prometheus({"clients": Scrape([load.address], {"service": "orders"})})
        served = 'sum(kintsugi_client_requests_total{outcome="ok", service="orders"})'
        assert eventually(lambda: (prometheus.value(served) or 0) > 0), prometheus.tail()
        p99 = "histogram_quantile(0.99, sum by (le) (rate(kintsugi_client_request_seconds_bucket[5s])))"
        assert eventually(lambda: 0 < (prometheus.value(p99) or 0) < 5)
        assert total(load, "ok") > 0

        prometheus.reload({"clients": Scrape([load.address], {"service": "customers"})})
        assert eventually(lambda: prometheus.value('up{service="customers"}') == 1)

    with pytest.raises(ServerError, match="parse error"):
        prometheus.query("up{")


def test_prometheus_asks_for_a_login_over_tls_of_a_private_authority(
    server_dir: Path, start_prometheus: Callable[..., Prometheus]
) -> None:
    certificates = Certificates.make(server_dir / "tls")
    prometheus = start_prometheus(login=("kintsugi", "secret"), tls=certificates)
    assert prometheus.value("vector(1)") == 1
    ready = f"{prometheus.url}/-/ready"
    assert http.get(ready, authority=certificates.authority)[0] == 401
    wrong = http.basic_authorization("kintsugi", "wrong")
    assert http.get(ready, headers=wrong, authority=certificates.authority)[0] == 401
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        http.get(ready)


def test_a_bearer_proxy_lets_only_its_token_through(
    server_dir: Path, start_prometheus: Callable[..., Prometheus]
) -> None:
    prometheus = start_prometheus()
    with BearerProxy.start(server_dir / "proxy", upstream=prometheus.url, token="s3cret") as proxy:
        query = f"{proxy.url}/api/v1/query?query=vector(1)"
        assert http.get(query)[0] == 401
        assert http.get(query, headers={"Authorization": "Bearer other"})[0] == 401
        status, body = http.get(query, headers={"Authorization": "Bearer s3cret"})
        assert (status, json.loads(body)["status"]) == (200, "success")
        prometheus.stop()
        assert http.get(query, headers={"Authorization": "Bearer s3cret"})[0] == 502


def test_debians_exporters_serve_host_and_postgresql(postgres: PostgreSQL, server_dir: Path) -> None:
    with (
        NodeExporter.start(server_dir / "node") as node,
        PostgresExporter.start(server_dir / "postgres", dsn=postgres.dsn(sslmode="disable")) as exporter,
    ):
        assert "node_cpu_seconds_total" in node.metrics()
        assert "pg_up 1" in exporter.metrics()


def test_lost_writes_are_counted(shop: Database, server_dir: Path) -> None:
    with Load.start(server_dir / "load", dsn=shop.dsn(), rate=RATE, connections=5, lines=LINES) as load:
        assert eventually(lambda: load.journal.exists() and len(load.journal.read_text().splitlines()) >= 10)
    assert asyncio.run(lost_writes(load.journal, shop.dsn())) == 0
    acknowledged = len(load.journal.read_text().splitlines())
    assert shop.value("SELECT count(*) FROM ledger") >= acknowledged
    shop.execute("DELETE FROM ledger WHERE number = (SELECT min(number) FROM ledger)")
    assert asyncio.run(lost_writes(load.journal, shop.dsn())) == 1


@pytest.mark.slow  # waits for real timeouts, and on a busy machine for longer than it allows
def test_the_load_times_out_behind_a_lock_and_recovers(shop: Database, server_dir: Path) -> None:
    with Load.start(server_dir / "load", dsn=shop.dsn(), rate=RATE, connections=5, lines=LINES) as load:
        assert eventually(lambda: total(load, "ok") > 0)

        async def hold(connection: asyncpg.Connection) -> None:
            async with connection.transaction():
                await connection.execute("LOCK TABLE customers, orders, ledger IN ACCESS EXCLUSIVE MODE")
                assert await asyncio.to_thread(eventually, lambda: total(load, "timeout") > 0)

        shop.server.run(hold, dsn=shop.dsn())
        answered = total(load, "ok")
        assert eventually(lambda: total(load, "ok") > answered + RATE)
        assert eventually(lambda: any(second["errors"].get("timeout") for second in load.samples()))
    slow = [second for second in load.samples() if second["errors"].get("timeout")]
    assert max(second["p99_ms"] for second in slow) >= 5000


def test_the_load_outlives_a_crash_of_the_server(server_dir: Path) -> None:
    with PostgreSQL.start(server_dir / "p") as server:
        asyncio.run(create_schema(server.dsn(), lines=LINES))
        with Load.start(server_dir / "load", dsn=server.dsn(), rate=RATE, connections=5, lines=LINES) as load:
            assert eventually(lambda: total(load, "ok") > 0)
            server.kill()
            assert eventually(lambda: total(load, "connection") > 0)
            server.launch()
            answered = total(load, "ok")
            assert eventually(lambda: total(load, "ok") > answered)
        assert asyncio.run(lost_writes(load.journal, server.dsn())) == 0


def test_a_second_is_written_once_all_its_requests_have_ended(tmp_path: Path) -> None:
    samples = Samples(tmp_path / "samples.jsonl")
    samples.started(100.1)
    samples.started(100.9)
    samples.started(101.0)
    samples.ended(101.0, 0.002, "ok")
    samples.ended(100.1, 0.001, "ok")
    samples.flush(103.0)
    assert (tmp_path / "samples.jsonl").read_text() == ""
    samples.ended(100.9, 5.0, "timeout")
    samples.flush(103.0)
    first, second = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert (first["second"], first["count"], first["errors"]) == (100, 2, {"timeout": 1})
    assert (first["p50_ms"], first["p95_ms"], first["p99_ms"]) == (1.0, 5000.0, 5000.0)
    assert (second["second"], second["count"], second["p99_ms"]) == (101, 1, 2.0)
