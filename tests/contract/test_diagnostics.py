"""Diagnosing real servers: complete on every version, behind nobody's lock, with the least rights, and never lying."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from kintsugi.domain.actions import NotProposed, Step, StepKind
from kintsugi.shell.diagnose import Diagnoser, Surroundings, targets_for
from kintsugi.shell.execute import StepState, run_step
from kintsugi_dev.patient import POSTGRESQL, Patient, patient
from kintsugi_dev.relay import relay
from kintsugi_dev.servers import Database, PostgreSQL, fresh_database
from kintsugi_dev.servers.roles import HEALER, MONITOR, ROLES

SCHEMA = """
CREATE TABLE public.orders (id int PRIMARY KEY, customer int, note text);
INSERT INTO public.orders SELECT g, g % 5000, 'x' FROM generate_series(1, 50000) g;
ANALYZE public.orders;
"""
QUERIES = {query.name for query in POSTGRESQL.queries}


@pytest.fixture
async def shop_of_each_version(database_of_each_version: Database) -> AsyncIterator[Patient]:
    async with patient(database_of_each_version, schema=SCHEMA) as under_care:
        yield under_care


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Patient]:
    async with patient(database, schema=SCHEMA) as under_care:
        yield under_care


def monitor_of(shop: Patient, password: str = "monitor") -> Diagnoser:
    """A diagnoser that logs in as the role for the modes that only look."""
    targets = targets_for(shop.spec, {"username": MONITOR, "password": password})
    return Diagnoser(POSTGRESQL, shop.spec, targets)


async def test_every_question_is_answered_on_every_version_by_the_monitoring_role(
    shop_of_each_version: Patient,
) -> None:
    shop = shop_of_each_version
    session = await shop.session()
    diagnoser = monitor_of(shop)
    await diagnoser.baseline()
    await session.fetch("SELECT count(*) FROM orders WHERE customer = $1", 7)

    diagnosis = await diagnoser.diagnose()

    asked = QUERIES - ({"running"} if diagnosis.server_version < 14 else set())
    assert diagnosis.errors == {}
    assert asked <= set(diagnosis.rows)
    assert diagnosis.server_version == shop.database.server.version
    assert diagnosis.primary_reachable
    assert diagnosis.rows["tables"][0]["table"] == "orders"
    assert diagnosis.rows["server"][0]["max_connections"] == 60
    assert diagnosis.last_known_primary_lsn
    assert all(f"{query.name}_before" in diagnosis.rows for query in POSTGRESQL.queries if query.baseline)
    await diagnoser.close()


async def test_the_monitoring_role_is_told_that_it_may_not_build_an_index(shop: Patient) -> None:
    shop.database.execute("CREATE EXTENSION hypopg")
    session = await shop.session()
    diagnoser = monitor_of(shop)
    await diagnoser.baseline()
    for number in range(30):
        await session.fetch("SELECT count(*) FROM orders WHERE customer = $1", number)

    answer = POSTGRESQL.actions["create-index"].propose(await diagnoser.diagnose(), shop.spec)[0]

    assert isinstance(answer, NotProposed)
    assert "permission denied" in answer.reason or f"grant it {shop.app}" in answer.reason
    await diagnoser.close()


async def test_unqualified_names_are_planned_as_the_statements_own_role_reads_them(
    shop_of_each_version: Patient,
) -> None:
    shop = shop_of_each_version
    role = shop.app.replace('"', '""')
    shop.database.execute(
        "CREATE SCHEMA private; CREATE TABLE private.parcels AS SELECT g AS id, g AS weight"
        " FROM generate_series(1, 60000) g; GRANT USAGE ON SCHEMA private TO PUBLIC;"
        f' ALTER TABLE private.parcels OWNER TO "{role}";'
        f' ALTER ROLE "{role}" SET search_path = private, public; ANALYZE private.parcels'
    )
    session = await shop.session()
    await shop.diagnoser.baseline()
    for number in range(20):
        await session.fetch("SELECT count(*) FROM parcels WHERE weight = $1", number)

    diagnosis = await shop.diagnose()

    plan = next(row for row in diagnosis.rows["plans"] if row["plan"])
    assert '"Schema": "private"' in str(plan["plan"]).replace("'", '"')
    assert any((row["schema"], row["column"]) == ("private", "weight") for row in diagnosis.rows["column_stats"])


async def test_no_literal_of_a_user_is_in_a_diagnosis(shop: Patient) -> None:
    session = await shop.session()
    await session.execute("BEGIN; UPDATE orders SET note = 'a-secret' WHERE id = 1")
    waiter = asyncio.create_task((await shop.session()).execute("UPDATE orders SET note = 'b-secret' WHERE id = 1"))
    await asyncio.sleep(0.3)

    diagnosis = await shop.diagnose()

    assert len(diagnosis.rows["blocking"]) == 2
    assert "secret" not in str(diagnosis)
    await session.close()
    await waiter


async def test_an_exclusive_lock_on_a_table_holds_no_diagnosis_up(shop: Patient) -> None:
    session = await shop.session()
    for number in range(10):
        await session.fetch("SELECT count(*) FROM orders WHERE customer = $1", number)
    await session.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")

    diagnosis = await asyncio.wait_for(shop.diagnose(), 5)

    assert diagnosis.errors == {}
    assert any("lock timeout" in row["error"] for row in diagnosis.rows["plans"])
    await session.close()


async def test_a_diagnosis_changes_nothing_and_holds_one_connection(shop: Patient) -> None:
    for _ in range(3):
        await shop.diagnose()

    mine = shop.database.fetch(
        "SELECT application_name, state, backend_xid FROM pg_stat_activity WHERE usename = $1", HEALER
    )
    assert [dict(row) for row in mine] == [
        {"application_name": "kintsugi/diagnose", "state": "idle", "backend_xid": None}
    ]
    with pytest.raises(Exception, match="read-only transaction"):
        await shop.targets.reserved.fetch("CREATE TABLE public.x (id int)", within=1.0)  # type: ignore[union-attr]


async def test_a_killed_diagnostic_session_is_opened_again(shop: Patient) -> None:
    await shop.diagnose()
    shop.database.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{HEALER}'")

    diagnosis = await shop.diagnose()

    assert diagnosis.primary_reachable
    assert diagnosis.errors == {}


async def test_with_every_connection_taken_a_diagnosis_still_answers(server_dir: Path) -> None:
    with (
        PostgreSQL.start(server_dir / "small", settings={"max_connections": 10}) as server,
        fresh_database(server) as database,
    ):
        async with patient(database, schema=SCHEMA) as shop:
            await shop.diagnoser.baseline()
            taken: list[asyncpg.Connection] = []
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while len(taken) < 10:
                    taken.append(await shop.session())

            diagnosis = await shop.diagnose()

            assert diagnosis.errors == {}
            assert len(taken) < 10
            assert diagnosis.rows["server"][0]["used_connections"] >= 7
            for session in taken:
                session.terminate()


async def test_a_missing_extension_is_named_with_its_remedy(postgres: PostgreSQL) -> None:
    with fresh_database(postgres) as database:
        async with patient(database) as shop:
            database.execute("DROP EXTENSION pg_stat_statements")

            diagnosis = await shop.diagnose()

    assert set(diagnosis.errors) == {"statements"}
    assert "run CREATE EXTENSION there" in diagnosis.errors["statements"]


async def test_an_extension_in_another_schema_is_found(shop: Patient) -> None:
    shop.database.execute(
        'CREATE SCHEMA "My Tools"; GRANT USAGE ON SCHEMA "My Tools" TO PUBLIC;'
        'ALTER EXTENSION pg_stat_statements SET SCHEMA "My Tools"; CREATE EXTENSION hypopg SCHEMA "My Tools"'
    )
    session = await shop.session()
    await shop.diagnoser.baseline()
    for number in range(20):
        await session.fetch("SELECT count(*) FROM orders WHERE customer = $1", number)

    diagnosis = await shop.diagnose()

    assert diagnosis.errors == {}
    assert diagnosis.rows["hypothetical"][0]["cost_after"] < diagnosis.rows["hypothetical"][0]["cost_before"] / 5


async def test_planning_leaves_no_prepared_statement_and_no_hypothetical_index(shop: Patient) -> None:
    shop.database.execute("CREATE EXTENSION hypopg")
    session = await shop.session()
    await shop.diagnoser.baseline()
    for number in range(20):
        await session.fetch("SELECT count(*) FROM orders WHERE customer = $1", number)
    diagnosis = await shop.diagnose()
    reserved = shop.targets.reserved
    assert reserved is not None

    assert diagnosis.rows["hypothetical"]
    assert await reserved.fetch("SELECT name FROM pg_prepared_statements WHERE name LIKE 'kintsugi%'", within=1.0) == []
    assert await reserved.fetch("SELECT * FROM public.hypopg()", within=1.0) == []


# --- a server that does not answer ---


async def test_silence_is_counted_from_its_beginning_and_ends_with_the_first_answer(server_dir: Path) -> None:
    with PostgreSQL.start(server_dir / "own") as server, fresh_database(server) as database:
        async with patient(database) as shop:
            await shop.diagnoser.baseline()
            server.kill()

            first = await shop.diagnose()
            shop.later += 40
            second = await shop.diagnose()
            server.launch()
            third = await shop.diagnose()

    assert (first.primary_reachable, second.primary_reachable, third.primary_reachable) == (False, False, True)
    assert 40 <= second.unreachable_for < 60
    assert third.unreachable_for == 0
    assert set(first.errors) >= QUERIES
    assert first.last_known_primary_lsn


async def test_a_frozen_server_is_silent_and_holds_nobody_up(server_dir: Path) -> None:
    with PostgreSQL.start(server_dir / "own") as server, fresh_database(server) as database:
        async with patient(database) as shop:
            await shop.diagnoser.baseline()
            frozen = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
            for process in frozen:
                os.kill(process.pid, signal.SIGSTOP)
            try:
                diagnosis = await asyncio.wait_for(shop.diagnose(), 15)
            finally:
                for process in frozen:
                    os.kill(process.pid, signal.SIGCONT)
            again = await shop.diagnose()

    assert not diagnosis.primary_reachable
    assert again.primary_reachable


async def test_a_wrong_password_is_not_taken_for_a_dead_server(shop: Patient) -> None:
    diagnoser = monitor_of(shop, password="wrong")

    diagnosis = await diagnoser.diagnose()

    assert diagnosis.primary_reachable
    assert "check username and password" in diagnosis.errors["server"]
    assert "wrong" not in str(diagnosis.errors)


async def test_an_unreachable_server_offers_no_action_but_says_why_for_each(server_dir: Path) -> None:
    with PostgreSQL.start(server_dir / "own") as server, fresh_database(server) as database:
        async with patient(database) as shop:
            server.kill()
            diagnosis = await shop.diagnose()
            answers = [a for action in POSTGRESQL.actions.values() for a in action.propose(diagnosis, shop.spec)]

    assert len(answers) == len(POSTGRESQL.actions)
    assert all(isinstance(answer, NotProposed) and answer.reason for answer in answers)


# --- replication ---


async def test_every_member_is_asked_directly_and_says_who_it_is(server_dir: Path) -> None:
    with (
        PostgreSQL.start(server_dir / "orders-0") as primary,
        primary.replica(server_dir / "orders-1", name="orders-1") as replica,
        fresh_database(primary) as database,
    ):
        members = {"orders-0": primary, "orders-1": replica}
        async with patient(database, members=members) as shop:
            await asyncio.sleep(0.3)
            views: dict[str, Any] = {view.name: view for view in (await shop.diagnose()).members}
            primary.kill()
            after = {view.name: view for view in (await shop.diagnose()).members}

    assert (views["orders-0"].in_recovery, views["orders-1"].in_recovery) == (False, True)
    assert views["orders-0"].timeline == views["orders-1"].timeline == 1
    assert views["orders-1"].wal_receiver_streaming
    assert views["orders-1"].wal_receiver_age < 60
    # Asked at the same time, but not at the same instant.
    assert abs(views["orders-1"].receive_lsn - views["orders-0"].receive_lsn) < 1_000_000
    assert not after["orders-0"].reachable
    assert "connection refused" in after["orders-0"].error
    assert after["orders-1"].reachable
    assert not after["orders-1"].wal_receiver_streaming


# --- the documented roles ---


async def test_the_documented_sql_names_the_owners_and_may_be_run_again(database_of_each_version: Database) -> None:
    database = database_of_each_version
    async with patient(database, schema=SCHEMA) as shop:
        role = shop.app
        database.execute(f'REVOKE "{role}" FROM {HEALER}')
        assert not database.value("SELECT pg_has_role($1, $2, 'USAGE')", HEALER, role)

        for _ in range(2):
            database.execute(f"SET kintsugi.owners = ' {role}, {role}'; {ROLES}")

        assert database.value("SELECT pg_has_role($1, $2, 'USAGE')", HEALER, role)
        assert not database.value("SELECT pg_has_role($1, $2, 'USAGE')", MONITOR, role)
        assert not database.value("SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname LIKE 'kintsugi%'")


async def test_the_monitoring_role_can_end_no_session_and_promote_nothing(shop: Patient) -> None:
    victim = await shop.session()
    targets = targets_for(shop.spec, {"username": MONITOR, "password": "monitor"})

    for command in (f"SELECT pg_terminate_backend({victim.get_server_pid()})", "SELECT pg_promote(true, 1)"):
        result = await run_step(Step(StepKind.SQL, "primary", command), targets, "test")
        assert result.state is StepState.FAILED
        assert "docs/database-role.sql" in result.error
    assert await victim.fetchval("SELECT 1") == 1


async def test_the_session_follows_the_service_to_another_primary(server_dir: Path) -> None:
    with (
        PostgreSQL.start(server_dir / "orders-0") as primary,
        primary.replica(server_dir / "orders-1", name="orders-1") as replica,
        fresh_database(primary) as database,
    ):
        async with patient(database) as shop:
            await asyncio.sleep(0.5)
            async with relay(primary.port) as service:
                connection = shop.spec.connection.model_copy(update={"port": service.port})
                spec = shop.spec.model_copy(update={"connection": connection})
                targets = targets_for(spec, {"username": HEALER, "password": "healer"})
                diagnoser = Diagnoser(POSTGRESQL, spec, targets)
                before = await diagnoser.diagnose(Surroundings(primary_member="orders-0"))
                replica.promote()
                service.target = replica.port
                after = await diagnoser.diagnose(Surroundings(primary_member="orders-1"))
                await diagnoser.close()

    assert before.extra["primary_timeline"] == 1
    assert after.extra["primary_timeline"] == 2


async def test_an_idle_session_timeout_does_not_close_the_reserved_session(shop: Patient) -> None:
    shop.database.execute(
        f"ALTER ROLE {HEALER} IN DATABASE \"{shop.database.name}\" SET idle_session_timeout = '100ms'"
    )
    await shop.diagnose()
    await asyncio.sleep(0.4)

    mine = shop.database.fetch("SELECT 1 FROM pg_stat_activity WHERE application_name = 'kintsugi/diagnose'")

    assert len(mine) == 1
