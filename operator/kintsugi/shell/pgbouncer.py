"""PgBouncer's admin console: what its pools say, and commands that change it.

The console speaks only the simple query protocol, which asyncpg can't read rows from; hence psycopg, which uses it for
statements without parameters.

PgBouncerError                 anything below; `reason` is a short label for metrics and conditions
├── PgBouncerUnreachableError  refused, unknown-host, timeout, tls, connection-lost
├── PgBouncerAccessError       authentication, not-admin
└── PgBouncerCommandError      rejected: PgBouncer itself refused a command and says why
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Self, TypeVar

import psycopg
from psycopg.rows import dict_row

T = TypeVar("T")
Row = Mapping[str, Any]
Tls = Literal["disable", "require", "verify-ca", "verify-full"]

ADMIN_DATABASE = "pgbouncer"
# Beginnings of libpq's and PgBouncer's own sentences; neither gives a code when a connection is refused.
_REASONS = (
    ("Connection refused", "refused"),
    ("failed to resolve host", "unknown-host"),
    ("could not translate host name", "unknown-host"),
    ("timeout expired", "timeout"),
    ("SSL", "tls"),
    ("certificate", "tls"),
    ("not allowed", "not-admin"),
    ("authentication failed", "authentication"),
    ("password", "authentication"),
    ("no such user", "authentication"),
)
_REMEDIES = {
    "refused": "check that PgBouncer runs and that host and port are right",
    "unknown-host": "check the host name",
    "timeout": "check that PgBouncer is not frozen and that nothing drops packets on the way",
    "tls": "check client_tls_sslmode in pgbouncer.ini and the certificate authority",
    "connection-lost": "check that PgBouncer runs; see its log",
    "authentication": "check user name and password against PgBouncer's auth_file",
    "not-admin": "add the user to admin_users in pgbouncer.ini and reload PgBouncer",
    "rejected": "see PgBouncer's log and SHOW HELP",
}


class PgBouncerError(Exception):
    """What happened, to which PgBouncer, and what to do; `reason` is the same as one short label."""

    def __init__(self, address: str, reason: str, detail: str) -> None:
        super().__init__(f"PgBouncer at {address}: {detail} ({reason}); {_REMEDIES[reason]}")
        self.reason = reason


class PgBouncerUnreachableError(PgBouncerError):
    """No connection, or it was lost: refused, unknown-host, timeout, tls, connection-lost."""


class PgBouncerAccessError(PgBouncerError):
    """PgBouncer doesn't let this user in (authentication), or not to its admin console (not-admin)."""


class PgBouncerCommandError(PgBouncerError):
    """PgBouncer rejected a command; the message quotes its answer."""


