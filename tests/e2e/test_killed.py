"""The operator killed with SIGKILL in each phase of an action, and started again: it ends properly, and acts once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kintsugi_dev.faults import BlockingTransaction, DroppedIndex
from kintsugi_dev.faults.sessions import HeldSession
from kintsugi_dev.stand import ACTIONS, DATABASES, Case, Json, Lane

TERMINATE = "%pg_terminate_backend(a.pid)%"
ASKING = {"mode": "Approve"}


def test_while_it_connects_the_step_runs_after_the_restart_and_once(case: Case) -> None:
    before = _asked(case)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        with case.lane.no_new_connections():
            case.until_action(name, "AwaitingApproval")
            case.approve(name)
            case.until_action(name, "Executing")
            case.operator.kill()
        assert case.lane.count(TERMINATE) == before

        case.operator.start()
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded")

    _ended_well(case, action, before)
    assert len(action["status"]["attempts"]) == 2


def test_after_the_step_but_before_its_progress_is_written_it_is_not_run_again(case: Case) -> None:
    before = _asked(case)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        with case.lane.no_new_connections():
            case.until_action(name, "AwaitingApproval")
            case.approve(name)
            case.until_action(name, "Executing")
            case.stand.cluster.freeze_apiserver()
        try:
            case.operator.wait(lambda: case.lane.count(TERMINATE) == before + 1, "the blocker terminated")
            case.operator.kill()
        finally:
            case.stand.cluster.thaw_apiserver()
        assert case.action_phase(name) == "Executing"

        case.operator.start()
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded")

    _ended_well(case, action, before)
    assert [attempt["outcome"] for attempt in action["status"]["attempts"]] == ["done"]


@pytest.mark.slow
def test_between_creating_an_action_and_its_first_status_it_asks_after_the_restart(case: Case) -> None:
    before = _asked(case)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        case.operator.kill()
        _as_just_created(case, name)

        case.operator.start()
        case.until_action(name, "AwaitingApproval")
        case.approve(name)
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded")

    _ended_well(case, action, before)
    assert len(case.stand.actions(case.namespace)) == 1


@pytest.mark.slow
def test_while_an_action_awaits_approval_what_is_approved_meanwhile_runs_once(case: Case) -> None:
    before = _asked(case)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        case.operator.kill()
        case.approve(name)
        time.sleep(3)
        assert case.lane.count(TERMINATE) == before

        case.operator.start()
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded")

    _ended_well(case, action, before)
    assert len(case.stand.actions(case.namespace)) == 1


@pytest.mark.slow
def test_approved_but_held_back_by_a_pause_it_waits_on_after_the_restart(case: Case) -> None:
    before = _asked(case)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        case.stand.ann.annotate(DATABASES, case.namespace, case.name, {"kintsugi.dev/pause": "until noon"})
        case.until_phase("Paused")
        assert "until noon" in case.database["status"]["doing"]
        case.approve(name)
        action = case.until_action(name, "Approved")
        case.operator.kill()

        case.operator.start()
        time.sleep(5)
        assert case.action_phase(name) == "Approved"
        assert case.lane.count(TERMINATE) == before
        assert "paused" in case.stand.get(ACTIONS, case.namespace, name)["status"]["message"]

        case.stand.ann.annotate(DATABASES, case.namespace, case.name, {"kintsugi.dev/pause": None})
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded")

    _ended_well(case, action, before)


@pytest.mark.slow
def test_while_it_verifies_the_verdict_comes_after_the_restart(case: Case) -> None:
    before = _asked(case)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        case.approve(name)
        case.until_action(name, "Verifying")
        case.operator.kill()
        time.sleep(3)

        case.operator.start()
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded", seconds=90)

    _ended_well(case, action, before)


@pytest.mark.slow
def test_while_it_takes_back_the_index_is_dropped_once_after_the_restart(case: Case) -> None:
    """An index that does not heal: the blocker that somebody else must end keeps the latency up."""
    case.watched(
        {
            "mode": "Approve",
            "actions": [{"name": "terminate-blocker", "mode": "Observe"}],
            "verification": {"window": "10s"},
        }
    )
    with case.lane.fault(DroppedIndex(case.lane.server, "shop")):
        name = case.proposed("create-index", seconds=90)
        case.until_action(name, "AwaitingApproval")
        with case.lane.fault(BlockingTransaction(case.lane.dsn)):
            case.approve(name)
            case.until_action(name, "Verifying", seconds=90)
            index = case.stand.get(ACTIONS, case.namespace, name)["spec"]["parameters"]["index"]
            with _old_snapshot(case.lane):
                case.until_action(name, "Reverting", seconds=90)
                case.operator.wait(lambda: case.lane.count("DROP INDEX CONCURRENTLY%") or _dropping(case.lane), "drop")
                case.operator.kill()

            case.operator.start()
            action = case.until_action(name, "RolledBack", "Failed", "Inconclusive", seconds=120)

        assert action["status"]["phase"] == "RolledBack", action["status"]
        assert _indexes(case.lane, index) == []


def _asked(case: Case) -> int:
    """A database under care whose every action asks; how often a session was terminated so far."""
    case.watched(ASKING)
    return case.lane.count(TERMINATE)


def _ended_well(case: Case, action: Json, before: int) -> None:
    name = action["metadata"]["name"]
    assert action["status"]["phase"] == "Succeeded", action["status"]
    assert action["status"]["verdict"]["outcome"] == "Healed"
    assert case.lane.count(TERMINATE) == before + 1
    assert len(case.operator.audited(name, "Succeeded")) == 1
    assert len(case.operator.audited(name, "Executing")) == len(action["status"]["attempts"])
    case.until_phase("Healthy")


def _as_just_created(case: Case, name: str) -> None:
    """The action without any status, as it is in the milliseconds after its creation."""
    operator = "system:serviceaccount:kintsugi-system:kintsugi"
    person = type(case.stand.admin)(case.stand.admin.api, operator, ("system:serviceaccounts", "system:authenticated"))
    person.patch(ACTIONS, case.namespace, name, {"status": None}, subresource="status")
    assert not case.stand.get(ACTIONS, case.namespace, name).get("status")


@contextmanager
def _old_snapshot(lane: Lane) -> Iterator[None]:
    """A transaction that has read everything: what is dropped concurrently must wait for it."""
    session = HeldSession(
        lane.dsn, ["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM order_lines"], "report"
    )
    session.open()
    try:
        yield
    finally:
        session.close()


def _dropping(lane: Lane) -> bool:
    statement = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'DROP INDEX CONCURRENTLY%' AND state = 'active'"
    return bool(lane.rows(statement))


def _indexes(lane: Lane, name: str) -> list[Json]:
    return lane.rows("SELECT 1 FROM pg_class WHERE relname = $1", name)
