"""Every boundary: what it lets pass, what it refuses, and that nothing else refuses it in its place."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kintsugi.api.database import TrackRecord
from kintsugi.domain.actions import Candidate, Risk
from kintsugi.domain.decision import Refusal
from kintsugi.stages import guard as module
from kintsugi.stages.guard import ASKS, BOUNDARIES, Boundary, guard, judge, reasons_to_ask
from kintsugi.stages.judgement import Ask, Auto, Facts, Forbidden, Judgement, RecommendOnly
from kintsugi.stages.policy import NO_CEILING, Ceiling, EffectivePolicy, effective, merge
from kintsugi_dev.builders import CALM, NOW, a_candidate, a_database, a_failover, a_policy, an_effective_policy, facts

INDEX = a_candidate("create-index", Risk.MEDIUM)
NIGHTS = {"name": "nights", "schedule": "0 1 * * *", "duration": "4h", "actions": ["create-index"]}
DAYS = {"name": "days", "schedule": "0 9 * * *", "duration": "8h", "actions": ["create-index"]}
MIDNIGHT = NOW.replace(hour=2)


FREE = an_effective_policy()
ANALYZE = a_candidate()


@dataclass(frozen=True)
class Case:
    """Something that exactly one boundary says no to, and how it says so."""

    boundary: str
    reason: str
    policy: EffectivePolicy = FREE
    facts: Facts = CALM
    candidate: Candidate = ANALYZE
    retry_after: float | None = None


def p(ceiling: Ceiling = NO_CEILING, **spec: Any) -> EffectivePolicy:
    return an_effective_policy(ceiling, **spec)


def watched(**observers: bool | None) -> Facts:
    return facts(observers=observers)


def record(**counts: int) -> TrackRecord:
    return TrackRecord.model_validate({"action": "analyze-table", **counts})


def ago(**parts: float) -> datetime:
    return NOW - timedelta(**parts)


FORBIDDEN = [
    Case("kill_switch", "OperatorPaused", policy=p(Ceiling(paused=True))),
    Case("kill_switch", "PolicyPaused", policy=p(paused=True)),
    Case("kill_switch", "DatabasePaused", facts=facts(database_paused="migration until noon")),
    Case("kill_switch", "DatabasePaused", facts=facts(database_paused="")),
    Case("mode", "ObserveOnly", policy=p(mode="Observe")),
    Case("mode", "ObserveOnly", policy=merge((), NO_CEILING)),
    Case("mode", "RecommendOnly", policy=p(mode="Recommend")),
    Case("mode", "ObserveOnly", policy=p(actions=[{"name": "analyze-table", "mode": "Observe"}])),
    Case("data_loss", "DataLoss", candidate=a_failover(), facts=facts(data_loss_bytes=1.0)),
    Case(
        "data_loss",
        "DataLoss",
        candidate=a_failover(),
        facts=facts(data_loss_bytes=2048.0),
        policy=p(constraints={"maxDataLoss": "1KiB"}),
    ),
    Case("data_loss", "DataLossUnknown", candidate=a_failover(), facts=facts(data_loss_bytes=None)),
    Case("replication_lag", "ReplicaLags", candidate=a_failover(), facts=facts(replication_lag=10.5)),
    Case("replication_lag", "LagUnknown", candidate=a_failover(), facts=facts(replication_lag=None)),
    Case("replication_lag", "ReplicaLags", candidate=INDEX, facts=facts(replication_lag=60.0)),
    Case("protected", "Protected", policy=p(constraints={"protected": ["shop.orders"]})),
    Case("protected", "Protected", policy=p(constraints={"protected": ["database:orders"]})),
    Case(
        "protected",
        "Protected",
        policy=p(actions=[{"name": "terminate-blocker", "protectRoles": ["backup"]}]),
        candidate=a_candidate("terminate-blocker", Risk.MEDIUM, touches=["role:backup"]),
    ),
    Case("protected", "Protected", candidate=a_candidate(touches=["client:walsender"])),
    Case("fresh_metrics", "NoMetrics", facts=facts(newest_sample_age=None)),
    Case("fresh_metrics", "StaleMetrics", facts=facts(newest_sample_age=45.1)),
    Case(
        "observers",
        "ObserversDisagree",
        candidate=a_failover(),
        facts=watched(metrics=True, direct=False, replica=True),
    ),
    Case("observers", "ObserversDisagree", candidate=a_failover(), facts=watched(metrics=True, direct=None)),
    Case("observers", "ObserversDisagree", candidate=a_failover(), facts=watched()),
    Case("circuit", "CircuitOpen", facts=facts(record=record(failed_in_a_row=2))),
    Case("window", "OutsideWindow", candidate=INDEX, policy=p(windows=[NIGHTS]), retry_after=13 * 3600),
    Case("window", "OutsideWindow", candidate=INDEX, policy=p(windows=[{**NIGHTS, "timeZone": "Nowhere/Land"}])),
    Case("cooldown", "CoolingDown", facts=facts(last_action_ended=ago(minutes=2)), retry_after=60),
    Case("hourly_budget", "BudgetUsed", policy=p(limits={"perHour": 0})),
    Case(
        "hourly_budget",
        "BudgetUsed",
        policy=p(limits={"perHour": 2}),
        facts=facts(started=(ago(minutes=50), ago(minutes=40))),
        retry_after=600,
    ),
    Case(
        "hourly_budget",
        "BudgetUsed",
        policy=p(limits={"perHour": 1}),
        facts=facts(started=(ago(minutes=50), ago(minutes=40))),
        retry_after=1200,
    ),
    Case("one_at_a_time", "AnotherActionAtWork", facts=facts(at_work_here="orders-7c1f")),
    Case("concurrent", "TooManyAtWork", facts=facts(at_work={"critical": 1})),
    Case("concurrent", "TooManyAtWork", policy=p(Ceiling(concurrent=3)), facts=facts(at_work_fleet=3)),
]

ASKED = [
    Case("needs_approval", "ModeAsks", policy=p(mode="Approve")),
    Case("needs_approval", "ModeAsks", policy=p(mode="AutoLowRisk"), candidate=INDEX),
    Case("needs_approval", "HighRisk", candidate=a_failover()),
    Case("storm_brake", "Storm", facts=facts(open_incidents=6)),
    Case("storm_brake", "Storm", facts=facts(open_incidents=3, databases=4)),
    Case("earned_trust", "TrustNotEarned", policy=p(rollout={}), facts=facts(trusted=record(succeeded=28))),
    Case(
        "earned_trust",
        "TrustLost",
        policy=p(rollout={}),
        facts=facts(trusted=record(succeeded=1000, harmed=1, failed_in_a_row=1)),
    ),
    Case("attempts", "AttemptsExhausted", facts=facts(tried=2)),
]

PASSING: list[Case] = [
    Case("", ""),
    Case("", "", candidate=INDEX),
    Case("", "", candidate=INDEX, policy=p(windows=[DAYS])),
    Case("", "", candidate=INDEX, facts=facts(now=MIDNIGHT), policy=p(windows=[NIGHTS, DAYS])),
    Case("", "", policy=p(windows=[NIGHTS])),
    Case("", "", policy=p(constraints={"protected": ["shop.ledger", "role:orders", "application:orders"]})),
    Case(
        "",
        "",
        policy=p(actions=[{"name": "terminate-blocker", "protectRoles": ["backup"]}]),
        candidate=a_candidate(touches=["role:backup"]),
    ),
    Case("", "", facts=facts(last_action_ended=ago(minutes=3))),
    Case("", "", facts=facts(started=(ago(minutes=10), ago(minutes=20), ago(minutes=30)))),
    Case("", "", facts=facts(started=tuple(ago(minutes=60 + m) for m in range(9)))),
    Case("", "", facts=facts(record=record(failed_in_a_row=1))),
    Case("", "", facts=facts(newest_sample_age=45.0)),
    Case("", "", facts=facts(at_work={"another": 9}, at_work_fleet=9)),
    Case("", "", facts=facts(open_incidents=5)),
    Case("", "", facts=facts(open_incidents=2, databases=2)),
    Case("", "", facts=facts(tried=1)),
    Case("", "", facts=facts(data_loss_bytes=1e9, replication_lag=99.0, observers={})),
    Case("", "", policy=p(rollout={}), facts=facts(trusted=record(succeeded=29))),
    Case("", "", policy=p(rollout={}), facts=facts(trusted=record(succeeded=45, harmed=1))),
    Case("", "", facts=facts(trusted=record(harmed=3, failed_in_a_row=1))),
]


def name(case: Case) -> str:
    return f"{case.boundary}-{case.reason}"


@pytest.mark.parametrize("case", FORBIDDEN, ids=name)
def test_a_boundary_refuses_alone_and_with_its_own_reason(case: Case) -> None:
    refusals = guard(case.candidate, case.policy, case.facts)

    assert [refusal.reason for refusal in refusals] == [case.reason]
    assert refusals[0].retry_after == case.retry_after
    assert not isinstance(judge(case.candidate, case.policy, case.facts).permission, Ask | Auto)


@pytest.mark.parametrize("case", ASKED, ids=name)
def test_a_reason_to_ask_stands_alone_and_forbids_nothing(case: Case) -> None:
    judgement = judge(case.candidate, case.policy, case.facts)

    assert judgement.refusals == ()
    assert [ask.reason for ask in judgement.asks] == [case.reason]
    assert judgement.permission == Ask(judgement.asks)


@pytest.mark.parametrize("case", PASSING)
def test_what_no_boundary_refuses_runs_by_itself(case: Case) -> None:
    assert judge(case.candidate, case.policy, case.facts) == Judgement(Auto(), (), ())


BARRED = Case("allowed_action", "ActionBarred", policy=p(Ceiling(actions=("failover",))))


def test_an_action_outside_the_ceiling_is_barred_and_not_proposed_either() -> None:
    assert [r.reason for r in guard(BARRED.candidate, BARRED.policy, BARRED.facts)] == ["ObserveOnly", "ActionBarred"]


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda b: b.__name__)
def test_each_boundary_is_needed(boundary: Boundary, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one boundary switched off, something passes that must not; a new boundary needs a case of its own."""
    others = tuple(b for b in BOUNDARIES if b is not boundary)
    # The ceiling's actions are enforced twice, by the mode and by name; only together can they be switched off.
    others = tuple(b for b in others if b.__name__ != "mode") if boundary is module.allowed_action else others
    monkeypatch.setattr(module, "BOUNDARIES", others)

    cases = [case for case in (*FORBIDDEN, BARRED) if case.boundary == boundary.__name__]

    assert cases
    assert all(guard(case.candidate, case.policy, case.facts) == [] for case in cases)


