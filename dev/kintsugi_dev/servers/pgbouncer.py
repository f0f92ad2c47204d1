"""PgBouncer as a local process: transaction pooling, SCRAM, and its admin console."""

from __future__ import annotations

import csv
import io
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import quote

from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.binaries import postgres_binaries, program
from kintsugi_dev.servers.directories import prepare, write
from kintsugi_dev.servers.errors import ServerError
from kintsugi_dev.servers.process import HOST, Process, accepts_connections, free_port, server_user

Address = tuple[str, int]

ADMIN = "pgbouncer_admin"
ADMIN_PASSWORD = "kintsugi-pgbouncer"

DEFAULT_SETTINGS: Mapping[str, str | int] = {
    "auth_type": "scram-sha-256",
    "pool_mode": "transaction",
    "max_client_conn": 500,
    "ignore_startup_parameters": "extra_float_digits",
    # Find a new primary quickly: the defaults (15 s to log in again, 15 s to resolve) outlast a failover.
    "server_login_retry": 1,
    "server_connect_timeout": 3,
    "server_check_delay": 0,
    "server_check_query": "select 1",
    "log_connections": 0,
    "log_disconnections": 0,
    "log_pooler_errors": 0,
    "log_stats": 0,
    "stats_period": 60,
}


class PgBouncer(LocalServer):
    """A pooler on 127.0.0.1 before one or more servers."""

    kind: ClassVar[str] = "PgBouncer"

    def __init__(
        self,
        directory: Path,
        port: int,
        databases: Mapping[str, Address],
        users: Mapping[str, str],
        settings: Mapping[str, str | int],
    ) -> None:
        super().__init__(directory, port)
        self.databases: dict[str, Address] = dict(databases)
        self.users: dict[str, str] = {**users, ADMIN: ADMIN_PASSWORD}
        self.settings: dict[str, str | int] = {**DEFAULT_SETTINGS, **settings}

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        databases: Mapping[str, Address],
        users: Mapping[str, str],
        pool_size: int = 20,
        settings: Mapping[str, str | int] | None = None,
        port: int | None = None,
    ) -> Self:
        """Pool `databases` (name → host and port of the server) for `users` (name → password at the server).

        `pool_size` is default_pool_size: server connections per database and user; `settings` go over the defaults.
        """
        settings = {"default_pool_size": pool_size, **(settings or {})}
        server = cls(prepare(directory), port or free_port(), databases, users, settings)
        server.launch()
        return server

    def dsn(self, database: str, user: str, password: str | None = None) -> str:
        """A connection URL through the pooler; the password of a known user is filled in."""
        password = password if password is not None else self.users.get(user, "")
        return (
            f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{self.address}/{quote(database, safe='')}"
        )

    @property
    def admin_dsn(self) -> str:
        """The admin console; it speaks the simple query protocol only."""
        return self.dsn("pgbouncer", ADMIN)

    def admin(self, sql: str) -> list[dict[str, str]]:
        """Run one admin command (`SHOW POOLS`, `SET default_pool_size = 8`, …) and return its rows, values as text."""
        psql = postgres_binaries(15) / "psql"
        command: list[str | Path] = [
            psql,
            "-X",
            "-q",
            "--csv",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.admin_dsn,
            "-c",
            sql,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerError(f"PgBouncer on port {self.port} refused {sql!r}: {done.stderr.strip()}")
        return list(csv.DictReader(io.StringIO(done.stdout)))

    def configure(self, *, databases: Mapping[str, Address] | None = None, **settings: str | int) -> None:
        """Change databases or settings in the configuration file and reload."""
        self.databases = dict(databases) if databases is not None else self.databases
        self.settings.update(settings)
        self._write_files()
        if self.running:
            self.admin("RELOAD")

    def _start_process(self) -> Process:
        self._write_files()
        command: list[str | Path] = [program("pgbouncer", package="pgbouncer"), self.directory / "pgbouncer.ini"]
        return Process.start(f"PgBouncer on port {self.port}", command, log=self.log, user=server_user())

    def _ready(self) -> bool:
        return accepts_connections(self.port)

    def _write_files(self) -> None:
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_file": str(self.directory / "users.txt"),
            "admin_users": ADMIN,
            **self.settings,
        }
        lines = ["[databases]", *(f"{name} = host={host} port={port}" for name, (host, port) in self.databases.items())]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        write(self.directory / "pgbouncer.ini", "\n".join(lines) + "\n")
        users = (f'"{_quoted(name)}" "{_quoted(password)}"\n' for name, password in self.users.items())
        write(self.directory / "users.txt", "".join(users))


def _quoted(text: str) -> str:
    return text.replace('"', '""')
