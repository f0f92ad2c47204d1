"""Sessions with a PostgreSQL server: who we are there, for how long, and every way in which it can go wrong.

    SqlError                    anything below; each message says what happened, to what, and what to do
    ├── UnreachableError        refused, no route, no such host, or no answer in time
    ├── TlsError                the server has no TLS, or its certificate is not the one asked for
    ├── WrongPasswordError      user or password refused, or pg_hba.conf has no line for us
    ├── NoSuchDatabaseError     the database does not exist there
    ├── TooManyConnectionsError every connection is taken
    ├── NotReadyError           the server starts up, shuts down or recovers
    ├── PoolerInTheWayError     a connection pooler answers where the server itself must
    ├── NotAllowedError         the role lacks a right
    ├── TimedOutError           the statement or its lock took longer than its limit; it changed nothing
    ├── StatementError          the server refused the statement; it changed nothing
    └── ConnectionLostError     the connection ended in the middle: nobody knows whether the statement took effect

No message ever holds a password, a literal of a user's row (the server's DETAIL) or a certificate.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import asyncpg

from kintsugi.api.database import DatabaseSpec

PRIMARY = "primary"
CONNECT_SECONDS = 3.0
LOCK_SECONDS = 2.0
MARGIN = 2.0
"""Seconds that a server's answer may come after its own limit."""


class SqlError(Exception):
    """Something went wrong with a PostgreSQL session."""


class UnreachableError(SqlError):
    """The server refused, has no route or name, or gave no answer in time."""


class TlsError(SqlError):
    """The server has no TLS, or its certificate is not the one asked for."""


class WrongPasswordError(SqlError):
    """User or password were refused, or pg_hba.conf has no line for us."""


class NoSuchDatabaseError(SqlError):
    """The database does not exist there."""


class TooManyConnectionsError(SqlError):
    """Every connection that our role may have is taken."""


class NotReadyError(SqlError):
    """The server starts up, shuts down or recovers."""


class PoolerInTheWayError(SqlError):
    """A connection pooler answers: session settings and identities would not be ours alone."""


class NotAllowedError(SqlError):
    """The role lacks a right."""


class TimedOutError(SqlError):
    """The statement, or a lock it waited for, took longer than its limit; it changed nothing."""


class StatementError(SqlError):
    """The server refused the statement; it changed nothing."""


class ConnectionLostError(SqlError):
    """The connection ended in the middle of a statement: nobody knows whether it took effect."""


Tls = Literal["disable", "require", "verify-ca", "verify-full"]
Connection: TypeAlias = "asyncpg.Connection[Any]"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A PostgreSQL server and how to log in there. Password and CA (PEM) stay out of every repr and message."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls: Tls = "verify-full"
    ca: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


def endpoints(spec: DatabaseSpec, credentials: Mapping[str, str]) -> dict[str, Endpoint]:
    """Every server of a database by name: `primary` (the Service) and each replication member, asked directly.

    `credentials` are the Secret's decoded entries: `username`, `password`, and `ca.crt` for a private CA.
    """
    connection = spec.connection
    places = {PRIMARY: (connection.host, connection.port)}
    if spec.replication is not None:
        places |= {member.name: (member.host, member.port) for member in spec.replication.streaming.members}
    return {
        name: Endpoint(
            host=host,
            port=port,
            database=connection.database,
            user=credentials["username"],
            password=credentials["password"],
            tls=connection.tls,
            ca=credentials.get("ca.crt"),
        )
        for name, (host, port) in places.items()
    }