@dataclass(frozen=True, slots=True)
class PgBouncerLogin:
    """Where the admin console is, and as whom to enter it. `ca` is a PEM bundle for a private authority."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    tls: Tls = "disable"
    ca: str | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"


class PgBouncerConsole:
    """One open admin connection. Each call ends within `within` seconds, if need be by hanging up."""

    def __init__(self, login: PgBouncerLogin, connection: psycopg.AsyncConnection[Row], within: float) -> None:
        self._login = login
        self._connection = connection
        self._within = within
        # The console answers one statement at a time.
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, login: PgBouncerLogin, *, within: float = 3.0, application: str = "kintsugi") -> Self:
        """Connect to the console.

        Raises:
            PgBouncerUnreachableError: nobody answered in time, or TLS failed.
            PgBouncerAccessError: wrong user or password, or the user is in neither admin_users nor stats_users.
        """
        with _authority(login.ca) as ca_path:
            try:
                async with asyncio.timeout(within):
                    connection = await psycopg.AsyncConnection[Row].connect(
                        host=login.host,
                        port=login.port,
                        user=login.username,
                        password=login.password,
                        dbname=ADMIN_DATABASE,
                        sslmode=login.tls,
                        sslrootcert=ca_path or "system" if login.tls.startswith("verify") else None,
                        gssencmode="disable",
                        application_name=application,
                        autocommit=True,
                        prepare_threshold=None,
                        row_factory=dict_row,
                    )
            except TimeoutError:
                raise PgBouncerUnreachableError(login.address, "timeout", f"no answer in {within:g} s") from None
            except psycopg.Error as error:
                raise _connect_error(login.address, str(error)) from None
        return cls(login, connection, within)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone; open a new one."""
        return self._connection.closed

    async def close(self) -> None:
        """Hang up; harmless when that has happened."""
        await self._connection.close()

    async def pools(self) -> tuple[Row, ...]:
        """SHOW POOLS: one row per database and user (cl_waiting, maxwait and maxwait_us, sv_active, sv_idle, …)."""
        return await self._rows("SHOW POOLS")

    async def stats(self) -> tuple[Row, ...]:
        """SHOW STATS: totals per database since PgBouncer's start; times in microseconds."""
        return await self._rows("SHOW STATS")

    async def databases(self) -> tuple[Row, ...]:
        """SHOW DATABASES: host, port, pool_size, max_connections, paused, … per configured database."""
        return await self._rows("SHOW DATABASES")

    async def config(self) -> tuple[Row, ...]:
        """SHOW CONFIG: key, value, default, changeable."""
        return await self._rows("SHOW CONFIG")

    async def command(self, text: str) -> None:
        """Run one admin command, `SET default_pool_size = 8` or `RECONNECT orders` for example.

        Raises:
            PgBouncerCommandError: PgBouncer refused it.
            PgBouncerAccessError: the user is in stats_users only.
            PgBouncerUnreachableError: no answer in time, or the connection was lost; it may have been carried out.
        """
        await self._within_timeout(self._connection.execute(text), text)

    async def _rows(self, statement: str) -> tuple[Row, ...]:
        async def fetch() -> tuple[Row, ...]:
            cursor = await self._connection.execute(statement)
            return tuple({key: _plain(value) for key, value in row.items()} for row in await cursor.fetchall())

        return await self._within_timeout(fetch(), statement)

    async def _within_timeout(self, work: Coroutine[Any, Any, T], statement: str) -> T:
        async with self._turn:
            task = asyncio.ensure_future(work)
            # Read also when our caller is cancelled and nobody else will.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await asyncio.wait({task}, timeout=self._within)
            finally:
                late = not task.done()
                if late:
                    self._hang_up()
            try:
                return await task
            except psycopg.Error as error:
                raise self._statement_error(error, statement, late) from None

    def _hang_up(self) -> None:
        """Make a pending answer fail now; cancelling would make psycopg ask the frozen PgBouncer for a cancel."""
        with contextlib.suppress(psycopg.Error, OSError):
            end = socket.socket(fileno=os.dup(self._connection.fileno()))
            end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _statement_error(self, error: psycopg.Error, statement: str, late: bool) -> PgBouncerError:
        address = self._login.address
        if late:
            return PgBouncerUnreachableError(address, "timeout", f"no answer to {statement} in {self._within:g} s")
        if self._connection.closed:
            return PgBouncerUnreachableError(address, "connection-lost", f"the connection broke during {statement}")
        if "admin access needed" in str(error):
            return PgBouncerAccessError(address, "not-admin", f"{statement}: {error}")
        return PgBouncerCommandError(address, "rejected", f"{statement}: {error}")


@contextlib.asynccontextmanager
async def pgbouncer_console(
    login: PgBouncerLogin, *, within: float = 3.0, application: str = "kintsugi"
) -> AsyncIterator[PgBouncerConsole]:
    """A console for a few statements, closed at the end; the errors are those of `PgBouncerConsole.open`."""
    console = await PgBouncerConsole.open(login, within=within, application=application)
    try:
        yield console
    finally:
        await console.close()


@contextlib.contextmanager
def _authority(pem: str | None) -> Iterator[str | None]:
    """A path that libpq can read the authority from, without a file that would outlive us."""
    if pem is None:
        yield None
        return
    descriptor = os.memfd_create("kintsugi-ca")
    try:
        os.write(descriptor, pem.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _connect_error(address: str, text: str) -> PgBouncerError:
    detail = text.split("\n")[0].rsplit("FATAL:", 1)[-1].rsplit(" failed: ", 1)[-1].strip()
    reason = next((reason for part, reason in _REASONS if part in text), "connection-lost")
    kind = PgBouncerAccessError if reason in ("authentication", "not-admin") else PgBouncerUnreachableError
    return kind(address, reason, detail)


def _plain(value: Any) -> Any:
    """PgBouncer's totals are `numeric` without a fraction."""
    return int(value) if isinstance(value, Decimal) else value
