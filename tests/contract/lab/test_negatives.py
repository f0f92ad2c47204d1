"""Hard negatives on a real, small PostgreSQL: each takes place, blocks nobody, and is gone without a trace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import asyncpg
import psutil
import pytest

from kintsugi.engines.catalogue import COMPONENTS
from kintsugi.engines.registry import ENGINES
from kintsugi_dev.servers import PgBouncer, PostgreSQL, server_directory
from kintsugi_ml.lab import noise, remedies
from kintsugi_ml.lab.classes import NEGATIVES
from kintsugi_ml.lab.faults.base import Trial
from kintsugi_ml.lab.negatives import (
    Deploy,
    GentleBackup,
    HarmlessIdleTransaction,
    IndexBuild,
    LongReport,
    Negative,
    PlannedVacuum,
    PoolWarmUp,
    ShortLockWait,
    SlotWithConsumer,
    WorkloadShift,
)
from kintsugi_ml.lab.noise import NOISES
from kintsugi_ml.lab.procedures import PROCEDURES
from kintsugi_ml.lab.workloads import WORKLOADS
from kintsugi_ml.lab.workloads.base import Targets
from kintsugi_ml.lab.workloads.process import base_rates
from kintsugi_ml.lab.world import APP, APP_PASSWORD, DATABASE, World

TABLES = """
CREATE TABLE tasks (id bigint PRIMARY KEY, owner int);
INSERT INTO tasks SELECT n, n FROM generate_series(1, 40000) n;
CREATE TABLE task_parts (id bigint PRIMARY KEY, task_id bigint, weight int);
INSERT INTO task_parts SELECT n, n, n FROM generate_series(1, 2000) n;
ANALYZE;
"""
TARGETS = Targets("tasks", "id", "owner", "tasks", "owner", "tasks_owner", "tasks", ("owner",), "tasks")
STATE = """
SELECT (SELECT array_agg(indexname::text ORDER BY 1) FROM pg_indexes WHERE schemaname = 'public') AS indexes,
  (SELECT count(*) FROM pg_replication_slots) AS slots, current_setting('checkpoint_completion_target') AS target,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')
    AND pid <> pg_backend_pid() AND application_name <> '') AS sessions
"""
TOOK_PLACE: Mapping[type[Negative], str] = {
    PlannedVacuum: "SELECT count(*) > 0 FROM pg_stat_progress_vacuum",
    GentleBackup: "SELECT count(*) > 0 FROM pg_stat_progress_basebackup",
    Deploy: "SELECT count(*) > 8 FROM pg_stat_activity WHERE application_name = 'web'",
    LongReport: "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%numbered' AND wait_event = 'PgSleep'",
    ShortLockWait: "SELECT count(*) > 0 FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0",
    HarmlessIdleTransaction: "SELECT count(*) > 1 FROM pg_stat_activity WHERE state = 'idle in transaction'",
    SlotWithConsumer: "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'pg_receivewal'",
    IndexBuild: "SELECT count(*) > 0 FROM pg_indexes WHERE indexname = 'planned_0'",
}


class Clients:
    """The clients' process, of which this knows only the last order."""

    def __init__(self) -> None:
        self.rates: tuple[float, Mapping[str, float]] = (1.0, {})

    async def control(self, rate_factor: float, extra: Mapping[str, float]) -> None:
        self.rates = (rate_factor, extra)


class Small:
    """A workload's name, rates and targets, with tables of our own."""

    targets: ClassVar[Targets] = TARGETS


@pytest.fixture(scope="module")
def office() -> Iterator[World]:
    with server_directory("kintsugi-lab-") as directory, PostgreSQL.start(directory / "lab-0") as server:
        server.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
        server.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
        server.create_roles(DATABASE, owner=APP)
        server.execute(f"GRANT ALL ON SCHEMA public TO app; SET ROLE {APP}; {TABLES}", database=DATABASE)
        users, databases = {APP: APP_PASSWORD}, {DATABASE: (server.host, server.port)}
        with PgBouncer.start(directory / "pgbouncer", databases=databases, users=users, pool_size=4) as pooler:
            unused, small, clients = SimpleNamespace(), Small(), Clients()
            parts: dict[str, Any] = {"link": unused, "collector": unused, "prometheus": unused, "groups": None}
            yield _world(directory, small, server, pooler, clients, parts)


def _world(directory: Any, workload: Any, server: Any, pooler: Any, load: Any, rest: dict[str, Any]) -> World:
    return World(
        directory=directory,
        workload=workload,
        level="low",
        primary=server,
        replica=server,
        pooler=pooler,
        load=load,
        **rest,
    )


