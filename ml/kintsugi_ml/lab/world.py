"""The servers that runs happen on; start.py starts them, once per block of runs.

    clients → PgBouncer → slow link → PostgreSQL primary → streams to a synchronous replica
    collector, node exporter and the clients' own metrics → Prometheus (1 s)

Where control groups are to be had, primary and replica each get a disk and a memory like a small cloud machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from kintsugi_dev.servers import PgBouncer, PostgreSQL, Prometheus
from kintsugi_dev.servers.errors import ServerError
from kintsugi_dev.servers.postgresql import Settings
from kintsugi_dev.stimuli.world import Collector
from kintsugi_ml.lab.cgroups import Disk, Group
from kintsugi_ml.lab.link import SlowLink
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
    # Filling a new segment with zeros takes half a second of a disk of 30 MB/s, and everybody waits.
    "wal_init_zero": False,
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
    replica: PostgreSQL | None
    pooler: PgBouncer
    link: SlowLink
    load: Load
    collector: Collector
    prometheus: Prometheus
    groups: Groups | None
    database: str = DATABASE

    @property
    def standby(self) -> PostgreSQL:
        """The replica; ServerError in a world that has none."""
        if self.replica is None:
            raise ServerError("this world has no replica; only servers that the lab started do")
        return self.replica

    @property
    def local(self) -> bool:
        """Whether the lab started the servers, so that files and processes can be touched, too."""
        return self.replica is not None

    @property
    def targets(self) -> Targets:
        """What in this workload a fault can be aimed at."""
        return self.workload.targets

    @property
    def log_file(self) -> Path | None:
        """The primary's jsonlog; None where it can't be read."""
        return self.primary.data / "log" / "server.json" if self.local else None

    def direct_dsn(self, user: str | None = None) -> str:
        """Straight to the primary: as the application's user, or as `postgres`."""
        if user is None:
            return self.primary.dsn(DATABASE, APP, APP_PASSWORD)
        return self.primary.dsn(DATABASE, user)

    def current_dsn(self) -> str:
        """Whoever is primary now, after a failover the former replica; as `postgres`."""
        return (self.primary if self.primary.running or not self.local else self.standby).dsn(DATABASE)

    def pooled_dsn(self) -> str:
        """Through the pooler, as clients come."""
        return self.pooler.dsn(DATABASE, APP)

    async def sql(self, statement: str, *arguments: Any, replica: bool = False) -> list[dict[str, Any]]:
        """Run one statement as superuser in a session of its own; its rows."""
        server = self.standby if replica else self.primary
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
