"""One database of a local PostgreSQL: fresh for a test, dropped afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kintsugi_dev.servers.postgresql import SUPERUSER, PostgreSQL


@dataclass(frozen=True)
class Database:
    """A database by name; its methods are the server's, bound to it."""

    server: PostgreSQL
    name: str

    def dsn(self, user: str = SUPERUSER, password: str | None = None, **parameters: str) -> str:
        """A connection URL for this database; see `PostgreSQL.dsn`."""
        return self.server.dsn(self.name, user, password, **parameters)

    def execute(self, sql: str, *arguments: Any) -> str:
        """Run SQL as the superuser; see `PostgreSQL.execute`."""
        return self.server.execute(sql, *arguments, database=self.name)

    def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """The rows of one statement; see `PostgreSQL.fetch`."""
        return self.server.fetch(sql, *arguments, database=self.name)

    def value(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row; see `PostgreSQL.value`."""
        return self.server.value(sql, *arguments, database=self.name)

    def create_roles(self, *, owner: str | None = None) -> None:
        """Make the monitor's and the healer's role with their grants in this database."""
        self.server.create_roles(self.name, owner=owner)


@contextmanager
def fresh_database(server: PostgreSQL, prefix: str = "test") -> Iterator[Database]:
    """A new database with a name of its own and pg_stat_statements; dropped at the end whoever is still connected."""
    database = Database(server, f"{prefix}_{secrets.token_hex(4)}")
    server.execute(f'CREATE DATABASE "{database.name}"')
    try:
        database.execute("CREATE EXTENSION pg_stat_statements")
        yield database
    finally:
        if server.running:
            server.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')
