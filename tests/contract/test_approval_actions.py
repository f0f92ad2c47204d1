"""Attacks on HealingActions, each refused by the API server for its own reason.

A refusal proves nothing by itself (a policy with an error refuses everything): every attack names the words that it
must be refused with, and the object must be untouched after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kintsugi.shell.kube import load_api_client
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import Handle, RefusedError, Shop
from kintsugi_dev.people.objects import an_action
from kintsugi_dev.people.shop import ACTIONS, EDITORS

POLICY = "ValidatingAdmissionPolicy 'kintsugi-actions'"
K = "kintsugi.dev/"
OWN_SQL = [{"kind": "sql", "target": "primary", "command": "DROP TABLE ledger", "timeout": "5s"}]


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    opened = Shop.opened(load_api_client(str(cluster.kubeconfig)))
    yield opened
    opened.close()


def waiting(target: Handle) -> None:
    """As it was made."""


def approved(target: Handle) -> None:
    target.approve(target.shop.ann)


def rejected(target: Handle) -> None:
    target.annotate(target.shop.ann, reject="not today")


def approved_by_apply(target: Handle) -> None:
    target.apply(target.shop.ann, approve=target.hash)


def phase(name: str) -> Callable[[Handle], object]:
    return lambda target: target.status(target.shop.operator, phase=name)


@dataclass(frozen=True)
class Attack:
    """What somebody does to an action, and the words with which the API server must refuse it."""

    name: str
    strike: Callable[[Shop, Handle], object]
    says: str
    given: Callable[[Handle], object] = waiting
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
    target = Handle(shop, ACTIONS, shop.action(**dict(attack.spec)))
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
