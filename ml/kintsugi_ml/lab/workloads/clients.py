"""The clients of a workload: an open loop whose rate can be changed while it runs.

Requests come as from many independent users (exponential gaps), whether or not earlier ones were answered. Latency
counts from the scheduled start, so waiting for a connection is part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import asyncpg

from kintsugi_dev.load.client import CONNECT_SECONDS, FAILURES, RELEASE_SECONDS, TIMEOUT_SECONDS
from kintsugi_dev.load.measure import IN_FLIGHT, REQUEST_SECONDS, REQUESTS
from kintsugi_dev.load.statements import outcome
from kintsugi_ml.lab.workloads.base import Connection, Work
from kintsugi_ml.lab.workloads.patterns import PATTERNS, factor

CONNECTIONS = 40
"""At most so many to the pooler, whose pool holds 16."""
MIX_SECONDS = 0.1
"""How often the rate is looked at anew, for patterns and controls."""
FLUSH_SECONDS = 0.25
HEADER = "scheduled_unix,kind,latency_seconds,outcome\n"


@dataclass
class Demand:
    """How many requests of each kind per second are wanted now.

    `base` is multiplied by `rate_factor` and the pattern; `extra` comes on top, as it is.
    """

    base: Mapping[str, float]
    random: Random
    rate_factor: float = 1.0
    extra: Mapping[str, float] = field(default_factory=dict)
    pattern: str = "steady"
    _began: float = 0.0
    _seed: int = 0

    def begin(self, pattern: str, now: float) -> None:
        """Start a pattern at time `now`, at another place than the last time."""
        self.pattern = pattern
        self._began = now
        self._seed = self.random.randrange(2**31)

    def at(self, now: float) -> dict[str, float]:
        """Requests per second by kind; only kinds that come at all."""
        times = self.rate_factor * factor(self.pattern, now - self._began, self._seed)
        kinds = {kind: rate * times for kind, rate in self.base.items()}
        for kind, rate in self.extra.items():
            kinds[kind] = kinds.get(kind, 0.0) + rate
        return {kind: rate for kind, rate in kinds.items() if rate > 0}

    def refusal(self, control: Mapping[str, object]) -> str | None:
        """Why a control can't be carried out, in a sentence; None when it can."""
        unknown = set(control) - {"rate_factor", "extra", "pattern"}
        if unknown:
            return f"there is no control called {', '.join(sorted(unknown))}"
        if not _is_rate(control.get("rate_factor", 1.0)):
            return "rate_factor must be a number that is not negative"
        extra = control.get("extra", {})
        if not isinstance(extra, dict) or not all(_is_rate(rate) for rate in extra.values()):
            return "extra must map kinds to requests per second"
        strange = set(extra) - set(self.base)
        if strange:
            return f"no request is called {', '.join(sorted(strange))}; there are {', '.join(sorted(self.base))}"
        if control.get("pattern", "steady") not in PATTERNS:
            return f"no pattern is called {control['pattern']}; there are {', '.join(PATTERNS)}"
        return None


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")


class RequestLog:
    """One line per ended request, written four times a second."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        if self._file.tell() == 0:
            self._file.write(HEADER)
        self._lines: list[str] = []

    def ended(self, scheduled: float, kind: str, latency: float, outcome: str) -> None:
        """A request scheduled at this Unix time ended `latency` seconds later."""
        self._lines.append(f"{scheduled:.4f},{kind},{latency:.6f},{outcome}\n")

    def flush(self) -> None:
        """Hand what has gathered to the kernel."""
        self._file.write("".join(self._lines))
        self._file.flush()
        self._lines.clear()


class Clients:
    """All clients of a workload; `run` until stopped."""

    def __init__(self, dsn: str, work: Mapping[str, Work], demand: Demand, log: RequestLog, random: Random) -> None:
        self._dsn = dsn
        self._work = work
        self._demand = demand
        self._log = log
        self._random = random
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock_offset = time.time() - time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until `stop`, then let those in flight end."""
        # Without a statement cache, because a transaction pooler hands each transaction to another server connection;
        # without the reset between requests, which would be a round trip more than the application's own work.
        pool = asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=CONNECTIONS,
            max_inactive_connection_lifetime=0,
            statement_cache_size=0,
            timeout=CONNECT_SECONDS,
            reset=_keep_session,
        )
        flushing = asyncio.create_task(self._flush())
        async with pool:
            await self._send(pool, stop)
            while self._tasks:
                await asyncio.wait(self._tasks)
        flushing.cancel()
        self._log.flush()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._log.flush()

    async def _send(self, pool: asyncpg.Pool, stop: asyncio.Event) -> None:
        scheduled = time.monotonic()
        while not stop.is_set():
            kinds = self._demand.at(scheduled)
            scheduled = await self._send_mix(pool, kinds, scheduled, scheduled + MIX_SECONDS)

    async def _send_mix(self, pool: asyncpg.Pool, kinds: Mapping[str, float], begin: float, end: float) -> float:
        """Send at unchanging rates from `begin` to `end`, which is returned: gaps have no memory."""
        names, rates, total = list(kinds), list(kinds.values()), sum(kinds.values())
        scheduled = begin
        while total > 0:
            scheduled += self._random.expovariate(total)
            if scheduled >= end:
                break
            await asyncio.sleep(max(0.0, scheduled - time.monotonic()))
            kind = self._random.choices(names, rates)[0]
            self._keep(self._request(pool, kind, scheduled))
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        return end

    async def _request(self, pool: asyncpg.Pool, kind: str, scheduled: float) -> None:
        IN_FLIGHT.inc()
        error = await self._attempt(pool, kind, scheduled)
        IN_FLIGHT.dec()
        latency = time.monotonic() - scheduled
        ended = outcome(error)
        if ended in ("ok", "timeout"):
            REQUEST_SECONDS.labels(kind).observe(latency)
        REQUESTS.labels(kind, ended).inc()
        self._log.ended(scheduled + self._clock_offset, kind, latency, ended)

    async def _attempt(self, pool: asyncpg.Pool, kind: str, scheduled: float) -> BaseException | None:
        left = scheduled + TIMEOUT_SECONDS - time.monotonic()
        try:
            async with asyncio.timeout(left):
                connection = await pool.acquire(timeout=left)
                try:
                    await self._work[kind](connection, self._random)
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


async def _give_back(pool: asyncpg.Pool, connection: Connection) -> None:
    # A connection that cannot be given back in time is closed by the pool, which opens another when it needs one.
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=RELEASE_SECONDS)
    except FAILURES:
        connection.terminate()
    with contextlib.suppress(*FAILURES):
        await pool.release(connection, timeout=RELEASE_SECONDS)


async def _keep_session(_: asyncpg.Connection) -> None:
    """Leave the session as it is: no request changes its state."""
