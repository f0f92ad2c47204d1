"""Real faults in a real database: healed and verified by the running operator, and lasting without it.

Each fault class has both: what heals by itself would prove nothing.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kintsugi.engines.catalogue import load
from kintsugi_dev.faults import BlockingTransaction, DroppedIndex, Fault
from kintsugi_dev.stand import Case, Lane
from kintsugi_ml import bundle
from kintsugi_ml.detection.diagnose import UNKNOWN

Healed = Callable[[], bool]
WITHIN = 60.0
"""Seconds in which the operator heals, and in which without it nothing does."""
ON_LANES: dict[str, tuple[str, Callable[[Lane], Fault], Callable[[Lane], bool]]] = {
    "blocking-transaction": (
        "terminate-blocker",
        lambda lane: BlockingTransaction(lane.dsn),
        lambda lane: not lane.rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'nightly-correction'"),
    ),
    "dropped-index": (
        "create-index",
        lambda lane: DroppedIndex(lane.server, "shop"),
        lambda lane: bool(
            lane.rows(
                "SELECT 1 FROM pg_index WHERE indrelid = 'order_lines'::regclass AND indisvalid"
                " AND pg_get_indexdef(indexrelid, 1, false) = 'order_id'"
            )
        ),
    ),
}
IN_THE_DEMO = ("exhausted-pool", "killed-primary")


@pytest.mark.parametrize("fault", ["blocking-transaction", pytest.param("dropped-index", marks=pytest.mark.slow)])
def test_with_the_operator_it_is_found_healed_once_and_verified(case: Case, fault: str) -> None:
    remedy, make, healed = ON_LANES[fault]
    case.watched()

    with case.lane.fault(make(case.lane)):
        name = case.proposed(remedy, seconds=WITHIN)
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded", "RolledBack", seconds=90)
        assert healed(case.lane)
        case.until_phase("Healthy")

    assert action["status"]["phase"] == "Succeeded", action["status"]
    assert action["status"]["verdict"]["outcome"] == "Healed"
    phases = [line["phase"] for line in case.operator.audited(name)]
    assert phases == ["Approved", "Executing", "Verifying", "Succeeded"]
    _has_an_opinion(action["spec"]["evidence"]["opinion"])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ON_LANES)
def test_without_the_operator_it_lasts(case: Case, fault: str) -> None:
    _, make, healed = ON_LANES[fault]
    case.watched()
    case.operator.stop()

    with case.lane.fault(make(case.lane)):
        time.sleep(WITHIN)
        assert not healed(case.lane)

    assert case.stand.actions(case.namespace) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_the_operator_a_full_pool_grows_and_a_dead_primary_is_replaced_after_approval(tmp_path: Path) -> None:
    status, summary = _demo(tmp_path, "on")

    by_name = {fault["fault"]: fault for fault in summary["faults"]}
    assert status == 0, summary
    assert {name: fault["verdict"] for name, fault in by_name.items()} == dict.fromkeys(IN_THE_DEMO, "Healed")
    assert by_name["exhausted-pool"]["action"] == "resize-pool"
    assert by_name["killed-primary"]["action"] == "failover"
    assert by_name["killed-primary"]["approved_by"] == "ann"
    assert summary["lost_writes"] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_the_operator_the_pool_stays_full_and_the_primary_dead(tmp_path: Path) -> None:
    _, summary = _demo(tmp_path, "off")

    assert [fault["fault"] for fault in summary["faults"]] == list(IN_THE_DEMO)
    assert [fault["healed_s"] for fault in summary["faults"]] == [None, None]


def _has_an_opinion(opinion: dict[str, Any]) -> None:
    """What the shipped model said of a fault that is plain to see is in the evidence, in words and numbers."""
    shipped = bundle.read()
    assert opinion["model"] == shipped.name, "version and hash"
    assert 0 < opinion["threshold"] <= 1
    assert 0 <= opinion["probability"] <= 1
    assert opinion["unusual"], opinion
    for unusual in opinion["unusual"]:
        assert unusual["signal"] in load("postgresql").names()
        assert math.isfinite(unusual["deviation"])
        assert abs(unusual["deviation"]) >= 3
        assert unusual["signal"] in opinion["sentence"]
    assert shipped.diagnosis is not None
    assert opinion["nearestClass"] in shipped.diagnosis.classes
    assert opinion["faultClass"] in (opinion["nearestClass"], UNKNOWN)
    assert 0 <= opinion["classProbability"] <= 1
    assert "looks like" in opinion["sentence"]


def _demo(out: Path, operator: str) -> tuple[int, dict[str, Any]]:
    """`make demo` with the two faults that need a pooler and a replica: its exit status and summary."""
    command = [sys.executable, "-m", "kintsugi_dev.demo", "--operator", operator, "--cluster", "kwok"]
    command += ["--faults", ",".join(IN_THE_DEMO), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
    summary = out / "summary.json"
    assert summary.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return done.returncode, json.loads(summary.read_text())
