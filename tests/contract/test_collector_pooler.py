"""PgBouncer's admin console, and what the collector says of a pooler, against a real PgBouncer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kintsugi.collector.config import CollectorConfig
from kintsugi.collector.scrape import DatabaseCollector
from kintsugi.shell.pgbouncer import (
    PgBouncerAccessError,
    PgBouncerCommandError,
    PgBouncerLogin,
    PgBouncerUnreachableError,
    pgbouncer_console,
)
from kintsugi_dev.servers import PgBouncer, PostgreSQL
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD


@pytest.fixture
def pooler(postgres: PostgreSQL, server_dir: Path) -> Iterator[PgBouncer]:
    """A PgBouncer of this test's own before the run's PostgreSQL."""
    databases = {"postgres": (postgres.host, postgres.port)}
    users = {"postgres": postgres.password, "reader": "reader"}
    settings = {"stats_users": "reader"}
    with PgBouncer.start(server_dir / "b", databases=databases, users=users, pool_size=3, settings=settings) as server:
        yield server


def a_login(pooler: PgBouncer, **changes: Any) -> PgBouncerLogin:
    return replace(PgBouncerLogin(pooler.host, pooler.port, ADMIN, ADMIN_PASSWORD), **changes)


async def test_the_console_shows_pools_databases_and_settings_as_typed_rows(pooler: PgBouncer) -> None:
    client = await asyncpg.connect(pooler.dsn("postgres", "postgres"), statement_cache_size=0)
    await client.execute("BEGIN")
    async with pgbouncer_console(a_login(pooler)) as console:
        pool = next(row for row in await console.pools() if row["database"] == "postgres")
        database = next(row for row in await console.databases() if row["name"] == "postgres")
        stats = next(row for row in await console.stats() if row["database"] == "postgres")
        config = {row["key"]: row["value"] for row in await console.config()}
    client.terminate()
    assert (pool["sv_active"], pool["cl_waiting"], pool["maxwait_us"]) == (1, 0, 0)
    assert database["pool_size"] == 3
    assert isinstance(stats["total_query_count"], int)
    assert config["default_pool_size"] == "3"


async def test_a_command_takes_effect(pooler: PgBouncer) -> None:
    async with pgbouncer_console(a_login(pooler)) as console:
        await console.command("SET default_pool_size = 8")
    assert {row["name"]: row["pool_size"] for row in pooler.admin("SHOW DATABASES")}["postgres"] == "8"


async def test_a_refused_command_quotes_pgbouncer(pooler: PgBouncer) -> None:
    async with pgbouncer_console(a_login(pooler)) as console:
        with pytest.raises(PgBouncerCommandError, match="SET no_such_setting = 1: SET failed"):
            await console.command("SET no_such_setting = 1")


async def test_a_user_who_may_only_look_may_not_command(pooler: PgBouncer) -> None:
    async with pgbouncer_console(a_login(pooler, username="reader", password="reader")) as console:
        assert await console.pools()
        with pytest.raises(PgBouncerAccessError, match="add the user to admin_users") as refused:
            await console.command("RELOAD")
    assert refused.value.reason == "not-admin"


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"password": "wrong"}, PgBouncerAccessError, "authentication"),
        ({"username": "stranger"}, PgBouncerAccessError, "authentication"),
        ({"port": 1}, PgBouncerUnreachableError, "refused"),
        ({"host": "no-such-host.invalid"}, PgBouncerUnreachableError, "unknown-host"),
        ({"tls": "require"}, PgBouncerUnreachableError, "tls"),
    ],
    ids=["wrong password", "unknown user", "refused", "unknown host", "no TLS"],
)
async def test_a_console_that_cannot_be_opened_says_why(
    pooler: PgBouncer, changes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error) as refused:
        async with pgbouncer_console(a_login(pooler, **changes)):
            pass
    assert refused.value.reason == reason  # type: ignore[attr-defined]
    assert "wrong" not in str(refused.value)


async def test_a_frozen_pgbouncer_is_given_up_in_time(pooler: PgBouncer) -> None:
    async with pgbouncer_console(a_login(pooler), within=0.5) as console:
        os.kill(pooler.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(PgBouncerUnreachableError, match="no answer to SHOW POOLS"):
            await console.pools()
        assert time.monotonic() - started < 1.5
        assert console.closed
        os.kill(pooler.pid, signal.SIGCONT)


def a_config(postgres: PostgreSQL, pooler: PgBouncer, **changes: Any) -> CollectorConfig:
    console = {"host": pooler.host, "port": pooler.port, "username": "reader", "password": "reader", **changes}
    database = {
        "name": "orders",
        "namespace": "shop",
        "database": "postgres",
        "username": "postgres",
        "password": postgres.password,
        "tls": "disable",
        "members": [{"name": "orders-0", "host": postgres.host, "port": postgres.port}],
        "pooler": console,
    }
    return CollectorConfig.model_validate({"databases": [database]})


async def scraped(collector: DatabaseCollector) -> dict[str, Any]:
    """The pooler's metrics by name; under `reason` why there are none."""
    families = text_string_to_metric_families((await collector.scrape()).decode())
    samples = [s for family in families for s in family.samples if s.labels.get("member") == "pooler"]
    found: dict[str, Any] = {s.name.removeprefix("kintsugi_pgbouncer_"): s.value for s in samples}
    if "kintsugi_collector_failed" in found:
        found["reason"] = next(s.labels["reason"] for s in samples if s.name == "kintsugi_collector_failed")
    return found


async def test_the_collector_needs_no_more_than_a_stats_user(postgres: PostgreSQL, pooler: PgBouncer) -> None:
    collector = DatabaseCollector(a_config(postgres, pooler))
    quiet = await scraped(collector)
    clients = [await asyncpg.connect(pooler.dsn("postgres", "postgres"), statement_cache_size=0) for _ in range(2)]
    for client in clients:
        await client.execute("BEGIN")
    busy = await scraped(collector)
    for client in clients:
        client.terminate()
    await collector.close()
    assert (quiet["up"], quiet["servers_active"], quiet["pool_used_ratio"]) == (1, 0, 0)
    assert (busy["servers_active"], busy["clients_waiting"]) == (2, 0)
    assert busy["pool_used_ratio"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"password": "wrong"}, "authentication"),
        ({"username": "postgres", "password": "kintsugi-superuser"}, "not-admin"),
        ({"port": 1}, "refused"),
        ({"passwordFile": "/no/such/file", "password": None}, "credentials"),
    ],
    ids=["wrong password", "not a stats user", "refused", "no password file"],
)
async def test_a_pooler_that_cannot_be_asked_says_why(
    postgres: PostgreSQL, pooler: PgBouncer, changes: dict[str, Any], reason: str
) -> None:
    collector = DatabaseCollector(a_config(postgres, pooler, **changes))
    found = await scraped(collector)
    await collector.close()
    assert found["up"] == 0
    assert found["reason"] == reason
    assert "clients_waiting" not in found


async def test_a_restarted_pooler_is_found_again(postgres: PostgreSQL, pooler: PgBouncer) -> None:
    collector = DatabaseCollector(a_config(postgres, pooler))
    assert (await scraped(collector))["up"] == 1
    pooler.kill()
    gone = await scraped(collector)
    pooler.launch()
    back = gone
    for _ in range(30):
        await asyncio.sleep(0.2)
        back = await scraped(collector)
        if back["up"]:
            break
    await collector.close()
    assert gone["up"] == 0
    assert back["up"] == 1