@pytest.mark.parametrize("boundary", ASKS, ids=lambda b: b.__name__)
def test_each_reason_to_ask_is_needed(boundary: Boundary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASKS", tuple(b for b in ASKS if b is not boundary))

    cases = [case for case in ASKED if case.boundary == boundary.__name__]

    assert cases
    assert all(reasons_to_ask(case.candidate, case.policy, case.facts) == [] for case in cases)


@pytest.mark.parametrize("case", [*FORBIDDEN, *ASKED, BARRED], ids=name)
def test_every_reason_is_one_word_and_a_sentence_that_names_the_case(case: Case) -> None:
    for reason in (
        *guard(case.candidate, case.policy, case.facts),
        *reasons_to_ask(case.candidate, case.policy, case.facts),
    ):
        assert reason.reason.isalpha()
        assert reason.reason[0].isupper()
        assert len(reason.message.split()) >= 5
        assert reason.retry_after is None or reason.retry_after > 0


def test_every_reason_is_said_at_once() -> None:
    paused = p(paused=True, windows=[{**NIGHTS, "actions": ["analyze-table"]}])

    judgement = judge(a_candidate(), paused, facts(newest_sample_age=None, last_action_ended=NOW, open_incidents=9))

    assert [r.reason for r in judgement.refusals] == ["PolicyPaused", "NoMetrics", "OutsideWindow", "CoolingDown"]
    assert [r.reason for r in judgement.asks] == ["Storm"]
    assert "no metrics" in judgement.sentence
    assert "storm" in judgement.sentence


# Permissions


def test_observe_forbids_and_recommend_recommends() -> None:
    assert isinstance(judge(a_candidate(), p(mode="Observe"), facts()).permission, Forbidden)
    assert isinstance(judge(a_candidate(), p(mode="Recommend"), facts()).permission, RecommendOnly)


def test_a_recommendation_is_made_also_when_only_the_time_is_wrong() -> None:
    judgement = judge(a_candidate(), p(mode="Recommend"), facts(last_action_ended=NOW))

    assert isinstance(judgement.permission, RecommendOnly)


def test_what_is_protected_is_not_even_recommended() -> None:
    policy = p(mode="Recommend", constraints={"protected": ["shop.orders"]})

    assert isinstance(judge(a_candidate(), policy, facts()).permission, Forbidden)


def test_a_refusal_outweighs_every_reason_to_ask() -> None:
    judgement = judge(a_failover(), p(mode="Approve"), facts(data_loss_bytes=None, open_incidents=9))

    assert isinstance(judgement.permission, Forbidden)
    assert judgement.asks


def test_the_wait_is_known_only_when_time_alone_lifts_everything() -> None:
    passing, lasting = Refusal("A", "a", 5.0), Refusal("B", "b")

    assert Judgement(Forbidden(()), (passing, Refusal("C", "c", 9.0)), ()).retry_after == 9.0
    assert Judgement(Forbidden(()), (passing, lasting), ()).retry_after is None
    assert Judgement(Auto(), (), ()).retry_after is None


# Windows of several policies


def test_an_action_waits_for_the_windows_of_every_policy_that_restricts_it() -> None:
    both = effective([a_policy("a", windows=[NIGHTS]), a_policy("b", windows=[DAYS])], a_database())

    by_day, by_night = guard(INDEX, both, facts()), guard(INDEX, both, facts(now=MIDNIGHT))

    assert "windows of a for" in by_day[0].message
    assert "windows of b for" in by_night[0].message


def test_one_open_window_of_a_policy_is_enough() -> None:
    assert guard(INDEX, p(windows=[NIGHTS, DAYS]), facts()) == []


def test_an_invalid_window_beside_a_good_one_stays_closed() -> None:
    policy = p(windows=[{**NIGHTS, "schedule": "0 99 * * *"}, DAYS])

    assert guard(INDEX, policy, facts()) == []
    assert [r.reason for r in guard(INDEX, policy, facts(now=MIDNIGHT))] == ["OutsideWindow"]


# Protection


@pytest.mark.parametrize(
    ("entry", "touch", "hit"),
    [
        ("shop.orders", "table:shop.orders", True),
        ("shop.orders", "table:shop.orders_archive", False),
        ("shop.orders", "table:public.orders", False),
        ("shop.orders", "role:orders", False),
        ("Shop.Orders", "table:shop.orders", True),
        ("shop.orders", "table:shop.Orders", True),
        ('shop."Orders"', "table:shop.Orders", True),
        ('shop."Orders"', 'table:shop."Orders"', True),
        ('shop."Orders"', "table:shop.orders", False),
        ('"my.shop".orders', 'table:"my.shop".orders', True),
        ('"my.shop".orders', "table:my.shop.orders", False),
        ('shop."a""b"', 'table:shop."a""b"', True),
        ("orders", "table:shop.orders", True),
        ("shop.*", "table:shop.orders", True),
        ("shop.*", "table:shopping.orders", False),
        ("table:shop.orders", "table:shop.orders", True),
        ("role:app", "role:app", True),
        ("role:app", "role:App", False),
        ("role:app", "role:app2", False),
        ("role:etl_*", "role:etl_nightly", True),
        ("database:orders", "database:orders", True),
        ("application:psql", "application:PSQL", True),
        ("application:psql", "role:psql", False),
        ("role:a.b", "role:axb", False),
    ],
)
def test_protection_matches_names_and_nothing_more(entry: str, touch: str, hit: bool) -> None:
    refusals = guard(a_candidate(touches=[touch]), p(constraints={"protected": [entry]}), facts(database_name="d"))

    assert [r.reason for r in refusals] == (["Protected"] if hit else [])


@pytest.mark.parametrize(
    "touch", ["client:walsender", "application:pg_dump", "application:pg_basebackup", "application:pgBackRest [backup]"]
)
def test_replication_and_backups_are_protected_without_a_policy_saying_so(touch: str) -> None:
    assert [r.reason for r in guard(a_candidate(touches=[touch]), p(), facts())] == ["Protected"]


# Where the numbers in a sentence come from


def test_the_sentences_carry_the_numbers() -> None:
    def message(candidate: Candidate = ANALYZE, policy: EffectivePolicy = FREE, **changes: Any) -> str:
        judgement = judge(candidate, policy, replace(facts(), **changes))
        return judgement.sentence

    assert "2 m 10 s of cooldown left" in message(last_action_ended=ago(seconds=50))
    assert "6 of 20 databases" in message(open_incidents=6)
    assert "could lose 3 KiB of WAL; at most 0 B" in message(a_failover(), data_loss_bytes=3072.0)
    assert "2026-11-22 01:00 UTC" in message(INDEX, p(windows=[NIGHTS]))
    assert "29 successes" in message(policy=p(rollout={}), trusted=record(succeeded=3))
    assert "direct connection still sees the primary up" in message(
        a_failover(), observers={"metrics": True, "direct connection": False}
    )


def test_every_reason_is_explained_where_a_user_looks_for_it() -> None:
    root = Path(__file__).parents[2]
    stages = root / "operator/kintsugi/stages"
    docs = (root / "docs/policies.md").read_text() + (root / "docs/lifecycle.md").read_text()

    code = "".join(path.read_text() for path in (stages / "guard.py", *sorted(stages.glob("lifecycle*.py"))))
    reasons = set(re.findall(r'(?:Refusal|Say)\(\s*"([A-Z][A-Za-z]+)"', code))

    assert len(reasons) > 40
    assert {reason for reason in reasons if f"`{reason}`" not in docs} == set()
