"""Real faults in a real database, healed by the running operator, and lasting without it."""

from __future__ import annotations

from kintsugi_dev.faults import BlockingTransaction
from kintsugi_dev.stand import Case

TERMINATE = "%pg_terminate_backend(a.pid)%"


def test_a_blocking_transaction_is_found_terminated_once_and_verified(case: Case) -> None:
    case.watched()
    before = case.lane.count(TERMINATE)

    with case.lane.fault(BlockingTransaction(case.lane.dsn)):
        name = case.proposed("terminate-blocker")
        action = case.until_action(name, "Succeeded", "Failed", "Inconclusive", "Superseded")
        case.until_phase("Healthy")

    assert action["status"]["phase"] == "Succeeded"
    assert action["status"]["verdict"]["outcome"] == "Healed"
    assert case.lane.count(TERMINATE) == before + 1
    assert [each["phase"] for each in case.operator.audited(name)] == [
        "Approved",
        "Executing",
        "Verifying",
        "Succeeded",
    ]
