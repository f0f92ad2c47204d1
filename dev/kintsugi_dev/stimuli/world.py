"""The servers that stimuli act on, one set per PostgreSQL version."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import asyncpg
import yaml

from kintsugi_dev.load import Load, create_schema
from kintsugi_dev.servers import PgBouncer, PostgreSQL, free_port, http
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.directories import prepare
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD
from kintsugi_dev.servers.postgresql import run_in_thread
from kintsugi_dev.servers.process import Process

DATABASE = "orders"
SERVICE = "orders"
POOL_SIZE = 2
LINES = 5_000
RATE = 20.0

SETTINGS: Mapping[str, str | int | float | bool] = {
    "shared_buffers": "8MB",
    "max_connections": 50,
    "max_prepared_transactions": 5,
    "archive_mode": True,
    "archive_command": "true",
    "autovacuum_naptime": "1d",
    "bgwriter_lru_maxpages": 0,
    "wal_keep_size": 0,
    "max_wal_size": "2GB",
    "max_standby_streaming_delay": 0,
    # A synchronous replica that never comes; only who asks for it waits.
    "synchronous_standby_names": "nobody",
    "synchronous_commit": "local",
}
TABLES = """
CREATE TABLE pairs (id int PRIMARY KEY, value int NOT NULL);
INSERT INTO pairs SELECT n, 0 FROM generate_series(1, 100) n;
CREATE TABLE wide (id int, filler text) WITH (autovacuum_enabled = off);
INSERT INTO wide SELECT n, repeat('x', 200) FROM generate_series(1, 100000) n;
CREATE TABLE changing (id int) WITH (autovacuum_enabled = off);
INSERT INTO changing SELECT generate_series(1, 30000);
CREATE TABLE snapshot_of (id int) WITH (autovacuum_enabled = off);
INSERT INTO snapshot_of SELECT generate_series(1, 2000);
CREATE TABLE littered (id int) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
CREATE TABLE scattered (id int) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO littered SELECT generate_series(1, 30000);
INSERT INTO scattered SELECT generate_series(1, 30000);

CREATE FUNCTION compare_slowly(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
  IF current_setting('stimuli.slow', true) = 'on' THEN PERFORM pg_sleep(0.7); END IF;
  RETURN btint4cmp($1, $2);
END $$;
CREATE OPERATOR CLASS slow_ops FOR TYPE int USING btree AS
  OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 compare_slowly(int, int);
CREATE TABLE sorted (id int) WITH (autovacuum_enabled = off);
CREATE INDEX ON sorted (id slow_ops);
INSERT INTO sorted VALUES (0), (2);
"""


class Collector(LocalServer):
    """`kintsugi collect` as a local process."""

    kind: ClassVar[str] = "Collector"

    def __init__(self, directory: Path, port: int, config: Path) -> None:
        super().__init__(directory, port)
        self.config = config

    @classmethod
    def start(cls, directory: Path, config: Mapping[str, Any], *, port: int | None = None) -> Self:
        """Serve the databases of `config` (the content of collector.yaml)."""
        path = prepare(directory) / "collector.yaml"
        path.write_text(yaml.safe_dump(dict(config)))
        collector = cls(directory, port or free_port(), path)
        collector.launch()
        return collector

    def metrics(self) -> str:
        """What a scrape gets now."""
        return http.get(f"http://{self.address}/metrics")[1].decode()

    def _start_process(self) -> Process:
        command: list[str | Path] = [
            sys.executable,
            "-c",
            "from kintsugi.collector import main; raise SystemExit(main())",
        ]
        command += ["--config", self.config, "--listen", self.address]
        return Process.start(f"Collector on port {self.port}", command, log=self.log)

    def _ready(self) -> bool:
        return http.answers(f"http://{self.address}/healthz")


@dataclass(frozen=True)
class World:
    """One set of servers."""

    version: int
    primary: PostgreSQL
    replica: PostgreSQL
    pooler: PgBouncer
    load: Load
    collector: Collector

    @property
    def namespace(self) -> str:
        """The label that tells the versions apart."""
        return f"pg{self.version}"

    @asynccontextmanager
    async def session(
        self, server: PostgreSQL | None = None, *, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """A superuser's session at the primary (or another server), with settings of its own."""
        dsn = (server or self.primary).dsn(DATABASE)
        own = dict(settings or {})
        connection = await asyncpg.connect(dsn, timeout=10, server_settings=own, statement_cache_size=0)
        try:
            yield connection
        finally:
            connection.terminate()

    async def configure(self, **settings: str | int | float | bool) -> None:
        """Change the primary's settings and reload."""
        await asyncio.to_thread(self.primary.configure, **settings)


@contextmanager
def world(directory: Path, version: int) -> Iterator[World]:
    """Start everything for one version."""
    timing = {"track_wal_io_timing": True} if version >= 14 else {}
    with ExitStack() as stack:
        primary = stack.enter_context(
            PostgreSQL.start(prepare(directory) / "primary", version=version, settings={**SETTINGS, **timing})
        )
        primary.execute(f"CREATE DATABASE {DATABASE}")
        primary.create_roles(DATABASE)
        primary.execute(TABLES, database=DATABASE)
        run_in_thread(lambda: create_schema(primary.dsn(DATABASE), lines=LINES))
        primary.execute("ANALYZE; CHECKPOINT", database=DATABASE)
        replica = stack.enter_context(primary.replica(directory / "replica"))
        pooler = stack.enter_context(
            PgBouncer.start(
                directory / "pooler",
                databases={DATABASE: (primary.host, primary.port)},
                users={"postgres": primary.password},
                pool_size=POOL_SIZE,
            )
        )
        collector = stack.enter_context(
            Collector.start(directory / "collector", collector_config(version, primary, replica, pooler))
        )
        load = stack.enter_context(
            Load.start(directory / "load", dsn=primary.dsn(DATABASE), rate=RATE, connections=4, lines=LINES)
        )
        yield World(version, primary, replica, pooler, load, collector)


def collector_config(version: int, primary: PostgreSQL, replica: PostgreSQL, pooler: PgBouncer) -> dict[str, Any]:
    """The collector's configuration, with the least role there is."""
    members = {"orders-0": primary, "orders-1": replica}
    return {
        "budget": "800ms",
        "databases": [
            {
                "name": SERVICE,
                "namespace": f"pg{version}",
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
    }
