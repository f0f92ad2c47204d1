"""create-index and analyze-table against a real PostgreSQL, and everything that must not happen to a user's index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kintsugi.domain.actions import NotProposed, Plan
from kintsugi.engines.postgresql.indexes import IndexIdea, index_name
from kintsugi.shell.execute import ADVISORY_LOCK, ProbeAnswer, StepState
from kintsugi_dev.patient import Patient, compile_again, patient, unfinished
from kintsugi_dev.servers import Database
from kintsugi_dev.servers.roles import HEALER

SCHEMA = """
CREATE SCHEMA "Shop";
CREATE TABLE "Shop"."Order Items" ("Id" int, "Customer" int, day int, note text);
INSERT INTO "Shop"."Order Items" SELECT g, g % 20000, g % 365, 'x' FROM generate_series(1, 60000) g;
"""
SLOW = 'SELECT count(*) FROM "Shop"."Order Items" WHERE "Customer" = $1'
PARAMETERS = {"schema": "Shop", "table": "Order Items", "columns": ["Customer"]}


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Patient]:
    async with patient(database, schema=SCHEMA) as under_care:
        # In a transaction of its own: rows of the same transaction would count as changed since.
        database.execute('ANALYZE "Shop"."Order Items"')
        yield under_care


@pytest.fixture
async def shop_of_each_version(database_of_each_version: Database) -> AsyncIterator[Patient]:
    async with patient(database_of_each_version, schema=SCHEMA) as under_care:
        database_of_each_version.execute('ANALYZE "Shop"."Order Items"')
        yield under_care


async def run_slow_statements(shop: Patient, statement: str = SLOW, times: int = 30) -> None:
    await shop.diagnoser.baseline()
    session = await shop.session()
    for number in range(times):
        await session.fetch(statement, number)
    await session.close()


def install_hypopg(shop: Patient) -> None:
    shop.database.execute("CREATE EXTENSION hypopg")


def plan_for(shop: Patient) -> tuple[Plan, str]:
    name = index_name(IndexIdea("Shop", "Order Items", ("Customer",)))
    return compile_again("create-index", {**PARAMETERS, "index": name}), name


def valid_indexes(shop: Patient) -> dict[str, bool]:
    rows = shop.database.fetch(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        ' WHERE i.indrelid = \'"Shop"."Order Items"\'::regclass'
    )
    return {row["relname"]: row["indisvalid"] for row in rows}


async def test_the_missing_index_is_proven_by_hypopg_built_and_used(shop: Patient) -> None:
    install_hypopg(shop)
    await run_slow_statements(shop)

    healing = await shop.heal("create-index")

    assert healing.done, unfinished(healing.results)
    assert healing.probe.answer is ProbeAnswer.DONE
    assert any("HypoPG: planner cost" in sentence for sentence in healing.proposal.evidence)
    plan = shop.database.fetch('EXPLAIN SELECT count(*) FROM "Shop"."Order Items" WHERE "Customer" = 7')
    assert healing.proposal.parameters["index"] in str(plan)


async def test_without_hypopg_a_large_table_and_a_selective_column_are_enough_and_it_says_so(
    shop_of_each_version: Patient,
) -> None:
    shop = shop_of_each_version
    await run_slow_statements(shop)

    healing = await shop.heal("create-index")

    assert healing.done, unfinished(healing.results)
    assert any("HypoPG is not installed" in sentence for sentence in healing.proposal.evidence)


async def test_a_column_with_few_values_gets_no_index_without_proof(shop: Patient) -> None:
    shop.database.execute('UPDATE "Shop"."Order Items" SET "Customer" = "Id" % 3; ANALYZE "Shop"."Order Items"')
    await run_slow_statements(shop)

    answer = await shop.propose("create-index")

    assert isinstance(answer, NotProposed)
    assert "without HypoPG" in answer.reason


async def test_no_index_is_proposed_where_one_begins_with_the_same_columns(shop: Patient) -> None:
    shop.database.execute('CREATE INDEX mine ON "Shop"."Order Items" ("Customer", day)')
    session = await shop.session(enable_indexscan="off", enable_bitmapscan="off", enable_indexonlyscan="off")
    await shop.diagnoser.baseline()
    for number in range(30):
        await session.fetch(SLOW, number)
    await session.close()

    answer = await shop.propose("create-index")

    assert isinstance(answer, NotProposed)


async def test_the_undo_drops_our_index_without_blocking(shop: Patient) -> None:
    plan, _ = plan_for(shop)
    await shop.carry_out(plan.steps, "create-index")

    undone = await shop.carry_out(plan.undo.steps, "create-index")

    assert [result.state for result in undone] == [StepState.DONE, StepState.DONE], unfinished(undone)
    assert valid_indexes(shop) == {}
    assert all("CONCURRENTLY" in step.command for step in plan.undo.steps if not step.expect)


async def test_a_taken_name_is_not_taken_over_and_the_undo_leaves_it(shop: Patient) -> None:
    plan, name = plan_for(shop)
    shop.database.execute(f'CREATE INDEX "{name}" ON "Shop"."Order Items" (day)')

    results = await shop.carry_out(plan.steps, "create-index")
    undone = await shop.carry_out(plan.undo.steps, "create-index")

    assert [result.state for result in results] == [StepState.SUPERSEDED]
    assert [result.state for result in undone] == [StepState.SUPERSEDED]
    assert valid_indexes(shop) == {name: True}


async def test_an_index_that_a_person_dropped_and_made_again_is_not_undone(shop: Patient) -> None:
    plan, name = plan_for(shop)
    await shop.carry_out(plan.steps, "create-index")
    shop.database.execute(f'DROP INDEX "Shop"."{name}"')
    shop.database.execute(f'CREATE INDEX "{name}" ON "Shop"."Order Items" ("Customer")')

    undone = await shop.carry_out(plan.undo.steps, "create-index")

    assert [result.state for result in undone] == [StepState.SUPERSEDED]
    assert valid_indexes(shop) == {name: True}


async def test_an_undo_after_a_person_has_undone_is_done(shop: Patient) -> None:
    plan, name = plan_for(shop)
    await shop.carry_out(plan.steps, "create-index")
    shop.database.execute(f'DROP INDEX "Shop"."{name}"')

    undone = await shop.carry_out(plan.undo.steps, "create-index")

    assert all(result.ok for result in undone)


async def test_an_interrupted_build_leaves_no_invalid_index_after_the_next_try(shop: Patient) -> None:
    plan, name = plan_for(shop)
    # An open transaction with a snapshot makes CREATE INDEX CONCURRENTLY wait, so that it can be interrupted.
    holder = await shop.session(default_transaction_isolation="repeatable read")
    await holder.execute('BEGIN; UPDATE "Shop"."Order Items" SET day = 1 WHERE "Id" = 1')
    build = asyncio.create_task(shop.carry_out(plan.steps, "create-index"))
    await until(lambda: name in valid_indexes(shop))
    assert (await shop.probe(plan, "create-index")).answer is ProbeAnswer.UNKNOWN
    shop.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
    )
    interrupted = await build
    assert interrupted[-1].state is StepState.UNKNOWN
    assert valid_indexes(shop) == {name: False}
    await holder.execute("ROLLBACK")
    assert (await shop.probe(plan, "create-index")).answer is ProbeAnswer.NOT_DONE

    again = await shop.carry_out(plan.steps, "create-index")

    assert all(result.ok for result in again), unfinished(again)
    assert valid_indexes(shop) == {name: True}


async def test_a_build_that_outlives_its_operator_is_waited_for_and_not_done_twice(shop: Patient) -> None:
    plan, name = plan_for(shop)
    holder = await shop.session(default_transaction_isolation="repeatable read")
    await holder.execute('BEGIN; UPDATE "Shop"."Order Items" SET day = 1 WHERE "Id" = 1')
    killed = await shop.session(user=HEALER)
    await killed.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    build = asyncio.create_task(killed.execute(plan.steps[2].command))
    await until(lambda: name in valid_indexes(shop))
    # As SIGKILL does: the socket is gone, and the server builds on.
    killed.terminate()
    await asyncio.gather(build, return_exceptions=True)

    meanwhile = await shop.carry_out(plan.steps, "create-index")
    assert [result.state for result in meanwhile] == [StepState.BUSY]
    await holder.execute("ROLLBACK")
    await until(lambda: valid_indexes(shop) == {name: True})

    assert (await shop.probe(plan, "create-index")).answer is ProbeAnswer.DONE


async def test_the_undo_of_an_interrupted_build_drops_the_invalid_rest(shop: Patient) -> None:
    plan, name = plan_for(shop)
    shop.database.execute(f'CREATE INDEX "{name}" ON "Shop"."Order Items" ("Customer")')
    shop.database.execute(f'UPDATE pg_index SET indisvalid = false WHERE indexrelid = \'"Shop"."{name}"\'::regclass')

    undone = await shop.carry_out(plan.undo.steps, "create-index")

    assert all(result.ok for result in undone), unfinished(undone)
    assert valid_indexes(shop) == {}


async def test_writers_go_on_while_the_index_is_built_and_dropped(shop: Patient) -> None:
    plan, _ = plan_for(shop)
    writer = await shop.session(lock_timeout="300")
    stop = asyncio.Event()

    async def write() -> int:
        count = 0
        while not stop.is_set():
            await writer.execute('UPDATE "Shop"."Order Items" SET note = note WHERE "Id" = 5')
            count += 1
        return count

    writing = asyncio.create_task(write())
    await shop.carry_out(plan.steps, "create-index")
    await shop.carry_out(plan.undo.steps, "create-index")
    stop.set()

    assert await writing > 0
    await writer.close()


async def test_a_statement_that_calls_a_users_function_is_never_planned_with_our_rights(shop: Patient) -> None:
    shop.database.execute(
        "CREATE SEQUENCE public.called;"
        "CREATE FUNCTION public.evil() RETURNS int LANGUAGE plpgsql STABLE AS"
        " $$ BEGIN RAISE WARNING 'called by %', current_user; RETURN 1; END $$"
    )
    await run_slow_statements(
        shop, 'SELECT count(*) FROM "Shop"."Order Items" WHERE "Customer" = public.evil() + $1', times=3
    )

    answer = await shop.propose("create-index")

    assert isinstance(answer, NotProposed)
    assert "function evil" in answer.reason


async def test_stale_statistics_that_a_slow_statement_reads_are_refreshed(shop: Patient) -> None:
    shop.database.execute('ALTER TABLE "Shop"."Order Items" SET (autovacuum_enabled = off)')
    shop.database.execute('INSERT INTO "Shop"."Order Items" SELECT g, 1, 1, \'y\' FROM generate_series(1, 30000) g')
    await run_slow_statements(shop)

    healing = await shop.heal("analyze-table")

    assert healing.done, unfinished(healing.results)
    await until(lambda: shop.database.value("SELECT n_mod_since_analyze FROM pg_stat_user_tables LIMIT 1") == 0)
    assert (await shop.probe(healing.plan, "analyze-table")).answer is ProbeAnswer.DONE


async def test_a_changed_table_that_no_slow_statement_reads_is_left_to_autovacuum(shop: Patient) -> None:
    shop.database.execute("CREATE TABLE public.log (id int) WITH (autovacuum_enabled = off)")
    shop.database.execute("INSERT INTO public.log SELECT generate_series(1, 5000)")
    await run_slow_statements(shop)

    answer = await shop.propose("analyze-table")

    assert isinstance(answer, NotProposed)
    assert "no slow statement reads it" in answer.reason


async def test_fresh_statistics_are_left_alone(shop: Patient) -> None:
    await run_slow_statements(shop)

    answer = await shop.propose("analyze-table")

    assert isinstance(answer, NotProposed)


async def until(true: object, seconds: float = 10.0) -> None:
    """Wait for a blocking question to be answered with yes."""
    assert callable(true)
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 – a server is asked: it sets no event
            await asyncio.sleep(0.05)