@asynccontextmanager
async def under_way(kind: type[Negative], world: World) -> AsyncIterator[Negative]:
    fault = kind(world, 0.5, Random(1))
    await fault.prepare()
    await fault.inject(0)
    try:
        yield fault
    finally:
        await fault.lift()
        await fault.repair()


async def is_true(world: World, question: str) -> bool:
    for _ in range(80):
        (row,) = await world.sql(question)
        if next(iter(row.values())):
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.parametrize("kind", TOOK_PLACE, ids=lambda kind: str(kind.name))
async def test_it_takes_place_blocks_no_client_and_leaves_no_trace(kind: type[Negative], office: World) -> None:
    before = await office.sql(STATE)
    async with under_way(kind, office) as negative:
        assert await is_true(office, TOOK_PLACE[kind])
        assert negative.failed() is None
        client = await asyncpg.connect(office.pooled_dsn(), statement_cache_size=0)
        await client.execute("UPDATE tasks SET owner = owner + 0 WHERE id = 40000", timeout=2)
        await client.close()
    for _ in range(20):
        if (after := await office.sql(STATE)) == before:
            break
        await asyncio.sleep(0.1)
    assert after == before


async def test_what_ended_it_before_its_time_is_said(office: World) -> None:
    async with under_way(PlannedVacuum, office) as negative:
        assert await is_true(office, TOOK_PLACE[PlannedVacuum])
        await office.sql("SELECT pg_terminate_backend(pid, 2000) FROM unnest($1::int[]) AS pid", negative.pids())
        await asyncio.sleep(0.2)
        assert "terminat" in (negative.failed() or "")
    async with under_way(SlotWithConsumer, office) as archive:
        assert await is_true(office, TOOK_PLACE[SlotWithConsumer])
        assert archive._process is not None
        archive._process.popen.kill()
        archive._process.popen.wait(10)
        assert archive.failed() == "WAL archive ended with status -9"


async def test_a_pool_that_warms_up_has_only_new_server_connections(office: World) -> None:
    client = await asyncpg.connect(office.pooled_dsn(), statement_cache_size=0)
    first = await client.fetchval("SELECT pg_backend_pid()")
    async with under_way(PoolWarmUp, office):
        await asyncio.sleep(0.5)
        assert await client.fetchval("SELECT pg_backend_pid()") != first
    await client.close()


async def test_a_shift_keeps_the_number_of_requests_and_ends_as_it_began(office: World) -> None:
    clients: Any = office.load
    workload: Any = WORKLOADS["tpcc"]()
    shifted = _world(office.directory, workload, office.primary, office.pooler, clients, {
        "link": None, "collector": None, "prometheus": None, "groups": None
    })  # fmt: skip
    total = sum(base_rates(workload, "low").values())
    async with under_way(WorkloadShift, shifted):
        await asyncio.sleep(0.1)
        factor, extra = clients.rates
        assert 0.6 < factor < 0.9
        assert factor * total + sum(extra.values()) == pytest.approx(total)
    assert clients.rates == (1.0, {})


@pytest.mark.parametrize("kind", NEGATIVES.values(), ids=lambda kind: str(kind.name))
async def test_no_remedy_is_right_and_two_or_more_are_plausible(kind: type[Negative], office: World) -> None:
    trials: list[Trial] = list(kind(office, 0.5, Random(1)).trials())
    if kind is HarmlessIdleTransaction:
        async with under_way(kind, office) as fault:
            trials = list(fault.trials())
    assert len(trials) >= 2
    assert not any(trial.right for trial in trials)
    assert {trial.action for trial in trials} <= remedies.PRODUCTION | set(PROCEDURES)
    assert kind.negative
    assert kind.root in COMPONENTS
    signals = {signal.name for signal in ENGINES["postgresql"].catalogue.signals}
    assert kind.effect.signal is None or kind.effect.signal in signals


@pytest.mark.parametrize("name", NOISES)
async def test_noise_is_there_while_it_lasts_and_nothing_of_it_stays(name: str, office: World) -> None:
    before = await office.sql(STATE)
    async with noise.noise(name, office, Random(1)):
        await asyncio.sleep(0.7)
        sessions = (await office.sql(STATE))[0]["sessions"] - before[0]["sessions"]
        assert bool(_noisy()) == (name in ("cpu", "disk"))
        assert sessions == (1 if name == "scrapes" else 0)
    await asyncio.sleep(0.2)
    assert await office.sql(STATE) == before
    assert _noisy() == set()


def _noisy() -> set[int]:
    """The processes of ours that run one of the noises' scripts."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if any(script in " ".join(child.cmdline()) for script in ("O_DSYNC", "perf_counter")):
                found.add(child.pid)
    return found
