"""terminate-blocker against a real PostgreSQL: it frees the waiting, and touches nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from kintsugi.shell.execute import ProbeAnswer
from kintsugi_dev.patient import Patient, patient, unfinished
from kintsugi_dev.servers import Database

SCHEMA = """
CREATE TABLE public.orders (id int PRIMARY KEY, note text);
INSERT INTO public.orders SELECT g, 'x' FROM generate_series(1, 100) g;
"""
UPDATE = "UPDATE public.orders SET note = 'secret-note' WHERE id = 1"


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Patient]:
    async with patient(database, schema=SCHEMA) as under_care:
        yield under_care


async def blocked(shop: Patient, waiters: int = 2, seconds: float = 2.2, **who: str) -> tuple[asyncpg.Connection, list]:
    """A transaction that holds a row and does nothing, and sessions that wait for it."""
    blocker = await shop.session(**who)
    await blocker.execute("BEGIN; " + UPDATE)
    sessions = [await shop.session() for _ in range(waiters)]
    tasks = [asyncio.create_task(session.execute(UPDATE)) for session in sessions]
    await asyncio.sleep(seconds)
    return blocker, tasks


async def test_the_waiting_go_on_once_the_blocker_is_terminated(shop: Patient) -> None:
    blocker, tasks = await blocked(shop)

    healing = await shop.heal("terminate-blocker")

    assert healing.done, unfinished(healing.results)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert (await shop.probe(healing.plan, "terminate-blocker")).answer is ProbeAnswer.DONE
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await blocker.fetchval("SELECT 1")
