"""The two actions that end sessions, against real servers: they free the waiting and hit nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from kintsugi.domain.actions import NotProposed
from kintsugi.shell.execute import ProbeAnswer, StepState
from kintsugi_dev.patient import Patient, compile_again, patient, unfinished
from kintsugi_dev.servers import Database, PostgreSQL, fresh_database
from kintsugi_dev.servers.roles import HEALER

SCHEMA = """
CREATE TABLE public.orders (id int PRIMARY KEY, note text);
INSERT INTO public.orders SELECT g, 'x' FROM generate_series(1, 100) g;
"""
UPDATE = "UPDATE public.orders SET note = 'a-secret-note' WHERE id = 1"
BLOCKER = "terminate-blocker"
IDLE = "terminate-idle-in-transaction"
ACTIONS = "kintsugi.engines.postgresql.actions"
WAIT = 0.6


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same thresholds, sooner: ten times less waiting in a test."""
    monkeypatch.setattr(f"{ACTIONS}.terminate_blocker.WAIT_BEHIND_IDLE", 0.3)
    monkeypatch.setattr(f"{ACTIONS}.terminate_blocker.WAIT_BEHIND_ACTIVE", 1.5)


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Patient]:
    async with patient(database, schema=SCHEMA) as under_care:
        yield under_care


@pytest.fixture
async def shop_of_each_version(database_of_each_version: Database) -> AsyncIterator[Patient]:
    async with patient(database_of_each_version, schema=SCHEMA) as under_care:
        yield under_care


