"""Attacks on HealingActions, each refused by the API server for its own reason, and the honest requests that pass.

A refusal proves nothing by itself (a policy with an error refuses everything): every attack names the words that it
must be refused with, and the object must be untouched after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes import client

from kintsugi.shell.kube import load_api_client
from kintsugi.stages.approval import read_approvals
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import Person, RefusedError, Shop
from kintsugi_dev.people.objects import a_database, an_action
from kintsugi_dev.people.shop import ACTIONS, DATABASES, EDITORS, OPERATOR

POLICY = "ValidatingAdmissionPolicy 'kintsugi-actions'"
K = "kintsugi.dev/"
OWN_SQL = [{"kind": "sql", "target": "primary", "command": "DROP TABLE ledger", "timeout": "5s"}]


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    opened = Shop.opened(load_api_client(str(cluster.kubeconfig)))
    yield opened
    opened.close()


@dataclass(frozen=True)
class Target:
    """A fresh action in the shop, and short ways to handle it."""

    shop: Shop
    name: str

    @property
    def hash(self) -> str:
        return self.shop.plan_hash(self.name)

    def annotate(self, person: Person, **keys: str | None) -> dict[str, Any]:
        return person.annotate(
            ACTIONS, self.shop.namespace, self.name, {K + k.replace("_", "-"): v for k, v in keys.items()}
        )

    def approve(self, person: Person) -> dict[str, Any]:
        return self.annotate(person, approve=self.hash)

    def patch(self, person: Person, body: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        return person.patch(ACTIONS, self.shop.namespace, self.name, body, subresource=subresource)

    def status(self, person: Person, **status: Any) -> dict[str, Any]:
        return self.patch(person, {"status": status}, "status")

    def json_patch(self, person: Person, *operations: tuple[str, str, str]) -> dict[str, Any]:
        body = [
            {"op": op, "path": f"/metadata/annotations/kintsugi.dev~1{k}"} | ({"value": v} if v else {})
            for op, k, v in operations
        ]
        return person.json_patch(ACTIONS, self.shop.namespace, self.name, body)

    def apply(self, person: Person, **keys: str) -> dict[str, Any]:
        metadata = {"name": self.name, "annotations": {K + k.replace("_", "-"): v for k, v in keys.items()}}
        body = {"apiVersion": "kintsugi.dev/v1alpha1", "kind": "HealingAction", "metadata": metadata}
        return person.apply(ACTIONS, self.shop.namespace, self.name, body)

    def replace(self, person: Person, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        body = self.object()
        change(body)
        return person.replace(ACTIONS, self.shop.namespace, self.name, body)

    def delete(self, person: Person) -> dict[str, Any]:
        return person.delete(ACTIONS, self.shop.namespace, self.name)

    def object(self) -> dict[str, Any]:
        return self.shop.admin.get(ACTIONS, self.shop.namespace, self.name)


def waiting(target: Target) -> None:
    """As it was made."""


def approved(target: Target) -> None:
    target.approve(target.shop.ann)


def rejected(target: Target) -> None:
    target.annotate(target.shop.ann, reject="not today")


def approved_by_apply(target: Target) -> None:
    target.apply(target.shop.ann, approve=target.hash)


def phase(name: str) -> Callable[[Target], object]:
    return lambda target: target.status(target.shop.operator, phase=name)


@dataclass(frozen=True)
class Attack:
    """What somebody does to an action, and the words with which the API server must refuse it."""

    name: str
    strike: Callable[[Shop, Target], object]
    says: str
    given: Callable[[Target], object] = waiting
    by: str = POLICY
    spec: tuple[tuple[str, Any], ...] = ()


ONLY_OPERATOR = "only the operator creates HealingActions"
STATUS = "only the operator writes the status"
MAY_NOT = "may not approve high-risk actions"
STAMPS = "stamps are the API server's"
FIXED = "cannot be changed or withdrawn"
HASH = "must be spec.planHash"
TWO = "the second approval comes after the first and from somebody else"
MEANS = "means nothing on a HealingAction"

ATTACKS = (
    # Making an action
    Attack(
        "a namespace editor creates an action with SQL of their own",
        lambda s, t: s.eve.create(ACTIONS, s.namespace, an_action(plan=OWN_SQL)),
        ONLY_OPERATOR,
    ),
    Attack(
        "an approver creates the action that he would approve",
        lambda s, t: s.ann.create(ACTIONS, s.namespace, an_action(plan=OWN_SQL)),
        ONLY_OPERATOR,
    ),
    Attack(
        "a cluster admin creates an action",
        lambda s, t: s.admin.create(ACTIONS, s.namespace, an_action()),
        ONLY_OPERATOR,
    ),
    Attack(
        "an editor creates an action by server-side apply",
        lambda s, t: s.eve.apply(ACTIONS, s.namespace, "evil", an_action("evil", plan=OWN_SQL)),
        ONLY_OPERATOR,
    ),
    Attack(
        "a ServiceAccount called kintsugi in another namespace creates an action",
        lambda s, t: s.person(f"system:serviceaccount:{s.namespace}:kintsugi", EDITORS).create(
            ACTIONS, s.namespace, an_action()
        ),
        ONLY_OPERATOR,
    ),
    Attack(
        "the operator creates an action that is approved already",
        lambda s, t: s.operator.create(
            ACTIONS, s.namespace, an_action(annotations={K + "approve": t.hash, K + "approved-by": "ann"})
        ),
        "cannot be created approved or rejected",
    ),
    Attack(
        "the operator creates an action with a stamp alone",
        lambda s, t: s.operator.create(
            ACTIONS, s.namespace, an_action(annotations={K + "approved-groups": "approvers"})
        ),
        "cannot be created approved or rejected",
    ),
    Attack(
        "an editor puts his own SQL into the plan",
        lambda s, t: t.patch(s.eve, {"spec": {"plan": OWN_SQL}}),
        "immutable",
        by="is invalid: spec",
    ),
    Attack(
        "an approver changes the plan and approves it in one request",
        lambda s, t: t.patch(s.ann, {"spec": {"plan": OWN_SQL}, "metadata": {"annotations": {K + "approve": t.hash}}}),
        "immutable",
        given=waiting,
        by="is invalid: spec",
    ),
    # Writing its status
    Attack("an editor writes the phase", lambda s, t: t.status(s.eve, phase="Approved"), STATUS),
    Attack(
        "an approver writes an approval into the status",
        lambda s, t: t.status(s.ann, approval={"approvedBy": "ben"}),
        STATUS,
    ),
    Attack(
        "an editor writes the status by a JSON patch",
        lambda s, t: s.eve.json_patch(
            ACTIONS,
            s.namespace,
            t.name,
            [{"op": "replace", "path": "/status/phase", "value": "Approved"}],
            subresource="status",
        ),
        STATUS,
    ),
    Attack(
        "an editor slips an approval in through the status",
        lambda s, t: t.patch(s.eve, {"metadata": {"annotations": {K + "approve": t.hash}}}, "status"),
        STATUS,
    ),
    Attack(
        "an approver slips an approval in through the status",
        lambda s, t: t.patch(s.ann, {"metadata": {"annotations": {K + "approve": t.hash}}}, "status"),
        STATUS,
    ),
    # Approving without the right
    Attack("an editor approves", lambda s, t: t.approve(s.eve), MAY_NOT),
    Attack(
        "a cluster viewer's group is forged as text",
        lambda s, t: t.annotate(s.eve, approve=t.hash, approved_groups="approvers"),
        MAY_NOT,
    ),
    Attack(
        "an editor approves in an approver's name",
        lambda s, t: t.annotate(s.eve, approve=t.hash, approved_by="ann"),
        MAY_NOT,
    ),
    Attack(
        "somebody who may approve low risk approves high risk",
        lambda s, t: t.approve(s.lou),
        "lou may not approve high-risk",
    ),
    Attack("an editor approves by server-side apply", lambda s, t: t.apply(s.eve, approve=t.hash), MAY_NOT),
    Attack(
        "an editor approves by server-side apply, stamps included",
        lambda s, t: t.apply(s.eve, approve=t.hash, approved_by="ann", approved_groups="approvers"),
        MAY_NOT,
    ),
    Attack(
        "an editor approves by a replace",
        lambda s, t: t.replace(s.eve, lambda o: o["metadata"].update(annotations={K + "approve": t.hash})),
        MAY_NOT,
    ),
    Attack(
        "an editor whose group is called editors,approvers approves",
        lambda s, t: t.approve(s.person("mallory", EDITORS, "editors,approvers")),
        "mallory may not approve",
    ),
    Attack(
        "the operator approves its own action",
        lambda s, t: t.approve(s.operator),
        "the operator approves, rejects, pauses, acknowledges and labels nothing",
    ),
    # Approving something else
    Attack("an approval that is free text", lambda s, t: t.annotate(s.ann, approve="true"), HASH),
    Attack("an approval of nothing", lambda s, t: t.annotate(s.ann, approve=""), HASH),
    Attack(
        "an approval of another action",
        lambda s, t: t.annotate(s.ann, approve=an_action(incident="other")["spec"]["planHash"]),
        HASH,
    ),
    Attack("an approval with a space behind the hash", lambda s, t: t.annotate(s.ann, approve=t.hash + " "), HASH),
    Attack("an approval in capital letters", lambda s, t: t.annotate(s.ann, approve=t.hash.upper() + "X"), HASH),
    Attack(
        "an approval of a recommendation",
        lambda s, t: t.approve(s.ann),
        "a recommendation, which is never run",
        spec=(("runnable", False),),
    ),
    *(
        Attack(
            f"an approval of an action that is {each}",
            lambda s, t: t.approve(s.ann),
            f"the action is {each}; only one that waits for approval",
            given=phase(each),
        )
        for each in ("Executing", "Expired", "Superseded", "Succeeded")
    ),
    # Stamps without their key
    Attack("an editor sets approved-by alone", lambda s, t: t.annotate(s.eve, approved_by="ann"), STAMPS),
    Attack(
        "an editor blocks approval by setting approved-groups alone",
        lambda s, t: t.annotate(s.eve, approved_groups="x"),
        STAMPS,
    ),
    Attack("an editor sets second-approved-by alone", lambda s, t: t.annotate(s.eve, second_approved_by="ben"), STAMPS),
    Attack("an editor sets rejected-by alone", lambda s, t: t.annotate(s.eve, rejected_by="ann"), STAMPS),
    Attack(
        "an approver rejects and sets approved-by with it",
        lambda s, t: t.annotate(s.ann, reject="no", approved_by="ben"),
        STAMPS,
    ),
    Attack(
        "an editor adds stamps by a JSON patch with escaped keys",
        lambda s, t: t.json_patch(s.eve, ("add", "approved-by", "ann"), ("add", "approved-groups", "approvers")),
        STAMPS,
        given=lambda t: (
            t.shop.eve.annotate(ACTIONS, t.shop.namespace, t.name, {"note": "so that there is a map"}) and None
        ),
    ),
    # Keys that look like ours
    Attack("a key in other case", lambda s, t: t.annotate(s.eve, Approve=t.hash), MEANS),
    Attack(
        "a prefix in other case",
        lambda s, t: s.eve.annotate(ACTIONS, s.namespace, t.name, {"Kintsugi.dev/approve": t.hash}),
        MEANS,
    ),
    Attack("a key that a later version may give a meaning", lambda s, t: t.annotate(s.eve, force="yes"), MEANS),
    Attack(
        "a key with a space behind it",
        lambda s, t: s.eve.annotate(ACTIONS, s.namespace, t.name, {K + "approve ": t.hash}),
        "name part must consist of alphanumeric characters",
        by="metadata.annotations",
    ),
    # The second approval
    Attack("the second approval before the first", lambda s, t: t.annotate(s.ben, second_approve=t.hash), TWO),
    Attack(
        "both approvals in one request",
        lambda s, t: t.annotate(s.ann, approve=t.hash, second_approve=t.hash),
        TWO,
    ),
    Attack(
        "the second approval by the same person", lambda s, t: t.annotate(s.ann, second_approve=t.hash), TWO, approved
    ),
    Attack(
        "the second approval by the same person in another's name",
        lambda s, t: t.annotate(s.ann, second_approve=t.hash, second_approved_by="ben"),
        TWO,
        approved,
    ),
    Attack(
        "the first approval is given another name so that the same person can give the second",
        lambda s, t: t.annotate(s.ann, second_approve=t.hash, approved_by="dan"),
        FIXED,
        approved,
    ),
    Attack(
        "the second approval by an editor",
        lambda s, t: t.annotate(s.eve, second_approve=t.hash),
        MAY_NOT,
        approved,
    ),
    # What has been said stays said
    Attack("an editor withdraws an approval", lambda s, t: t.annotate(s.eve, approve=None), FIXED, approved),
    Attack(
        "the approver withdraws it with its stamps",
        lambda s, t: t.annotate(s.ann, approve=None, approved_by=None, approved_groups=None),
        FIXED,
        approved,
    ),
    Attack("an editor rewrites approved-by", lambda s, t: t.annotate(s.eve, approved_by="dan"), FIXED, approved),
    Attack("an editor rewrites approved-groups", lambda s, t: t.annotate(s.eve, approved_groups="x"), FIXED, approved),
    Attack(
        "an editor removes approved-by by a JSON patch",
        lambda s, t: t.json_patch(s.eve, ("remove", "approved-by", "")),
        FIXED,
        approved,
    ),
    Attack(
        "an editor's replace drops all annotations",
        lambda s, t: t.replace(s.eve, lambda o: o["metadata"].pop("annotations")),
        FIXED,
        approved,
    ),
    Attack(
        "an editor's merge patch sets all annotations to null",
        lambda s, t: t.patch(s.eve, {"metadata": {"annotations": None}}),
        FIXED,
        approved,
    ),
    Attack(
        "an approval by server-side apply is applied again without it",
        lambda s, t: t.apply(s.ann),
        FIXED,
        approved_by_apply,
    ),
    Attack("an approver takes a rejection back", lambda s, t: t.annotate(s.ann, reject=None), FIXED, rejected),
    Attack("an approver approves what was rejected", lambda s, t: t.approve(s.ben), "has been rejected", rejected),
    Attack(
        "approving and rejecting at once",
        lambda s, t: t.annotate(s.ann, approve=t.hash, reject="no"),
        "approve or reject, not both",
    ),
    # Rejecting
    Attack("an editor rejects", lambda s, t: t.annotate(s.eve, reject="no"), "eve may not reject"),
    Attack(
        "somebody who may only approve low risk rejects",
        lambda s, t: t.annotate(s.lou, reject="no"),
        "lou may not reject",
    ),
    Attack("a rejection without a reason", lambda s, t: t.annotate(s.ann, reject=""), "say why"),
    # Making it disappear
    Attack(
        "an editor deletes an action at work", lambda s, t: t.delete(s.eve), "at work (Executing)", phase("Executing")
    ),
    Attack(
        "an admin deletes an action that is judged",
        lambda s, t: t.delete(s.admin),
        "at work (Verifying)",
        phase("Verifying"),
    ),
    Attack(
        "the operator deletes an action at work",
        lambda s, t: t.delete(s.operator),
        "at work (Reverting)",
        phase("Reverting"),
    ),
    Attack(
        "an editor deletes an action that waits",
        lambda s, t: t.delete(s.eve),
        "deleting an action that is AwaitingApproval rejects it",
    ),
    Attack(
        "an editor has an approved action collected as garbage",
        lambda s, t: t.patch(
            s.eve,
            {
                "metadata": {
                    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "0-0"}]
                }
            },
        ),
        "another owner could have the action collected",
        approved,
    ),
    Attack(
        "an editor labels an action as another database's",
        lambda s, t: t.patch(s.eve, {"metadata": {"labels": {K + "database": "other"}}}),
        "labels of a HealingAction are the operator's",
    ),
    Attack(
        "the operator changes more than the status",
        lambda s, t: t.patch(s.operator, {"metadata": {"labels": {"x": "y"}}}),
        "the operator writes nothing but the status",
    ),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_api_server_refuses(shop: Shop, attack: Attack) -> None:
    target = Target(shop, shop.action(**dict(attack.spec)))
    attack.given(target)
    before = target.object()

    with pytest.raises(RefusedError) as refused:
        attack.strike(shop, target)

    assert attack.says in str(refused.value)
    assert attack.by in str(refused.value)
    assert "resulted in error" not in str(refused.value)
    after = target.object()
    assert after["metadata"].get("annotations") == before["metadata"].get("annotations")
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])


@pytest.fixture
def target(shop: Shop) -> Target:
    return Target(shop, shop.action())


def test_an_approver_approves_and_the_api_server_writes_the_name(target: Target) -> None:
    target.approve(target.shop.ann)

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert approvals.approved_by == "ann"
    assert set(approvals.approved_groups) == {"editors", "approvers", "system:authenticated"}
    assert approvals.granted(1)
    assert not approvals.problem


def test_a_name_and_groups_typed_by_the_approver_are_overwritten_with_the_true_ones(target: Target) -> None:
    target.annotate(target.shop.ann, approve=target.hash, approved_by="ben", approved_groups="system:masters")

    annotations = target.object()["metadata"]["annotations"]
    assert annotations[K + "approved-by"] == "ann"
    assert "system:masters" not in annotations[K + "approved-groups"]


def test_a_group_with_a_comma_in_its_name_is_stamped_as_one(target: Target) -> None:
    target.approve(target.shop.person("cy", EDITORS, "approvers", "cn=dba,ou=50%"))

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert "cn=dba,ou=50%" in approvals.approved_groups


def test_somebody_else_gives_the_second_approval(target: Target) -> None:
    approved(target)

    target.annotate(target.shop.ben, second_approve=target.hash)

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert [approver.user for approver in approvals.approvers] == ["ann", "ben"]
    assert approvals.granted(2)


def test_an_approver_rejects_with_a_reason_even_after_an_approval(target: Target) -> None:
    approved(target)

    target.annotate(target.shop.ben, reject="planned maintenance")

    approvals = read_approvals(target.object()["metadata"]["annotations"], target.hash)
    assert (approvals.rejected_by, approvals.reason) == ("ben", "planned maintenance")
    assert not approvals.granted(1)


def test_an_approval_by_server_side_apply_is_stamped(target: Target) -> None:
    approved_by_apply(target)

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_an_approval_applied_again_unchanged_keeps_its_name(target: Target) -> None:
    approved_by_apply(target)

    target.apply(target.shop.ann, approve=target.hash)

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_an_approval_by_a_json_patch_is_stamped(target: Target) -> None:
    target.shop.ann.annotate(ACTIONS, target.shop.namespace, target.name, {"note": "so that there is a map"})

    target.json_patch(target.shop.ann, ("add", "approve", target.hash))

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_low_risk_is_approved_by_who_may_approve_low_risk(shop: Shop) -> None:
    target = Target(shop, shop.action(action="analyze-table", risk="low"))

    target.approve(shop.lou)

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "lou"


def test_a_right_in_one_namespace_approves_nothing_in_another(shop: Shop) -> None:
    elsewhere = Shop.opened(shop.admin.api, "elsewhere", roles=(EDITORS,))
    try:
        target = Target(elsewhere, elsewhere.action())

        with pytest.raises(RefusedError, match=f"ann may not approve high-risk actions in {elsewhere.namespace}"):
            target.approve(elsewhere.ann)
    finally:
        elsewhere.close()


def test_a_right_to_one_action_by_its_name_approves_that_one_only(shop: Shop) -> None:
    one, other = Target(shop, shop.action()), Target(shop, shop.action())
    named = {"apiGroups": ["kintsugi.dev"], "resources": ["healingactions/approve-high"], "verbs": ["update"]}
    shop.grant(f"only-{one.name}", [named | {"resourceNames": [one.name]}], user="nan")
    nan = shop.person("nan", EDITORS)

    one.approve(nan)

    with pytest.raises(RefusedError, match="nan may not approve"):
        other.approve(nan)


def test_impersonating_an_approver_needs_the_right_to_impersonate(shop: Shop, target: Target) -> None:
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


def test_the_operators_own_token_can_neither_approve_nor_change_an_action(cluster: Cluster, target: Target) -> None:
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


def test_the_operators_status_write_carries_no_annotation_with_it(target: Target) -> None:
    body = {"metadata": {"annotations": {K + "approve": target.hash}}, "status": {"message": "x"}}

    target.patch(target.shop.operator, body, "status")

    assert not any(key.startswith(K) for key in target.object()["metadata"].get("annotations", {}))


def test_the_operator_creates_and_writes_status(target: Target) -> None:
    target.status(target.shop.operator, phase="Approved", message="approved by ann")

    assert target.object()["status"]["phase"] == "Approved"


def test_an_editor_adds_and_removes_annotations_and_labels_of_his_own(target: Target) -> None:
    eve, namespace = target.shop.eve, target.shop.namespace
    approved(target)

    eve.annotate(ACTIONS, namespace, target.name, {"note": "hello"})
    eve.patch(ACTIONS, namespace, target.name, {"metadata": {"labels": {"team": "shop"}}})
    eve.annotate(ACTIONS, namespace, target.name, {"note": None})

    assert read_approvals(target.object()["metadata"]["annotations"], target.hash).approved_by == "ann"


def test_an_editor_with_thousands_of_annotations_stops_neither_the_operator_nor_a_deletion(target: Target) -> None:
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
def test_an_action_that_has_ended_can_be_deleted(target: Target, who: str) -> None:
    phase("Succeeded")(target)

    target.delete(getattr(target.shop, who))


@pytest.mark.parametrize("who", ["ann", "operator"])
def test_who_may_reject_may_delete_an_action_that_waits(target: Target, who: str) -> None:
    target.delete(getattr(target.shop, who))


def test_deleting_all_actions_at_once_spares_those_at_work(shop: Shop) -> None:
    elsewhere = Shop.opened(shop.admin.api, "collection", roles=(EDITORS,))
    try:
        target = Target(elsewhere, elsewhere.action(phase="Executing"))

        with pytest.raises(RefusedError, match="at work"):
            elsewhere.eve.delete(ACTIONS, elsewhere.namespace)

        assert target.object()["status"]["phase"] == "Executing"
    finally:
        elsewhere.close()


def test_the_garbage_collector_may_take_a_waiting_action_away(target: Target) -> None:
    collector = target.shop.person("system:serviceaccount:kube-system:generic-garbage-collector")

    target.delete(collector)


@pytest.mark.slow  # the collector learns of a new kind every half minute
def test_a_waiting_action_goes_with_the_database_that_owns_it(shop: Shop) -> None:
    database = shop.dora.create(DATABASES, shop.namespace, a_database())
    body = an_action()
    owner = {"apiVersion": "kintsugi.dev/v1alpha1", "kind": "MonitoredDatabase"}
    body["metadata"]["ownerReferences"] = [owner | {k: database["metadata"][k] for k in ("name", "uid")}]
    target = Target(shop, shop.operator.create(ACTIONS, shop.namespace, body)["metadata"]["name"])
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
