"""The one lasting session per database: when all connections are taken, a new one can't be had any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from kintsugi.shell import sql

APPLICATION = "kintsugi/diagnose"
STAY = """
SELECT set_config('idle_session_timeout', '0', false) WHERE current_setting('server_version_num')::int >= 140000"""
"""The session is idle most of the time, and must not be closed for that just when it can't be opened again."""


class ReservedSession:
    """A read-only session with one server, kept open and opened again when it broke. One user at a time."""

    def __init__(self, endpoint: sql.Endpoint, *, statement_timeout: float = 2.0) -> None:
        self.endpoint = endpoint
        self._statement_timeout = statement_timeout
        self._connection: sql.Connection | None = None
        self._turn = asyncio.Lock()

    @property
    def open(self) -> bool:
        """Whether a connection is held now."""
        return self._connection is not None and not self._connection.is_closed()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[sql.Connection]:
        """The connection for one user's turn; read-only by default.

        Raises:
            SqlError: it was not open and can't be opened.
        """
        async with self._turn:
            yield await self._connected()

    async def fetch(self, statement: str, *, within: float) -> Sequence[Any]:
        """The rows of one read-only statement, within so many seconds.

        Raises:
            SqlError: no connection, or the statement failed.
        """
        async with self.connection() as connection:
            return await self.fetch_on(connection, statement, within=within)

    async def fetch_on(self, connection: sql.Connection, statement: str, *, within: float) -> Sequence[Any]:
        """As `fetch`, for who has the turn already."""
        patience = within + 1.0
        try:
            begin = f"BEGIN READ ONLY; SET LOCAL statement_timeout = {sql.milliseconds(within)}"
            await connection.execute(begin, timeout=patience)
            rows = await connection.fetch(statement, timeout=patience)
            await connection.execute("COMMIT", timeout=patience)
        except sql.STATEMENT_ERRORS as error:
            explained = sql.explain_statement(error, self.endpoint)
            await sql.abandon(connection, isinstance(explained, sql.ConnectionLostError))
            raise explained from None
        except asyncio.CancelledError:
            # Whatever was under way is still: nobody else shall wait for its answer.
            connection.terminate()
            raise
        return rows

    @contextlib.asynccontextmanager
    async def lent(self, application: str, *, statement_timeout: float) -> AsyncIterator[sql.Connection]:
        """The connection for an executor's turn: writable and under its name; afterwards as before."""
        async with self.connection() as connection:
            try:
                await self._configure(connection, application, "off", statement_timeout)
                yield connection
            finally:
                try:
                    await self._configure(connection, APPLICATION, "on", self._statement_timeout)
                except sql.STATEMENT_ERRORS:
                    connection.terminate()

    async def close(self) -> None:
        """Hang up after whoever has the turn; the next use opens it again."""
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                await sql.close(connection)

    async def _configure(self, connection: sql.Connection, application: str, read_only: str, limit: float) -> None:
        await connection.execute(
            "SELECT set_config('application_name', $1, false), set_config('statement_timeout', $2, false),"
            " set_config('default_transaction_read_only', $3, false)",
            application,
            sql.milliseconds(limit),
            read_only,
            timeout=2,
        )

    async def _connected(self) -> sql.Connection:
        if self._connection is None or self._connection.is_closed():
            connection = await sql.connect(
                self.endpoint, application=APPLICATION, statement_timeout=self._statement_timeout, read_only=True
            )
            try:
                await connection.fetch(STAY)
            except sql.STATEMENT_ERRORS as error:
                connection.terminate()
                raise sql.explain_connect(error, self.endpoint) from None
            self._connection = connection
        return self._connection
