"""The servers that runs happen on, started once per block of runs.

    clients → PgBouncer → slow link → PostgreSQL primary → streams to a synchronous replica
    collector, node exporter and the clients' own metrics → Prometheus (1 s)

Where control groups are to be had, primary and replica each get a disk and a memory like a small cloud machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from kintsugi_dev.servers import NodeExporter, PgBouncer, PostgreSQL, Prometheus, Scrape, free_port
from kintsugi_dev.servers.directories import cache_directory, filling, hand_over
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD
from kintsugi_dev.servers.postgresql import Settings
from kintsugi_dev.stimuli.world import Collector
from kintsugi_ml.lab import cgroups
from kintsugi_ml.lab.cgroups import Disk, Group
from kintsugi_ml.lab.link import SlowLink
from kintsugi_ml.lab.workloads import WORKLOADS
from kintsugi_ml.lab.workloads.base import Targets, Workload
from kintsugi_ml.lab.workloads.process import Load

NAMESPACE: Final = "lab"
DATABASE: Final = "lab"
LABELS: Final = {"namespace": NAMESPACE, "service": DATABASE}
APP, APP_PASSWORD = "app", "app"
POOL_SIZE: Final = 16
REPLICA: Final = "lab-1"

MEMORY: Final = 640 * 2**20
"""Bytes for the primary, page cache included: the data fits, with little to spare."""
DISK: Final = Disk(read_bytes=60e6, write_bytes=30e6, read_operations=2500, write_operations=800)
"""A small cloud disk (gp3's baseline is 3,000 operations and 125 MB/s; this machine has two cores, not sixteen)."""

SETTINGS: Final[Settings] = {
    "shared_buffers": "64MB",
    "max_connections": 60,
    "max_parallel_workers_per_gather": 0,
    "max_wal_size": "1GB",
    "checkpoint_timeout": "5min",
    "autovacuum_naptime": "10s",
    "track_wal_io_timing": True,
    "deadlock_timeout": "500ms",
    "shared_preload_libraries": "pg_stat_statements,auto_explain",
    "auto_explain.log_min_duration": "500ms",
    "auto_explain.log_format": "json",
    "log_destination": "jsonlog",
    "logging_collector": True,
    "log_directory": "log",
    "log_filename": "server.log",
    "log_rotation_age": 0,
    "log_rotation_size": 0,
    "log_min_duration_statement": "250ms",
    "log_lock_waits": True,
    "log_checkpoints": True,
    "log_temp_files": 0,
    "log_autovacuum_min_duration": 0,
    "log_parameter_max_length": 0,
}

EXTENSIONS: Final = ("pg_stat_statements", "pg_prewarm", "pg_buffercache", "hypopg")
"""Those of them that this server has; not every build of PostgreSQL brings HypoPG."""


@dataclass
class World:
    """The running servers. `groups` is None where control groups can't be had."""

    directory: Path
    workload: Workload
    level: str
    primary: PostgreSQL
    replica: PostgreSQL
    pooler: PgBouncer
    link: SlowLink
    load: Load
    collector: Collector
    prometheus: Prometheus
    groups: Groups | None
    database: str = DATABASE

    @property
    def targets(self) -> Targets:
        """What in this workload a fault can be aimed at."""
        return self.workload.targets

    @property
    def log_file(self) -> Path:
        """The primary's jsonlog."""
        return self.primary.data / "log" / "server.json"

    def direct_dsn(self, user: str | None = None) -> str:
        """Straight to the primary: as the application's user, or as `postgres`."""
        if user is None:
            return self.primary.dsn(DATABASE, APP, APP_PASSWORD)
        return self.primary.dsn(DATABASE, user)

    def current_dsn(self) -> str:
        """Whoever is primary now, after a failover the former replica; as `postgres`."""
        return (self.primary if self.primary.running else self.replica).dsn(DATABASE)

    def pooled_dsn(self) -> str:
        """Through the pooler, as clients come."""
        return self.pooler.dsn(DATABASE, APP)

    async def sql(self, statement: str, *arguments: Any, replica: bool = False) -> list[dict[str, Any]]:
        """Run one statement as superuser in a session of its own; its rows."""
        server = self.replica if replica else self.primary
        connection = await asyncpg.connect(server.dsn(DATABASE), timeout=10, statement_cache_size=0)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            connection.terminate()

    async def configure(self, **settings: str | int | float | bool) -> None:
        """ALTER SYSTEM on the primary, then reload."""
        connection = await asyncpg.connect(self.primary.dsn(DATABASE), timeout=10, statement_cache_size=0)
        try:
            for name, value in settings.items():
                text = str(value).replace("'", "''")
                await connection.execute(f"ALTER SYSTEM SET {name} = '{text}'")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            connection.terminate()

    async def reset(self, *names: str) -> None:
        """Take ALTER SYSTEM back, then reload."""
        connection = await asyncpg.connect(self.primary.dsn(DATABASE), timeout=10, statement_cache_size=0)
        try:
            for name in names:
                await connection.execute(f"ALTER SYSTEM RESET {name}")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            connection.terminate()


@dataclass
class Groups:
    """The control groups: primary and replica with limits; hogs and noise are what competes with them."""

    primary: Group
    replica: Group
    hogs: Group
    device: str
    disk: Disk = DISK
    memory: int = MEMORY

    def limit(self) -> None:
        """Put the limits (back) to what is normal."""
        for group in (self.primary, self.replica):
            group.disk(self.disk, self.device)
            group.memory(self.memory)
            group.cpu_quota(None)
            group.cpu_shares(1024)
        self.hogs.cpu_shares(1024)
        self.hogs.cpu_quota(None)


@contextmanager
def world(
    directory: Path,
    workload: str,
    level: str,
    *,
    server: int = 15,
    pattern: str = "steady",
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[World]:
    """Start everything; stop and remove it at the end, whatever happened."""
    kind = WORKLOADS[workload]()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, True)
        groups = _groups(directory, stack)
        say(f"PostgreSQL {server} with {workload}'s tables, and its replica")
        primary = _primary(directory / "lab-0", kind, server)
        stack.callback(primary.stop, "immediate")
        if groups is not None:
            groups.primary.add(primary.pid)
        replica = primary.replica(directory / REPLICA, name=REPLICA, synchronous=True)
        stack.callback(replica.stop, "immediate")
        if groups is not None:
            groups.replica.add(replica.pid)
            for pid in (*_children(primary.pid), *_children(replica.pid)):
                with contextlib.suppress(ProcessLookupError):
                    (groups.replica if pid in _children(replica.pid) else groups.primary).add(pid)
            groups.limit()
        link = stack.enter_context(SlowLink.start(directory / "link", target=primary.port))
        pooler = stack.enter_context(_pooler(directory, link))
        load = stack.enter_context(
            Load.start(
                directory / "load",
                dsn=pooler.dsn(DATABASE, APP),
                workload=workload,
                level=level,
                pattern=pattern,
                seed=seed,
            )
        )
        collector = stack.enter_context(_collector(directory, primary, replica, pooler))
        node = stack.enter_context(NodeExporter.start(directory / "node"))
        prometheus = stack.enter_context(
            Prometheus.start(
                directory / "prometheus",
                {
                    "collector": Scrape([collector.address]),
                    "client": Scrape([load.address], LABELS),
                    "node": Scrape([node.address], LABELS),
                },
            )
        )
        yield World(directory, kind, level, primary, replica, pooler, link, load, collector, prometheus, groups)


def _groups(directory: Path, stack: ExitStack) -> Groups | None:
    if cgroups.unavailable() is not None:
        return None
    primary, replica, hogs = (stack.enter_context(cgroups.group(name)) for name in ("primary", "replica", "hogs"))
    directory.mkdir(parents=True, exist_ok=True)
    return Groups(primary, replica, hogs, device=cgroups.device_of(directory))


def _primary(directory: Path, workload: Workload, server: int) -> PostgreSQL:
    """A server with the workload's tables, copied from one that was filled once on this machine."""
    template = cache_directory() / f"lab-{workload.name}-{server}-{workload.version}"
    primary = PostgreSQL.start(directory, version=server, settings=SETTINGS)
    if not template.exists():
        with filling(template) as folder:
            asyncio.run(_fill(primary, workload))
            primary.stop("fast")
            subprocess.run(["cp", "-a", primary.data, folder / "data"], check=True)
    primary.stop("fast")
    shutil.rmtree(primary.data)
    subprocess.run(["cp", "-a", "--reflink=auto", template / "data", primary.data], check=True)
    # Pages cached by cp would not count for the primary's group: its memory limit would mean nothing.
    os.sync()
    cgroups.forget_files(primary.data)
    (primary.data / "log").mkdir(exist_ok=True)
    hand_over(primary.data / "log")
    primary.launch()
    return primary


async def _fill(primary: PostgreSQL, workload: Workload) -> None:
    await asyncio.to_thread(primary.execute, f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
    await asyncio.to_thread(primary.execute, f"CREATE DATABASE {DATABASE} OWNER {APP}")
    await asyncio.to_thread(primary.create_roles, DATABASE, owner=APP)
    for row in await asyncio.to_thread(primary.fetch, "SELECT name FROM pg_available_extensions"):
        if row["name"] in EXTENSIONS:
            await asyncio.to_thread(primary.execute, f"CREATE EXTENSION IF NOT EXISTS {row['name']}", database=DATABASE)
    connection = await asyncpg.connect(primary.dsn(DATABASE, APP, APP_PASSWORD), timeout=10)
    try:
        await workload.create(connection)
    finally:
        await connection.close()
    await asyncio.to_thread(primary.execute, "VACUUM (ANALYZE)", database=DATABASE)
    await asyncio.to_thread(primary.execute, "CHECKPOINT", database=DATABASE)


def _pooler(directory: Path, link: SlowLink) -> PgBouncer:
    return PgBouncer.start(
        directory / "pgbouncer",
        databases={DATABASE: ("127.0.0.1", link.port)},
        users={APP: APP_PASSWORD},
        pool_size=POOL_SIZE,
        settings={
            "max_client_conn": 500,
            "query_wait_timeout": 5,
            "server_login_retry": 1,
            # Server connections are renewed all the time, as in production: a server without room is felt.
            "server_lifetime": 20,
        },
    )


def _collector(directory: Path, primary: PostgreSQL, replica: PostgreSQL, pooler: PgBouncer) -> Collector:
    members = {"lab-0": primary, REPLICA: replica}
    return Collector.start(
        directory / "collector",
        {
            "budget": "800ms",
            "databases": [
                {
                    "name": DATABASE,
                    "namespace": NAMESPACE,
                    "database": DATABASE,
                    "username": "kintsugi_monitor",
                    "password": "monitor",
                    "tls": "disable",
                    "members": [{"name": name, "host": s.host, "port": s.port} for name, s in members.items()],
                    "pooler": {
                        "host": pooler.host,
                        "port": pooler.port,
                        "username": ADMIN,
                        "password": ADMIN_PASSWORD,
                    },
                }
            ],
        },
        port=free_port(),
    )


def _children(pid: int) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


__all__ = ["APP", "APP_PASSWORD", "DATABASE", "LABELS", "Groups", "World", "world"]
