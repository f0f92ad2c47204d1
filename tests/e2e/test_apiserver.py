"""The API server gone or frozen: the operator lives on, begins nothing, loses nothing, and does nothing twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kintsugi_dev.faults import BlockingTransaction
from kintsugi_dev.servers.http import get
from kintsugi_dev.stand import Case, Stand

TERMINATE = "%pg_terminate_backend(a.pid)%"
GONE_S = 30.0


@pytest.mark.slow
def test_gone_for_half_a_minute_while_an_action_awaits_approval(case: Case) -> None:
    case.watched({"mode": "Approve"})
    before = case.lane.count(TERMINATE)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        with _gone(case.stand):
            time.sleep(GONE_S)
            assert case.operator.running
            assert get(f"{case.operator.url}/healthz")[0] == 200
            assert case.lane.count(TERMINATE) == before

        case.approve(name)
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded", seconds=90)
        case.until_phase("Healthy")

    assert action["status"]["phase"] == "Succeeded", action["status"]
    assert case.lane.count(TERMINATE) == before + 1
    assert len(case.stand.actions(case.namespace)) == 1


@pytest.mark.slow
def test_gone_while_an_action_executes_its_end_is_written_when_it_is_back(case: Case) -> None:
    case.watched({"mode": "Approve"})
    before = case.lane.count(TERMINATE)
    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        case.until_action(name, "AwaitingApproval")
        with case.lane.no_new_connections():
            case.approve(name)
            case.until_action(name, "Executing")
            case.stand.cluster.stop_apiserver()
        try:
            time.sleep(GONE_S)
            assert case.lane.count(TERMINATE) == before + 1
        finally:
            case.stand.cluster.start_apiserver()
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded", seconds=90)
        case.until_phase("Healthy")

    assert action["status"]["phase"] == "Succeeded", action["status"]
    assert [attempt["outcome"] for attempt in action["status"]["attempts"]] == ["done"]
    assert case.lane.count(TERMINATE) == before + 1
    assert len(case.operator.audited(name, "Executing")) == 1


@pytest.mark.slow
def test_gone_while_all_is_well_nothing_happens_and_the_next_fault_is_healed(case: Case) -> None:
    case.watched()
    before = case.lane.count(TERMINATE)
    with _gone(case.stand):
        time.sleep(GONE_S)
        assert case.operator.running
        assert get(f"{case.operator.url}/healthz")[0] == 200
    time.sleep(5)
    assert case.phase == "Healthy"
    assert case.stand.events(case.namespace, "IncidentOpened") == []

    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        action = case.until_action(case.proposed("terminate-blocker"), "Succeeded", "Failed", "Inconclusive")

    assert action["status"]["phase"] == "Succeeded", action["status"]
    assert case.lane.count(TERMINATE) == before + 1


@pytest.mark.slow
def test_frozen_while_a_fault_begins_it_is_healed_after_the_thaw(case: Case) -> None:
    case.watched()
    before = case.lane.count(TERMINATE)
    case.stand.cluster.freeze_apiserver()
    try:
        with case.lane.fault(BlockingTransaction(case.lane.dsn)):
            case.operator.wait(
                lambda: any("API server does not answer" in str(line["message"]) for line in case.operator.lines()),
                "a frozen API server noticed",
                30,
            )
            time.sleep(GONE_S)
            assert get(f"{case.operator.url}/healthz")[0] == 200
            assert case.lane.count(TERMINATE) == before  # no action without a record of it
            case.stand.cluster.thaw_apiserver()

            name = case.proposed("terminate-blocker", seconds=90)
            action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded", seconds=90)
            case.until_phase("Healthy")
    finally:
        case.stand.cluster.thaw_apiserver()

    assert action["status"]["phase"] == "Succeeded", action["status"]
    assert case.lane.count(TERMINATE) == before + 1
    assert len(case.stand.events(case.namespace, "IncidentOpened", case.name)) == 1


@contextmanager
def _gone(stand: Stand) -> Iterator[None]:
    stand.cluster.stop_apiserver()
    try:
        yield
    finally:
        stand.cluster.start_apiserver()
