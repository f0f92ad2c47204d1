"""The collector against real servers: what it says when all is well, and above all when something is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kintsugi.collector.config import CollectorConfig
from kintsugi.collector.member import Member
from kintsugi.collector.queries import HELP
from kintsugi.collector.scrape import DatabaseCollector
from kintsugi_dev.servers import Database, PostgreSQL, fresh_database
from kintsugi_dev.servers.fixtures import PostgresServers

ON_REPLICAS_ONLY = {"replay_backlog_bytes", "replay_delay_seconds"}
FROM_14 = {"sessions_opened_total", "sessions_failed_total", "wal_full_page_images_total", "wal_syncs_total"}
WITH_WAL_TIMING = {"wal_sync_seconds_total"}


class Scraped:
    """One scrape, readable."""

    def __init__(self, text: bytes) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one series with these labels; None when there is none."""
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) < 2, f"{name} has {len(found)} series"
        return found[0] if found else None

    def names(self) -> set[str]:
        """The server's metrics, without prefix."""
        return {s.name.removeprefix("kintsugi_pg_") for s in self.samples if s.name.startswith("kintsugi_pg_")}

    def reasons(self) -> set[str]:
        """Why servers could not be asked."""
        return {s.labels["reason"] for s in self.samples if s.name == "kintsugi_collector_failed"}


def a_config(*servers: PostgreSQL, database: str = "postgres", budget: str = "2s", **changes: Any) -> CollectorConfig:
    members = [{"name": f"orders-{n}", "host": s.host, "port": s.port} for n, s in enumerate(servers)]
    spec: dict[str, Any] = {
        "name": "orders",
        "namespace": "shop",
        "database": database,
        "username": "kintsugi_monitor",
        "password": "monitor",
        "tls": "disable",
        "members": members,
    }
    return CollectorConfig.model_validate({"budget": budget, "databases": [{**spec, **changes}]})


@asynccontextmanager
async def collecting(config: CollectorConfig) -> AsyncIterator[Callable[..., Any]]:
    """A collector; yields the function that scrapes it."""
    collector = DatabaseCollector(config)

    async def scrape(budget: float | None = None) -> Scraped:
        return Scraped(await collector.scrape(budget))

    try:
        yield scrape
    finally:
        await collector.close()


@pytest.fixture
def monitored(database: Database) -> Database:
    """A fresh database with the documented roles."""
    database.create_roles()
    return database


@pytest.fixture
def own_server(server_dir: Path) -> Iterator[PostgreSQL]:
    """A PostgreSQL that a test may kill."""
    with PostgreSQL.start(server_dir / "own") as server:
        server.create_roles()
        yield server


@pytest.mark.parametrize(
    "version",
    [13, pytest.param(14, marks=pytest.mark.slow), 15]
    + [pytest.param(v, marks=pytest.mark.slow) for v in (16, 17)]
    + [18],
)
async def test_every_metric_is_served_and_no_query_is_refused(postgres_servers: PostgresServers, version: int) -> None:
    server = postgres_servers.version(version)
    with fresh_database(server) as database:
        database.create_roles()
        async with collecting(a_config(server, database=database.name)) as scrape:
            scraped = await scrape()

    expected = set(HELP) - ON_REPLICAS_ONLY - WITH_WAL_TIMING - (FROM_14 if version < 14 else set())
    assert scraped.names() == expected
    assert not [s for s in scraped.samples if s.name.startswith("kintsugi_collector_query")]


async def test_a_wrong_password_is_a_metric_every_time_and_a_log_line_once(
    monitored: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kintsugi.collector")
    config = a_config(monitored.server, database=monitored.name, password="wrong")
    async with collecting(config) as scrape:
        for _ in range(5):
            scraped = await scrape()
            assert scraped.value("kintsugi_pg_up", member="orders-0") == 0
            assert scraped.reasons() == {"authentication"}
            await asyncio.sleep(0.3)
    assert len(caplog.messages) == 1
    assert "refused user kintsugi_monitor" in caplog.messages[0]
    assert "wrong" not in caplog.messages[0].split("check")[0]


async def test_a_corrected_password_file_is_read_again(monitored: Database, tmp_path: Path) -> None:
    file = tmp_path / "password"
    config = a_config(monitored.server, database=monitored.name, password=None, passwordFile=str(file))
    async with collecting(config) as scrape:
        assert (await scrape()).reasons() == {"credentials"}
        file.write_text("monitor\n")
        await asyncio.sleep(0.6)
        assert (await scrape()).value("kintsugi_pg_up") == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"members": [{"name": "gone", "host": "127.0.0.1", "port": 1}]}, "unreachable"),
        ({"members": [{"name": "gone", "host": "no-such-host.invalid"}]}, "unreachable"),
        ({"database": "no_such_database"}, "no-such-database"),
        ({"tls": "require"}, "tls"),
        ({"username": "nobody"}, "authentication"),
    ],
    ids=["refused", "unknown host", "unknown database", "no TLS", "unknown user"],
)
async def test_a_server_that_cannot_be_asked_says_why(
    monitored: Database, changes: dict[str, Any], reason: str
) -> None:
    config = a_config(monitored.server, **{"database": monitored.name, **changes})
    async with collecting(config) as scrape:
        scraped = await scrape()
    assert scraped.value("kintsugi_pg_up") == 0
    assert scraped.reasons() == {reason}
    assert scraped.names() == {"up"}


