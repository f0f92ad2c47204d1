"""People who come in between: a deletion, a pause, a rejection, an expiry."""

from __future__ import annotations

import time

import pytest

from kintsugi_dev.faults import BlockingTransaction
from kintsugi_dev.people import Person, RefusedError
from kintsugi_dev.stand import ACTIONS, DATABASES, Case

TERMINATE = "%pg_terminate_backend(a.pid)%"
ENDS = ("Succeeded", "Failed", "Inconclusive", "Superseded", "Rejected", "Expired")


@pytest.mark.slow
def test_a_database_deleted_while_its_action_is_verified_ends_the_action_with_a_message(case: Case) -> None:
    case.watched()
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "Verifying")
        case.stand.admin.delete(DATABASES, case.namespace, case.name)
        case.operator.wait(lambda: case.operator.audited(name, "Inconclusive"), "the end of the action")

    end = case.operator.audited(name, "Inconclusive")[0]
    assert end["reason"] == "DatabaseGone"
    assert f"database {case.name} was deleted; nothing more is done" in end["message"]


@pytest.mark.slow
def test_a_database_deleted_while_its_action_awaits_approval_takes_the_action_with_it(case: Case) -> None:
    case.watched({"mode": "Approve"})
    before = case.lane.count(TERMINATE)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        case.stand.admin.delete(DATABASES, case.namespace, case.name)
        case.operator.wait(lambda: case.stand.actions(case.namespace) == [], "the action gone with its database")
        time.sleep(5)
        assert case.lane.count(TERMINATE) == before
        assert case.stand.actions(case.namespace) == []


@pytest.mark.slow
def test_a_pause_in_the_middle_of_an_incident_stops_everything_until_it_is_lifted(case: Case) -> None:
    case.watched({"mode": "Observe"})
    before = case.lane.count(TERMINATE)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        case.until_phase("Degraded")
        with pytest.raises(RefusedError):  # an annotation needs the right to pause
            Person(case.stand.admin.api, "eve", ("system:authenticated",)).annotate(
                DATABASES, case.namespace, case.name, {"kintsugi.dev/pause": "mine"}
            )
        case.stand.ann.annotate(DATABASES, case.namespace, case.name, {"kintsugi.dev/pause": "migration"})
        case.until_phase("Paused")
        path = f"/apis/kintsugi.dev/v1alpha1/namespaces/{case.namespace}/healingpolicies/all"
        case.stand.admin.patch_at(path, {"spec": {"mode": "AutoMediumRisk"}})
        time.sleep(6)
        assert case.condition("ActionsAllowed")["reason"] == "Paused"
        assert "migration" in case.database["status"]["doing"]
        assert case.lane.count(TERMINATE) == before

        case.stand.ann.annotate(DATABASES, case.namespace, case.name, {"kintsugi.dev/pause": None})
        action = case.until_action(case.proposed("terminate-blocker"), *ENDS)

    assert action["status"]["phase"] == "Succeeded"
    assert case.lane.count(TERMINATE) == before + 1


@pytest.mark.slow
def test_a_rejected_action_is_not_run_nor_proposed_again_for_the_same_incident(case: Case) -> None:
    case.watched({"mode": "Approve"})
    before = case.lane.count(TERMINATE)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        case.stand.ann.annotate(ACTIONS, case.namespace, name, {"kintsugi.dev/reject": "it is the nightly report"})
        action = case.until_action(name, *ENDS)
        time.sleep(6)
        actions = case.stand.actions(case.namespace, "terminate-blocker")

    assert action["status"]["phase"] == "Rejected"
    assert action["status"]["message"] == "rejected by ann: it is the nightly report"
    assert [each["metadata"]["name"] for each in actions] == [name]
    assert case.lane.count(TERMINATE) == before


@pytest.mark.slow
def test_an_expired_action_is_not_run_whoever_approves_it(case: Case) -> None:
    case.watched({"mode": "Approve", "approval": {"expiresAfter": "1m"}})
    before = case.lane.count(TERMINATE)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        action = case.until_action(name, *ENDS, seconds=90)
        with pytest.raises(RefusedError):
            case.approve(name)
        time.sleep(3)

    assert action["status"]["phase"] == "Expired"
    assert "nobody approved it before it expired" in action["status"]["message"]
    assert case.lane.count(TERMINATE) == before
