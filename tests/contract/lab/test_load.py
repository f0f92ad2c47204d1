"""The lab's workloads and their clients against a real PostgreSQL behind a real PgBouncer."""

from __future__ import annotations

import asyncio
import csv
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import asyncpg
import pytest

from kintsugi_dev.load.measure import Journal
from kintsugi_dev.servers import Database, PgBouncer, PostgreSQL, http
from kintsugi_dev.servers.database import fresh_database
from kintsugi_dev.servers.errors import ServerError
from kintsugi_ml.lab.workloads import WORKLOADS, backoffice
from kintsugi_ml.lab.workloads.base import Workload
from kintsugi_ml.lab.workloads.keyvalue import KeyValue
from kintsugi_ml.lab.workloads.process import Load

TASKS = 4_000
PATIENCE_SECONDS = 8.0
INDEXES = "SELECT 1 FROM pg_indexes WHERE tablename = $1 AND indexname = $2"

workloads = pytest.mark.parametrize("workload", [kind() for kind in WORKLOADS.values()], ids=list(WORKLOADS))


def small(sql: str) -> str:
    """The same tables with a fiftieth of their rows, since nothing here needs the others."""
    return re.sub(r"(?<=generate_series\(1::bigint, )\d{4,}", lambda rows: str(int(rows[0]) // 50), sql)


async def create(workload: Workload, database: Database) -> None:
    connection = await asyncpg.connect(database.dsn())
    try:
        await connection.execute(small(workload.tables))
        await connection.execute(small(backoffice.TABLES))
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


@asynccontextmanager
async def one_connection(database: Database) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
    async with (
        asyncpg.create_pool(database.dsn(), min_size=1, max_size=1, statement_cache_size=0) as pool,
        pool.acquire() as connection,
    ):
        yield connection


@workloads
async def test_every_request_runs_on_the_tables_and_leaves_no_transaction_open(
    workload: Workload, database: Database
) -> None:
    await create(workload, database)
    work = {**workload.work(), **backoffice.work(backoffice.Ledger("client", Journal(None)))}

    async with one_connection(database) as connection:
        for request in work.values():
            for seed in range(5):
                await request(connection, Random(seed))
            assert not connection.is_in_transaction()


@workloads
async def test_what_a_fault_is_aimed_at_exists_and_may_be_touched(workload: Workload, database: Database) -> None:
    await create(workload, database)
    targets = workload.targets

    async with one_connection(database) as connection:
        touched = await connection.execute(
            f"UPDATE {targets.hot_table} SET {targets.hot_number} = {targets.hot_number} + 0 "
            f"WHERE {targets.hot_key} BETWEEN 1 AND 10"
        )
        assert touched == "UPDATE 10"
        assert await connection.fetchval(INDEXES, targets.lookup_table, targets.lookup_index) == 1
        for column in targets.write_columns:
            await connection.execute(f"CREATE INDEX ON {targets.write_table} ({column})")


async def test_the_overview_has_a_bad_plan_for_pending_tasks_that_statistics_do_not_know_until_analyze(
    database_of_each_version: Database,
) -> None:
    async with one_connection(database_of_each_version) as connection:
        await connection.execute(backoffice.TABLES)
        await connection.execute("ANALYZE")
        await connection.execute("UPDATE tasks SET state = 'pending' WHERE id <= $1", TASKS)

        stale = await seconds(connection)
        await connection.execute("ANALYZE tasks")
        fresh = await seconds(connection)

    assert stale > 20 * fresh


async def seconds(connection: asyncpg.pool.PoolConnectionProxy) -> float:
    began = time.perf_counter()
    await backoffice.overview(connection, Random(0))
    return time.perf_counter() - began


async def test_a_report_fits_the_default_work_mem_and_spills_at_64_kb(database: Database) -> None:
    async with one_connection(database) as connection:
        await connection.execute(backoffice.TABLES)
        await connection.execute("ANALYZE")
        explain = f"EXPLAIN (ANALYZE, TIMING OFF) {backoffice.REPORT}"

        normal = "\n".join(row[0] for row in await connection.fetch(explain, 1))
        await connection.execute("SET work_mem = '64kB'")
        short = "\n".join(row[0] for row in await connection.fetch(explain, 1))

    assert "Sort Method: quicksort" in normal
    assert "Sort Method: external merge" in short


@pytest.fixture(scope="module")
def shop(postgres: PostgreSQL) -> Iterator[Database]:
    """A database with the key-value store's tables."""
    with fresh_database(postgres, "lab") as database:
        asyncio.run(create(KeyValue(), database))
        yield database


@pytest.fixture
def pooler(shop: Database, server_dir: Path) -> Iterator[PgBouncer]:
    databases = {shop.name: (shop.server.host, shop.server.port)}
    users = {"postgres": shop.server.password}
    with PgBouncer.start(server_dir / "b", databases=databases, users=users, pool_size=8) as server:
        yield server


@pytest.fixture
def load(pooler: PgBouncer, shop: Database, server_dir: Path) -> Iterator[Load]:
    dsn = pooler.dsn(shop.name, "postgres")
    with Load.start(server_dir / "load", dsn=dsn, workload="keyvalue", level="high") as running:
        yield running


def requests(load: Load) -> list[dict[str, str]]:
    with load.requests_file.open() as file:
        return list(csv.DictReader(file))


async def until(load: Load, met: Callable[[list[dict[str, str]]], bool]) -> list[dict[str, str]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not met(rows := requests(load)):
        ends = Counter((row["kind"], row["outcome"]) for row in rows)
        assert time.monotonic() < deadline, f"after {PATIENCE_SECONDS} s: {ends}"
        await asyncio.sleep(0.1)
    return rows


async def test_requests_come_at_the_base_rate_and_are_logged_and_exported(load: Load) -> None:
    rows = await until(load, lambda rows: len(rows) > 3 * load.base_rate)

    assert Counter(row["outcome"] for row in rows) == {"ok": len(rows)}
    scheduled = sorted(float(row["scheduled_unix"]) for row in rows)
    assert len(rows) / (scheduled[-1] - scheduled[0]) == pytest.approx(load.base_rate, rel=0.2)
    assert abs(time.time() - scheduled[-1]) < 2
    metrics = http.get(f"{load.url}/metrics")[1].decode()
    assert 'kintsugi_client_requests_total{outcome="ok",statement="get"}' in metrics
    assert 'kintsugi_client_request_seconds_bucket{le="0.005",statement="search"}' in metrics


async def test_controls_change_the_rate_and_add_requests_and_what_is_not_given_stays(load: Load) -> None:
    faster = await load.control(rate_factor=0.5, extra={"search": 60.0})
    kept = await load.control(pattern="growth")

    assert faster["search"] == pytest.approx(61)
    assert kept["search"] == pytest.approx(60 + 0.85 * 1, abs=0.01)
    began = time.time()
    rows = await until(load, lambda rows: sum(float(row["scheduled_unix"]) > began for row in rows) > 200)
    late = Counter(row["kind"] for row in rows if float(row["scheduled_unix"]) > began)
    assert late["search"] > 0.25 * late.total()
    with pytest.raises(ServerError, match="no request is called sarch"):
        await load.control(extra={"sarch": 1.0})


async def test_acknowledged_entries_that_are_gone_are_counted(load: Load, shop: Database) -> None:
    await load.control(rate_factor=0.0, extra={"enter_ledger": 40.0})
    await until(load, lambda rows: sum(row["kind"] == "enter_ledger" for row in rows) > 20)
    load.stop()

    assert await backoffice.lost_writes(load.journal, shop.dsn()) == 0
    client, numbers = next(iter(Journal.read(load.journal).items()))
    shop.execute("DELETE FROM acknowledged WHERE client = $1 AND number = ANY($2)", client, sorted(numbers)[:3])
    assert await backoffice.lost_writes(load.journal, shop.dsn()) == 3


async def test_a_request_that_is_blocked_is_a_timeout_after_five_seconds_and_the_next_ones_succeed(
    load: Load, shop: Database
) -> None:
    await until(load, lambda rows: len(rows) > 50)
    async with one_connection(shop) as connection, connection.transaction():
        await connection.execute("LOCK TABLE documents")
        await load.control(rate_factor=0.1, extra={"search": 4.0})
        await until(load, lambda rows: any(row["outcome"] == "timeout" for row in rows))
    ended = time.time()

    rows = await until(load, lambda rows: any(searched(row, ended) for row in rows))

    slow = [float(row["latency_seconds"]) for row in rows if row["outcome"] == "timeout"]
    assert all(5 <= latency < 5.5 for latency in slow)


def searched(row: dict[str, str], after: float) -> bool:
    return row["kind"] == "search" and row["outcome"] == "ok" and float(row["scheduled_unix"]) > after
