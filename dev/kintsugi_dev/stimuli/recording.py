"""All stimuli played on all versions under one Prometheus, and what every signal did meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from kintsugi.domain.signals import Catalogue
from kintsugi.engines.catalogue import render
from kintsugi_dev.servers import Prometheus, Scrape, eventually
from kintsugi_dev.stimuli.phases import PHASES, Act
from kintsugi_dev.stimuli.world import DATABASE, SERVICE, World, world

INTERVAL = 1.0
QUIET = 7.0
SETTLE = 1.5
"""Seconds between two phases, in which rates still show the one before."""

LABELS = ("namespace", "service")
Window = tuple[float, float]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """What every signal did: `series[version, signal]` are (time, value), without gaps and NaN."""

    quiet: Window
    windows: Mapping[str, Window]
    series: Mapping[tuple[int, str], Sequence[tuple[float, float]]]
    trouble: Sequence[str]

    def before(self, version: int, signal: str) -> list[float]:
        """The values of the quiet time."""
        return self._values(version, signal, self.quiet)

    def during(self, version: int, signal: str, act: Act) -> list[float]:
        """The values while this stimulus acted."""
        return self._values(version, signal, self.windows[act.__name__])

    def _values(self, version: int, signal: str, window: Window) -> list[float]:
        return [value for at, value in self.series.get((version, signal), ()) if window[0] <= at <= window[1]]


def record(directory: Path, versions: Sequence[int], catalogue: Catalogue) -> Recording:
    """Start everything, play every phase once, and ask Prometheus for every signal as the operator does."""
    with ExitStack() as stack:
        with ThreadPoolExecutor() as threads:
            paths = {version: directory / f"world-{version}" for version in versions}
            worlds = list(threads.map(lambda v: stack.enter_context(world(paths[v], v)), versions))
        prometheus = stack.enter_context(Prometheus.start(directory / "prometheus", _jobs(worlds)))
        wanted = len(worlds) * 2
        if not eventually(lambda: prometheus.value("count(kintsugi_pg_up == 1)") == wanted, timeout=30):
            raise RuntimeError(f"Prometheus did not scrape all collectors; {worlds[0].collector.tail()}")
        quiet, windows, trouble = asyncio.run(_play(worlds))
        start, end = quiet[0], max(window[1] for window in windows.values())
        series: dict[tuple[int, str], Sequence[tuple[float, float]]] = {}
        for signal in catalogue:
            for source in ("kintsugi", "client"):
                if source in signal.sources:
                    query = render(signal, source, LABELS, f'namespace=~"pg.*",service="{SERVICE}"', INTERVAL)
                    for found in prometheus.query_range(query, start=start, end=end, step=INTERVAL):
                        version = int(found["metric"]["namespace"].removeprefix("pg"))
                        series[version, signal.name] = _numbers(found["values"])
        return Recording(quiet, windows, series, trouble)


def _jobs(worlds: Sequence[World]) -> dict[str, Scrape]:
    jobs = {"collector": Scrape([world.collector.address for world in worlds], interval=INTERVAL)}
    for one in worlds:
        labels = {"namespace": one.namespace, "service": SERVICE}
        jobs[f"client-{one.version}"] = Scrape([one.load.address], labels, interval=INTERVAL)
    return jobs


async def _play(worlds: Sequence[World]) -> tuple[Window, dict[str, Window], list[str]]:
    trouble: list[str] = []
    at_rest = [asyncio.create_task(_resting_client(world)) for world in worlds]
    await asyncio.sleep(4 * INTERVAL)
    quiet = (time.time(), time.time() + QUIET)
    await asyncio.sleep(QUIET)
    windows: dict[str, Window] = {}
    for seconds, acts in PHASES:
        start = time.time()
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(_act(act, world, until, trouble) for world in worlds for act in acts))
        await asyncio.sleep(SETTLE)
        windows |= {act.__name__: (start, time.time()) for act in acts}
    for task in at_rest:
        task.cancel()
    return quiet, windows, trouble


async def _act(act: Act, world: World, until: float, trouble: list[str]) -> None:
    """Let one stimulus act; one that goes wrong spoils its own signals only, and the tests say why."""
    try:
        async with asyncio.timeout_at(until + 15):
            await act(world, until)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        trouble.append(f"{act.__name__} on {world.version}: {type(error).__name__}: {error}")


async def _resting_client(world: World) -> None:
    """What every pooler has in quiet times too: two clients that keep their two server connections warm."""
    dsn = world.pooler.dsn(DATABASE, "postgres")
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        one, other = [await asyncpg.connect(dsn, timeout=10, statement_cache_size=0) for _ in range(2)]
        while True:
            await asyncio.gather(one.execute("SELECT 1"), other.execute("SELECT 1"))
            await asyncio.sleep(0.5)


def _numbers(points: Sequence[Sequence[float | str]]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in points if not math.isnan(float(value))]