async def test_a_killed_server_leaves_nothing_but_up_0_and_comes_back(own_server: PostgreSQL) -> None:
    async with collecting(a_config(own_server)) as scrape:
        assert (await scrape()).value("kintsugi_pg_up", role="primary") == 1
        await asyncio.to_thread(own_server.kill)
        gone = await scrape()
        assert gone.value("kintsugi_pg_up", role="primary") == 0
        assert gone.names() == {"up"}
        await asyncio.to_thread(own_server.launch)
        assert await back_within(scrape, 6.0)


async def back_within(scrape: Callable[..., Any], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (await scrape()).value("kintsugi_pg_up") == 1:
            return True
        await asyncio.sleep(0.2)
    return False


@contextmanager
def frozen(server: PostgreSQL) -> Iterator[None]:
    """The server and all its processes stopped."""
    process = psutil.Process(server.pid)
    pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_a_frozen_server_costs_a_scrape_no_more_than_its_budget(own_server: PostgreSQL) -> None:
    async with collecting(a_config(own_server, budget="1s")) as scrape:
        assert (await scrape()).value("kintsugi_pg_up") == 1
        with frozen(own_server):
            for _ in range(6):
                started = time.monotonic()
                scraped = await scrape(0.4)
                assert time.monotonic() - started < 0.9
                assert scraped.value("kintsugi_pg_up") == 0
                assert scraped.names() == {"up"}
                assert scraped.reasons() <= {"timeout", "unreachable"}
        assert await back_within(scrape, 6.0)


async def test_a_promoted_replica_takes_over_the_role_by_itself(own_server: PostgreSQL, server_dir: Path) -> None:
    with own_server.replica(server_dir / "replica") as replica:
        async with collecting(a_config(own_server, replica)) as scrape:
            before = await scrape()
            assert before.value("kintsugi_pg_up", member="orders-1", role="replica") == 1
            assert before.value("kintsugi_pg_replay_delay_seconds", member="orders-1") == 0
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(replica.promote)
            after = await scrape()
    assert after.value("kintsugi_pg_up", member="orders-0", role="primary") == 0
    assert after.value("kintsugi_pg_up", member="orders-1", role="primary") == 1
    assert after.value("kintsugi_pg_lock_waiters", role="primary") == 0


async def test_without_pg_stat_statements_its_metrics_are_missing_and_said_to_be(monitored: Database) -> None:
    monitored.execute("DROP EXTENSION pg_stat_statements")
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape:
        without = await scrape()
        monitored.execute('CREATE SCHEMA "Odd Schema"; CREATE EXTENSION pg_stat_statements SCHEMA "Odd Schema"')
        monitored.execute('GRANT USAGE ON SCHEMA "Odd Schema" TO kintsugi_monitor')
        there = await scrape()
    assert without.value("kintsugi_collector_missing", what="pg_stat_statements") == 1
    assert "statement_calls_total" not in without.names()
    assert "lock_waiters" in without.names()
    assert there.value("kintsugi_collector_missing", what="pg_stat_statements") == 0
    assert "statement_calls_total" in there.names()


async def test_a_role_without_pg_monitor_yields_no_false_zeros(monitored: Database) -> None:
    monitored.execute(
        "DO $$ BEGIN CREATE ROLE plain LOGIN PASSWORD 'plain'; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    config = a_config(monitored.server, database=monitored.name, username="plain", password="plain")
    async with collecting(config) as scrape:
        scraped = await scrape()
    assert scraped.value("kintsugi_pg_up") == 1
    assert scraped.value("kintsugi_collector_missing", what="pg_monitor") == 1
    assert not scraped.names() & {"lock_waiters", "active_sessions", "replicas_streaming", "connections_used_ratio"}


async def test_exclusive_locks_on_every_user_table_hold_up_nothing(monitored: Database) -> None:
    monitored.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int); INSERT INTO a VALUES (1)")
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape, session(monitored) as holder:
        before = await scrape()
        await holder.execute("BEGIN; LOCK TABLE a, b IN ACCESS EXCLUSIVE MODE; REINDEX TABLE a")
        locked = await scrape()
    assert locked.names() == before.names()
    assert locked.value("kintsugi_collector_scrape_seconds") < 0.5


@asynccontextmanager
async def session(database: Database, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.dsn(), server_settings=settings)
    try:
        yield connection
    finally:
        connection.terminate()


async def test_a_query_that_is_too_slow_is_left_out_and_counted_and_never_served_stale(monitored: Database) -> None:
    monitored.execute("CREATE TABLE t AS SELECT generate_series(1, 2000) AS id")
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape, session(monitored) as holder:
        assert "dead_rows" in (await scrape()).names()
        await holder.execute("BEGIN; LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE")
        slow = await scrape()
        await holder.execute("COMMIT")
        again = await scrape()
    assert slow.value("kintsugi_pg_up") == 1
    assert slow.value("kintsugi_collector_query_timeouts_total", query="tables") == 1
    assert "dead_rows" not in slow.names()
    assert "lock_waiters" in slow.names()
    assert "dead_rows" in again.names()


async def test_scrapes_at_the_same_time_ask_the_server_once(monitored: Database) -> None:
    calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE '%pg_is_in_recovery() AS in%'"
    here = f"{calls} AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape:
        await scrape()
        before = await asyncio.to_thread(monitored.value, here)
        await asyncio.gather(*(scrape() for _ in range(10)))
        after = await asyncio.to_thread(monitored.value, here)
    assert after - before == 1


async def test_sessions_of_kintsugi_count_only_against_the_limit(monitored: Database) -> None:
    ours = {"application_name": "kintsugi/terminate-blocker"}
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape:
        before = await scrape()
        async with session(monitored, **ours) as one, session(monitored, **ours):
            await one.execute("BEGIN; SELECT 1")
            during = await scrape()
    backends = "kintsugi_pg_client_backends"
    assert during.value("kintsugi_pg_idle_in_transaction_sessions") == 0
    assert during.value("kintsugi_pg_longest_transaction_seconds") == 0
    assert during.value(backends) == before.value(backends) + 2


async def test_upkeep_and_exports_are_no_long_queries(monitored: Database) -> None:
    longest = "kintsugi_pg_longest_query_seconds"
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape, session(monitored) as one:
        export = asyncio.create_task(one.copy_from_query("SELECT pg_sleep(1.2)", output=Path("/dev/null")))
        await asyncio.sleep(0.8)
        exporting = await scrape()
        await export
        question = asyncio.create_task(one.execute(" SELECT pg_sleep(1.2)"))
        await asyncio.sleep(0.8)
        asking = await scrape()
        await question
    assert exporting.value("kintsugi_pg_active_sessions") == asking.value("kintsugi_pg_active_sessions") == 1
    assert exporting.value(longest) == 0
    assert asking.value(longest) > 0.5


async def test_a_terminated_collector_session_makes_no_gap(monitored: Database) -> None:
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kintsugi/collect'"
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape:
        await scrape()
        await asyncio.to_thread(monitored.fetch, f"{ours} AND datname = current_database()")
        scraped = await scrape()
    assert scraped.value("kintsugi_pg_up") == 1
    assert "lock_waiters" in scraped.names()


async def test_counters_start_at_zero_and_never_fall(monitored: Database) -> None:
    name = "kintsugi_pg_sequential_rows_read_total"
    monitored.execute("CREATE TABLE big AS SELECT generate_series(1, 50000) AS id")
    monitored.execute("SELECT count(*) FROM big")
    await asyncio.sleep(1.1)
    async with collecting(a_config(monitored.server, database=monitored.name)) as scrape:
        assert (await scrape()).value(name) == 0
        await asyncio.to_thread(monitored.execute, "SELECT count(*) FROM big")
        await asyncio.sleep(1.1)
        read = (await scrape()).value(name)
        assert read >= 50000
        await asyncio.to_thread(monitored.execute, "DROP TABLE big; SELECT pg_stat_reset()")
        assert (await scrape()).value(name) >= read


async def test_the_collector_can_neither_write_nor_wait_long(monitored: Database) -> None:
    config = a_config(monitored.server, database=monitored.name).databases[0]
    connection = await Member(config, config.members[0], budget=2.0).connect()
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await connection.execute("CREATE TABLE t (id int)")
    assert await connection.fetchval("SHOW statement_timeout") == "1s"
    assert await connection.fetchval("SHOW lock_timeout") == "100ms"
    connection.terminate()
