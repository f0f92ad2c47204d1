"""One PgBouncer: its lasting admin connection, and what its pools say within a scrape's time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.collector.config import DatabaseConfig, PoolerConfig
from kintsugi.collector.exposition import Counters, Exposition
from kintsugi.collector.link import Link, NotConnectedError
from kintsugi.shell.pgbouncer import PgBouncerConsole, PgBouncerError, PgBouncerLogin

Row = Mapping[str, Any]

NAME = "pooler"
"""Its labels `member` and `role`: a pooler is neither primary nor replica."""

HELP = {
    "up": "1 when the admin console answered this scrape, else 0.",
    "clients_waiting": "Clients that have asked and have no server connection yet.",
    "max_wait_seconds": "How long the first of them has waited.",
    "servers_active": "Server connections that a client uses.",
    "servers_idle": "Server connections ready for the next client.",
    "pool_used_ratio": "Server connections in use against the pool's size; the fullest pool.",
    "queries_total": "Queries that went through.",
    "wait_seconds_total": "Time that clients waited for a server connection, counted when the wait ended.",
}


class Pooler:
    """The PgBouncer of a database. Scrape it once at a time."""

    def __init__(self, database: DatabaseConfig, config: PoolerConfig, budget: float) -> None:
        self._database = database
        self._config = config
        self._budget = budget
        self._labels = {**database.series_labels(), "member": NAME, "role": NAME}
        self._name = f"{database.key} PgBouncer ({config.host}:{config.port})"
        self._link: Link[PgBouncerConsole] = Link(self._name, self._connect, lambda console: console.closed)
        self._counters = Counters()

    async def scrape(self, until: float, out: Exposition) -> None:
        """Ask the console and write what it answered before `until` (the loop's time) into `out`. Never raises."""
        metrics: dict[str, float] = {}
        reason = ""
        try:
            async with asyncio.timeout_at(until):
                metrics = await self._ask(await self._link.connection())
        except TimeoutError:
            reason = "timeout"
        except PgBouncerError as error:
            reason = self._link.lost(error.reason, str(error)).reason
        except NotConnectedError as error:
            reason = error.reason
        out.add("kintsugi_pgbouncer_up", HELP["up"], float(bool(metrics)), self._labels)
        for name, value in metrics.items():
            known = self._counters.advance(name, value) if name.endswith("_total") else value
            out.add(f"kintsugi_pgbouncer_{name}", HELP[name], known, self._labels)
        if reason:
            text = "1 while a server could not be asked, and why."
            out.add("kintsugi_collector_failed", text, 1.0, {**self._labels, "reason": reason})

    async def close(self) -> None:
        """Hang up."""
        console = self._link.drop()
        if console is not None:
            await console.close()

    async def _connect(self) -> PgBouncerConsole:
        login = PgBouncerLogin(
            host=self._config.host,
            port=self._config.port,
            username=self._config.user(),
            password=self._config.secret(),
            tls=self._config.tls,
            ca=self._config.authority(),
        )
        try:
            return await PgBouncerConsole.open(login, within=self._budget, application="kintsugi/collect")
        except PgBouncerError as error:
            raise NotConnectedError(error.reason, str(error)) from None

    async def _ask(self, console: PgBouncerConsole) -> dict[str, float]:
        databases = {row["name"]: row for row in await console.databases() if self._concerns(row)}
        pools = [row for row in await console.pools() if row["database"] in databases]
        stats = [row for row in await console.stats() if row["database"] in databases]
        return measure(databases, pools, stats)

    def _concerns(self, row: Row) -> bool:
        if self._config.databases:
            return row["name"] in self._config.databases
        return bool(row["database"] == self._database.database and row["name"] != "pgbouncer")


def measure(databases: Mapping[str, Row], pools: Sequence[Row], stats: Sequence[Row]) -> dict[str, float]:
    """The metrics of the given rows of SHOW DATABASES (by name), SHOW POOLS and SHOW STATS.

    The pool's size is the database's; from PgBouncer 1.23 on a user may have another, which is not looked at.
    """
    used = (pool["sv_active"] / max(1, databases[pool["database"]]["pool_size"]) for pool in pools)
    return {
        "clients_waiting": float(sum(pool["cl_waiting"] for pool in pools)),
        "max_wait_seconds": max((pool["maxwait"] + pool["maxwait_us"] / 1e6 for pool in pools), default=0.0),
        "servers_active": float(sum(pool["sv_active"] for pool in pools)),
        "servers_idle": float(sum(pool["sv_idle"] + pool["sv_used"] for pool in pools)),
        "pool_used_ratio": max(used, default=0.0),
        "queries_total": float(sum(row["total_query_count"] for row in stats)),
        "wait_seconds_total": sum(row["total_wait_time"] for row in stats) / 1e6,
    }
