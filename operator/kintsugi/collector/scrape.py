"""All databases of a collector, scraped at once and within one time budget."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from kintsugi.collector.config import CollectorConfig
from kintsugi.collector.exposition import Exposition
from kintsugi.collector.member import Member
from kintsugi.collector.pooler import Pooler

log = logging.getLogger("kintsugi.collector")


class _Target(Protocol):
    async def scrape(self, until: float, out: Exposition) -> None: ...

    async def close(self) -> None: ...


class DatabaseCollector:
    """Scrapes on demand. Connections open with the first scrape and stay open until `close`."""

    def __init__(self, config: CollectorConfig) -> None:
        self._budget = config.budget.total_seconds()
        self._targets = _targets(config, self._budget)
        self._running: asyncio.Task[bytes] | None = None
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)

    async def scrape(self, budget: float | None = None) -> bytes:
        """The exposition text, after at most `budget` seconds (the configuration's, if that is less).

        Whoever asks while a scrape is running gets that one's result: two Prometheus servers cost a database as much
        as one.
        """
        if self._running is None or self._running.done():
            allowed = self._budget if budget is None else min(budget, self._budget)
            self._running = asyncio.create_task(self._scrape(allowed))
        # Shielded: when one of several askers hangs up, the others still want the answer.
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(target.close() for target in self._targets))

    async def _scrape(self, budget: float) -> bytes:
        until = asyncio.get_running_loop().time() + budget
        out = Exposition()
        ends = await asyncio.gather(*(target.scrape(until, out) for target in self._targets), return_exceptions=True)
        for error in ends:
            # A defect of ours with one server must not cost the others their metrics.
            if isinstance(error, Exception):
                log.error("a scrape ended in an unexpected error", exc_info=error)
        return out.text() + generate_latest(self._own)


def _targets(config: CollectorConfig, budget: float) -> tuple[_Target, ...]:
    targets: list[_Target] = []
    for database in config.databases:
        targets += [Member(database, member, budget) for member in database.members]
        if database.pooler is not None:
            targets.append(Pooler(database, database.pooler, budget))
    return tuple(targets)
