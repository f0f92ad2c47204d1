"""Remedies on a real, small PostgreSQL: what was done is what is said, and production's own are production's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import asyncpg
import pytest

from kintsugi_dev.servers import PgBouncer, PostgreSQL, server_directory
from kintsugi_ml.lab import remedies
from kintsugi_ml.lab.compound import Compound
from kintsugi_ml.lab.faults.base import NOTHING, Effect, Fault, Trial
from kintsugi_ml.lab.remedies import carry_out, put_back
from kintsugi_ml.lab.world import APP, APP_PASSWORD, DATABASE, World

TABLES = """
CREATE TABLE accounts (id bigint PRIMARY KEY, balance int NOT NULL);
INSERT INTO accounts SELECT n, 100 FROM generate_series(1, 20000) n;
CREATE INDEX accounts_balance ON accounts (balance);
"""


class Held(Fault):
    """Two sessions, each with a row that somebody waits for; heals by `shrug`, too."""

    name: ClassVar[str] = "held"
    title: ClassVar[str] = "sessions hold rows and do nothing"
    root: ClassVar[str] = "lock-manager"
    effect: ClassVar[Effect] = Effect()
    shrugged = False

    async def inject(self, ramp: float) -> None:
        for key in (1, 2):
            session = await self.session("holder", idle_in_transaction_session_timeout="0")
            await session.execute("BEGIN")
            await session.execute("UPDATE accounts SET balance = 0 WHERE id = $1", key)
            waiter = await self.session("waiter")
            self.background(self._wait(waiter, key))

    async def _wait(self, waiter: asyncpg.Connection, key: int) -> None:
        await waiter.execute("UPDATE accounts SET balance = balance WHERE id = $1", key)

    def pids(self) -> list[int]:
        rows = self.world.primary.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'holder' AND xact_start IS NOT NULL",
            database=DATABASE,
        )
        return [row["pid"] for row in rows]

    def trials(self) -> list[Trial]:
        return [*(Trial("terminate-blocker", True, {"pid": pid}) for pid in self.pids()), Trial("checkpoint", False)]

    async def remedy(self, action: str) -> None:
        if action != "shrug":
            raise ValueError(f"held has no remedy {action!r}")
        self.shrugged = True


@pytest.fixture(scope="module")
def bank() -> Iterator[World]:
    with server_directory("kintsugi-lab-") as directory, PostgreSQL.start(directory / "lab-0") as server:
        server.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
        server.execute(f"CREATE DATABASE {DATABASE} OWNER {APP}")
        server.execute("GRANT ALL ON SCHEMA public TO app; CREATE EXTENSION pg_prewarm", database=DATABASE)
        server.create_roles(DATABASE, owner=APP)
        server.execute(f"SET ROLE {APP}; {TABLES}", database=DATABASE)
        users, databases = {APP: APP_PASSWORD}, {DATABASE: (server.host, server.port)}
        with PgBouncer.start(directory / "pgbouncer", databases=databases, users=users, pool_size=4) as pooler:
            unused: Any = SimpleNamespace()
            yield World(
                directory, unused, "low", server, server, pooler, unused, unused, unused, unused, None, DATABASE
            )


@asynccontextmanager
async def held(world: World) -> AsyncIterator[Held]:
    fault = Held(world, 0.5, Random(1))
    await fault.inject(0)
    try:
        yield fault
    finally:
        await fault.lift()


def idle(world: World) -> Fault:
    return Held(world, 0.5, Random(1))


async def value(world: World, statement: str) -> Any:
    (row,) = await world.sql(statement)
    return next(iter(row.values()))


async def pool_size(world: World) -> str:
    rows = await asyncio.to_thread(world.pooler.admin, "SHOW CONFIG")
    return next(row["value"] for row in rows if row["key"] == "default_pool_size")


async def test_every_blocker_is_ended_by_productions_own_plan_and_its_diagnosis_is_kept(bank: World) -> None:
    async with held(bank) as fault:
        await asyncio.sleep(2.2)
        applied = await carry_out(fault.trials()[0], fault, bank)
        assert applied.ok, applied.error
        assert applied.side_effects["sessions_terminated"] == 2
        assert applied.proposals[0].startswith("proposed: pid ")
        assert "pg_terminate_backend" in applied.steps[0]
        assert not fault.pids()


async def test_where_production_proposes_nothing_it_says_why_and_the_trial_is_carried_out_all_the_same(
    bank: World,
) -> None:
    applied = await carry_out(Trial("resize-pool", True, {"size": 9}), idle(bank), bank)
    assert applied.ok, applied.error
    assert applied.proposals == ("not proposed: no client waits for the pool",)
    assert await pool_size(bank) == "9"
    assert await put_back(applied, bank) == []


async def test_a_table_is_analysed_as_production_does_it(bank: World) -> None:
    applied = await carry_out(Trial("analyze-table", False, {"table": "accounts"}), idle(bank), bank)
    assert applied.ok, applied.error
    assert applied.steps[-1] == 'ANALYZE "public"."accounts"'


async def test_a_wrong_remedy_hits_what_the_trial_names_and_not_what_production_would_rather_do(bank: World) -> None:
    async with held(bank) as fault:
        await asyncio.sleep(2.2)
        second = fault.pids()[1]
        applied = await carry_out(Trial("terminate-blocker", False, {"pid": second}), fault, bank)
        assert applied.ok, applied.error
        assert second not in fault.pids()
        assert len(fault.pids()) == 1


async def test_what_an_index_a_pool_a_setting_and_a_role_were_before_is_put_back(bank: World) -> None:
    trials: dict[str, dict[str, Any]] = {
        "create-index": {"table": "accounts", "column": "balance"},
        "resize-pool": {"size": 9},
        "tune-setting": {"name": "work_mem", "value": "64kB"},
        "limit-role": {"role": APP, "limit": 3},
        "drop-redundant-index": {"indexes": ["accounts_balance"]},
    }
    before = await _state(bank)
    done = [await carry_out(Trial(name, False, given), idle(bank), bank) for name, given in trials.items()]
    assert [applied.error for applied in done] == [None] * len(trials)
    changed = await _state(bank)
    assert all(changed[name] != before[name] for name in before)
    assert done[0].side_effects["index_bytes"] > 0
    assert [await put_back(applied, bank) for applied in reversed(done)] == [[]] * len(trials)
    assert await _state(bank) == before


async def _state(world: World) -> Mapping[str, Any]:
    return {
        "indexes": await value(
            world, "SELECT array_agg(indexname::text ORDER BY 1) FROM pg_indexes WHERE schemaname = 'public'"
        ),
        "pool": await pool_size(world),
        "work_mem": await value(world, "SELECT current_setting('work_mem')"),
        "limit": await value(world, f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{APP}'"),
    }


async def test_nothing_is_put_back_where_the_fault_has_taken_its_own_things_away(bank: World) -> None:
    await bank.sql("CREATE ROLE passing LOGIN")
    await bank.sql("CREATE INDEX redundant ON accounts (balance)")
    limited = await carry_out(Trial("limit-role", True, {"role": "passing", "limit": 0}), idle(bank), bank)
    dropped = await carry_out(Trial("drop-redundant-index", True, {"indexes": ["redundant"]}), idle(bank), bank)
    await bank.sql("DROP ROLE passing")
    assert [await put_back(limited, bank), await put_back(dropped, bank)] == [[], []]
    assert await value(bank, "SELECT to_regclass('redundant')") is None


@pytest.mark.parametrize(
    "trial",
    [
        Trial("checkpoint", False),
        Trial("vacuum-table", False, {"schema": "public", "table": "accounts"}),
        Trial("prewarm-cache", False, {"relation": "accounts"}),
        Trial("discard-plans", False),
        NOTHING,
    ],
    ids=lambda trial: str(trial.action),
)
async def test_a_remedy_that_only_a_dba_does_is_carried_out_and_noted(trial: Trial, bank: World) -> None:
    applied = await carry_out(trial, idle(bank), bank)
    assert applied.ok, applied.error
    assert bool(applied.steps) == (trial is not NOTHING)
    json.dumps(asdict(applied))


async def test_only_the_idle_sessions_of_the_application_are_ended(bank: World) -> None:
    fault = idle(bank)
    leak, other = await fault.session("leak"), await fault.session("other")
    busy = await fault.session("leak")
    await busy.execute("BEGIN")
    applied = await carry_out(Trial("terminate-idle-sessions", True, {"application": "leak"}), fault, bank)
    assert applied.side_effects == {"sessions_terminated": 1}
    assert (leak.is_closed(), other.is_closed(), busy.is_closed()) == (True, False, False)
    await fault.lift()


async def test_a_cancelled_query_leaves_its_session_alive(bank: World) -> None:
    fault = idle(bank)
    session = await fault.session("report")
    report = asyncio.create_task(session.execute("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.2)
    applied = await carry_out(Trial("cancel-query", True, {"pids": [session.get_server_pid()]}), fault, bank)
    assert applied.side_effects == {"queries_cancelled": 1}
    with pytest.raises(asyncpg.QueryCanceledError):
        await report
    assert await session.fetchval("SELECT 1") == 1
    await fault.lift()


async def test_a_fault_of_its_own_kind_brings_its_own_remedy(bank: World) -> None:
    fault = Held(bank, 0.5, Random(1))
    assert (await carry_out(Trial("shrug", True), fault, bank)).ok
    assert fault.shrugged
    assert "no remedy 'frown'" in str((await carry_out(Trial("frown", True), fault, bank)).error)


async def test_what_cannot_be_done_ends_as_an_error_and_never_raises(bank: World) -> None:
    nowhere = await carry_out(Trial("vacuum-table", False, {"table": "nowhere"}), idle(bank), bank)
    assert not nowhere.ok
    assert "nowhere" in str(nowhere.error)
    assert not (await carry_out(Trial("scale", False, {"disk": 2}), idle(bank), bank)).ok
    assert not (await carry_out(Trial("terminate-blocker", False, {"pid": 2**30}), idle(bank), bank)).ok


async def test_a_remedy_that_takes_too_long_is_given_up_in_time(bank: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "DEADLINE_SECONDS", 0.5)
    fault = idle(bank)
    session = await fault.session("reader")
    await session.execute("BEGIN; LOCK TABLE accounts IN ROW EXCLUSIVE MODE")
    trial = Trial("drop-redundant-index", False, {"indexes": ["accounts_balance"]})
    applied = await carry_out(trial, fault, bank)
    assert applied.error == "drop-redundant-index was not done within 0 s"
    assert applied.ended - applied.started < 2
    await session.execute("ROLLBACK")
    await asyncio.sleep(0.2)
    assert await value(bank, "SELECT to_regclass('accounts_balance')") is not None
    await fault.lift()
    await bank.sql("DROP INDEX accounts_balance")
    await bank.sql("CREATE INDEX accounts_balance ON accounts (balance)")


async def test_a_restart_counts_its_downtime_and_the_server_is_back(bank: World) -> None:
    before = bank.primary.pid
    applied = await carry_out(Trial("restart-workload", False), idle(bank), bank)
    assert applied.ok, applied.error
    assert 0 < applied.side_effects["downtime_seconds"] < 10
    assert bank.primary.pid != before
    assert await value(bank, "SELECT 1") == 1


async def test_a_failover_leaves_a_dirty_world_and_clients_are_sent_to_the_promoted_replica() -> None:
    with server_directory("kintsugi-lab-") as directory, PostgreSQL.start(directory / "lab-0") as server:
        pointed: list[int] = []
        unused: Any = SimpleNamespace()
        link: Any = SimpleNamespace(point=pointed.append)
        with server.replica(directory / "lab-1", name="lab-1") as replica:
            world = World(directory, unused, "low", server, replica, unused, link, unused, unused, unused, None)
            applied = await carry_out(Trial("failover", False), idle(world), world)
            assert applied.ok, applied.error
            assert applied.dirty
            assert pointed == [replica.port]
            assert not server.running
            assert not await asyncio.to_thread(replica.is_standby)
            assert await put_back(replace(applied, undo=()), world) == []


async def test_the_second_of_two_faults_follows_and_both_are_lifted(bank: World) -> None:
    compound = Compound(Held(bank, 0.5, Random(1)), Held(bank, 0.5, Random(2)))
    compound.delay = 0.1
    assert (compound.name, compound.root) == ("held+held", "lock-manager")
    began = time.monotonic()
    compound.second = idle_second = _Waits(bank, 0.5, Random(2))
    await compound.inject(0)
    assert not idle_second.begun
    await asyncio.sleep(0.5)
    assert compound.second_began
    assert [trial.right for trial in compound.trials()] == [True, True, True, False]
    await compound.lift()
    assert not idle(bank).trials()[0].right
    assert time.monotonic() - began < 5


class _Waits(Held):
    begun = False

    async def inject(self, ramp: float) -> None:
        self.begun = True

    def trials(self) -> list[Trial]:
        return [Trial("shrug", True)]