async def connect(
    endpoint: Endpoint,
    *,
    application: str,
    statement_timeout: float,
    lock_timeout: float = LOCK_SECONDS,
    read_only: bool = False,
    within: float = CONNECT_SECONDS,
    cached_statements: int = 0,
) -> Connection:
    """A session of our own; times are seconds. `cached_statements` stay prepared, for what is asked again and again.

    Settings travel as start-up parameters: a pooler that would share them with others refuses them, so that nothing of
    ours ever leaks into a pool. Names are looked up in pg_catalog only.
    """
    settings = {
        "application_name": application,
        "search_path": "pg_catalog",
        "statement_timeout": milliseconds(statement_timeout),
        "lock_timeout": milliseconds(lock_timeout),
        "idle_in_transaction_session_timeout": milliseconds(statement_timeout + 10),
        "default_transaction_read_only": "on" if read_only else "off",
        "timezone": "UTC",
    }
    try:
        return await asyncpg.connect(
            host=endpoint.host,
            port=endpoint.port,
            database=endpoint.database,
            user=endpoint.user,
            password=endpoint.password,
            ssl=_tls(endpoint),
            timeout=within,
            # The server's own limit comes first; ours catches a frozen server, in every single exchange.
            command_timeout=statement_timeout + MARGIN,
            statement_cache_size=cached_statements,
            server_settings=settings,
        )
    except (OSError, ssl.SSLError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise explain_connect(error, endpoint) from None


async def close(connection: Connection) -> None:
    """Say goodbye, or just hang up when the server does not answer at once."""
    try:
        await connection.close(timeout=1)
    except STATEMENT_ERRORS:
        connection.terminate()


async def abandon(connection: Connection, lost: bool) -> None:
    """Leave a failed transaction; a server that no longer answers is not asked again."""
    try:
        if not lost:
            await connection.execute("ROLLBACK", timeout=MARGIN)
    except STATEMENT_ERRORS:
        lost = True
    if lost:
        connection.terminate()


def milliseconds(seconds: float) -> str:
    """Seconds as PostgreSQL's timeouts take them; at least one millisecond, because zero would mean for ever."""
    return str(max(1, round(seconds * 1000)))


def _tls(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """The TLS context for libpq's sslmode; as libpq does, `require` with a CA verifies against it."""
    if endpoint.tls == "disable":
        return False
    try:
        context = ssl.create_default_context(cadata=endpoint.ca)
    except (ssl.SSLError, ValueError):
        raise TlsError(
            f"ca.crt for {endpoint} is not a PEM certificate; put the CA's certificate into the Secret's ca.crt"
        ) from None
    context.check_hostname = endpoint.tls == "verify-full"
    if endpoint.tls == "require" and endpoint.ca is None:
        context.verify_mode = ssl.CERT_NONE
    return context


def explain_connect(error: Exception, endpoint: Endpoint) -> SqlError:
    """The typed error for a failed connection."""
    match error:
        case TimeoutError():
            return UnreachableError(f"no answer from {endpoint} in time; check the host, network policies and its load")
        case ssl.SSLCertVerificationError():
            return TlsError(
                f"the certificate of {endpoint} was refused ({error.verify_message}); put its CA into the Secret's"
                f" ca.crt, or connect by a name that the certificate holds"
            )
        case ssl.SSLError():
            return TlsError(f"TLS with {endpoint} failed ({error.reason}); check the server's ssl settings")
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return WrongPasswordError(
                f"{endpoint} refused user {endpoint.user} ({_first_line(error)}); check username and password in the"
                f" Secret and the server's pg_hba.conf"
            )
        case asyncpg.InvalidCatalogNameError():
            return NoSuchDatabaseError(f"{endpoint} does not exist; correct spec.connection.database")
        case asyncpg.TooManyConnectionsError():
            return TooManyConnectionsError(
                f"every connection of {endpoint} is taken ({_first_line(error)}); free some, raise max_connections, or"
                f" from PostgreSQL 16 on grant pg_use_reserved_connections to {endpoint.user}"
            )
        case asyncpg.CannotConnectNowError():
            return NotReadyError(f"{endpoint} does not accept connections yet ({_first_line(error)}); wait for it")
        case asyncpg.PostgresError() if "startup parameter" in str(error):
            return PoolerInTheWayError(
                f"a connection pooler answers at {endpoint}; name the server itself in spec.connection, the pooler in"
                f" spec.pooler"
            )
        case asyncpg.PostgresConnectionError() | asyncpg.InterfaceError():
            return UnreachableError(
                f"{endpoint} closed the connection at once; check that a server stands behind that host (a Service"
                " without ready pods?)"
            )
        case asyncpg.PostgresError():
            return UnreachableError(f"{endpoint} refused the connection ({_first_line(error)}); see its log")
        case ConnectionError() if "SSL" in str(error):
            return TlsError(f"{endpoint} offers no TLS; set spec.connection.tls to disable, or turn ssl on there")
        case _:
            return UnreachableError(f"{endpoint} can't be reached ({_reason(error)}); check that it runs and its host")


def explain_statement(error: Exception, endpoint: Endpoint) -> SqlError:
    """The typed error for a failed statement."""
    match error:
        case asyncpg.QueryCanceledError() | asyncpg.LockNotAvailableError():
            return TimedOutError(
                f"{endpoint} took too long ({_first_line(error)}); nothing was changed: try when it is less busy"
            )
        case asyncpg.InsufficientPrivilegeError():
            return NotAllowedError(
                f"the operator's role lacks a right on {endpoint} ({_first_line(error)}); grant it as"
                f" docs/database-role.sql does"
            )
        case asyncpg.AdminShutdownError() | asyncpg.CrashShutdownError() | asyncpg.PostgresConnectionError():
            return _lost(endpoint)
        case asyncpg.PostgresError():
            return StatementError(
                f"{endpoint} refused the statement ({error.sqlstate}: {_first_line(error)}); nothing was changed"
            )
        case _:
            return _lost(endpoint)


def _lost(endpoint: Endpoint) -> ConnectionLostError:
    return ConnectionLostError(
        f"the connection to {endpoint} ended in the middle of a statement; whether it took effect is unknown: ask the"
        f" action's probe"
    )


STATEMENT_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server hung up while the connection was idle, and asyncpg had not noticed
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
)
"""What a statement can raise; `explain_statement` knows each."""


def _first_line(error: Exception) -> str:
    """The server's message without DETAIL and HINT, which can hold values of users' rows."""
    return str(getattr(error, "message", None) or error).splitlines()[0]


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return getattr(error, "strerror", None) or type(error).__name__
