"""A PostgreSQL that somebody else runs, as the lab's primary: only what can be done by SQL, only in a database of ours.

The lab breaks things on purpose, so it touches no database that it did not create, unless its owner says so.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote, urlencode, urlsplit

import asyncpg

from kintsugi_dev.servers import PostgreSQL
from kintsugi_dev.servers.errors import ServerError

MARK: Final = "made by the Kintsugi fault lab"
OLDEST = 13


class ExistingError(Exception):
    """The URL can't be used: what is wrong with it, and what to do."""


class Existing(PostgreSQL):
    """The server behind a URL; it is never started, stopped or restarted by us."""

    def __init__(self, directory: Path, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or not parts.path.strip("/"):
            raise ExistingError(f"{_hidden(url)} is no URL like postgresql://user:password@host:5432/database")
        super().__init__(directory, version=0, port=parts.port or 5432, settings={}, tls=None)
        self.host = parts.hostname
        self.database = unquote(parts.path.strip("/"))
        self._user = unquote(parts.username or "postgres")
        self._own_password = unquote(parts.password or "")
        self._query = f"?{parts.query}" if parts.query else ""
        self.app_password = secrets.token_urlsafe(16)

    @property
    def running(self) -> bool:
        """Whether it takes connections."""
        try:
            self.value("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    @property
    def data(self) -> Path:
        """Not ours to read."""
        self._not_ours("its files can't be read")

    @property
    def pid(self) -> int:
        """Not ours to know."""
        self._not_ours("its processes can't be touched")

    def dsn(
        self,
        database: str = "postgres",
        user: str = "postgres",
        password: str | None = None,
        *,
        host: str | None = None,
        **parameters: str,
    ) -> str:
        """A connection URL; for `postgres` the login of the URL is used, whatever its name."""
        if user == "postgres":
            user, password = self._user, self._own_password
        login = f"{quote(user, safe='')}:{quote(password or '', safe='')}"
        query = f"?{urlencode(parameters)}" if parameters else self._query
        return f"postgresql://{login}@{host or self.host}:{self.port}/{quote(database, safe='')}{query}"

    def stop(self, mode: Any = "fast") -> None:
        """Nothing: it was there before us."""

    def kill(self) -> None:
        """Never."""
        self._not_ours("it can't be killed")

    def restart(self, mode: Any = "fast") -> None:
        """Never."""
        self._not_ours("it can't be restarted")

    def _not_ours(self, what: str) -> NoReturn:
        raise ServerError(f"the server at {self.address} was not started by the lab: {what}")

    def claim(self, *, owned: bool) -> None:
        """Make the database, or take it when the lab made it before; `owned`: take it whoever made it.

        Raises:
            ExistingError: it can't be reached, is too old, the login is no superuser, or the database is somebody's.
        """
        try:
            self.version = int(self.value("SHOW server_version_num")) // 10000
            if self.version < OLDEST:
                raise ExistingError(f"{self.address} runs PostgreSQL {self.version}; the lab needs {OLDEST} or newer")
            if not self.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
                raise ExistingError(f"{self._user} at {self.address} is no superuser; faults and settings need one")
            self._take(owned)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ExistingError(f"{self.address} can't be used: {error}") from error

    def _take(self, owned: bool) -> None:
        question = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1"
        mark = self.value(question, self.database)
        if mark is None:
            self.execute(f"CREATE DATABASE {_quoted(self.database)}")
            self.execute(f"COMMENT ON DATABASE {_quoted(self.database)} IS '{MARK}'")
        elif mark != MARK and not owned:
            raise ExistingError(
                f"the database {self.database} at {self.address} was not made by the lab, which would fill and "
                "break it; name one that does not exist yet, or pass --i-own-this-database"
            )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _hidden(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":…@") if parts.password else url


def claimed(directory: Path, url: str, *, owned: bool) -> Existing:
    """The server behind `url` with a database of ours in it.

    Raises:
        ExistingError: see `Existing.claim`.
    """
    server = Existing(directory, url)
    server.claim(owned=owned)
    return server


__all__ = ["MARK", "Existing", "ExistingError", "claimed"]
