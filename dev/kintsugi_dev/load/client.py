"""The open loop: requests start on schedule, whether or not earlier ones were answered, as users come.

Latency counts from the scheduled start, so waiting for a connection is part of it (a closed loop would hide it).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass

import asyncpg

from kintsugi_dev.load import statements
from kintsugi_dev.load.measure import IN_FLIGHT, REQUEST_SECONDS, REQUESTS, Journal, Samples

TIMEOUT_SECONDS = 5.0
CONNECT_SECONDS = 3.0
RELEASE_SECONDS = 2.0

FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""How a request may fail; TimeoutError is an OSError."""


@dataclass(frozen=True)
class Options:
    """What a run of the clients is: where to, how fast (requests per second), over how many connections."""

    dsn: str
    rate: float = 120.0
    connections: int = 20
    customers: int = 4000
    seed: int | None = None


class Clients:
    """All clients of the shop; `run` until cancelled."""

    def __init__(self, options: Options, samples: Samples, journal: Journal) -> None:
        self.options = options
        self.name = secrets.token_hex(6)
        self._samples = samples
        self._journal = journal
        self._random = random.Random(options.seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock_offset = time.time() - time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests at the rate until `stop`, then let those in flight end."""
        # Without a statement cache, because a transaction pooler hands each transaction to another server connection;
        # without the reset between requests, which would be a round trip more than the shop's own work.
        pool = asyncpg.create_pool(
            self.options.dsn,
            min_size=0,
            max_size=self.options.connections,
            max_inactive_connection_lifetime=0,
            statement_cache_size=0,
            timeout=CONNECT_SECONDS,
            reset=_keep_session,
        )
        async with pool:
            await self._send(pool, stop)
            while self._tasks:
                await asyncio.wait(self._tasks)
        self._samples.flush(time.time() + 1)

    async def _send(self, pool: asyncpg.Pool, stop: asyncio.Event) -> None:
        start = time.monotonic()
        number = 0
        while not stop.is_set():
            number += 1
            scheduled = start + number / self.options.rate
            wait = scheduled - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            kind, request = statements.draw(self._random, self.name, number, self.options.customers)
            self._keep(self._request(pool, kind, request, scheduled))
            if number % max(1, round(self.options.rate / 4)) == 0:
                self._samples.flush(time.time())

    async def _request(self, pool: asyncpg.Pool, kind: str, request: statements.Request, scheduled: float) -> None:
        wall = scheduled + self._clock_offset
        self._samples.started(wall)
        IN_FLIGHT.inc()
        error = await self._attempt(pool, kind, request, scheduled)
        IN_FLIGHT.dec()
        latency = time.monotonic() - scheduled
        outcome = statements.outcome(error)
        if error is None and kind == statements.LEDGER:
            self._journal.acknowledged(request.client, request.number)
        if outcome in ("ok", "timeout"):
            REQUEST_SECONDS.labels(kind).observe(latency)
        REQUESTS.labels(kind, outcome).inc()
        self._samples.ended(wall, latency, outcome)

    async def _attempt(
        self, pool: asyncpg.Pool, kind: str, request: statements.Request, scheduled: float
    ) -> BaseException | None:
        left = scheduled + TIMEOUT_SECONDS - time.monotonic()
        try:
            async with asyncio.timeout(left):
                connection = await pool.acquire(timeout=left)
                try:
                    await statements.WORK[kind](connection, request)
                finally:
                    # Beside the request: after a timeout, giving back waits for the server to confirm the cancel.
                    self._keep(_give_back(pool, connection))
        except FAILURES as error:
            return error
        return None

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _give_back(pool: asyncpg.Pool, connection: statements.Connection) -> None:
    # A connection that cannot be given back in time is closed by the pool, which opens another when it needs one.
    with contextlib.suppress(*FAILURES):
        await pool.release(connection, timeout=RELEASE_SECONDS)


async def _keep_session(_: asyncpg.Connection) -> None:
    """Leave the session as it is: the shop's requests change no session state."""
