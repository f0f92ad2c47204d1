"""What people type: approving, rejecting, pausing and acknowledging with `kubectl annotate`, as in docs/approval.md."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kintsugi.shell.kube import load_api_client
from kintsugi_dev.cluster import Cluster, CommandError
from kintsugi_dev.people import Person, Shop
from kintsugi_dev.people.shop import ACTIONS, DATABASES, POLICIES

K = "kintsugi.dev/"


class Kubectl:
    """`kubectl --as=…` in the shop's namespace."""

    def __init__(self, cluster: Cluster, shop: Shop) -> None:
        self.cluster = cluster
        self.shop = shop

    def __call__(self, person: Person, *arguments: str) -> str:
        namespace = f"--namespace={self.shop.namespace}"
        return self.cluster.kubectl(*arguments, namespace, as_user=person.user, as_groups=person.groups)

    def refused(self, person: Person, *arguments: str) -> str:
        with pytest.raises(CommandError) as refused:
            self(person, *arguments)
        return refused.value.output


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    opened = Shop.opened(load_api_client(str(cluster.kubeconfig)))
    yield opened
    opened.close()


@pytest.fixture
def kubectl(cluster: Cluster, shop: Shop) -> Kubectl:
    return Kubectl(cluster, shop)


def test_an_action_is_approved_by_two_people(shop: Shop, kubectl: Kubectl) -> None:
    action = shop.action(approval={"required": True, "approvers": 2, "why": "failover is high risk"})
    plan_hash = kubectl(shop.ann, "get", "ha", action, "-o=jsonpath={.spec.planHash}")

    kubectl(shop.ann, "annotate", "ha", action, f"{K}approve={plan_hash}")
    kubectl(shop.ben, "annotate", f"ha/{action}", f"{K}second-approve={plan_hash}")

    annotations = shop.annotations(ACTIONS, action)
    assert (annotations[K + "approved-by"], annotations[K + "second-approved-by"]) == ("ann", "ben")


def test_who_may_not_approve_is_told_what_to_ask_for(shop: Shop, kubectl: Kubectl) -> None:
    action = shop.action()

    told = kubectl.refused(shop.eve, "annotate", "ha", action, f"{K}approve={shop.plan_hash(action)}")

    asked = "eve may not approve high-risk actions in {0} (ask for 'update' on healingactions/approve-high)"
    assert f"denied request: {asked.format(shop.namespace)}" in told
    assert shop.annotations(ACTIONS, action) == {}


def test_a_wrong_hash_is_answered_with_the_right_one(shop: Shop, kubectl: Kubectl) -> None:
    action = shop.action()

    told = kubectl.refused(shop.ann, "annotate", "ha", action, f"{K}approve=yes")

    assert f"must be spec.planHash, {shop.plan_hash(action)}" in told


def test_an_action_is_rejected_with_a_reason(shop: Shop, kubectl: Kubectl) -> None:
    action = shop.action()

    kubectl(shop.ann, "annotate", "ha", action, f"{K}reject=planned maintenance")

    assert shop.annotations(ACTIONS, action) == {K + "reject": "planned maintenance", K + "rejected-by": "ann"}


@pytest.mark.parametrize(("plural", "short"), [(DATABASES, "mdb"), (POLICIES, "hp")])
def test_a_database_and_a_policy_are_paused_and_unpaused(shop: Shop, kubectl: Kubectl, plural: str, short: str) -> None:
    name = shop.database() if plural == DATABASES else shop.policy()

    told = kubectl.refused(shop.eve, "annotate", short, name, f"{K}pause=x")
    kubectl(shop.pat, "annotate", short, name, f"{K}pause=migration until noon")
    paused = shop.annotations(plural, name)
    kubectl(shop.pat, "annotate", short, name, f"{K}pause-")

    assert f"eve may not pause {name}" in told
    assert paused == {K + "pause": "migration until noon", K + "paused-by": "pat"}
    assert shop.annotations(plural, name) == {}


def test_an_open_circuit_is_acknowledged(shop: Shop, kubectl: Kubectl) -> None:
    database = shop.database()

    kubectl(shop.pat, "annotate", "mdb", database, f"{K}acknowledge=i-20260101-120000")

    assert shop.annotations(DATABASES, database)[K + "acknowledged-by"] == "pat"


def test_a_label_typed_as_the_docs_say_is_stamped(shop: Shop, kubectl: Kubectl) -> None:
    database = shop.database()
    one, two = "anomaly:lock-contention@2026-01-02T03:04:00Z/PT2M", "normal:backup@2026-01-02T04:00:00+01:00/PT1H"

    kubectl(shop.pat, "annotate", "mdb", database, f"{K}label={one}")
    kubectl(shop.pat, "annotate", "mdb", database, "--overwrite", f"{K}label={one}; {two}")

    found = shop.annotations(DATABASES, database)
    assert (found[K + "label"], found[K + "labelled-by"]) == (f"{one}; {two}", "pat")


def test_client_side_apply_of_a_paused_database_keeps_the_pause(shop: Shop, kubectl: Kubectl, cluster: Cluster) -> None:
    database = shop.database()
    kubectl(shop.pat, "annotate", "mdb", database, f"{K}pause=noon")
    manifest = shop.admin.get(DATABASES, shop.namespace, database)
    kept = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "spec": manifest["spec"]}
    kept["metadata"] = {"name": database, "namespace": shop.namespace}

    for _ in range(2):
        cluster.kubectl("apply", "-f-", input=json.dumps(kept), as_user=shop.eve.user, as_groups=shop.eve.groups)

    assert shop.annotations(DATABASES, database)[K + "paused-by"] == "pat"
