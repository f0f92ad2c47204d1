"""What the clients saw: histograms for Prometheus, a line per second for reports, a journal of acknowledged writes."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import prometheus_client

# Fine from 1 ms to 10 s: each bound about 1.5 times the one before.
BUCKETS = (
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0),
)

REQUEST_SECONDS = prometheus_client.Histogram(
    "kintsugi_client_request_seconds",
    "Time from a request's scheduled start to its answer or its timeout; other failures are counted, not timed.",
    ["statement"],
    buckets=BUCKETS,
)
REQUESTS = prometheus_client.Counter(
    "kintsugi_client_requests", "Requests ended, by outcome.", ["statement", "outcome"]
)
IN_FLIGHT = prometheus_client.Gauge("kintsugi_client_in_flight", "Requests that were started and have not ended.")


@dataclass
class Second:
    """The requests scheduled in one second: how many have not ended, and how the others did."""

    open: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def sample(self, second: int) -> dict[str, Any]:
        """The line of the samples file; percentiles in ms over answered and timed out requests, null when none."""
        latencies = sorted(self.latencies)
        percentiles = {f"p{q}_ms": percentile(latencies, q) for q in (50, 95, 99)}
        count = len(latencies) + sum(self.errors.values()) - self.errors["timeout"]
        return {"second": second, "count": count, **percentiles, "errors": dict(self.errors)}


def percentile(ordered: Sequence[float], q: int) -> float | None:
    """The nearest-rank percentile of ascending seconds, in ms rounded to a hundredth."""
    if not ordered:
        return None
    return round(1000 * ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)], 2)


class Samples:
    """Writes one line per second, in order, as soon as every request scheduled in that second has ended."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a", buffering=1) if path else None
        self._seconds: defaultdict[int, Second] = defaultdict(Second)

    def started(self, scheduled: float) -> None:
        """A request was scheduled at this wall-clock time."""
        self._seconds[int(scheduled)].open += 1

    def ended(self, scheduled: float, latency: float, outcome: str) -> None:
        """It ended `latency` seconds after its schedule."""
        second = self._seconds[int(scheduled)]
        second.open -= 1
        if outcome in ("ok", "timeout"):
            second.latencies.append(latency)
        if outcome != "ok":
            second.errors[outcome] += 1

    def flush(self, now: float) -> None:
        """Write the seconds that are complete at wall-clock time `now`."""
        for number in sorted(self._seconds):
            if number >= int(now) or self._seconds[number].open:
                return
            second = self._seconds.pop(number)
            if self._file is not None:
                self._file.write(json.dumps(second.sample(number)) + "\n")


class Journal:
    """The ledger numbers that were acknowledged: one line `client number` each, handed to the kernel at once."""

    def __init__(self, path: Path | None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else None

    def acknowledged(self, client: str, number: int) -> None:
        """The database said that this entry is committed."""
        if self._file is not None:
            os.write(self._file, f"{client} {number}\n".encode())

    @classmethod
    def read(cls, path: Path) -> dict[str, set[int]]:
        """Acknowledged numbers by client; a line cut off by a crash is left out."""
        numbers: defaultdict[str, set[int]] = defaultdict(set)
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                client, number = line.split()
                numbers[client].add(int(number))
        return dict(numbers)


async def lost_writes(journal: Path, dsn: str) -> int:
    """How many acknowledged ledger entries the database behind `dsn` does not have."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        lost = 0
        for client, numbers in Journal.read(journal).items():
            rows = await connection.fetch("SELECT number FROM ledger WHERE client = $1", client)
            lost += len(numbers - {row["number"] for row in rows})
        return lost
    finally:
        await connection.close()
