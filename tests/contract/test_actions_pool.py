"""resize-pool against a real PgBouncer before a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from kintsugi.domain.actions import NotProposed, Step, StepKind
from kintsugi.shell import sql
from kintsugi.shell.execute import ProbeAnswer, StepState, run_step
from kintsugi_dev.patient import APP_PASSWORD, Patient, compile_again, patient, unfinished
from kintsugi_dev.servers import Database, PgBouncer

APP = "pooled_app"


@pytest.fixture
def pooler(database: Database, server_dir: Path) -> Iterator[PgBouncer]:
    server = database.server
    places = {database.name: (server.host, server.port)}
    with PgBouncer.start(server_dir / "pgbouncer", databases=places, users={APP: APP_PASSWORD}, pool_size=2) as started:
        yield started


@pytest.fixture
async def shop(database: Database, pooler: PgBouncer) -> AsyncIterator[Patient]:
    schema = "CREATE TABLE public.orders (id int PRIMARY KEY); INSERT INTO public.orders VALUES (1)"
    async with patient(database, pooler=pooler, app=APP, schema=schema) as under_care:
        yield under_care


@asynccontextmanager
async def clients(shop: Patient, pooler: PgBouncer, count: int, statement: str) -> AsyncIterator[None]:
    """So many clients through the pooler, each running `statement` over and over."""
    stop = asyncio.Event()

    async def work() -> None:
        connection = await asyncpg.connect(pooler.dsn(shop.database.name, APP), statement_cache_size=0)
        try:
            while not stop.is_set():
                await connection.execute(statement)
        finally:
            connection.terminate()

    tasks = [asyncio.create_task(work()) for _ in range(count)]
    try:
        yield
    finally:
        stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def clients_wait(pooler: PgBouncer) -> bool:
    return any(int(row["cl_waiting"]) for row in pooler.admin("SHOW POOLS"))


async def until_clients_wait(pooler: PgBouncer) -> None:
    """Return once clients have waited for the pool for a moment."""
    async with asyncio.timeout(15):
        while not await asyncio.to_thread(clients_wait, pooler):  # noqa: ASYNC110 – a server is asked: it sets no event
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.4)


def size_of(pooler: PgBouncer) -> str:
    return next(row["value"] for row in pooler.admin("SHOW CONFIG") if row["key"] == "default_pool_size")


async def test_an_exhausted_pool_grows_and_nobody_waits_any_more(shop: Patient, pooler: PgBouncer) -> None:
    async with clients(shop, pooler, 8, "SELECT pg_sleep(0.5)"):
        await until_clients_wait(pooler)
        healing = await shop.heal("resize-pool")
        await asyncio.sleep(1.5)
        waiting = sum(int(row["cl_waiting"]) for row in pooler.admin("SHOW POOLS"))

    assert healing.done, unfinished(healing.results)
    assert healing.probe.answer is ProbeAnswer.DONE
    assert size_of(pooler) == str(healing.proposal.parameters["size"]) == "8"
    assert waiting == 0


async def test_the_undo_sets_the_former_size(shop: Patient, pooler: PgBouncer) -> None:
    plan = compile_again("resize-pool", {"former": 2, "size": 6})
    await shop.carry_out(plan.steps, "resize-pool")
    assert size_of(pooler) == "6"

    undone = await shop.carry_out(plan.undo.steps, "resize-pool")

    assert all(result.ok for result in undone), unfinished(undone)
    assert size_of(pooler) == "2"


async def test_a_size_that_a_person_has_set_meanwhile_is_neither_changed_nor_undone(
    shop: Patient, pooler: PgBouncer
) -> None:
    plan = compile_again("resize-pool", {"former": 2, "size": 6})
    pooler.admin("SET default_pool_size = 9")

    done = await shop.carry_out(plan.steps, "resize-pool")
    undone = await shop.carry_out(plan.undo.steps, "resize-pool")

    assert [result.state for result in (*done, *undone)] == [StepState.SUPERSEDED, StepState.SUPERSEDED]
    assert size_of(pooler) == "9"


async def test_the_size_never_exceeds_max_pool_size(shop: Patient, pooler: PgBouncer) -> None:
    pooler.admin("SET default_pool_size = 20")
    async with clients(shop, pooler, 26, "SELECT pg_sleep(4)"):
        await until_clients_wait(pooler)
        answer = await shop.propose("resize-pool")

    assert isinstance(answer, NotProposed)
    assert "maxPoolSize allows 20" in answer.reason


async def test_a_pool_full_of_sessions_that_wait_for_a_lock_is_not_enlarged(shop: Patient, pooler: PgBouncer) -> None:
    blocker = await shop.session()
    await blocker.execute("BEGIN; LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
    async with clients(shop, pooler, 6, "SELECT * FROM public.orders"):
        await until_clients_wait(pooler)
        answer = await shop.propose("resize-pool")
        await blocker.close()

    assert isinstance(answer, NotProposed)
    assert "wait for a lock" in answer.reason


async def test_a_pool_size_of_its_own_in_the_configuration_is_named_as_the_reason(
    shop: Patient, pooler: PgBouncer
) -> None:
    ini = pooler.directory / "pgbouncer.ini"
    ini.write_text(
        ini.read_text().replace(
            f"port={shop.database.server.port}\n", f"port={shop.database.server.port} pool_size=1\n"
        )
    )
    pooler.admin("RELOAD")
    async with clients(shop, pooler, 6, "SELECT pg_sleep(0.5)"):
        await until_clients_wait(pooler)
        answer = await shop.propose("resize-pool")

    assert isinstance(answer, NotProposed)
    assert "pool_size = 1" in answer.reason


async def test_a_pool_without_waiting_clients_is_left_alone(shop: Patient) -> None:
    answer = await shop.propose("resize-pool")

    assert isinstance(answer, NotProposed)
    assert answer.reason == "no client waits for the pool"


async def test_an_unreachable_pooler_is_an_answer_and_not_an_error(shop: Patient, pooler: PgBouncer) -> None:
    pooler.stop()

    answer = await shop.propose("resize-pool")

    assert isinstance(answer, NotProposed)
    assert "refused" in answer.reason


async def test_a_command_that_never_reached_the_pooler_has_failed(shop: Patient, pooler: PgBouncer) -> None:
    plan = compile_again("resize-pool", {"former": 2, "size": 6})
    pooler.stop()

    results = await shop.carry_out(plan.steps, "resize-pool")

    assert results[-1].state is StepState.FAILED
    assert (await shop.probe(plan, "resize-pool")).answer is ProbeAnswer.UNKNOWN


async def test_our_sessions_are_refused_by_a_pooler_so_that_no_setting_leaks_into_it(
    shop: Patient, pooler: PgBouncer
) -> None:
    endpoint = sql.Endpoint(pooler.host, pooler.port, shop.database.name, APP, APP_PASSWORD, tls="disable")

    with pytest.raises(sql.PoolerInTheWayError, match="name the server itself"):
        await sql.connect(endpoint, application="kintsugi/test", statement_timeout=1)


async def test_the_pools_that_lead_to_a_failed_over_database_are_reconnected(shop: Patient, pooler: PgBouncer) -> None:
    server = shop.database.server
    odd = {shop.database.name: (server.host, server.port), "Shop-orders.ro": (server.host, server.port)}
    pooler.configure(databases=odd)
    step = Step(StepKind.POOLER, "pgbouncer", 'RECONNECT "Shop-orders.ro"')

    result = await run_step(step, shop.targets, "failover")

    assert result.ok, result.error
