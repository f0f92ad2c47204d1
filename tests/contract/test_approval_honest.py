"""Honest requests on HealingActions pass, are stamped with the true name, and reach no further than their right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kubernetes import client

from kintsugi.shell.kube import load_api_client
from kintsugi.stages.approval import read_approvals
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import Handle, Person, RefusedError, Shop
from kintsugi_dev.people.objects import a_database, an_action
from kintsugi_dev.people.shop import ACTIONS, DATABASES, EDITORS, OPERATOR

K = "kintsugi.dev/"


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    opened = Shop.opened(load_api_client(str(cluster.kubeconfig)))
    yield opened
    opened.close()


def approved(target: Handle) -> None:
    target.approve(target.shop.ann)


def approved_by_apply(target: Handle) -> None:
    target.apply(target.shop.ann, approve=target.hash)


def phase(name: str) -> Callable[[Handle], object]:
    return lambda target: target.status(target.shop.operator, phase=name)


@pytest.fixture
def target(shop: Shop) -> Handle:
    return Handle(shop, ACTIONS, shop.action())


def test_an_approver_approves_and_the_api_server_writes_the_name(target: Handle) -> None:
    target.approve(target.shop.ann)

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert approvals.approved_by == "ann"
    assert set(approvals.approved_groups) == {"editors", "approvers", "system:authenticated"}
    assert approvals.granted(1)
    assert not approvals.problem


def test_a_name_and_groups_typed_by_the_approver_are_overwritten_with_the_true_ones(target: Handle) -> None:
    target.annotate(target.shop.ann, approve=target.hash, approved_by="ben", approved_groups="system:masters")

    annotations = target.object()["metadata"]["annotations"]
    assert annotations[K + "approved-by"] == "ann"
    assert "system:masters" not in annotations[K + "approved-groups"]


def test_a_group_with_a_comma_in_its_name_is_stamped_as_one(target: Handle) -> None:
    target.approve(target.shop.person("cy", EDITORS, "approvers", "cn=dba,ou=50%"))

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert "cn=dba,ou=50%" in approvals.approved_groups


def test_somebody_else_gives_the_second_approval(target: Handle) -> None:
    approved(target)

    target.annotate(target.shop.ben, second_approve=target.hash)

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert [approver.user for approver in approvals.approvers] == ["ann", "ben"]
    assert approvals.granted(2)


def test_an_approver_rejects_with_a_reason_even_after_an_approval(target: Handle) -> None:
    approved(target)

    target.annotate(target.shop.ben, reject="planned maintenance")

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert (approvals.rejected_by, approvals.reason) == ("ben", "planned maintenance")
    assert not approvals.granted(1)


def test_an_approval_by_server_side_apply_is_stamped(target: Handle) -> None:
    approved_by_apply(target)

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_an_approval_applied_again_unchanged_keeps_its_name(target: Handle) -> None:
    approved_by_apply(target)

    target.apply(target.shop.ann, approve=target.hash)

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_an_approval_by_a_json_patch_is_stamped(target: Handle) -> None:
    target.shop.ann.annotate(ACTIONS, target.shop.namespace, target.name, {"note": "so that there is a map"})

    target.json_patch(target.shop.ann, ("add", "approve", target.hash))

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_low_risk_is_approved_by_who_may_approve_low_risk(shop: Shop) -> None:
    target = Handle(shop, ACTIONS, shop.action(action="analyze-table", risk="low"))

    target.approve(shop.lou)

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "lou"


def test_a_right_in_one_namespace_approves_nothing_in_another(shop: Shop) -> None:
    elsewhere = Shop.opened(shop.admin.api, "elsewhere", roles=(EDITORS,))
    try:
        target = Handle(elsewhere, ACTIONS, elsewhere.action())

        with pytest.raises(RefusedError, match=f"ann may not approve high-risk actions in {elsewhere.namespace}"):
            target.approve(elsewhere.ann)
    finally:
        elsewhere.close()


def test_a_right_to_one_action_by_its_name_approves_that_one_only(shop: Shop) -> None:
    one, other = Handle(shop, ACTIONS, shop.action()), Handle(shop, ACTIONS, shop.action())
    named = {"apiGroups": ["kintsugi.dev"], "resources": ["healingactions/approve-high"], "verbs": ["update"]}
    shop.grant(f"only-{one.name}", [named | {"resourceNames": [one.name]}], user="nan")
    nan = shop.person("nan", EDITORS)

    one.approve(nan)

    with pytest.raises(RefusedError, match="nan may not approve"):
        other.approve(nan)


def test_impersonating_an_approver_needs_the_right_to_impersonate(shop: Shop, target: Handle) -> None:
    token = _token(shop, "mallory")
    bare = Person(_without_certificate(shop))

    for headers in ({"Impersonate-User": "ann"}, {"Impersonate-User": "mallory", "Impersonate-Group": "approvers"}):
        with pytest.raises(RefusedError, match=r"mallory\" cannot impersonate"):
            bare.request(
                "PATCH",
                f"/apis/kintsugi.dev/v1alpha1/namespaces/{shop.namespace}/healingactions/{target.name}",
                {"metadata": {"annotations": {K + "approve": target.hash}}},
                content_type="application/merge-patch+json",
                headers={"Authorization": f"Bearer {token}", **headers},
            )


def test_the_operators_own_token_can_neither_approve_nor_change_an_action(cluster: Cluster, target: Handle) -> None:
    real = Person(target.shop.admin.api, OPERATOR, ("system:serviceaccounts", "system:authenticated"))
    can = cluster.kubectl("auth", "can-i", "--list", f"--as={OPERATOR}", "--namespace=default")

    rows = [
        line.split()
        for line in can.splitlines()
        if line.startswith(("healingactions.kintsugi.dev ", "monitoreddatabases.kintsugi.dev "))
    ]
    assert rows, can
    assert not any(
        {"update", "patch", "*"} & set(" ".join(row).replace("[", " ").replace("]", " ").split()) for row in rows
    )
    with pytest.raises(RefusedError, match="the operator approves"):
        target.approve(real)


def test_the_operators_status_write_carries_no_annotation_with_it(target: Handle) -> None:
    body = {"metadata": {"annotations": {K + "approve": target.hash}}, "status": {"message": "x"}}

    target.patch(target.shop.operator, body, "status")

    assert not any(key.startswith(K) for key in target.object()["metadata"].get("annotations", {}))


def test_the_operator_creates_and_writes_status(target: Handle) -> None:
    target.status(target.shop.operator, phase="Approved", message="approved by ann")

    assert target.object()["status"]["phase"] == "Approved"


def test_an_editor_adds_and_removes_annotations_and_labels_of_his_own(target: Handle) -> None:
    eve, namespace = target.shop.eve, target.shop.namespace
    approved(target)

    eve.annotate(ACTIONS, namespace, target.name, {"note": "hello"})
    eve.patch(ACTIONS, namespace, target.name, {"metadata": {"labels": {"team": "shop"}}})
    eve.annotate(ACTIONS, namespace, target.name, {"note": None})

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_an_editor_with_thousands_of_annotations_stops_neither_the_operator_nor_a_deletion(target: Handle) -> None:
    many: dict[str, str | None] = {f"a{i}": "" for i in range(5_000)}
    target.shop.eve.annotate(ACTIONS, target.shop.namespace, target.name, many)

    target.status(target.shop.operator, phase="Expired")
    target.shop.eve.annotate(ACTIONS, target.shop.namespace, target.name, {"one": "more"})
    target.delete(target.shop.eve)


def test_a_namespace_admin_cannot_give_himself_the_right_to_approve(shop: Shop) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shop.namespace}"
    rights = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": ["create", "update"],
    }
    shop.grant("rbac-admin", [rights], user="rob")
    rob = shop.person("rob", EDITORS)
    rule = {"apiGroups": ["kintsugi.dev"], "resources": ["healingactions/approve-high"], "verbs": ["update"]}
    approver = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kintsugi-approver"}
    himself = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "rob"}
    binding = {"metadata": {"name": "mine"}, "roleRef": approver, "subjects": [himself]}

    with pytest.raises(RefusedError, match="not currently held"):
        rob.request("POST", f"{rbac}/roles", {"metadata": {"name": "mine"}, "rules": [rule]})
    with pytest.raises(RefusedError, match="not currently held"):
        rob.request("POST", f"{rbac}/rolebindings", binding)


@pytest.mark.parametrize("who", ["eve", "operator", "admin"])
def test_an_action_that_has_ended_can_be_deleted(target: Handle, who: str) -> None:
    phase("Succeeded")(target)

    target.delete(getattr(target.shop, who))


@pytest.mark.parametrize("who", ["ann", "operator"])
def test_who_may_reject_may_delete_an_action_that_waits(target: Handle, who: str) -> None:
    target.delete(getattr(target.shop, who))


def test_deleting_all_actions_at_once_spares_those_at_work(shop: Shop) -> None:
    elsewhere = Shop.opened(shop.admin.api, "collection", roles=(EDITORS,))
    try:
        target = Handle(elsewhere, ACTIONS, elsewhere.action(phase="Executing"))

        with pytest.raises(RefusedError, match="at work"):
            elsewhere.eve.delete(ACTIONS, elsewhere.namespace)

        assert target.object()["status"]["phase"] == "Executing"
    finally:
        elsewhere.close()


def test_the_garbage_collector_may_take_a_waiting_action_away(target: Handle) -> None:
    collector = target.shop.person("system:serviceaccount:kube-system:generic-garbage-collector")

    target.delete(collector)


@pytest.mark.slow  # the collector learns of a new kind every half minute
def test_a_waiting_action_goes_with_the_database_that_owns_it(shop: Shop) -> None:
    database = shop.dora.create(DATABASES, shop.namespace, a_database())
    body = an_action()
    owner = {"apiVersion": "kintsugi.dev/v1alpha1", "kind": "MonitoredDatabase"}
    body["metadata"]["ownerReferences"] = [owner | {k: database["metadata"][k] for k in ("name", "uid")}]
    target = Handle(shop, ACTIONS, shop.operator.create(ACTIONS, shop.namespace, body)["metadata"]["name"])
    target.status(shop.operator, phase="AwaitingApproval")

    shop.eve.delete(DATABASES, shop.namespace, database["metadata"]["name"])

    _until(lambda: _gone(lambda: target.object()), "the garbage collector to take the action")


def test_a_namespace_goes_with_actions_in_every_phase(shop: Shop) -> None:
    doomed = Shop.opened(shop.admin.api, "doomed")
    for each in ("AwaitingApproval", "Executing", "Verifying", "Succeeded"):
        doomed.action(phase=each)

    doomed.close()

    path = f"/api/v1/namespaces/{doomed.namespace}"
    _until(lambda: _gone(lambda: doomed.admin.request("GET", path)), "the namespace to go")


def _gone(get: Callable[[], object]) -> bool:
    try:
        get()
    except RefusedError as refused:
        return refused.code == 404
    return False


def _until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)


def _token(shop: Shop, name: str) -> str:
    accounts = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts"
    shop.admin.request("POST", accounts, {"metadata": {"name": name}})
    token: str = shop.admin.request("POST", f"{accounts}/{name}/token", {"spec": {}})["status"]["token"]
    return token


def _without_certificate(shop: Shop) -> client.ApiClient:
    admin = shop.admin.api.configuration
    anonymous = client.Configuration(host=admin.host)
    anonymous.ssl_ca_cert = admin.ssl_ca_cert
    return client.ApiClient(anonymous)
