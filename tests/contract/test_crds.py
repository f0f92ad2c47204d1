"""The three kinds on a real API server: what users write is taken, shown and kept as the models mean it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kintsugi.api.action import HealingAction, plan_hash
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import Model
from kintsugi.api.policy import HealingPolicy
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.objects import Object, a_database, a_policy, an_action, text
from kintsugi_dev.rest import RefusedError, Rest

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "docs/samples").glob("*.yaml"))
MODELS: dict[str, type[Model]] = {
    "MonitoredDatabase": MonitoredDatabase,
    "HealingPolicy": HealingPolicy,
    "HealingAction": HealingAction,
}
ENDED = ["Succeeded", "Failed", "RolledBack", "Inconclusive", "Rejected", "Expired", "Superseded"]


@pytest.fixture(scope="module")
def rest(cluster: Cluster) -> Iterator[Rest]:
    with Rest(cluster.kubeconfig) as connection:
        yield connection


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.stem))
def test_a_sample_applies_and_is_read_back_by_the_models(
    sample: Path, cluster: Cluster, rest: Rest, namespace: str
) -> None:
    documents = list(yaml.safe_load_all(sample.read_text(encoding="utf-8")))

    for document in documents:
        _create(rest, cluster, namespace, document)

    for document in documents:
        if document["kind"] in MODELS:
            stored = rest.get(document, namespace)
            MODELS[document["kind"]].model_validate(_known(stored))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.connection.host", "::1"),
        ("spec.connection.host", "10.0.0.7"),
        ("spec.connection.host", "orders.db.example.com."),
        ("spec.connection.database", "Orders 2"),
        ("spec.metrics.prometheus", "https://metrics.example.com:9090/team/prometheus"),
        ("spec.metrics.matchers", {"_private": 'with "quotes" \\ and ü'}),
        ("spec.metrics.scrapeInterval", "1m30s"),
        ("spec.slo.target", "1500ms"),
        ("spec.reference", {"minimum": "30m", "window": "30m"}),
    ],
)
def test_an_unusual_but_right_database_is_accepted(path: str, value: Any, rest: Rest) -> None:
    rest.create(a_database(**{path: value}), dry_run=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.selector", {}),
        ("spec.selector.matchLabels", {"example.com/tier": ""}),
        ("spec.limits.perHour", 0),
        ("spec.limits.cooldown", "0s"),
        ("spec.objectives", {"latency": 0, "throughput": 0, "consistency": 1, "resources": 0}),
        (
            "spec.constraints.protected",
            ['shop."My.Orders"', "*.ledger", "audit.*", "application:nightly backup", "role:*"],
        ),
        ("spec.constraints.maxDataLoss", "512KiB"),
        ("spec.windows[0].timeZone", "Etc/GMT+5"),
        ("spec.windows[0].timeZone", "America/Argentina/Buenos_Aires"),
        ("spec.windows[0].schedule", "*/15 0-6/2,22 1,15 JAN-MAR,12 mon-fri"),
        ("spec.windows[0].schedule", "59 23 31 12 7"),
        ("spec.windows[0].duration", "168h"),
        ("spec.rollout.maxHarmRate", "0.5%"),
        ("spec.mode", "Recommend"),
    ],
)
def test_an_unusual_but_right_policy_is_accepted(path: str, value: Any, rest: Rest) -> None:
    rest.create(a_policy(**{path: value}), dry_run=True)


def test_a_recommendation_needs_no_plan(rest: Rest) -> None:
    rest.create(an_action(**{"spec.runnable": False, "spec.plan": []}), dry_run=True)


def test_samples_cover_every_field_of_a_database_and_a_policy(cluster: Cluster) -> None:
    documents = [d for sample in SAMPLES for d in yaml.safe_load_all(sample.read_text(encoding="utf-8"))]
    for kind, crd in (("MonitoredDatabase", "monitoreddatabases"), ("HealingPolicy", "healingpolicies")):
        shown = {path for d in documents if d["kind"] == kind for path in _paths(d["spec"])}
        missing = {path for path in _schema_paths(_schema(cluster, crd)["properties"]["spec"]) if path not in shown}
        assert not missing, f"no sample in docs/samples shows these fields of a {kind}"


def test_the_api_server_fills_in_the_defaults_of_the_models(rest: Rest, namespace: str) -> None:
    bare = {"apiVersion": "kintsugi.dev/v1alpha1", "kind": "HealingPolicy", "metadata": {"name": "bare"}}
    rest.create(bare | {"spec": {"selector": {}}}, namespace)

    stored = rest.get(bare, namespace)["spec"]

    by_the_model = HealingPolicy.model_validate({"metadata": {"name": "x", "namespace": "y"}, "spec": {"selector": {}}})
    expected = by_the_model.spec.to_json()
    assert {path: value for path, value in _leaves(expected) if value not in ([], {}, "")} == {
        path: value for path, value in _leaves(stored) if value != {}
    }


def test_an_action_is_stored_exactly_as_it_was_created(rest: Rest, namespace: str) -> None:
    whole = an_action()
    rest.create(whole, namespace)

    assert rest.get(whole, namespace)["spec"] == whole["spec"]


def test_the_hash_of_a_plan_survives_the_api_server(rest: Rest, namespace: str) -> None:
    """The API server writes 1.0 as 1, and a hash over the text would change."""
    opinion = yaml.safe_load((ROOT / "docs/samples/healing-action.yaml").read_text())["spec"]["evidence"]["opinion"]
    opinion["unusual"] = [{"signal": "lock_waiters", "deviation": 60.0}, {"signal": "reads", "deviation": -14.2}]
    changes = {"spec.expected.latency": 1.0, "spec.parameters.threshold": 2.0, "spec.parameters.none": None}
    whole = an_action(**changes, **{"spec.evidence.opinion": opinion})
    spec = HealingAction.model_validate(_placed(whole)).spec
    whole["spec"] = spec.to_json() | {"planHash": plan_hash(spec.to_json())}
    rest.create(whole, namespace)

    stored = rest.get(whole, namespace)

    read = HealingAction.model_validate(_known(stored)).spec
    assert stored["spec"]["evidence"]["opinion"] == opinion
    assert plan_hash(read.to_json()) == plan_hash(stored["spec"]) == read.plan_hash == whole["spec"]["planHash"]


def test_the_sample_of_an_action_carries_its_own_hash() -> None:
    spec = yaml.safe_load((ROOT / "docs/samples/healing-action.yaml").read_text(encoding="utf-8"))["spec"]

    assert plan_hash(spec) == spec["planHash"]


@pytest.mark.parametrize(
    "patch",
    [
        {"risk": "high"},
        {"plan": [{"kind": "sql", "target": "primary", "command": "DROP TABLE a", "timeout": "10s"}]},
        {"parameters": {"pid": 1}},
        {"parameters": {"deep": {"list": [2, 1]}}},
        {"expiresAt": "2027-01-01T00:00:00.000Z"},
        {"runnable": False},
        {"planHash": "ffffffffffff"},
    ],
    ids=lambda patch: json.dumps(patch)[:40],
)
def test_nothing_of_an_action_can_be_changed(patch: Object, rest: Rest, namespace: str) -> None:
    rest.create(an_action(), namespace)

    with pytest.raises(RefusedError, match="spec is immutable, since people approve its planHash"):
        rest.patch(an_action(), namespace, {"spec": patch})


@pytest.mark.parametrize("ended", ENDED)
def test_an_ended_action_never_moves_again(ended: str, rest: Rest, namespace: str) -> None:
    rest.create(an_action(), namespace)
    rest.patch(an_action(), namespace, {"status": {"phase": "Executing"}})
    rest.patch(an_action(), namespace, {"status": {"phase": ended}})

    for change in ({"phase": "Executing"}, {"phase": None}, None):
        with pytest.raises(RefusedError, match="phase of an ended action must never change"):
            rest.patch(an_action(), namespace, {"status": change})
    rest.patch(an_action(), namespace, {"status": {"message": "the rest of the status may still be completed"}})


def test_the_default_view_answers_what_it_is_doing_and_why(cluster: Cluster, rest: Rest, namespace: str) -> None:
    rest.create(a_database(), namespace)
    status = {
        "phase": "Degraded",
        "risk": "0.91",
        "soon": "connections 0.84 in 40s",
        "doing": "waiting for approval",
        "effectiveMode": "Approve",
        "policies": ["critical"],
        "incident": {"id": "orders-1402", "openedAt": "2026-11-22T14:02:11.000Z"},
    }
    rest.patch(a_database(), namespace, {"status": status})

    table = _columns(cluster.kubectl("get", "mdb", "--namespace", namespace))
    wide = _columns(cluster.kubectl("get", "mdb", "--namespace", namespace, "--output=wide"))

    assert list(table) == ["NAME", "HEALTH", "RISK", "SOON", "DOING", "AGE"]
    assert (table["HEALTH"], table["RISK"], table["SOON"]) == ("Degraded", "0.91", "connections 0.84 in 40s")
    assert table["DOING"] == "waiting for approval"
    assert (wide["MODE"], wide["INCIDENT"]) == ("Approve", "orders-1402")
    assert "critical" in wide["POLICIES"]


def test_actions_show_what_they_wait_for_and_who_approved(cluster: Cluster, rest: Rest, namespace: str) -> None:
    rest.create(an_action(), namespace)
    status = {
        "phase": "Succeeded",
        "waitsFor": "nothing",
        "message": "healed in 12 s",
        "verdict": {"outcome": "Healed", "reasons": ["waits are back at 0"]},
        "approval": {"approvedBy": "ann"},
    }
    rest.patch(an_action(), namespace, {"status": status})

    table = _columns(cluster.kubectl("get", "ha", "--namespace", namespace))
    wide = _columns(cluster.kubectl("get", "ha", "--namespace", namespace, "--output=wide"))

    assert list(table) == ["NAME", "DATABASE", "ACTION", "RISK", "PHASE", "VERDICT", "WAITS FOR", "AGE"]
    assert [table[c] for c in ("DATABASE", "ACTION", "RISK", "PHASE", "VERDICT", "WAITS FOR")] == [
        "orders",
        "terminate-blocker",
        "medium",
        "Succeeded",
        "Healed",
        "nothing",
    ]
    assert (wide["APPROVED BY"], wide["MESSAGE"]) == ("ann", "healed in 12 s")
    assert wide["EXPIRES"] == "2026-11-22T14:32:11.000Z"


def test_policies_show_their_mode_and_whether_they_are_in_order(cluster: Cluster, rest: Rest, namespace: str) -> None:
    rest.create(a_policy(), namespace)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Applied",
        "message": "1 database",
        "lastTransitionTime": "2026-11-22T14:02:11.000Z",
    }
    rest.patch(a_policy(), namespace, {"status": {"matched": 1, "conditions": [ready]}})

    table = _columns(cluster.kubectl("get", "hp", "--namespace", namespace))

    assert list(table) == ["NAME", "MODE", "MATCHED", "PAUSED", "READY", "AGE"]
    assert [table[c] for c in ("MODE", "MATCHED", "PAUSED", "READY")] == ["Approve", "1", "false", "Applied"]


def test_one_word_lists_all_three_kinds(cluster: Cluster, rest: Rest, namespace: str) -> None:
    for whole in (a_database(), a_policy(), an_action()):
        rest.create(whole, namespace)

    names = cluster.kubectl("get", "kintsugi", "--namespace", namespace, "--output=name").split()

    assert sorted(names) == [
        "healingaction.kintsugi.dev/orders-7c1f2b90",
        "healingpolicy.kintsugi.dev/critical",
        "monitoreddatabase.kintsugi.dev/orders",
    ]


@pytest.mark.parametrize("path", ["mdb.spec.connection", "hp.spec.limits", "ha.spec.plan", "ha.status.verdict"])
def test_kubectl_explains_the_fields(path: str, cluster: Cluster) -> None:
    said = cluster.kubectl("explain", path)

    assert "FIELDS:" in said
    assert "DESCRIPTION:" in said
    assert "<empty>" not in said.split("FIELDS:")[0]


def test_a_status_from_a_newer_operator_is_read() -> None:
    known = _placed(an_action()) | {"status": {"phase": "Executing", "newerField": 1}}

    assert HealingAction.model_validate(known).phase == "Executing"


def _create(rest: Rest, cluster: Cluster, namespace: str, document: Object) -> None:
    """Ours over the open connection, others (Secrets, RoleBindings) by kubectl."""
    if document["kind"] in MODELS:
        rest.create(document, namespace)
    else:
        cluster.kubectl("create", "--namespace", namespace, "--filename=-", input=text(document))


def _placed(whole: Object) -> Object:
    return {"metadata": whole["metadata"] | {"namespace": "shop"}, "spec": whole["spec"]}


def _known(stored: Object) -> Object:
    return {key: value for key, value in stored.items() if key not in ("apiVersion", "kind")}


def _columns(table: str) -> dict[str, str]:
    """The one row of kubectl's table, by column; columns are cut where the header's begin."""
    header, row = table.splitlines()[:2]
    starts = [0] + [i for i in range(2, len(header)) if header[i] != " " and header[i - 2 : i] == "  "]
    ends = [*starts[1:], max(len(header), len(row)) + 1]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, child in value.items() for leaf in _leaves(child, f"{path}.{key}")]
    return [(path, value)]


def _paths(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {path} | {p for key, child in value.items() for p in _paths(child, f"{path}.{key}")}
    if isinstance(value, list):
        return {path} | {p for child in value for p in _paths(child, f"{path}[]")}
    return {path}


def _schema(cluster: Cluster, plural: str) -> Object:
    crd = json.loads(cluster.kubectl("get", "crd", f"{plural}.kintsugi.dev", "--output=json"))
    schema: Object = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _schema_paths(node: Object, path: str = "") -> set[str]:
    children = {f"{path}.{name}": child for name, child in node.get("properties", {}).items()}
    if "items" in node:
        children[f"{path}[]"] = node["items"]
    return {path} | {p for where, child in children.items() for p in _schema_paths(child, where)}
