"""A lasting connection that comes back by itself: one attempt at a time, growing pauses, a log line per change.

PostgreSQL members and PgBouncer's console share it. While there is no connection, `failure` says why.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from kintsugi.collector.config import CredentialError

C = TypeVar("C")
log = logging.getLogger("kintsugi.collector")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
LONGEST_LOGIN_PAUSE = 30.0
"""After a refused password: a server may lock accounts out, and its log is read by people."""


class NotConnectedError(Exception):
    """There is no connection now; `reason` is a short label, the message a sentence for the log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def in_background(work: Coroutine[Any, Any, C]) -> asyncio.Task[C]:
    """A task whose error is no news when nobody is left to hear it."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Link(Generic[C]):
    """The connection to one server, made when first asked for; to be asked for once at a time."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[C]], closed: Callable[[C], bool]) -> None:
        self._name = name
        self._connect = connect
        self._closed = closed
        self._connection: C | None = None
        self._attempt: asyncio.Task[C] | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self.failure: NotConnectedError | None = None

    async def connection(self) -> C:
        """The open connection, or a new one.

        Raises:
            NotConnectedError: the last attempt failed, and the next one is not due yet or failed too.
        """
        if self._connection is not None:
            if not self._closed(self._connection):
                return self._connection
            self._connection = None
        if self._attempt is None:
            if self.failure is not None and time.monotonic() < self._not_before:
                raise self.failure
            self._attempt = in_background(self._try())
        # A scrape that runs out of time while it waits leaves the attempt to the next one.
        await asyncio.wait({self._attempt})
        attempt, self._attempt = self._attempt, None
        return attempt.result()

    def lost(self, reason: str, message: str) -> NotConnectedError:
        """Forget the connection: it broke. The next call makes a new one at once."""
        self._connection = None
        self._not_before = 0.0
        return self._failed(NotConnectedError(reason, message))

    def drop(self) -> C | None:
        """Hand out the connection, to be closed, and the attempt with it; nothing remains."""
        if self._attempt is not None:
            self._attempt.cancel()
        connection, self._connection = self._connection, None
        return connection

    async def _try(self) -> C:
        try:
            self._connection = await self._connect()
        except CredentialError as error:
            raise self._pause_after(NotConnectedError("credentials", str(error))) from None
        except NotConnectedError as error:
            raise self._pause_after(error) from None
        log.info("%s: connected%s", self._name, " again" if self.failure else "")
        self.failure, self._pause = None, 0.0
        return self._connection

    def _pause_after(self, error: NotConnectedError) -> NotConnectedError:
        longest = LONGEST_LOGIN_PAUSE if error.reason in ("authentication", "credentials") else LONGEST_PAUSE
        self._pause = min(longest, max(FIRST_PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + self._pause * random.uniform(0.8, 1.0)
        return self._failed(error)

    def _failed(self, error: NotConnectedError) -> NotConnectedError:
        if self.failure is None or self.failure.reason != error.reason:
            log.warning("%s: %s", self._name, error)
        self.failure = error
        return error
