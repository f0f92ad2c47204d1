"""A database session of our own in a thread, for faults that hold something while others wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import asyncpg


class HeldSession:
    """A session that runs its statements and then sits there until it is closed or terminated."""

    def __init__(self, dsn: str, statements: Sequence[str], application: str) -> None:
        self._dsn = dsn
        self._statements = statements
        self._application = application
        self._done = threading.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold()), daemon=True)

    def open(self) -> None:
        """Start it; return once its statements have run.

        Raises:
            asyncpg.PostgresError: a statement was refused.
        """
        self._thread.start()
        self._ready.wait(30)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End it; fine when it was terminated."""
        self._done.set()
        self._thread.join(10)

    async def _hold(self) -> None:
        try:
            connection = await asyncpg.connect(
                self._dsn, server_settings={"application_name": self._application}, statement_cache_size=0
            )
            for statement in self._statements:
                await connection.execute(statement)
        except (OSError, asyncpg.PostgresError) as error:
            self._error = error
            self._ready.set()
            return
        self._ready.set()
        await asyncio.to_thread(self._done.wait)
        connection.terminate()
