"""The ground truth beside real servers: every number is there, a dead server is a gap, onsets have their moment."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg
import numpy as np
import psutil
import pytest

from kintsugi_dev.servers import PgBouncer, PostgreSQL, server_directory
from kintsugi_dev.servers.fixtures import PostgresServers
from kintsugi_dev.servers.postgresql import Settings
from kintsugi_dev.servers.process import eventually
from kintsugi_ml.lab import cgroups, logs
from kintsugi_ml.lab.clienttrack import Requests
from kintsugi_ml.lab.parts import Parts
from kintsugi_ml.lab.truth import queries
from kintsugi_ml.lab.truth.measures import MEASURES, Samples, track
from kintsugi_ml.lab.truth.onset import moves
from kintsugi_ml.lab.truth.sampler import Config, Pooler, TruthSampler, read

NOBODY = Requests.none()
ASKED = {*queries.PRIMARY_COLUMNS, *queries.TABLES_COLUMNS, *queries.REPLICA_COLUMNS, "clients_waiting", "pool_wait"}
SETTINGS: Settings = {
    "log_destination": "jsonlog",
    "logging_collector": True,
    "log_directory": "log",
    "log_filename": "server.log",
    "log_timezone": "UTC",
    "deadlock_timeout": "300ms",
}


@dataclass
class Stand:
    primary: PostgreSQL
    sampler: TruthSampler

    def samples(self, start: float = 0.0) -> Samples:
        return read(self.sampler.file, start, time.time())


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with server_directory() as directory, PostgreSQL.start(directory / "primary", settings=SETTINGS) as primary:
        primary.execute("CREATE ROLE app LOGIN PASSWORD 'app'")
        primary.execute("CREATE TABLE accounts (id int PRIMARY KEY, owner text); INSERT INTO accounts VALUES (1, 'x')")
        with (
            primary.replica(directory / "replica", synchronous=True) as replica,
            PgBouncer.start(
                directory / "pooler", databases={"postgres": (primary.host, primary.port)}, users={"app": "app"}
            ) as pooler,
            TruthSampler.begin(
                directory / "truth",
                Config(
                    primary=primary.dsn(),
                    version=primary.version,
                    device=cgroups.device_of(directory),
                    replica=replica.dsn(),
                    pooler=Pooler(host=pooler.host, port=pooler.port),
                ),
            ) as sampler,
        ):
            yield Stand(primary, sampler)


def test_every_column_is_sampled_eight_times_a_second(stand: Stand) -> None:
    time.sleep(3)
    samples = stand.samples(time.time() - 2.5)
    assert set(samples.columns) >= ASKED
    assert len(samples.times) == pytest.approx(20, abs=3)
    missing = {name: float(np.isnan(column).mean()) for name, column in samples.columns.items()}
    assert {name: share for name, share in missing.items() if share > 0.2} == {}


def test_sampling_costs_little(stand: Stand) -> None:
    process = psutil.Process(stand.sampler.pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(3)
    assert (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began) < 0.04


async def test_a_lock_queue_is_dated_to_the_sample_and_named_in_the_log(stand: Stand) -> None:
    await asyncio.sleep(2)
    holder, waiter = [await asyncpg.connect(stand.primary.dsn()) for _ in range(2)]
    await holder.execute("BEGIN; UPDATE accounts SET owner = 'SECRET' WHERE id = 1")
    injected = time.time()
    waiting = asyncio.create_task(waiter.execute("UPDATE accounts SET owner = 'SECRET' WHERE id = 1"))
    await asyncio.sleep(2)
    await holder.execute("COMMIT")
    await waiting
    remedied = time.time()
    await asyncio.sleep(2.5)
    parts = Parts(injected - 2, injected, remedied, remedied, time.time())
    for connection in (holder, waiter):
        await connection.close()

    found = moves(track(stand.samples(parts.normal - 1), NOBODY), parts, MEASURES)
    logged = logs.read(stand.primary.data / "log" / "server.json", parts.normal, parts.ended)

    lock = found["lock-manager"]
    assert lock is not None
    assert lock.onset < 0.4
    assert lock.returned == pytest.approx(remedied - injected, abs=0.4)
    assert logged.counts.sum(axis=0)[logs.CLASSES.index("lock_wait")] == 2
    assert "SECRET" not in " ".join(line.template for line in logged.lines)


def test_while_the_server_is_down_its_numbers_are_missing_and_come_back(stand: Stand) -> None:
    stand.primary.kill()
    killed = time.time()
    time.sleep(1.5)
    down = stand.samples(killed + 0.3)
    assert np.isnan(down.columns["on_cpu_sessions"]).all()
    assert down.columns["answer_time"][-1] > 1
    assert not np.isnan(down.columns["cpu_busy"]).any()
    assert np.diff(down.times).max() < 0.4
    stand.primary.launch()
    assert eventually(lambda: not np.isnan(stand.samples(killed).columns["on_cpu_sessions"][-1]))


@pytest.mark.parametrize("version", [13, 18])
def test_other_versions_are_asked_what_they_know(postgres_servers: PostgresServers, version: int) -> None:
    server = postgres_servers.version(version)
    row = server.fetch(queries.primary(version))[0]
    assert set(row) == set(queries.PRIMARY_COLUMNS)
    assert row["checkpointing"] in (0.0, 1.0)
    assert set(server.fetch(queries.TABLES)[0]) == set(queries.TABLES_COLUMNS)