class Queue:
    """Sessions that wait for a row which the first one holds."""

    def __init__(self, blocker: asyncpg.Connection, tasks: list[asyncio.Task[Any]]) -> None:
        self.blocker = blocker
        self.tasks = tasks

    async def freed(self) -> bool:
        """Whether everybody goes on within five seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self.tasks, return_exceptions=True), 5)
        return all(task.done() and task.exception() is None for task in self.tasks)

    async def blocker_lives(self) -> bool:
        """Whether the session at the root still answers."""
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return bool(await self.blocker.fetchval("SELECT 1") == 1)
        return False

    async def end(self) -> None:
        """Let everybody go."""
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self.blocker.execute("ROLLBACK")
        await self.freed()


async def queue(shop: Patient, waiters: int = 2, seconds: float = WAIT, **who: str) -> Queue:
    """A transaction that holds a row and does nothing, and sessions that have waited for it so long."""
    blocker = await shop.session(**who)
    await blocker.execute("BEGIN; " + UPDATE)
    sessions = [await shop.session() for _ in range(waiters)]
    tasks = [asyncio.create_task(session.execute(UPDATE)) for session in sessions]
    await asyncio.sleep(seconds)
    return Queue(blocker, tasks)


async def reason(shop: Patient, action: str) -> str:
    answer = await shop.propose(action)
    assert isinstance(answer, NotProposed), answer
    return answer.reason


# --- terminate-blocker heals ---


async def test_the_waiting_go_on_once_the_blocker_is_terminated(shop_of_each_version: Patient) -> None:
    shop = shop_of_each_version
    waiting = await queue(shop)

    healing = await shop.heal(BLOCKER)

    assert healing.done, unfinished(healing.results)
    assert await waiting.freed()
    assert not await waiting.blocker_lives()
    assert (await shop.probe(healing.plan, BLOCKER)).answer is ProbeAnswer.DONE


async def test_the_evidence_counts_the_waiting_and_holds_no_literal(shop: Patient) -> None:
    waiting = await queue(shop, waiters=3)

    proposal = await shop.proposal(BLOCKER)

    evidence = " ".join(proposal.evidence)
    assert "1 wait for it directly, 3 in all" in evidence or "3 wait for it directly, 3 in all" in evidence
    assert "UPDATE public.orders SET note = ? WHERE id = ?" in evidence
    assert "a-secret-note" not in str(proposal)
    assert f"role:{shop.app}" in proposal.touches
    await waiting.end()


async def test_it_is_seen_although_everybody_gives_up_sooner(shop: Patient) -> None:
    waiting = await queue(shop, waiters=0, seconds=0)
    impatient = await shop.session()
    await impatient.execute("SET lock_timeout = '120ms'")

    # In the server, so that this machine's load never leaves a moment in which nobody waits.
    again = f"DO $$ BEGIN LOOP BEGIN {UPDATE}; EXIT; EXCEPTION WHEN lock_not_available THEN NULL; END; END LOOP; END $$"
    waiting.tasks.append(asyncio.create_task(impatient.execute(again)))
    await asyncio.sleep(0.05)
    first = await reason(shop, BLOCKER)
    await asyncio.sleep(WAIT)

    healing = await shop.heal(BLOCKER)

    assert "nobody has waited for it longer than" in first
    assert "somebody has waited for it all the last" in " ".join(healing.proposal.evidence)
    assert await waiting.freed()


async def test_the_root_is_chosen_and_not_a_waiter_that_blocks_others_in_turn(shop: Patient) -> None:
    waiting = await queue(shop, waiters=0, seconds=0)
    middle = await shop.session()
    await middle.execute("BEGIN; UPDATE public.orders SET note = 'm' WHERE id = 2")
    last = await shop.session()
    tasks = [
        asyncio.create_task(middle.execute(UPDATE)),
        asyncio.create_task(last.execute("UPDATE public.orders SET note = 'l' WHERE id = 2")),
    ]
    await asyncio.sleep(WAIT)

    proposal = await shop.proposal(BLOCKER)

    assert proposal.parameters["pid"] == waiting.blocker.get_server_pid()
    await waiting.end()
    await tasks[0]
    await middle.execute("ROLLBACK")
    await tasks[1]


async def test_a_session_at_work_is_given_more_time_than_an_idle_one(shop: Patient) -> None:
    blocker = await shop.session()
    work = asyncio.create_task(blocker.execute("BEGIN; " + UPDATE + "; SELECT pg_sleep(30)"))
    await asyncio.sleep(0.3)
    waiter = asyncio.create_task((await shop.session()).execute(UPDATE))
    await asyncio.sleep(WAIT)

    assert "acts from 1.5 s" in await reason(shop, BLOCKER)

    await asyncio.sleep(1.2)
    healing = await shop.heal(BLOCKER)
    assert healing.done, unfinished(healing.results)
    await waiter
    assert isinstance((await asyncio.gather(work, return_exceptions=True))[0], asyncpg.PostgresError)


async def test_with_every_connection_taken_the_reserved_session_still_heals(server_dir: Any) -> None:

    with (
        PostgreSQL.start(server_dir / "small", settings={"max_connections": 14}) as server,
        fresh_database(server) as database,
    ):
        async with patient(database, schema=SCHEMA) as shop:
            await shop.diagnoser.baseline()
            waiting = await queue(shop)
            taken = await take_every_connection(shop)

            healing = await shop.heal(BLOCKER)

            assert healing.results[0].ok, unfinished(healing.results)
            assert await waiting.freed()
            application = await shop.session(user="postgres")
            names = await application.fetch("SELECT application_name FROM pg_stat_activity WHERE usename = $1", HEALER)
            assert [row["application_name"] for row in names] == ["kintsugi/diagnose"]
            await application.close()
            for session in taken:
                session.terminate()


async def take_every_connection(shop: Patient) -> list[asyncpg.Connection]:
    taken = []
    with contextlib.suppress(asyncpg.TooManyConnectionsError):
        while True:
            taken.append(await shop.session())
    return taken


# --- terminate-blocker leaves alone ---


async def test_no_blocking_tree_no_proposal(shop: Patient) -> None:
    assert "no blocking tree" in await reason(shop, BLOCKER)


async def test_a_short_wait_is_ordinary_life(shop: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    waiting = await queue(shop)

    assert "nobody has waited for it longer than" in await reason(shop, BLOCKER)
    assert "idle for less than" in await reason(shop, IDLE)
    await waiting.end()


@pytest.mark.parametrize("tool", ["pg_dump", "pgbackrest [backup]", "kintsugi/create-index"])
async def test_a_backup_or_our_own_session_is_never_terminated(shop: Patient, tool: str) -> None:
    waiting = await queue(shop, application=tool)
    diagnosis = await shop.diagnose()
    row = next(row for row in diagnosis.rows["blocking"] if row["pid"] == waiting.blocker.get_server_pid())

    why = await reason(shop, BLOCKER)
    results = await shop.carry_out(compile_again(BLOCKER, parameters(row)).steps, BLOCKER)

    assert "is the root, but it is" in why
    assert [result.state for result in results] == [StepState.SUPERSEDED]
    assert await waiting.blocker_lives()
    await waiting.end()


async def test_a_superuser_is_never_terminated(shop: Patient) -> None:
    waiting = await queue(shop, user="postgres")

    assert "a superuser or replication role: a person must decide" in await reason(shop, BLOCKER)
    assert await waiting.blocker_lives()
    await waiting.end()


async def test_another_databases_session_is_never_terminated(shop: Patient) -> None:
    with fresh_database(shop.database.server) as other:
        stranger = await asyncpg.connect(other.dsn(shop.app, "app"))
        await stranger.execute("BEGIN; SELECT txid_current()")
        found = dict(await stranger.fetchrow(IDENTITY, stranger.get_server_pid()) or {})

        results = await shop.carry_out(compile_again(BLOCKER, found).steps, BLOCKER)
        idle = await shop.carry_out(compile_again(IDLE, found).steps, IDLE)

        assert [result.state for result in (*results, *idle)] == [StepState.SUPERSEDED, StepState.SUPERSEDED]
        assert await stranger.fetchval("SELECT 1") == 1
        await stranger.close()


async def test_a_prepared_transaction_is_left_to_its_manager(server_dir: Any) -> None:

    with (
        PostgreSQL.start(server_dir / "two-phase", settings={"max_prepared_transactions": 5}) as server,
        fresh_database(server) as database,
    ):
        async with patient(database, schema=SCHEMA) as shop:
            holder = await shop.session()
            await holder.execute("BEGIN; " + UPDATE + "; PREPARE TRANSACTION 'order-7'")
            await holder.close()
            waiter = asyncio.create_task((await shop.session()).execute(UPDATE))
            await asyncio.sleep(WAIT)

            why = await reason(shop, BLOCKER)

            assert "prepared transaction 'order-7'" in why
            assert "COMMIT PREPARED" in why
            server.execute("ROLLBACK PREPARED 'order-7'", database=database.name)
            await waiter


IDENTITY = """
SELECT pid, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "backendStart",
    to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "xactStart",
    usename::text AS role, datname::text AS database
