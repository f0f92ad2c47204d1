"""Several policies, one set of boundaries: the strictest of each wins, and who capped what is said."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.api.meta import PAUSE, get_condition
from kintsugi.api.policy import HealingPolicy, Mode, Selector
from kintsugi.domain.actions import Objectives, Risk
from kintsugi.engines.risk import RISKS
from kintsugi.stages.policy import NO_CEILING, Ceiling, automatic, effective, matches, merge
from kintsugi.stages.policy_status import LISTED, Matched, conflicts, problems, status_of
from kintsugi_dev.builders import NOW, a_database, a_policy


def a_window(name: str, schedule: str, *actions: str, duration: str = "4h") -> dict[str, Any]:
    return {"name": name, "schedule": schedule, "duration": duration, "actions": list(actions)}


# Which policies apply


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"tier": "critical"}}, True),
        ({"matchLabels": {"tier": "critical", "team": "shop"}}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["critical", "high"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["shop"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["critical"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["shop"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"tier": "critical"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
def test_selectors_select_as_kubernetes_does(selector: dict[str, Any], selected: bool) -> None:
    assert matches(Selector.model_validate(selector), {"tier": "critical"}) is selected


def test_without_a_policy_a_database_is_only_observed() -> None:
    policy = effective([], a_database())

    assert policy.mode is Mode.OBSERVE
    assert {policy.mode_for(action, risk) for action, risk in RISKS.items()} == {Mode.OBSERVE}
    assert "no policy matches" in policy.notes[0]


def test_a_policy_of_another_namespace_never_applies() -> None:
    assert effective([a_policy(namespace="bank")], a_database()).mode is Mode.OBSERVE


def test_a_policy_whose_selector_does_not_match_never_applies() -> None:
    policy = a_policy(selector={"matchLabels": {"tier": "critical"}})

    assert effective([policy], a_database()).mode is Mode.OBSERVE
    assert effective([policy], a_database(labels={"tier": "critical"})).mode is Mode.AUTO_MEDIUM_RISK


# The strictest wins

STRICTER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("mode", {"mode": "AutoMediumRisk"}, {"mode": "Approve"}),
    ("max_harm_rate", {"rollout": {"maxHarmRate": "10%"}}, {"rollout": {"maxHarmRate": "2%"}}),
    ("constraints", {"constraints": {"maxDataLoss": "16MB"}}, {"constraints": {"maxDataLoss": "0B"}}),
    ("constraints", {"constraints": {"maxReplicationLag": "1m"}}, {"constraints": {"maxReplicationLag": "5s"}}),
    ("limits", {"limits": {"perHour": 9}}, {"limits": {"perHour": 0}}),
    ("limits", {"limits": {"cooldown": "1m"}}, {"limits": {"cooldown": "1h"}}),
    ("limits", {"limits": {"concurrent": 5}}, {"limits": {"concurrent": 1}}),
    ("approval", {"approval": {"expiresAfter": "2h"}}, {"approval": {"expiresAfter": "5m"}}),
    ("approval", {"approval": {"approvers": 1}}, {"approval": {"approvers": 2}}),
    ("verification", {"verification": {"window": "1m"}}, {"verification": {"window": "10m"}}),
    ("verification", {"verification": {"revertOnFailure": False}}, {"verification": {"revertOnFailure": True}}),
    ("max_attempts", {"escalation": {"maxAttempts": 5}}, {"escalation": {"maxAttempts": 1}}),
]


@pytest.mark.parametrize(("field", "loose", "strict"), STRICTER, ids=[str(s) for _, _, s in STRICTER])
def test_the_strictest_value_of_each_boundary_wins_whatever_the_priority(
    field: str, loose: dict[str, Any], strict: dict[str, Any]
) -> None:
    database = a_database()
    alone = getattr(effective([a_policy("b", **strict)], database), field)
    assert alone != getattr(effective([a_policy("b", **loose)], database), field)

    for first, second in itertools.permutations([a_policy("a", priority=1000, **loose), a_policy("b", **strict)]):
        both = effective([first, second], database)
        assert getattr(both, field) == alone


def test_who_made_a_boundary_stricter_is_said() -> None:
    both = effective([a_policy("a", limits={"cooldown": "1m"}), a_policy("b", mode="Approve")], a_database())

    assert "mode AutoMediumRisk of a is capped to Approve by b" in both.notes
    assert "cooldown 3m is from b, the strictest of 2 policies" in both.notes


def test_what_any_policy_protects_is_protected() -> None:
    one = a_policy(
        "a",
        constraints={"protected": ["shop.ledger"]},
        actions=[{"name": "terminate-blocker", "protectRoles": ["backup"]}],
    )
    other = a_policy(
        "b", constraints={"protected": ["role:ann"]}, actions=[{"name": "terminate-blocker", "protectRoles": ["etl"]}]
    )

    both = effective([one, other], a_database())

    assert set(both.constraints.protected) == {"shop.ledger", "role:ann"}
    assert both.protect_roles == {"terminate-blocker": {"backup", "etl"}}


def test_a_policy_pauses_by_its_spec_and_by_the_annotation() -> None:
    written, quiet = a_policy("written", paused=True), a_policy("quiet")
    metadata = quiet.metadata.model_copy(update={"name": "annotated", "annotations": {PAUSE: "migration until noon"}})
    annotated = quiet.model_copy(update={"metadata": metadata})

    assert merge((annotated, quiet, written), NO_CEILING).paused_by == ("annotated", "written")


def test_one_policy_that_wants_trust_to_be_earned_is_enough() -> None:
    assert effective([a_policy("a"), a_policy("b", rollout={"maxHarmRate": "2%"})], a_database()).max_harm_rate == 0.02
    assert effective([a_policy("a")], a_database()).max_harm_rate is None


def test_an_action_is_restricted_by_the_windows_of_each_policy_that_names_it() -> None:
    one = a_policy(
        "a", windows=[a_window("n", "0 1 * * *", "create-index"), a_window("s", "0 1 * * *", "analyze-table")]
    )
    other = a_policy("b", windows=[a_window("w", "0 3 * * *", "create-index")])

    both = effective([one, other], a_database())

    assert [(r.policy, [w.name for w in r.windows]) for r in both.restrictions("create-index")] == [
        ("a", ["n"]),
        ("b", ["w"]),
    ]
    assert both.restrictions("failover") == ()


def test_each_policys_concurrency_holds_over_its_own_databases() -> None:
    both = effective([a_policy("a", limits={"concurrent": 3}), a_policy("b")], a_database())

    assert both.concurrent == {"a": 3, "b": 1}


def test_the_objectives_come_from_the_highest_priority_and_then_from_the_first_name() -> None:
    policies = [
        a_policy("c", priority=5, objectives={"latency": 9}),
        a_policy("b", priority=5, objectives={"latency": 4, "throughput": 3, "consistency": 2, "resources": 1}),
        a_policy("a", objectives={"latency": 1}),
    ]

    for order in itertools.permutations(policies):
        assert effective(order, a_database()).objectives == Objectives(4, 3, 1, 2)


def test_the_policies_a_decision_rests_on_are_named_in_order() -> None:
    refs = effective([a_policy("b"), a_policy("a")], a_database()).refs

    assert [(ref.name, ref.uid, ref.generation) for ref in refs] == [("a", "uid-a", 1), ("b", "uid-b", 1)]


POLICIES = st.lists(
    st.builds(
        lambda name, mode, hour, cooldown, priority, override, paused: a_policy(
            name,
            mode=mode,
            priority=priority,
            paused=paused,
            limits={"perHour": hour, "cooldown": f"{cooldown}s"},
            actions=[{"name": "create-index", "mode": override}],
        ),
        st.sampled_from("abcdef"),
        st.sampled_from([m.value for m in Mode]),
        st.integers(0, 9),
        st.integers(0, 900),
        st.integers(-5, 5),
        st.sampled_from([m.value for m in Mode]),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda policy: policy.metadata.name,
)


@given(POLICIES, st.randoms())
def test_another_policy_never_loosens_a_boundary(policies: list[HealingPolicy], random: Any) -> None:
    database = a_database()
    merged = effective(policies, database)
    shuffled = list(policies)
    random.shuffle(shuffled)
    assert effective(shuffled, database) == merged

    for policy in policies:
        alone = effective([policy], database)
        assert merged.limits.per_hour <= alone.limits.per_hour
        assert merged.limits.cooldown >= alone.limits.cooldown
        assert set(merged.paused_by) >= set(alone.paused_by)
        for action, risk in RISKS.items():
            assert merged.mode_for(action, risk).rank <= alone.mode_for(action, risk).rank


# Modes per action


@pytest.mark.parametrize(
    ("mode", "low", "medium", "high"),
    [
        ("Observe", "Observe", "Observe", "Observe"),
        ("Recommend", "Recommend", "Recommend", "Recommend"),
        ("Approve", "Approve", "Approve", "Approve"),
        ("AutoLowRisk", "AutoLowRisk", "Approve", "Approve"),
        ("AutoMediumRisk", "AutoMediumRisk", "AutoMediumRisk", "Approve"),
    ],
)
def test_high_risk_always_asks(mode: str, low: str, medium: str, high: str) -> None:
    policy = effective([a_policy(mode=mode)], a_database())

    got = [policy.mode_for("x", risk).value for risk in (Risk.LOW, Risk.MEDIUM, Risk.HIGH)]

    assert got == [low, medium, high]
    assert not any(automatic(m, Risk.HIGH) for m in Mode)


def test_an_override_may_be_stricter_than_the_mode() -> None:
    policy = effective([a_policy(actions=[{"name": "create-index", "mode": "Recommend"}])], a_database())

    assert policy.mode_for("create-index", Risk.MEDIUM) is Mode.RECOMMEND
    assert policy.mode_for("analyze-table", Risk.LOW) is Mode.AUTO_MEDIUM_RISK


def test_an_override_that_is_looser_than_the_mode_has_no_effect_and_says_so() -> None:
    policy = effective(
        [a_policy(mode="Recommend", actions=[{"name": "create-index", "mode": "AutoMediumRisk"}])], a_database()
    )

    assert policy.mode_for("create-index", Risk.MEDIUM) is Mode.RECOMMEND
    assert any("looser than Recommend" in note for note in policy.notes)


def test_a_policy_with_a_misspelt_action_lets_nothing_run() -> None:
    policy = effective([a_policy(actions=[{"name": "terminate-blockr", "mode": "Observe"}])], a_database())

    assert policy.mode is Mode.RECOMMEND
    assert any("terminate-blockr" in note for note in policy.notes)


# The ceiling


def test_the_ceiling_caps_every_mode_and_says_so() -> None:
    policy = effective([a_policy()], a_database(), Ceiling(mode=Mode.APPROVE))

    assert policy.mode is Mode.APPROVE
    assert "mode AutoMediumRisk of critical is capped to Approve by the operator's ceiling" in policy.notes


def test_an_action_outside_the_ceiling_is_only_observed() -> None:
    policy = effective([a_policy()], a_database(), Ceiling(actions=("analyze-table",)))

    assert policy.mode_for("analyze-table", Risk.LOW) is Mode.AUTO_MEDIUM_RISK
    assert policy.mode_for("create-index", Risk.MEDIUM) is Mode.OBSERVE


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://prometheus.monitoring:9090", True),
        ("http://prometheus.monitoring:9090/", True),
        ("http://PROMETHEUS.monitoring:9090/any", True),
        ("http://prometheus.monitoring:9090.evil.example", False),
        ("http://prometheus.monitoring:9090@evil.example", False),
        ("http://user@prometheus.monitoring:9090", False),
        ("http://prometheus.monitoring:9091", False),
        ("https://prometheus.monitoring:9090", False),
        ("https://metrics.example/eu", True),
        ("https://metrics.example:443/eu/api", True),
        ("https://metrics.example/europe", False),
        ("https://metrics.example/eu/../us", False),
        ("https://metrics.example/eu/%2e%2e/us", False),
        ("https://metrics.example:port/eu", False),
        ("http://169.254.169.254/latest", False),
    ],
)
def test_metrics_come_only_from_the_ceilings_urls(url: str, allowed: bool) -> None:
    ceiling = Ceiling(prometheus=("http://prometheus.monitoring:9090", "https://metrics.example/eu/"))

    assert ceiling.allows_prometheus(url) is allowed
    assert NO_CEILING.allows_prometheus(url)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("orders-rw.shop.svc", True),
        ("ORDERS-RW.shop.svc.", True),
        ("10.0.0.7", True),
        ("orders-rw.shop.svc.evil.example", False),
        ("evil.example,orders-rw.shop.svc", False),
        ("/tmp/x.shop.svc", False),
        ("x@y.shop.svc", False),
        ("10.0.0.77", False),
    ],
)
def test_connections_go_only_to_the_ceilings_hosts(host: str, allowed: bool) -> None:
    assert Ceiling(databases=("*.shop.svc", "10.0.0.7")).allows_host(host) is allowed


def test_every_address_of_a_database_outside_the_ceiling_is_named() -> None:
    database = a_database(
        pooler={"pgbouncer": {"host": "pooler.else", "secretRef": "p"}},
        replication={
            "streaming": {
                "service": "orders-rw",
                "members": [{"name": "m-0", "host": "m-0.shop"}, {"name": "m-1", "host": "m-1.else"}],
            }
        },
    )
    ceiling = Ceiling(databases=("orders-rw", "*.shop"), prometheus=("http://other:9090",))

    text = "\n".join(ceiling.problems(database))

    assert all(name in text for name in ("pooler.pgbouncer.host", "members[m-1]", "metrics.prometheus"))
    assert "members[m-0]" not in text
    assert "connection.host" not in text
    assert NO_CEILING.problems(database) == ()


# What a policy's status says


def matched(name: str, *policies: HealingPolicy, blocked: tuple[str, ...] = ()) -> Matched:
    return Matched(name, merge(policies, NO_CEILING), actions_last_hour=2, blocked=blocked)


def test_a_policys_status_shows_what_its_modes_come_to_and_where() -> None:
    policy, baseline = a_policy(mode="AutoLowRisk"), a_policy("baseline", mode="Approve")

    status = status_of(
        policy,
        [matched("orders", policy, baseline), matched("web", policy, blocked=("cooldown",))],
        NO_CEILING,
        (),
        NOW,
    )

    assert [(d.name, d.effective_mode, d.actions_last_hour, d.blocked) for d in status.databases] == [
        ("web", "AutoLowRisk", 2, ("cooldown",)),
        ("orders", "Approve", 2, ()),
    ]
    modes = {entry.name: entry.mode for entry in status.actions}
    assert (modes["analyze-table"], modes["create-index"], modes["failover"]) == ("AutoLowRisk", "Approve", "Approve")
    ready = get_condition(status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("True", "Applied", "holds for 2 databases")


def test_a_policys_status_is_the_same_as_long_as_nothing_changes() -> None:
    policy = a_policy()
    first = status_of(policy, [matched("orders", policy)], NO_CEILING, (), NOW)

    again = status_of(
        policy.model_copy(update={"status": first}),
        [matched("orders", policy)],
        NO_CEILING,
        (),
        NOW + timedelta(hours=1),
    )

    assert again == first


def test_an_unknown_action_is_a_condition_that_says_what_to_write() -> None:
    policy = a_policy(windows=[a_window("n", "0 1 * * *", "reindex")])

    ready = get_condition(status_of(policy, [], NO_CEILING, (), NOW).conditions, "Ready")

    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "UnknownAction")
    assert "reindex" in ready.message
    assert "create-index" in ready.message


def test_an_invalid_window_is_a_condition() -> None:
    policy = a_policy(windows=[a_window("n", "0 25 * * *", "create-index")])

    assert [reason for reason, _ in problems(policy)] == ["InvalidWindow"]


def test_what_the_ceiling_takes_away_is_a_condition() -> None:
    capped = get_condition(status_of(a_policy(), [], Ceiling(mode=Mode.OBSERVE), (), NOW).conditions, "Capped")

    assert capped is not None
    assert capped.status == "True"
    assert "operator's ceiling" in capped.message


def test_windows_that_never_overlap_are_a_conflict_that_names_both() -> None:
    one = a_policy("a", windows=[a_window("n", "0 1 * * *", "create-index")])
    other = a_policy("b", windows=[a_window("d", "0 9 * * *", "create-index")])
    third = a_policy("c", windows=[a_window("d", "0 9 * * *", "analyze-table")])

    found = conflicts([other, one, third], NOW)

    assert found == ("windows of a and b never overlap for create-index, so it can never run; change one of them",)
    condition = get_condition(status_of(one, [], NO_CEILING, found, NOW).conditions, "Conflicting")
    assert condition is not None
    assert condition.status == "True"


def test_a_status_stays_small_however_many_databases_match() -> None:
    policy = a_policy()
    many = [matched(f"db-{i}", policy) for i in range(LISTED + 5)] + [matched("zz", policy, blocked=("storm",))]

    status = status_of(policy, many, NO_CEILING, (), NOW)

    assert (status.matched, len(status.databases), status.databases[0].name) == (LISTED + 6, LISTED, "zz")
