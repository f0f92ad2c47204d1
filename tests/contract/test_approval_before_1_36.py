"""Before 1.36 there is no MutatingAdmissionPolicy: the approver types the stamps, and the policies compare them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from kintsugi.shell.gate import ApprovalGate
from kintsugi.shell.kube import load_api_client
from kintsugi.stages.approval import read_approvals
from kintsugi_dev import admission
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import RefusedError, Shop
from kintsugi_dev.people.shop import ACTIONS, DATABASES

pytestmark = pytest.mark.slow  # an API server is started twice

K = "kintsugi.dev/"
WITHOUT = (
    "--disable-admission-plugins=MutatingAdmissionPolicy",
    "--runtime-config=admissionregistration.k8s.io/v1/mutatingadmissionpolicies=false,"
    "admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings=false",
)
ANNS_GROUPS = "editors,approvers,system:authenticated"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server that serves everything but mutating policies, and the chart as helm renders it for such a server."""
    cluster = Cluster.up(tmp_path_factory.mktemp("old"), chart=False)
    try:
        file = cluster.directory / "commands.json"
        commands = json.loads(file.read_text(encoding="utf-8"))
        commands["kube-apiserver"] += WITHOUT
        file.write_text(json.dumps(commands), encoding="utf-8")
        cluster.restart_apiserver()
        cluster.install_chart()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def shop(old: Cluster) -> Shop:
    return Shop.opened(load_api_client(str(old.kubeconfig)), stamped=False)


def test_the_chart_leaves_the_stamping_policy_out() -> None:
    kinds = {each["kind"] for each in admission.rendered(mutating=False)}

    assert kinds == {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_the_validating_policies_are_the_same_on_old_and_new_servers() -> None:
    new = [each for each in admission.rendered() if each["kind"].startswith("Validating")]

    assert admission.rendered(mutating=False) == new


def test_the_gate_works_without_the_stamping_policy(old: Cluster, shop: Shop) -> None:
    kubeconfig = old.service_account_kubeconfig("kintsugi-system", "kintsugi", old.directory / "operator.kubeconfig")
    gate = ApprovalGate(load_api_client(str(kubeconfig)))

    deadline = time.monotonic() + 30
    while not (state := gate.check(max_age=0)).ok and time.monotonic() < deadline:
        time.sleep(0.1)

    assert state.ok, state.message


def test_an_approval_without_a_name_is_refused_with_the_words_to_type(shop: Shop) -> None:
    action = shop.action()

    with pytest.raises(RefusedError) as refused:
        shop.ann.annotate(ACTIONS, shop.namespace, action, {K + "approve": shop.plan_hash(action)})

    typed = f"say who you are: {K}approved-by=ann {K}approved-groups={ANNS_GROUPS}"
    assert typed in str(refused.value)


def test_an_approval_with_the_true_name_and_groups_passes(shop: Shop) -> None:
    action = shop.action()
    approval = {K + "approve": shop.plan_hash(action), K + "approved-by": "ann", K + "approved-groups": ANNS_GROUPS}

    shop.ann.annotate(ACTIONS, shop.namespace, action, approval)

    approvals = read_approvals(shop.annotations(ACTIONS, action), shop.plan_hash(action))
    assert approvals.approved_by == "ann"
    assert approvals.granted(1)


@pytest.mark.parametrize(
    "lie",
    [{K + "approved-by": "ben"}, {K + "approved-groups": "approvers,system:masters"}, {K + "approved-groups": ""}],
)
def test_an_approval_in_anothers_name_or_groups_is_refused(shop: Shop, lie: dict[str, str]) -> None:
    action = shop.action()
    truth = {K + "approve": shop.plan_hash(action), K + "approved-by": "ann", K + "approved-groups": ANNS_GROUPS}

    with pytest.raises(RefusedError, match="say who you are"):
        shop.ann.annotate(ACTIONS, shop.namespace, action, truth | lie)

    assert shop.annotations(ACTIONS, action) == {}


def test_a_second_approval_by_the_same_person_is_refused(shop: Shop) -> None:
    action = shop.action()
    given = shop.plan_hash(action)
    first = {K + "approve": given, K + "approved-by": "ann", K + "approved-groups": ANNS_GROUPS}
    shop.ann.annotate(ACTIONS, shop.namespace, action, first)

    second = {K + "second-approve": given, K + "second-approved-by": "ann", K + "second-approved-groups": ANNS_GROUPS}
    with pytest.raises(RefusedError, match="from somebody else"):
        shop.ann.annotate(ACTIONS, shop.namespace, action, second)


def test_an_editor_may_not_approve_in_anybodys_name(shop: Shop) -> None:
    action = shop.action()
    approval = {K + "approve": shop.plan_hash(action), K + "approved-by": "ann", K + "approved-groups": ANNS_GROUPS}

    with pytest.raises(RefusedError, match="eve may not approve high-risk actions"):
        shop.eve.annotate(ACTIONS, shop.namespace, action, approval)


def test_a_rejection_carries_the_typed_name(shop: Shop) -> None:
    action = shop.action()

    with pytest.raises(RefusedError, match=f"say who you are: {K}rejected-by=ann"):
        shop.ann.annotate(ACTIONS, shop.namespace, action, {K + "reject": "no"})
    shop.ann.annotate(ACTIONS, shop.namespace, action, {K + "reject": "no", K + "rejected-by": "ann"})

    assert shop.annotations(ACTIONS, action) == {K + "reject": "no", K + "rejected-by": "ann"}


def test_a_pause_is_set_and_withdrawn_together_with_its_name(shop: Shop) -> None:
    database = shop.database()

    def annotate(**keys: str | None) -> None:
        named = {K + key.replace("_", "-"): value for key, value in keys.items()}
        shop.pat.annotate(DATABASES, shop.namespace, database, named)

    with pytest.raises(RefusedError, match=f"say who you are: {K}paused-by=pat"):
        annotate(pause="noon")
    with pytest.raises(RefusedError, match=f"say who you are: {K}paused-by=pat"):
        annotate(pause="noon", paused_by="dora")
    annotate(pause="noon", paused_by="pat")
    with pytest.raises(RefusedError, match=f"{K}paused-by- "):
        annotate(pause=None)
    annotate(pause=None, paused_by=None)

    assert shop.annotations(DATABASES, database) == {}
