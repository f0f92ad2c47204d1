"""The faults inside the database on a real, small PostgreSQL: each hurts in its own way, and ends without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import asyncpg
import pytest

from kintsugi.engines.postgresql.actions import ACTIONS
from kintsugi_dev.servers import PgBouncer, PostgreSQL, server_directory
from kintsugi_ml.lab.faults.base import Fault, Trial
from kintsugi_ml.lab.faults.bloat import Bloat
from kintsugi_ml.lab.faults.connections import ConnectionExhaustion, PoolExhaustion
from kintsugi_ml.lab.faults.indexes import MissingIndex, TooManyIndexes
from kintsugi_ml.lab.faults.locks import Deadlocks, IdleInTransaction, LockContention
from kintsugi_ml.lab.faults.queries import RunawayQuery, TempSpill
from kintsugi_ml.lab.faults.statistics import StaleStatistics
from kintsugi_ml.lab.workloads.base import Targets, Work, Workload
from kintsugi_ml.lab.world import APP, APP_PASSWORD, DATABASE, World

FAULTS = (
    Bloat,
    ConnectionExhaustion,
    Deadlocks,
    IdleInTransaction,
    LockContention,
    MissingIndex,
    PoolExhaustion,
    RunawayQuery,
    StaleStatistics,
    TempSpill,
    TooManyIndexes,
)
TABLES = """
CREATE TABLE accounts (id bigint PRIMARY KEY, balance int NOT NULL);
INSERT INTO accounts SELECT n, 100 FROM generate_series(1, 100) n;
CREATE TABLE orders (id bigserial PRIMARY KEY, account bigint, product int, price int);
INSERT INTO orders (account, product, price) SELECT n % 100, n % 37, n % 11 FROM generate_series(1, 5000) n;
CREATE INDEX orders_account ON orders (account);
CREATE TABLE documents (id bigserial PRIMARY KEY, email text);
INSERT INTO documents (email) SELECT 'n' || n FROM generate_series(1, 2000) n;
CREATE INDEX documents_email ON documents (email);
CREATE TABLE jobs (id bigserial PRIMARY KEY, state text, payload text, updated_at timestamptz DEFAULT now());
CREATE INDEX jobs_state_id ON jobs (state, id);
CREATE TABLE imports (id bigserial PRIMARY KEY, reference text, payload text);
CREATE TABLE tasks (id bigserial PRIMARY KEY, state text, owner int) WITH (autovacuum_enabled = false);
INSERT INTO tasks (state, owner) SELECT 'closed', n % 50 FROM generate_series(1, 40000) n;
CREATE TABLE task_parts (id bigserial PRIMARY KEY, task_id bigint, weight int);
INSERT INTO task_parts (task_id, weight) SELECT n % 40000, n % 9 FROM generate_series(1, 50000) n;
ANALYZE;
"""
STATE = """
SELECT (SELECT jsonb_agg(to_jsonb(i) ORDER BY indexname) FROM
    (SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public') i)::text AS indexes,
  (SELECT sum(balance) FROM accounts) AS balance, (SELECT count(*) FROM orders) AS orders,
  (SELECT count(*) FROM jobs) AS jobs, (SELECT count(*) FROM tasks WHERE state = 'closed') AS closed,
  current_setting('work_mem') AS work_mem,
  (SELECT rolconnlimit FROM pg_roles WHERE rolname = 'jobs') AS role_limit,
  (SELECT count(*) FROM pg_stat_activity WHERE usename IN ('app', 'jobs') AND application_name <> 'pooled') AS sessions
"""
WAITING = """
SELECT count(*) AS n FROM pg_stat_activity w WHERE EXISTS (
    SELECT FROM pg_stat_activity b WHERE b.application_name = $1 AND b.pid = ANY (pg_blocking_pids(w.pid)))
"""


class Shop(Workload):
    """As few tables as the faults need."""

    name: ClassVar[str] = "shop"
    title: ClassVar[str] = "a shop"
    rates: ClassVar[Mapping[str, float]] = {"low": 1.0, "high": 1.0}
    targets: ClassVar[Targets] = Targets(
        hot_table="accounts",
        hot_key="id",
        hot_number="balance",
        lookup_table="orders",
        lookup_column="account",
        lookup_index="orders_account",
        write_table="orders",
        write_columns=("product", "price"),
        big_table="orders",
    )

    async def create(self, connection: asyncpg.Connection) -> None:
        await connection.execute(TABLES)

    def work(self) -> Mapping[str, Work]:
        return {}

    def shares(self) -> Mapping[str, float]:
        return {}


class Controls:
    """The clients' process, of which faults know only this."""

    def __init__(self) -> None:
        self.extra: Mapping[str, float] = {}

    async def control(self, rate_factor: float = 1.0, extra: Mapping[str, float] | None = None) -> None:
        self.extra = extra or {}


@pytest.fixture(scope="module")
def shop() -> Iterator[World]:
    with server_directory("kintsugi-lab-") as directory, PostgreSQL.start(directory / "lab-0") as server:
        server.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
        server.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
        server.execute("CREATE SCHEMA IF NOT EXISTS public; GRANT ALL ON SCHEMA public TO app", database=DATABASE)
        server.run(Shop().create, dsn=server.dsn(DATABASE, APP, APP_PASSWORD))
        pooler = PgBouncer.start(
            directory / "pgbouncer",
            databases={DATABASE: ("127.0.0.1", server.port)},
            users={APP: APP_PASSWORD},
            pool_size=4,
        )
        with pooler:
            yield a_world(directory, server, pooler)


def a_world(directory: Path, server: PostgreSQL, pooler: PgBouncer) -> World:
    unused: Any = None
    controls: Any = Controls()
    return World(
        directory=directory,
        workload=Shop(),
        level="low",
        primary=server,
        replica=server,
        pooler=pooler,
        link=unused,
        load=controls,
        collector=unused,
        prometheus=unused,
        groups=None,
    )


async def begun(kind: type[Fault], world: World, severity: float = 0.5, ramp: float = 0.0, seed: int = 2) -> Fault:
    fault = kind(world, severity, Random(seed))
    await fault.prepare()
    await fault.inject(ramp)
    return fault


async def over(fault: Fault) -> None:
    await fault.lift()
    await fault.repair()


async def eventually(world: World, question: str, *arguments: Any, seconds: float = 5.0) -> bool:
    """Whether the statement's only value gets true in time."""
    async with asyncio.timeout(seconds + 5):
        for _ in range(round(seconds / 0.1)):
            if next(iter((await world.sql(question, *arguments))[0].values())):
                return True
            await asyncio.sleep(0.1)
    return False


def right(fault: Fault) -> Trial:
    return next(trial for trial in fault.trials() if trial.right)


async def carry_out(world: World, trial: Trial) -> None:
    """What production would do, step by step, as superuser."""
    plan = next(action for name, action in ACTIONS.items() if name == trial.action).compile(trial.parameters)
    for step in plan.steps:
        rows = await world.sql(step.command)
        if step.expect:
            assert rows, step.command
            assert next(iter(rows[0].values())) is True, step.command


@pytest.fixture
async def hot_client(shop: World) -> AsyncIterator[asyncio.Task[None]]:
    """A client of the hottest rows that waits when they are locked."""

    async def work() -> None:
        connection = await asyncpg.connect(shop.direct_dsn(), server_settings={"application_name": "client"})
        try:
            while True:
                for key in range(1, 11):
                    await connection.execute("UPDATE accounts SET balance = balance + 0 WHERE id = $1", key)
        finally:
            connection.terminate()

    task = asyncio.create_task(work())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("kind", "ramp"),
    [*((kind, 0.0) for kind in FAULTS), *((kind, 1.0) for kind in (LockContention, MissingIndex, StaleStatistics))],
    ids=lambda value: {0.0: "abrupt", 1.0: "ramped"}.get(value) or value.name,
)
async def test_a_fault_that_was_lifted_and_repaired_leaves_no_trace(
    shop: World, kind: type[Fault], ramp: float
) -> None:
    fault = kind(shop, 0.3, Random(1))
    await fault.prepare()
    before = await shop.sql(STATE)

    await fault.inject(ramp)
    await asyncio.sleep(0.4)
    await over(fault)

    assert await eventually(shop, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'jobs')")
    after = await shop.sql(STATE)
    assert {**after[0], "role_limit": None, "sessions": 0} == {**before[0], "role_limit": None, "sessions": 0}


@pytest.mark.parametrize("kind", [LockContention, IdleInTransaction], ids=lambda kind: kind.name)
async def test_who_waits_for_a_held_row_goes_on_once_production_has_ended_its_holders(
    shop: World, hot_client: asyncio.Task[None], kind: type[LockContention | IdleInTransaction]
) -> None:
    fault = await begun(kind, shop)
    await asyncio.sleep(0.5)
    blocked = await eventually(shop, WAITING.replace("count(*) AS n", "count(*) > 0"), kind.application)

    for trial in fault.trials():
        if trial.right:
            await carry_out(shop, trial)

    freed = await eventually(shop, WAITING.replace("count(*) AS n", "count(*) = 0"), kind.application)
    await over(fault)
    assert blocked
    assert freed


async def test_a_ramped_lock_fault_takes_one_row_after_the_other(shop: World) -> None:
    free = "SELECT count(*) AS n FROM (SELECT FROM accounts WHERE id <= 10 FOR UPDATE SKIP LOCKED) AS unlocked"
    fault = await begun(LockContention, shop, severity=1.0, ramp=2.0)

    await asyncio.sleep(0.7)
    early = (await shop.sql(free))[0]["n"]
    await asyncio.sleep(1.8)
    late = (await shop.sql(free))[0]["n"]

    await over(fault)
    assert 4 <= early <= 8
    assert late == 0


async def test_a_pair_of_jobs_deadlocks_until_it_is_shut_out(shop: World) -> None:
    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = (await shop.sql(count))[0]["deadlocks"]
    fault = await begun(Deadlocks, shop)

    happened = await eventually(shop, count.replace("deadlocks FROM", "deadlocks > $1 FROM"), before)
    role = right(fault).parameters["role"]
    await shop.sql(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    await shop.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
    await asyncio.sleep(0.3)
    left = await shop.sql("SELECT pid FROM pg_stat_activity WHERE usename = $1", role)

    await over(fault)
    assert happened
    assert left == []


async def test_a_leak_shuts_the_application_out_and_does_not_come_back_once_it_is_ended(shop: World) -> None:
    fault = await begun(ConnectionExhaustion, shop, severity=1.0)
    refused = False
    for _ in range(50):
        try:
            (await asyncpg.connect(shop.direct_dsn(), timeout=5)).terminate()
        except asyncpg.TooManyConnectionsError:
            refused = True
            break
        await asyncio.sleep(0.1)

    leak = right(fault).parameters["application"]
    await shop.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", leak)
    await asyncio.sleep(1.0)
    left = (await shop.sql("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = $1", leak))[0]["n"]

    await over(fault)
    assert refused
    assert left <= 1


async def test_clients_wait_for_an_exhausted_pool_until_it_gets_larger(shop: World) -> None:
    async def waiting() -> int:
        rows = await asyncio.to_thread(shop.pooler.admin, "SHOW POOLS")
        return sum(int(row["cl_waiting"]) for row in rows if row["database"] == DATABASE)

    fault = await begun(PoolExhaustion, shop)
    await asyncio.sleep(1.0)
    crowded = await waiting()
    size = right(fault).parameters["size"]
    await asyncio.to_thread(shop.pooler.admin, f"SET default_pool_size = {size}")
    await asyncio.sleep(1.0)
    relaxed = min([await waiting() for _ in range(5)])

    await over(fault)
    assert crowded > 0
    assert relaxed == 0


async def test_production_builds_the_index_that_is_missing(shop: World) -> None:
    indexed = "SELECT count(*) > 0 AS there FROM pg_indexes WHERE tablename = 'orders' AND indexdef LIKE '%(account)'"
    fault = await begun(MissingIndex, shop)
    missing = not (await shop.sql(indexed))[0]["there"]

    await carry_out(shop, right(fault))
    healed = (await shop.sql(indexed))[0]["there"]

    await over(fault)
    assert missing
    assert healed


async def test_the_planner_believes_what_was_until_the_table_is_analysed(shop: World) -> None:
    async def estimate() -> int:
        rows = await shop.sql("EXPLAIN (FORMAT JSON) SELECT FROM tasks WHERE state = 'pending'")
        plan = next(iter(rows[0].values()))
        return int(plan.split('"Plan Rows": ')[1].split(",")[0])

    fault = await begun(StaleStatistics, shop)
    stale = await estimate()
    await carry_out(shop, right(fault))
    fresh = await estimate()

    await over(fault)
    assert stale < 100
    assert fresh > 5000


async def test_no_vacuum_removes_dead_jobs_before_the_old_snapshot_is_gone(shop: World) -> None:
    dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'jobs'"
    many = dead.replace("n_dead_tup", "n_dead_tup > 50000")
    fault = await begun(Bloat, shop, severity=0.0)

    held = await eventually(shop, many, seconds=8.0)
    await shop.sql("VACUUM jobs")
    still = await eventually(shop, many)
    await carry_out(shop, right(fault))
    await shop.sql("VACUUM jobs")
    removed = await eventually(shop, dead.replace("n_dead_tup", "n_dead_tup < 50000"))

    await over(fault)
    assert held
    assert still
    assert removed


async def test_a_setting_that_starves_sorts_reaches_sessions_that_are_open_already(shop: World) -> None:
    session = await asyncpg.connect(shop.direct_dsn())
    fault = await begun(TempSpill, shop)

    await asyncio.sleep(0.5)
    starved = await session.fetchval("SHOW work_mem")
    await over(fault)
    await asyncio.sleep(0.5)
    restored = await session.fetchval("SHOW work_mem")

    session.terminate()
    assert starved == "64kB"
    assert restored == "4MB"


async def test_every_fault_offers_a_right_remedy_and_two_wrong_ones(shop: World) -> None:
    for kind in (LockContention, RunawayQuery, TooManyIndexes):
        fault = await begun(kind, shop, severity=0.0)
        await asyncio.sleep(0.5)
        trials = fault.trials()
        await over(fault)
        assert any(trial.right for trial in trials), kind.name
        assert sum(not trial.right for trial in trials) >= 2, kind.name
