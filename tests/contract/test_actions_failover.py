"""failover between two real servers: who must agree, what is fenced, what is lost, and what must not happen."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from kintsugi.api.database import WorkloadRef
from kintsugi.domain.actions import NotProposed, Proposal
from kintsugi.shell.diagnose import Surroundings
from kintsugi.shell.execute import ProbeAnswer, StepState
from kintsugi_dev.patient import POSTGRESQL, Patient, RecordedWorkloads, compile_again, patient, unfinished
from kintsugi_dev.servers import PostgreSQL, fresh_database
from kintsugi_dev.servers.roles import HEALER

KEY = "statefulset.kubernetes.io/pod-name"
SELECTOR = {"app": "orders", KEY: "orders-0"}
DOWN = Surroundings(metrics_down=True, primary_member="orders-0", extra={"service_selector": SELECTOR})


class Pair:
    """A primary, its replica, and the Service that names the primary."""

    def __init__(self, primary: PostgreSQL, replica: PostgreSQL, shop: Patient, workloads: RecordedWorkloads) -> None:
        self.primary = primary
        self.replica = replica
        self.shop = shop
        self.workloads = workloads

    def selector(self) -> dict[str, str]:
        found: dict[str, str] = self.workloads.objects["service/orders-rw"]["spec"]["selector"]
        return found

    async def silent(self, seconds: float = 5.5) -> None:
        """Let the operator notice the silence, and let it last."""
        await self.shop.diagnose(DOWN)
        self.shop.later += seconds


def service() -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "1"}, "spec": {"selector": dict(SELECTOR)}}


@pytest.fixture
async def pair(server_dir: Path) -> AsyncIterator[Pair]:
    with (
        PostgreSQL.start(server_dir / "orders-0") as primary,
        primary.replica(server_dir / "orders-1", name="orders-1") as replica,
        fresh_database(primary) as database,
    ):
        database.execute("CREATE TABLE public.orders (id int)")
        workloads = RecordedWorkloads(service__orders_rw=service())
        members = {"orders-0": primary, "orders-1": replica}
        async with patient(database, members=members, workloads=workloads) as shop:
            await shop.diagnoser.baseline()
            await asyncio.sleep(0.3)
            yield Pair(primary, replica, shop, workloads)


async def test_a_killed_primary_is_fenced_and_its_replica_takes_over(pair: Pair) -> None:
    await pair.shop.diagnoser.pulse()
    pair.primary.kill()
    await pair.silent()

    healing = await pair.shop.heal("failover", DOWN)

    assert healing.done, unfinished(healing.results)
    assert healing.probe.answer is ProbeAnswer.DONE
    assert not pair.replica.is_standby()
    pair.replica.execute("INSERT INTO public.orders VALUES (1)", database=pair.shop.database.name)
    assert pair.selector() == {"app": "orders", KEY: "orders-1"}
    assert [body["spec"]["selector"][KEY] for _, body in pair.workloads.patches] == [
        "kintsugi-fenced.orders-0",
        "orders-1",
    ]
    # An idle primary still writes a little WAL of its own, which is carried on until the moment of its death.
    assert healing.proposal.parameters["dataLossBytes"] < 1000
    assert healing.proposal.parameters["lagSeconds"] < 1


async def test_the_fence_stands_before_the_promotion(pair: Pair) -> None:
    pair.primary.kill()
    await pair.silent()
    plan = compile_again("failover", (await pair.shop.proposal("failover", DOWN)).parameters)

    commands = [step.command for step in plan.steps]

    fence = next(place for place, command in enumerate(commands) if command.startswith('{"spec": {"selector": {"stat'))
    promote = next(place for place, command in enumerate(commands) if "pg_promote" in command)
    assert fence < promote


async def test_a_running_primary_is_never_replaced(pair: Pair) -> None:
    answer = await pair.shop.propose("failover", DOWN)

    assert isinstance(answer, NotProposed)
    assert answer.reason == "the primary answers"


async def test_a_primary_that_metrics_still_show_up_is_not_replaced(pair: Pair) -> None:
    pair.primary.kill()
    await pair.silent()

    for metrics, words in ((False, "metrics still show"), (None, "metrics say nothing")):
        answer = await pair.shop.propose("failover", replace(DOWN, metrics_down=metrics))
        assert isinstance(answer, NotProposed)
        assert words in answer.reason


async def test_a_primary_that_its_replica_still_hears_is_not_replaced(pair: Pair) -> None:
    diagnosis = await pair.shop.diagnose(DOWN)
    cut_off = replace(diagnosis, primary_reachable=False, unreachable_for=60.0)
    members = tuple(
        member if member.name == "orders-1" else replace(member, reachable=False, in_recovery=None)
        for member in cut_off.members
    )

    answer = POSTGRESQL.actions["failover"].propose(replace(cut_off, members=members), pair.shop.spec)[0]

    assert isinstance(answer, NotProposed)
    assert answer.reason == "orders-1 still receives WAL from the primary"


async def test_a_primary_reached_directly_but_not_through_the_service_is_not_replaced(pair: Pair) -> None:
    diagnosis = await pair.shop.diagnose(DOWN)

    answer = POSTGRESQL.actions["failover"].propose(
        replace(diagnosis, primary_reachable=False, unreachable_for=60.0), pair.shop.spec
    )[0]

    assert isinstance(answer, NotProposed)
    assert "orders-0 itself answers as primary" in answer.reason


async def test_a_short_silence_is_waited_out(pair: Pair) -> None:
    pair.primary.kill()

    answer = await pair.shop.propose("failover", DOWN)

    assert isinstance(answer, NotProposed)
    assert "silent for" in answer.reason


async def test_an_approved_failover_is_superseded_when_the_primary_has_come_back(pair: Pair) -> None:
    pair.primary.kill()
    await pair.silent()
    proposal = await pair.shop.proposal("failover", DOWN)
    pair.primary.launch()
    await streaming_again(pair)

    results = await pair.shop.carry_out(compile_again("failover", proposal.parameters).steps, "failover")

    assert [result.state for result in results] == [StepState.SUPERSEDED]
    assert pair.replica.is_standby()
    assert pair.selector() == SELECTOR


async def test_an_approved_failover_is_superseded_when_a_person_has_pointed_the_service_elsewhere(pair: Pair) -> None:
    pair.primary.kill()
    await pair.silent()
    proposal = await pair.shop.proposal("failover", DOWN)
    pair.selector()[KEY] = "orders-2"

    results = await pair.shop.carry_out(compile_again("failover", proposal.parameters).steps, "failover")

    assert [result.state for result in results] == [StepState.DONE, StepState.SUPERSEDED]
    assert pair.replica.is_standby()


async def test_a_failover_interrupted_after_the_promotion_is_finished_from_its_first_step(pair: Pair) -> None:
    pair.primary.kill()
    await pair.silent()
    plan = compile_again("failover", (await pair.shop.proposal("failover", DOWN)).parameters)
    promoted = next(place for place, step in enumerate(plan.steps) if "pg_promote" in step.command)
    await pair.shop.carry_out(plan.steps[: promoted + 1], "failover")
    assert (await pair.shop.probe(plan, "failover")).answer is ProbeAnswer.NOT_DONE

    results = await pair.shop.carry_out(plan.steps, "failover")

    assert len(results) == len(plan.steps), unfinished(results)
    assert (await pair.shop.probe(plan, "failover")).answer is ProbeAnswer.DONE


async def test_a_fenced_service_still_tells_who_the_primary_was(pair: Pair) -> None:
    pair.primary.kill()
    await pair.silent()
    fenced = replace(DOWN, extra={"service_selector": {"app": "orders", KEY: "kintsugi-fenced.orders-0"}})

    answer = await pair.shop.propose("failover", replace(fenced, primary_member=None))

    assert isinstance(answer, Proposal)
    assert answer.parameters["oldPrimary"] == "orders-0"


async def test_what_an_asynchronous_replica_has_not_received_is_said_in_bytes(pair: Pair) -> None:
    wal_receiver = await asyncio.to_thread(stop_receiving, pair.replica)
    pair.primary.execute("INSERT INTO public.orders SELECT generate_series(1, 20000)", database=pair.shop.database.name)
    await pair.shop.diagnoser.pulse()
    pair.primary.kill()
    wal_receiver.send_signal(signal.SIGCONT)
    await pair.silent()

    proposal = await pair.shop.proposal("failover", DOWN)

    assert proposal.parameters["dataLossBytes"] > 0
    assert any("could be lost" in sentence for sentence in proposal.evidence)


async def test_a_synchronous_standby_loses_nothing(pair: Pair) -> None:
    pair.primary.configure(synchronous_standby_names='"orders-1"')
    await until_sync(pair)
    await pair.shop.diagnoser.pulse()
    pair.primary.kill()
    await pair.silent()

    proposal = await pair.shop.proposal("failover", DOWN)

    assert proposal.parameters["dataLossBytes"] == 0
    assert any("synchronous standby" in sentence for sentence in proposal.evidence)


async def test_two_servers_that_accept_writes_are_called_a_split_brain(pair: Pair) -> None:
    pair.replica.promote()

    answer = await pair.shop.propose("failover", DOWN)

    assert isinstance(answer, NotProposed)
    assert answer.reason.startswith("split brain: orders-0 and orders-1 accept writes")


async def test_an_old_primary_that_still_answers_is_made_read_only_where_the_role_may(pair: Pair) -> None:
    pair.primary.execute(
        f"GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO {HEALER};"
        f"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {HEALER}",
        database=pair.shop.database.name,
    )
    session = await pair.shop.session()
    plan = compile_again(
        "failover",
        {
            "candidate": "orders-1",
            "oldPrimary": "orders-0",
            "service": "orders-rw",
            "selectorKey": KEY,
            "selector": SELECTOR,
            "timeline": 1,
            "receivedLsn": 0,
            "dataLossBytes": None,
            "lagSeconds": None,
            "pools": [],
        },
    )
    fencing = [step for step in plan.steps if step.optional]

    results = await pair.shop.carry_out(fencing, "failover")

    assert all(result.ok for result in results), unfinished(results)
    assert session.is_closed() or await closed_soon(session)
    assert pair.primary.value("SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'") == "on"
    pair.primary.execute("ALTER SYSTEM RESET default_transaction_read_only")
    pair.primary.execute("SELECT pg_reload_conf()")


async def test_a_hung_server_without_replica_is_restarted_by_a_patch_and_only_then(pair: Pair) -> None:
    workload = {"kind": "StatefulSet", "name": "orders", "replicas": 1, "ready": 1}
    reference = WorkloadRef(kind="StatefulSet", name="orders")
    spec = pair.shop.spec.model_copy(update={"replication": None, "workload_ref": reference})
    pair.workloads.objects["statefulset/orders"] = {"metadata": {"resourceVersion": "5"}, "spec": {"template": {}}}
    pair.primary.kill()
    await pair.shop.diagnose(DOWN)
    around = replace(DOWN, workload=workload)
    diagnosis = replace(await pair.shop.diagnose(around), members=())
    action = POSTGRESQL.actions["restart-workload"]

    soon = action.propose(diagnosis, spec)[0]
    later = action.propose(replace(diagnosis, unreachable_for=61.0), spec)[0]

    assert isinstance(soon, NotProposed)
    assert isinstance(later, Proposal)
    plan = compile_again("restart-workload", later.parameters)
    results = await pair.shop.carry_out(plan.steps, "restart-workload")
    assert all(result.ok for result in results), unfinished(results)
    assert (await pair.shop.probe(plan, "restart-workload")).answer is ProbeAnswer.DONE
    annotations = pair.workloads.objects["statefulset/orders"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"kubectl.kubernetes.io/restartedAt": later.parameters["restartedAt"]}
    assert json.loads(plan.steps[0].command)


def stop_receiving(replica: PostgreSQL) -> psutil.Process:
    """Freeze the replica's WAL receiver, and nothing else of it."""
    for child in psutil.Process(replica.pid).children():
        if "walreceiver" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGSTOP)
            return child
    raise AssertionError("the replica has no WAL receiver")


async def streaming_again(pair: Pair) -> None:
    async with asyncio.timeout(15):
        while not pair.replica.value("SELECT status = 'streaming' FROM pg_stat_wal_receiver"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def until_sync(pair: Pair) -> None:
    async with asyncio.timeout(10):
        while pair.primary.value("SELECT sync_state FROM pg_stat_replication") != "sync":  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def closed_soon(session: Any) -> bool:
    for _ in range(30):
        if session.is_closed():
            return True
        await asyncio.sleep(0.1)
    return False
