"""Connections that are asked again and again, and never waited for longer than a sample may take.

A question that is late goes on by itself; its answer is thrown away, for it belongs to another moment. Hanging up at
once instead would make a busy server busier: each new connection costs it more than the answer.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

import asyncpg

from kintsugi.shell.pgbouncer import PgBouncerConsole, PgBouncerError, PgBouncerLogin

APPLICATION: Final = "kintsugi/truth"
"""Production's collector does not count sessions of this name."""
GIVE_UP_SECONDS: Final = 2.0
"""An answer later than this will not come: a frozen server, a lost network. Then the connection is made anew."""
RETRY_SECONDS: Final = 0.25

Values = Mapping[str, float | None]
C = TypeVar("C")


class Source(ABC, Generic[C]):
    """One lasting connection `C` and one question; `columns` are what an answer holds."""

    lost: tuple[type[Exception], ...]

    def __init__(self, columns: tuple[str, ...], every: int = 1) -> None:
        """Asked at every `every`-th tick; its answer then holds until the next."""
        self.columns = columns
        self._every = every
        self._connection: C | None = None
        self._task: asyncio.Task[Values] | None = None
        self._asked = 0.0
        self._unanswered: float | None = None
        self._answer: Values = {}
        self.seconds = float("nan")

    def ask(self, tick: int) -> asyncio.Task[Values] | None:
        """Begin to ask, unless it is not its turn or the last question is still open."""
        now = time.monotonic()
        if self._task is not None:
            if now - self._asked > GIVE_UP_SECONDS:
                self._give_up(self._task)
            return None
        if tick % self._every or (self._connection is None and now - self._asked < RETRY_SECONDS):
            return None
        self._asked = now
        if self._unanswered is None:
            self._unanswered = now
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._done)
        return self._task

    def values(self, tick: int) -> Values:
        """The answer to the question of this tick (or of the last turn); empty when it did not come."""
        if self._unanswered is not None:
            self.seconds = time.monotonic() - self._unanswered
            if tick % self._every == 0:
                self._answer = {}
        return self._answer

    async def _work(self) -> Values:
        if self._connection is None:
            self._connection = await asyncio.wait_for(self.connect(), GIVE_UP_SECONDS)
        return await self.fetch(self._connection)

    def _give_up(self, task: asyncio.Task[Values]) -> None:
        if self._connection is None:
            task.cancel()
        else:  # makes the question fail now; a cancelled one would first ask a frozen server to cancel it
            self.hang_up(self._connection)

    def _done(self, task: asyncio.Task[Values]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            if self._connection is not None:
                self.hang_up(self._connection)
            self._connection = None
            if error is not None and not isinstance(error, (*self.lost, OSError)):
                raise error
            return
        now = time.monotonic()
        self.seconds = now - (self._unanswered or now)
        self._unanswered = None
        self._answer = task.result()

    @abstractmethod
    async def connect(self) -> C:
        """A new connection."""

    @abstractmethod
    async def fetch(self, connection: C) -> Values:
        """Ask."""

    @abstractmethod
    def hang_up(self, connection: C) -> None:
        """Close without a word."""


class Question(Source[asyncpg.Connection]):
    """One row of SQL, as superuser."""

    lost = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

    def __init__(self, dsn: str, sql: str, columns: tuple[str, ...], every: int = 1) -> None:
        super().__init__(columns, every)
        self._dsn, self._sql = dsn, sql

    async def connect(self) -> asyncpg.Connection:
        """A session that production's collector does not count."""
        settings = {"application_name": APPLICATION, "statement_timeout": "1000", "jit": "off"}
        return await asyncpg.connect(self._dsn, timeout=GIVE_UP_SECONDS, server_settings=settings)

    async def fetch(self, connection: asyncpg.Connection) -> Values:
        """The row, its column names as they are."""
        row = await connection.fetchrow(self._sql)
        return {} if row is None else dict(row)

    def hang_up(self, connection: asyncpg.Connection) -> None:
        """Drop the session."""
        connection.terminate()


class Console(Source[PgBouncerConsole]):
    """PgBouncer's pools."""

    lost = (PgBouncerError,)

    def __init__(self, login: PgBouncerLogin, every: int = 1) -> None:
        super().__init__(("clients_waiting", "pool_wait"), every)
        self._login = login
        self._closing: set[asyncio.Future[None]] = set()

    async def connect(self) -> PgBouncerConsole:
        """The console, which gives up by itself, too."""
        return await PgBouncerConsole.open(self._login, within=GIVE_UP_SECONDS, application=APPLICATION)

    async def fetch(self, connection: PgBouncerConsole) -> Values:
        """Sums over all pools but the console's own."""
        pools = [pool for pool in await connection.pools() if pool["database"] != "pgbouncer"]
        return {
            "clients_waiting": float(sum(pool["cl_waiting"] for pool in pools)),
            "pool_wait": max((pool["maxwait"] + pool["maxwait_us"] / 1e6 for pool in pools), default=0.0),
        }

    def hang_up(self, connection: PgBouncerConsole) -> None:
        """Close in the background."""
        task = asyncio.ensure_future(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
