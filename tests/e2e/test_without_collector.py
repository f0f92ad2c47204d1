"""A collector that stops: nothing is known, so nothing is done. It disturbs every lane, so these tests come last."""

from __future__ import annotations

import time

import pytest

from kintsugi_dev.faults import BlockingTransaction
from kintsugi_dev.stand import Case

TERMINATE = "%pg_terminate_backend(a.pid)%"


def test_without_its_collector_a_database_is_blind_and_nothing_acts_until_it_is_back(case: Case) -> None:
    case.watched()
    before = case.lane.count(TERMINATE)
    case.stand.stop_collector()
    try:
        case.until_phase("Blind")
        condition = case.condition("MetricsAvailable")
        assert (condition["status"], condition["reason"]) == ("False", "Stale")
        assert "is the collector running?" in condition["message"]
        assert condition["message"] == case.database["status"]["doing"]

        with case.lane.fault(BlockingTransaction(case.lane.dsn)):
            time.sleep(6)
            assert case.phase == "Blind"
            assert case.stand.actions(case.namespace) == []
            assert case.lane.count(TERMINATE) == before
    finally:
        case.stand.start_collector()
    try:
        case.until_phase("Healthy", 90)
        assert case.condition("MetricsAvailable")["status"] == "True"
        assert case.lane.count(TERMINATE) == before
    finally:
        case.stand.disturbed()


@pytest.mark.slow
def test_a_gap_of_two_scrapes_is_no_incident(case: Case) -> None:
    case.watched()
    case.stand.stop_collector()
    try:
        time.sleep(1.5)
    finally:
        case.stand.start_collector()
    try:
        time.sleep(8)
        assert case.stand.events(case.namespace, "IncidentOpened") == []
    finally:
        case.stand.disturbed()
