"""What a recorded run comes to: the summary, the table, and whether it has passed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from kintsugi_dev.demo import record, results
from kintsugi_dev.demo.record import ActionRecord, FaultRecord, Run

RECORDED = Path(__file__).parents[1] / "e2e/data/demo-run.json"


@pytest.fixture(scope="module")
def run() -> Run:
    return record.read(RECORDED)


def with_status(fault: FaultRecord, **status: object) -> FaultRecord:
    """The fault with its last action's status changed."""
    *others, last = fault.actions
    body = {**last.body, "status": {**last.body["status"], **status}}
    return replace(fault, actions=(*others, ActionRecord(body)))


def with_last(run: Run, change: Callable[[FaultRecord], FaultRecord]) -> Run:
    return replace(run, faults=(*run.faults[:-1], change(run.faults[-1])))


def printed(run: Run, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(results.shown(run, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_reads_back_as_it_was_written(run: Run, tmp_path: Path) -> None:
    record.write(run, tmp_path / "run.json")
    assert record.read(tmp_path / "run.json") == run


def test_the_summary_has_exactly_the_promised_fields(run: Run) -> None:
    summary = results.summary(run)
    assert set(summary) == {"faults", "lost_writes"}
    for fault in summary["faults"]:
        assert list(fault) == [
            "fault", "detected_s", "forecast", "action", "approved_by", "healed_s", "verdict", "p99_ms",
        ]  # fmt: skip
        assert set(fault["p99_ms"]) == {"before", "during", "after"}


def test_the_summary_names_the_person_or_the_policy(run: Run) -> None:
    approved = {fault["fault"]: fault["approved_by"] for fault in results.summary(run)["faults"]}
    assert approved["blocking-transaction"] == "policy (AutoMediumRisk)"
    assert approved["killed-primary"] == "ann"


def test_a_run_in_which_everything_was_healed_has_passed(run: Run) -> None:
    assert run.passed
    assert results.why_not(run) == []


def test_a_lost_write_fails_the_run(run: Run) -> None:
    lost = replace(run, lost_writes=1)
    assert not lost.passed
    assert results.why_not(lost) == ["acknowledged writes lost: 1; the policy's maxDataLoss is 0B"]


def test_writes_that_were_not_counted_fail_the_run(run: Run) -> None:
    assert not replace(run, lost_writes=None).passed


@pytest.mark.parametrize("outcome", ["NotHealed", "Inconclusive", "Harmed"])
def test_any_verdict_but_healed_fails_the_run(run: Run, outcome: str) -> None:
    verdict = {"outcome": outcome, "reasons": ["because"]}
    assert not with_last(run, lambda fault: with_status(fault, verdict=verdict)).passed


def test_an_action_that_did_not_succeed_fails_the_run_with_its_phase(run: Run) -> None:
    failed = with_last(run, lambda fault: with_status(fault, phase="Failed", message="no answer"))
    assert not failed.passed
    assert "ended as Failed (no answer)" in results.why_not(failed)[0]


def test_a_verdict_without_the_client_being_back_fails_the_run(run: Run) -> None:
    slow = with_last(run, lambda fault: replace(fault, healed_at=None))
    assert not slow.passed
    assert "latency did not come back" in results.why_not(slow)[0]


def test_a_fault_without_an_incident_fails_the_run(run: Run) -> None:
    unseen = with_last(run, lambda fault: replace(fault, incident=None, actions=()))
    assert not unseen.passed
    assert "opened no incident" in results.why_not(unseen)[0]


def test_a_run_without_faults_has_not_passed(run: Run) -> None:
    assert not replace(run, faults=()).passed


def test_without_the_operator_it_passes_and_says_how_long_faults_lasted(run: Run) -> None:
    unhealed = tuple(replace(f, incident=None, actions=(), healed_at=None) for f in run.faults)
    off = replace(run, operator=False, bound_s=45.0, faults=unhealed)
    assert off.passed
    assert printed(off, 80).count("not healed in 45 s") == len(run.faults)
    assert results.headline(off) == "Without the operator: 4 of 4 faults were not healed in 45 s."


@pytest.mark.parametrize("width", [80, 140])
def test_nothing_is_cut_off_the_table(run: Run, width: int) -> None:
    shown = printed(run, width)
    assert "…" not in shown
    for fault in run.faults:
        assert fault.name in shown
        assert results.p99_in_short(fault) in shown
