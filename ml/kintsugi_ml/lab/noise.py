"""Noise: what goes on beside any database and has nothing to do with it, so that not all that moves is a fault."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from random import Random
from typing import Final

import asyncpg

from kintsugi_dev.servers.process import Process
from kintsugi_dev.servers.roles import MONITOR
from kintsugi_ml.lab import cgroups
from kintsugi_ml.lab.faults.base import LOST
from kintsugi_ml.lab.world import World

DUTY: Final = 0.2
"""The part of one CPU that the `cpu` noise uses, in slices of some milliseconds."""
CPU_SCRIPT: Final = f"""
import time
while True:
    end = time.perf_counter() + {0.05 * DUTY}
    while time.perf_counter() < end:
        pass
    time.sleep({0.05 * (1 - DUTY)})
"""
DISK_SCRIPT: Final = """
import os, sys, time
path, pace = sys.argv[1], float(sys.argv[2])
block = os.urandom(65536)
file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
number = 0
while True:
    began = time.monotonic()
    os.pwrite(file, block, number % 256 * len(block))
    number += 1
    time.sleep(max(0.0, began + len(block) / pace - time.monotonic()))
"""
WRITE_BYTES: Final = 1.0e6
"""Bytes per second of the `disk` noise; a thirtieth of what the primary may write."""
IDLE_SERVICE: Final = "web"
IDLE_SESSIONS: Final = (8, 13)
"""How many instances the idle service has, each with one connection of its own."""
CRON_SECONDS: Final = 10.0
SCRAPE_SECONDS: Final = 1.0
MONITOR_PASSWORD: Final = "monitor"
SCRAPES: Final = (
    "SELECT state, wait_event_type, count(*) FROM pg_stat_activity GROUP BY 1, 2",
    "SELECT mode, granted, count(*) FROM pg_locks GROUP BY 1, 2",
    "SELECT * FROM pg_stat_user_tables",
    "SELECT queryid, calls, total_exec_time FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 20",
)
BATCH: Final = "SELECT count(*), max({key}) FROM (SELECT {key} FROM {table} LIMIT 20000) some"

Source = Callable[[World, Random, contextlib.AsyncExitStack], Awaitable[None]]


@contextlib.asynccontextmanager
async def noise(name: str | None, world: World, random: Random) -> AsyncIterator[None]:
    """The noise called `name` for as long as this lasts; None: none."""
    async with contextlib.AsyncExitStack() as stack:
        if name is not None:
            await NOISES[name](world, random, stack)
        yield


async def cpu(world: World, random: Random, stack: contextlib.AsyncExitStack) -> None:
    """A process that uses a fifth of a CPU."""
    del random
    await _process(world, stack, "noise-cpu", "-c", CPU_SCRIPT)


async def disk(world: World, random: Random, stack: contextlib.AsyncExitStack) -> None:
    """A process that writes a little, and each block through to the disk."""
    pace = WRITE_BYTES * random.uniform(0.5, 1.5)
    file = world.directory / "noise.bin"
    stack.callback(file.unlink, missing_ok=True)
    await _process(world, stack, "noise-disk", "-c", DISK_SCRIPT, str(file), str(pace))


async def scrapes(world: World, random: Random, stack: contextlib.AsyncExitStack) -> None:
    """A second monitoring tool."""
    dsn = world.primary.dsn(world.database, MONITOR, MONITOR_PASSWORD, application_name="other-monitor")
    await asyncio.sleep(random.uniform(0.0, 0.5))
    _background(stack, _again(dsn, SCRAPE_SECONDS, *SCRAPES))


async def cron(world: World, random: Random, stack: contextlib.AsyncExitStack) -> None:
    """A small batch query every ten seconds."""
    targets = world.targets
    batch = BATCH.format(key=targets.lookup_column, table=targets.lookup_table)
    _background(stack, _again(world.direct_dsn(), CRON_SECONDS * random.uniform(0.8, 1.2), batch))


@contextlib.asynccontextmanager
async def idle_service(world: World, random: Random) -> AsyncIterator[None]:
    """A service with some idle sessions, in every run: a rolling update of one must not show before it begins."""
    sessions: list[asyncpg.Connection] = []
    try:
        for _ in range(random.randint(*IDLE_SESSIONS)):
            with contextlib.suppress(*LOST):
                settings = {"application_name": IDLE_SERVICE}
                sessions.append(await asyncpg.connect(world.direct_dsn(), timeout=10, server_settings=settings))
        yield
    finally:
        for session in sessions:
            session.terminate()


NOISES: Final[Mapping[str, Source]] = {"cpu": cpu, "disk": disk, "scrapes": scrapes, "cron": cron}
"""By name."""


async def _process(world: World, stack: contextlib.AsyncExitStack, name: str, *arguments: str) -> None:
    """A Python process in a control group of its own, so that no fault's weights are also its."""
    command = [sys.executable, "-I", "-S", *arguments]
    process = await asyncio.to_thread(Process.start, name, command, log=world.directory / f"{name}.log")
    stack.push_async_callback(asyncio.to_thread, process.kill)
    if world.groups is not None:
        group = stack.enter_context(cgroups.group(name))
        group.add(process.pid)


def _background(stack: contextlib.AsyncExitStack, work: Awaitable[None]) -> None:
    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task = asyncio.ensure_future(work)
    stack.push_async_callback(end)


async def _again(dsn: str, pause: float, *statements: str) -> None:
    """Run the statements every `pause` seconds in one session, opened again when it is lost."""
    while True:
        with contextlib.suppress(*LOST):
            connection = await asyncpg.connect(dsn, timeout=5, statement_cache_size=0)
            try:
                while True:
                    for statement in statements:
                        await connection.fetch(statement, timeout=5)
                    await asyncio.sleep(pause)
            finally:
                connection.terminate()
        await asyncio.sleep(pause)
