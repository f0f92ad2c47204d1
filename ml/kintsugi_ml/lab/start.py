"""Starting the lab's servers: our own ones on small disks, or clients and metrics around one that is already there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import psutil

from kintsugi_dev.servers import NodeExporter, PgBouncer, PostgreSQL, Prometheus, Scrape
from kintsugi_dev.servers.directories import cache_directory, filling, hand_over
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD
from kintsugi_dev.stimuli.world import Collector
from kintsugi_ml.lab import cgroups, existing
from kintsugi_ml.lab.link import SlowLink
from kintsugi_ml.lab.workloads import WORKLOADS
from kintsugi_ml.lab.workloads.base import Workload
from kintsugi_ml.lab.workloads.process import Load
from kintsugi_ml.lab.world import (
    APP,
    APP_PASSWORD,
    DATABASE,
    EXTENSIONS,
    LABELS,
    NAMESPACE,
    POOL_SIZE,
    REPLICA,
    SETTINGS,
    Groups,
    World,
)

PRIMARY = "lab-0"
FILLING_WAL = "64MB"
"""max_wal_size while the tables are filled: what is left of the WAL is copied for every world."""


@contextmanager
def world(
    directory: Path,
    workload: str,
    level: str,
    *,
    server: int = 15,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[World]:
    """Start a PostgreSQL of version `server` and all around it; stop and remove it at the end, whatever happened."""
    kind = WORKLOADS[workload]()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, True)
        groups = _groups(directory, stack)
        say(f"PostgreSQL {server} with {workload}'s tables, and its replica")
        primary = _primary(directory / PRIMARY, kind, server)
        stack.callback(primary.stop, "immediate")
        if groups is not None:
            # Before the backup for the replica reads all files: page cache counts for whoever read it first.
            _move(groups.primary, primary.pid)
        replica = primary.replica(directory / REPLICA, name=REPLICA, synchronous=True)
        stack.callback(replica.stop, "immediate")
        if groups is not None:
            _move(groups.replica, replica.pid)
            groups.limit()
        yield _around(directory, kind, level, seed, primary, replica, groups, stack)


@contextmanager
def existing_world(
    directory: Path,
    workload: str,
    level: str,
    *,
    url: str,
    owned: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[World]:
    """Clients, pooler and metrics around the PostgreSQL at `url`, with the workload's tables in a database of ours.

    Raises:
        ExistingError: the server can't be used, or its database `lab` is somebody's; see existing.py.
    """
    kind = WORKLOADS[workload]()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, True)
        claim = existing.claimed(directory / PRIMARY, url, DATABASE, APP, owned=owned)
        server = stack.enter_context(claim)
        say(f"{workload}'s tables in the database {DATABASE} of {server.address}")
        server.execute(f"ALTER ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
        asyncio.run(_fill(server, kind))
        yield _around(directory, kind, level, seed, server, None, None, stack)


def _around(
    directory: Path,
    kind: Workload,
    level: str,
    seed: int,
    primary: PostgreSQL,
    replica: PostgreSQL | None,
    groups: Groups | None,
    stack: ExitStack,
) -> World:
    """The pooler, the clients and everything that measures."""
    link = stack.enter_context(SlowLink.start(directory / "link", target=primary.port, host=primary.host))
    pooler = stack.enter_context(_pooler(directory, link))
    load = stack.enter_context(
        Load.start(directory / "load", dsn=pooler.dsn(DATABASE, APP), workload=kind.name, level=level, seed=seed)
    )
    members = {PRIMARY: primary} if replica is None else {PRIMARY: primary, REPLICA: replica}
    collector = stack.enter_context(_collector(directory, members, pooler))
    node = stack.enter_context(NodeExporter.start(directory / "node"))
    jobs = {
        "collector": Scrape([collector.address]),
        "client": Scrape([load.address], LABELS),
        "node": Scrape([node.address], LABELS),
    }
    prometheus = stack.enter_context(Prometheus.start(directory / "prometheus", jobs))
    return World(directory, kind, level, primary, replica, pooler, link, load, collector, prometheus, groups)


def _groups(directory: Path, stack: ExitStack) -> Groups | None:
    if cgroups.unavailable() is not None:
        return None
    primary, replica, hogs = (stack.enter_context(cgroups.group(name)) for name in ("primary", "replica", "hogs"))
    directory.mkdir(parents=True, exist_ok=True)
    return Groups(primary, replica, hogs, device=cgroups.device_of(directory))


def _move(group: cgroups.Group, postmaster: int) -> None:
    """A server's processes; those that it starts later are born in the group."""
    group.add(postmaster)
    for child in psutil.Process(postmaster).children(recursive=True):
        with contextlib.suppress(ProcessLookupError):
            group.add(child.pid)


def _primary(directory: Path, workload: Workload, server: int) -> PostgreSQL:
    """A server with the workload's tables, copied from one that was filled once on this machine."""
    template = cache_directory() / f"lab-{workload.name}-{server}-{workload.version}"
    primary = PostgreSQL.start(directory, version=server, settings=SETTINGS)
    if not template.exists():
        with filling(template) as folder:
            primary.configure(max_wal_size=FILLING_WAL)
            primary.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
            primary.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
            asyncio.run(_fill(primary, workload))
            primary.stop("fast")
            shutil.rmtree(primary.data / "log", ignore_errors=True)
            primary.settings.update(SETTINGS)
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
    """Roles, extensions and tables, those of before dropped."""
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
        databases={DATABASE: (link.host, link.port)},
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


def _collector(directory: Path, members: dict[str, PostgreSQL], pooler: PgBouncer) -> Collector:
    database = {
        "name": DATABASE,
        "namespace": NAMESPACE,
        "database": DATABASE,
        "username": "kintsugi_monitor",
        "password": "monitor",
        "tls": "disable",
        "members": [{"name": name, "host": server.host, "port": server.port} for name, server in members.items()],
        "pooler": {"host": pooler.host, "port": pooler.port, "username": ADMIN, "password": ADMIN_PASSWORD},
    }
    return Collector.start(directory / "collector", {"budget": "800ms", "databases": [database]})
