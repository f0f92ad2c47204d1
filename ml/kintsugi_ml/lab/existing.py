"""A PostgreSQL that somebody else runs, as the lab's primary: only what can be done by SQL, only in a database of ours.

The lab breaks things on purpose. So it works in a database called `lab` that it creates itself, with roles of its own
that can log in only while it is at work, and refuses one that is already there, unless its owner says otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote, urlencode, urlsplit

import asyncpg

from kintsugi_dev.servers import PostgreSQL
from kintsugi_dev.servers.errors import ServerError
from kintsugi_dev.servers.postgresql import SUPERUSER
from kintsugi_dev.servers.roles import HEALER, MONITOR

MARK: Final = "made by the Kintsugi fault lab"
OLDEST: Final = 13
_MARK_OF: Final = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1"
_MARK_OF_ROLE: Final = "SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_authid WHERE rolname = $1"


class ExistingError(Exception):
    """The server behind the URL can't be used: what is wrong, and what to do."""


class Existing(PostgreSQL):
    """The server behind `postgresql://user:password@host:port/database`; we never start or stop it.

    The URL's database is only what is connected to first.
    """

    def __init__(self, directory: Path, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or not parts.username:
            raise ExistingError(f"{_hidden(url)} is no URL like postgresql://user:password@host:5432/postgres")
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, version=0, port=parts.port or 5432, settings={}, tls=None)
        self.host = parts.hostname
        self._user = unquote(parts.username)
        self._own_password = unquote(parts.password or "")
        self._first = unquote(parts.path.strip("/")) or "postgres"
        self._query = f"?{parts.query}" if parts.query else ""

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
        user: str = SUPERUSER,
        password: str | None = None,
        *,
        host: str | None = None,
        **parameters: str,
    ) -> str:
        """A connection URL; for `postgres` the URL's own login is used, whatever its name."""
        if user == SUPERUSER:
            user, password = self._user, self._own_password
        login = f"{quote(user, safe='')}:{quote(password or '', safe='')}"
        name = self._first if database == "postgres" else database
        query = f"?{urlencode(parameters)}" if parameters else self._query
        return f"postgresql://{login}@{host or self.host}:{self.port}/{quote(name, safe='')}{query}"

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


@contextlib.contextmanager
def claimed(directory: Path, url: str, database: str, app: str, *, owned: bool) -> Iterator[Existing]:
    """The server behind `url` with a database of ours in it.

    `owned`: take the database and the roles even when somebody else made them. At the end the roles can't log in.

    Raises:
        ExistingError: it can't be reached, is too old, the login is no superuser, or the database is somebody's.
    """
    server = Existing(directory, url)
    try:
        _check(server)
        _take(server, database, app, owned)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ExistingError(f"{server.address} can't be used: {error}") from error
    try:
        yield server
    finally:
        for role in (app, MONITOR, HEALER):
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                server.execute(f"ALTER ROLE {role} NOLOGIN")


def _check(server: Existing) -> None:
    server.version = int(server.value("SELECT current_setting('server_version_num')::int")) // 10000
    if server.version < OLDEST:
        raise ExistingError(f"{server.address} runs PostgreSQL {server.version}; the lab needs {OLDEST} or newer")
    if not server.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        raise ExistingError(f"the URL's user is no superuser at {server.address}; faults and settings need one")


def _take(server: Existing, database: str, app: str, owned: bool) -> None:
    """Mark what is ours before anything is put into it."""
    for kind, name, question in (
        ("database", database, _MARK_OF),
        *(("role", role, _MARK_OF_ROLE) for role in (app, MONITOR, HEALER)),
    ):
        mark = server.value(question, name)
        if mark not in (None, MARK) and not owned:
            raise ExistingError(
                f"the {kind} {name} at {server.address} was not made by the lab, which would change and break it; "
                "use a server without one, or pass --i-own-this-database"
            )
    for role in (app, MONITOR, HEALER):
        if server.value(_MARK_OF_ROLE, role) is None:
            server.execute(f"CREATE ROLE {role} LOGIN; COMMENT ON ROLE {role} IS '{MARK}'")
    if server.value(_MARK_OF, database) is None:
        server.execute(f"CREATE DATABASE {database} OWNER {app}")
        server.execute(f"COMMENT ON DATABASE {database} IS '{MARK}'")


def _hidden(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":…@") if parts.password else url


__all__ = ["MARK", "Existing", "ExistingError", "claimed"]