FROM pg_stat_activity WHERE pid = $1"""


def parameters(row: Any) -> dict[str, Any]:
    return {
        "pid": row["pid"],
        "backendStart": row["backend_start"],
        "xactStart": row["xact_start"],
        "role": row["usename"],
        "database": row["datname"],
    }


# --- the facts change between proposal and execution ---


@pytest.mark.parametrize(
    "other",
    [
        {"backendStart": "2020-01-01T00:00:00.000000Z"},
        {"xactStart": "2020-01-01T00:00:00.000000Z"},
        {"role": "somebody_else"},
        {"database": "elsewhere"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_pid_that_meanwhile_belongs_to_someone_else_is_not_terminated(
    shop: Patient, other: dict[str, str]
) -> None:
    waiting = await queue(shop)
    proposal = await shop.proposal(BLOCKER)

    results = await shop.carry_out(compile_again(BLOCKER, {**proposal.parameters, **other}).steps, BLOCKER)

    assert [result.state for result in results] == [StepState.SUPERSEDED]
    assert await waiting.blocker_lives()
    await waiting.end()


async def test_a_session_that_has_gone_on_to_another_transaction_is_not_terminated(shop: Patient) -> None:
    waiting = await queue(shop, waiters=1)
    proposal = await shop.proposal(BLOCKER)
    await waiting.blocker.execute("ROLLBACK")
    assert await waiting.freed()
    await waiting.blocker.execute("BEGIN; " + UPDATE)
    another = asyncio.create_task((await shop.session()).execute(UPDATE))
    await asyncio.sleep(0.5)

    plan = compile_again(BLOCKER, proposal.parameters)
    results = await shop.carry_out(plan.steps, BLOCKER)

    assert [result.state for result in results] == [StepState.SUPERSEDED]
    assert (await shop.probe(plan, BLOCKER)).answer is ProbeAnswer.DONE
    await waiting.blocker.execute("ROLLBACK")
    await another


async def test_a_blocker_that_blocks_nobody_any_more_is_not_terminated(shop: Patient) -> None:
    waiting = await queue(shop, waiters=1)
    proposal = await shop.proposal(BLOCKER)
    shop.database.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    await asyncio.gather(*waiting.tasks, return_exceptions=True)

    results = await shop.carry_out(compile_again(BLOCKER, proposal.parameters).steps, BLOCKER)

    assert [result.state for result in results] == [StepState.SUPERSEDED]
    assert await waiting.blocker_lives()
    await waiting.end()


async def test_terminating_twice_is_harmless(shop: Patient) -> None:
    waiting = await queue(shop)
    healing = await shop.heal(BLOCKER)
    assert await waiting.freed()

    again = await shop.carry_out(healing.plan.steps, BLOCKER)

    assert [result.state for result in again] == [StepState.SUPERSEDED]


async def test_a_view_or_function_in_a_users_search_path_is_never_used_instead_of_the_catalogues(
    shop: Patient,
) -> None:
    shop.database.execute(
        "CREATE VIEW public.pg_stat_activity AS SELECT * FROM pg_catalog.pg_stat_activity WHERE false;"
        "CREATE FUNCTION public.pg_terminate_backend(int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
        f'ALTER ROLE {HEALER} IN DATABASE "{shop.database.name}" SET search_path = public, pg_catalog'
    )
    waiting = await queue(shop)

    healing = await shop.heal(BLOCKER)

    assert healing.done, unfinished(healing.results)
    assert await waiting.freed()


# --- terminate-idle-in-transaction ---


async def test_an_idle_transaction_that_others_wait_for_is_ended(
    shop: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{ACTIONS}.terminate_idle.IDLE_BEHIND_WAITERS", 0.5)
    waiting = await queue(shop)

    healing = await shop.heal(IDLE)

    assert healing.done, unfinished(healing.results)
    assert await waiting.freed()
    assert healing.probe.answer is ProbeAnswer.DONE or not await waiting.blocker_lives()


async def test_an_idle_transaction_that_harms_nobody_is_left_alone(shop: Patient) -> None:
    session = await shop.session()
    await session.execute("BEGIN; SELECT count(*) FROM public.orders")

    assert "it blocks nobody" in await reason(shop, IDLE)
    await session.close()


async def test_an_old_snapshot_that_holds_back_vacuum_is_ended(shop: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{ACTIONS}.terminate_idle.IDLE_WITH_SNAPSHOT", 0.5)
    monkeypatch.setattr(f"{ACTIONS}.terminate_idle.OLD_SNAPSHOT", 5)
    session = await shop.session(default_transaction_isolation="repeatable read")
    await session.execute("BEGIN; SELECT count(*) FROM public.orders")
    writer = await shop.session()
    for number in range(10):
        await writer.execute("UPDATE public.orders SET note = $1 WHERE id = 2", str(number))
    await asyncio.sleep(0.6)

    healing = await shop.heal(IDLE)

    assert healing.done, unfinished(healing.results)
    assert any("vacuum can remove nothing" in sentence for sentence in healing.proposal.evidence)


async def test_an_idle_transaction_that_went_back_to_work_is_not_ended(
    shop: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{ACTIONS}.terminate_idle.IDLE_BEHIND_WAITERS", 0.1)
    waiting = await queue(shop)
    proposal = await shop.proposal(IDLE)
    work = asyncio.create_task(waiting.blocker.execute("SELECT pg_sleep(1)"))
    await asyncio.sleep(0.2)

    results = await shop.carry_out(compile_again(IDLE, proposal.parameters).steps, IDLE)

    assert [result.state for result in results] == [StepState.SUPERSEDED]
    await work
    await waiting.end()
