"""Connections to the store: SQLAlchemy's engine, what SQLite needs to be shared, and no password in any word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from kintsugi.shell.experience.errors import ExperienceUrlError, typed

PATIENCE: Final = 5.0
"""Seconds to wait for another process' write, and for a server to answer at all."""

HINT: Final = "write it like sqlite:////var/lib/kintsugi/experience.db or postgresql://user@host/database"


class Database:
    """Where the store is. No connection lasts: a use every few seconds at most is not worth one."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is opened yet.

        Raises:
            ExperienceUrlError: the URL is none, or its driver is not installed.
        """
        parsed = _parsed(url)
        self.where = parsed.render_as_string(hide_password=True)
        try:
            self._engine = _engine(parsed)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise ExperienceUrlError(
                f"nothing installed speaks to experience.url {self.where} ({error}); install its driver, or {HINT}"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            ExperienceError: it failed; typed by what to do.
        """
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it, or on any error nothing. On SQLite it is the only one at the time.

        Raises:
            ExperienceError: it failed; typed by what to do.
        """
        with self._transaction(self._engine.execution_options(kintsugi_writes=True)) as connection:
            yield connection

    def close(self) -> None:
        """Give everything back."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise typed(error, self.where) from error


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ExperienceUrlError(f"experience.url is no URL; {HINT}") from error
    if parsed.drivername == "postgresql":  # psycopg is what the operator has; SQLAlchemy 2.0 would look for psycopg2
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _engine(url: URL) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"timeout": PATIENCE} if sqlite else {"connect_timeout": int(PATIENCE)}
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        options = {}
    engine = create_engine(url, poolclass=NullPool, connect_args=options, hide_parameters=True)
    if sqlite:
        event.listen(engine, "connect", _own_transactions)
        event.listen(engine, "begin", _begin)
    return engine


def _own_transactions(connection: Any, _: Any) -> None:
    """Let nobody but `_begin` begin a transaction: the driver would do it late, and lock too little."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    """Take the write lock at once where it will be needed: taken later, SQLite would refuse instead of waiting."""
    writes = connection.get_execution_options().get("kintsugi_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
