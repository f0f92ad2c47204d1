"""The faults around the database, on a small primary with its replica: what they break, and that lifting mends it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import ClassVar, cast

import asyncpg
import psutil
import pytest

from kintsugi_dev.servers import PgBouncer, PostgreSQL, eventually, free_port, server_directory
from kintsugi_ml.lab import cgroups
from kintsugi_ml.lab.faults.base import Fault
from kintsugi_ml.lab.faults.hogs import Hogs
from kintsugi_ml.lab.faults.host import Backup, CpuHog, IoSaturation, MemoryPressure
from kintsugi_ml.lab.faults.replication import ReplicaLost, ReplicationLag
from kintsugi_ml.lab.faults.storage import BulkInsert, ColdCache
from kintsugi_ml.lab.faults.wal import CheckpointStorm, WalPressure
from kintsugi_ml.lab.link import SlowLink
from kintsugi_ml.lab.workloads.backoffice import BATCH_TABLES
from kintsugi_ml.lab.workloads.base import Targets, Work, Workload
from kintsugi_ml.lab.world import APP, APP_PASSWORD, DATABASE, REPLICA, Groups, World

groups_needed = pytest.mark.skipif(cgroups.unavailable() is not None, reason=str(cgroups.unavailable()))
TABLE = "CREATE TABLE accounts AS SELECT id::bigint, 0 AS balance FROM generate_series(1, 20000) id"


class Bank(Workload):
    """One table."""

    name: ClassVar[str] = "bank"
    title: ClassVar[str] = "a bank"
    rates: ClassVar[Mapping[str, float]] = {"low": 1.0, "high": 1.0}
    targets: ClassVar[Targets] = Targets(
        hot_table="accounts",
        hot_key="id",
        hot_number="balance",
        lookup_table="accounts",
        lookup_column="id",
        lookup_index="accounts_id",
        write_table="accounts",
        write_columns=("balance",),
        big_table="accounts",
    )

    async def create(self, connection: asyncpg.Connection) -> None:
        await connection.execute(TABLE)

    def work(self) -> Mapping[str, Work]:
        return {}

    def shares(self) -> Mapping[str, float]:
        return {}


class _Pooler:
    settings: ClassVar[Mapping[str, int]] = {"default_pool_size": 16}


@pytest.fixture(scope="module")
def bank() -> Iterator[World]:
    """A primary and its synchronous replica, in control groups where there are any; no clients, no pooler."""
    with server_directory() as directory, _groups(directory) as groups:
        primary = PostgreSQL.start(directory / "primary")
        with primary:
            primary.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
            primary.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
            primary.execute("CREATE EXTENSION pg_prewarm", database=DATABASE)
            for tables in (TABLE, BATCH_TABLES):
                primary.execute(tables, database=DATABASE, user=APP, password=APP_PASSWORD)
            if groups is not None:
                groups.primary.add(primary.pid)
            with primary.replica(directory / "replica", name=REPLICA, synchronous=True) as replica:
                pooler = cast("PgBouncer", _Pooler())
                yield World(
                    *(directory, Bank(), "low", primary, replica, pooler),
                    *(None, None, None, None, groups),  # type: ignore[arg-type]
                )


@contextmanager
def _groups(directory: Path) -> Iterator[Groups | None]:
    if cgroups.unavailable() is not None:
        yield None
        return
    with cgroups.group("t-primary") as primary, cgroups.group("t-replica") as replica, cgroups.group("t-hogs") as hogs:
        yield Groups(primary, replica, hogs, device=cgroups.device_of(directory))


@asynccontextmanager
async def _injected(kind: type[Fault], world: World, ramp: float = 0.0, severity: float = 0.5) -> AsyncIterator[Fault]:
    fault = kind(world, severity, Random(1))
    await fault.prepare()
    try:
        await fault.inject(ramp)
        yield fault
    finally:
        await fault.lift()
        await fault.repair()


async def _value(world: World, expression: str, *, replica: bool = False) -> object:
    (row,) = await world.sql(f"SELECT (SELECT {expression}) AS value", replica=replica)
    return row["value"]


async def _becomes(world: World, expression: str, *, replica: bool = False, seconds: float = 6.0) -> bool:
    for _ in range(round(seconds / 0.1)):
        if await _value(world, expression, replica=replica):
            return True
        await asyncio.sleep(0.1)
    return False


@contextmanager
def _link(target: int) -> Iterator[SlowLink]:
    with server_directory() as directory, SlowLink.start(directory, target=target) as link:
        yield link


@asynccontextmanager
async def _echo() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(echo, "127.0.0.1", port):
        yield port


async def test_a_link_whose_delay_changes_all_the_time_keeps_the_order_of_bytes() -> None:
    sent = b"".join(number.to_bytes(4, "big") for number in range(50_000))

    async with _echo() as port:
        with _link(port) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            receiving = asyncio.create_task(reader.readexactly(len(sent)))
            for start in range(0, len(sent), 1000):
                writer.write(sent[start : start + 1000])
                if start % 20_000 == 0:
                    link.delay(random.choice((0.0, 0.003, 0.02)))
                await asyncio.sleep(0.005)
            link.delay(0.0)
            received = await asyncio.wait_for(receiving, 10)
            writer.close()

    assert received == sent


async def test_a_link_delays_each_way_and_stops_delaying() -> None:
    async def seconds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        began = time.monotonic()
        writer.write(b"x")
        await reader.readexactly(1)
        return time.monotonic() - began

    async with _echo() as port:
        with _link(port) as link:
            stream = await asyncio.open_connection("127.0.0.1", link.port)
            link.delay(0.05)
            await asyncio.sleep(0.3)
            slow = await seconds(*stream)
            link.delay(0.0)
            await asyncio.sleep(0.3)
            fast = min([await seconds(*stream) for _ in range(5)])
            stream[1].close()

    assert 0.1 <= slow < 0.25
    assert fast < 0.03


async def test_paused_replay_goes_on_when_lifted(bank: World) -> None:
    async with _injected(ReplicationLag, bank):
        paused = await _value(bank, "pg_is_wal_replay_paused()", replica=True)

    assert paused
    assert not await _value(bank, "pg_is_wal_replay_paused()", replica=True)


async def test_replay_that_is_stopped_more_and_more_goes_on_when_lifted(bank: World) -> None:
    async with _injected(ReplicationLag, bank, ramp=1.0):
        await asyncio.sleep(2.2)
        await bank.sql("UPDATE accounts SET balance = balance + 1 WHERE id < 500")

    caught_up = "pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()"
    assert await _becomes(bank, caught_up, replica=True)


async def test_commits_wait_for_a_lost_replica_until_it_is_detached(bank: World) -> None:
    async with _injected(ReplicaLost, bank) as fault:
        writing = asyncio.create_task(bank.sql("UPDATE accounts SET balance = 1 WHERE id = 1"))
        await asyncio.sleep(1)
        stuck = not writing.done()
        await cast("ReplicaLost", fault).remedy("detach-replica")
        await asyncio.wait_for(writing, 5)

    assert stuck
    assert await _value(bank, "current_setting('synchronous_standby_names')") == f'"{REPLICA}"'
    assert await _becomes(bank, "count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")


@groups_needed
async def test_a_checkpoint_storm_asks_for_checkpoints_until_it_is_lifted(bank: World) -> None:
    requested = "checkpoints_req FROM pg_stat_bgwriter"
    async with _injected(CheckpointStorm, bank, severity=1.0):
        before = cast("int", await _value(bank, requested))
        stormy = await _becomes(bank, f"checkpoints_req > {before + 1} FROM pg_stat_bgwriter", seconds=10)

    assert stormy
    assert await _value(bank, "current_setting('max_wal_size')") == "512MB"
    assert await _value(bank, "n_dead_tup = 0 FROM pg_stat_user_tables WHERE relname = 'balances'")


@groups_needed
async def test_an_outbox_comes_back_when_terminated_and_leaves_no_role(bank: World) -> None:
    async with _injected(WalPressure, bank):
        sessions = "count(*) > 2 FROM pg_stat_activity WHERE usename = 'lab_outbox'"
        there = await _becomes(bank, sessions)
        await bank.sql("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'lab_outbox'")
        back = await _becomes(bank, sessions)

    assert there
    assert back
    assert await _value(bank, "count(*) = 0 FROM pg_roles WHERE rolname = 'lab_outbox'")


@groups_needed
async def test_a_cancelled_import_does_not_go_on(bank: World) -> None:
    importing = "count(*) FROM pg_stat_activity WHERE application_name = 'nightly-import' AND state = 'active'"
    async with _injected(BulkInsert, bank) as fault:
        begun = await _becomes(bank, f"4 = (SELECT {importing})")
        right = next(trial for trial in fault.trials() if trial.right)
        await bank.sql("SELECT pg_cancel_backend(pid) FROM unnest($1::int[]) pid", right.parameters["pids"])
        ended = await _becomes(bank, f"0 = (SELECT {importing})")

    assert begun
    assert ended


@groups_needed
async def test_a_cancelled_export_no_longer_reads(bank: World) -> None:
    reading = "count(*) FROM pg_stat_activity WHERE application_name = 'export' AND state = 'active'"
    async with _injected(ColdCache, bank, ramp=5.0) as fault:
        begun = await _becomes(bank, reading)
        right = next(trial for trial in fault.trials() if trial.right)
        await bank.sql("SELECT pg_cancel_backend(pid) FROM unnest($1::int[]) pid", right.parameters["pids"])
        ended = await _becomes(bank, f"0 = (SELECT {reading})")

    assert begun
    assert ended


@groups_needed
@pytest.mark.parametrize("kind", [CpuHog, MemoryPressure, Backup])
async def test_hogs_are_gone_and_the_database_answers_after_lifting(bank: World, kind: type[Fault]) -> None:
    assert bank.groups is not None
    async with _injected(kind, bank, severity=1.0) as fault:
        hogs: Hogs = fault.hogs  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        busy = len(hogs)
        alive = await _value(bank, "1")

    assert busy > 0
    assert alive == 1
    assert len(hogs) == 0
    assert bank.groups.hogs.pids() == []
    hogs_left = [p for p in bank.groups.primary.pids() if psutil.pid_exists(p) and "hog" in psutil.Process(p).name()]
    assert hogs_left == []
    assert not (bank.directory / "backup.tar").exists()


@groups_needed
async def test_a_slow_disk_is_as_fast_as_before_after_lifting(bank: World) -> None:
    assert bank.groups is not None
    limit = cgroups.ROOT / "blkio" / bank.groups.primary.name / "blkio.throttle.write_iops_device"
    async with _injected(IoSaturation, bank):
        slow = int(limit.read_text().split()[1])

    assert slow < 0.2 * bank.groups.disk.write_operations
    assert eventually(lambda: int(limit.read_text().split()[1]) == bank.groups.disk.write_operations, 1)  # type: ignore[union-attr]
