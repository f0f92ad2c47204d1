"""The operator notices when forged approvals would pass: policies removed, weakened or not enforced.

These tests alter cluster-scoped policies and the API server's own flags, so they run on a cluster of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest

from kintsugi.shell.gate import ApprovalGate, GateError, GateState, difference
from kintsugi.shell.kube import load_api_client
from kintsugi_dev import admission
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import Person
from kintsugi_dev.people.shop import OPERATOR

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
VALIDATING, VALIDATING_BINDING = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
MUTATING, MUTATING_BINDING = "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"
SYSTEM = "kintsugi-system"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster.up(tmp_path_factory.mktemp("gate"))
    try:
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def admin(own: Cluster) -> Person:
    return Person(load_api_client(str(own.kubeconfig)))


@pytest.fixture(scope="module")
def gate(own: Cluster) -> ApprovalGate:
    """The gate of a process that is logged in as the operator's ServiceAccount, with the chart's rights and no more."""
    opened = ApprovalGate(operators_api(own))
    assert in_force(opened).ok
    return opened


def operators_api(cluster: Cluster) -> Any:
    kubeconfig = cluster.directory / "operator.kubeconfig"
    return load_api_client(str(cluster.service_account_kubeconfig(SYSTEM, "kintsugi", kubeconfig)))


def in_force(gate: ApprovalGate, timeout_s: float = 30.0) -> GateState:
    """The gate's state as soon as it is ok: policies take a second or two to come into force."""
    deadline = time.monotonic() + timeout_s
    while not (state := gate.check(max_age=0)).ok and time.monotonic() < deadline:
        time.sleep(0.1)
    return state


@dataclass(frozen=True)
class Tamper:
    """A change to an installed policy, and the words with which the gate must name it; no change is a deletion."""

    name: str
    what: str
    change: Callable[[dict[str, Any]], object] | None
    says: str
    policy: str = "kintsugi-actions"


def weaken(index: int) -> Callable[[dict[str, Any]], object]:
    return lambda spec: spec["validations"][index].update(expression="true")


SELECTOR = {"matchExpressions": [{"key": "approval", "operator": "NotIn", "values": ["free"]}]}
EXEMPT = [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["*"], "scope": "*"}]

TAMPERED = (
    Tamper(
        "the policy is removed", VALIDATING, None, "the ValidatingAdmissionPolicy kintsugi-actions is not installed"
    ),
    Tamper("its binding is removed", VALIDATING_BINDING, None, "PolicyBinding kintsugi-actions is not installed"),
    Tamper(
        "the binding only audits",
        VALIDATING_BINDING,
        lambda spec: spec.update(validationActions=["Audit"]),
        'spec.validationActions[0] is "Audit" instead of "Deny"',
    ),
    Tamper(
        "the binding only warns",
        VALIDATING_BINDING,
        lambda spec: spec.update(validationActions=["Warn"]),
        'spec.validationActions[0] is "Warn" instead of "Deny"',
    ),
    Tamper(
        "the binding leaves namespaces out",
        VALIDATING_BINDING,
        lambda spec: spec.update(matchResources={"namespaceSelector": SELECTOR}),
        "spec.matchResources was added",
    ),
    Tamper(
        "the policy leaves namespaces out",
        VALIDATING,
        lambda spec: spec["matchConstraints"].update(namespaceSelector=SELECTOR),
        "spec.matchConstraints.namespaceSelector.matchExpressions was added",
    ),
    Tamper(
        "the policy leaves labelled objects out",
        VALIDATING,
        lambda spec: spec["matchConstraints"].update(objectSelector=SELECTOR),
        "spec.matchConstraints.objectSelector.matchExpressions was added",
    ),
    Tamper(
        "updates are exempt",
        VALIDATING,
        lambda spec: spec["matchConstraints"].update(excludeResourceRules=EXEMPT),
        "spec.matchConstraints.excludeResourceRules was added",
    ),
    Tamper(
        "updates are not looked at",
        VALIDATING,
        lambda spec: spec["matchConstraints"]["resourceRules"][0].update(operations=["CREATE", "DELETE"]),
        "spec.matchConstraints.resourceRules[0].operations has 2 entries instead of 3",
    ),
    Tamper(
        "errors let requests through",
        VALIDATING,
        lambda spec: spec.update(failurePolicy="Ignore"),
        'spec.failurePolicy is "Ignore" instead of "Fail"',
    ),
    Tamper("an expression is weakened", VALIDATING, weaken(13), 'spec.validations[13].expression is "true" instead of'),
    Tamper(
        "an expression is dropped",
        VALIDATING,
        lambda spec: spec["validations"].pop(),
        " entries instead of ",
    ),
    Tamper(
        "somebody else is the operator",
        VALIDATING,
        lambda spec: spec["variables"][1].update(expression="variables.me == 'eve'"),
        "spec.variables[1].expression is \"variables.me == 'eve'\" instead of",
    ),
    Tamper(
        "a condition leaves a user out",
        VALIDATING,
        lambda spec: spec.update(matchConditions=[{"name": "x", "expression": "request.userInfo.username != 'eve'"}]),
        "spec.matchConditions was added",
    ),
    Tamper("the stamps are removed", MUTATING, None, "the MutatingAdmissionPolicy kintsugi-stamps", "kintsugi-stamps"),
    Tamper("the stamps are unbound", MUTATING_BINDING, None, "PolicyBinding kintsugi-stamps", "kintsugi-stamps"),
    Tamper(
        "the stamps carry another name",
        MUTATING,
        lambda spec: spec["mutations"][0]["jsonPatch"].update(
            expression=spec["mutations"][0]["jsonPatch"]["expression"].replace("request.userInfo.username", "'dora'")
        ),
        "spec.mutations[0].jsonPatch.expression",
        "kintsugi-stamps",
    ),
    Tamper("Secrets are not checked", VALIDATING, weaken(10), "spec.validations[10]", "kintsugi-databases"),
    Tamper("policies are unbound", VALIDATING_BINDING, None, "PolicyBinding kintsugi-policies", "kintsugi-policies"),
)


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.name)
def test_the_gate_names_what_was_tampered_with(gate: ApprovalGate, admin: Person, tamper: Tamper) -> None:
    with tampered(admin, tamper):
        state = gate.check(max_age=0)

    assert not state.ok
    assert state.reason == ("PolicyMissing" if tamper.change is None else "PolicyChanged")
    assert tamper.says in state.message
    assert tamper.policy in state.message
    assert "nothing that needs approval runs; have a cluster admin run `helm upgrade`" in state.message


@contextmanager
def tampered(admin: Person, tamper: Tamper) -> Iterator[None]:
    collection = f"{ADMISSION}/{tamper.what}"
    path = f"{collection}/{tamper.policy}"
    original = admin.request("GET", path)
    if tamper.change is None:
        admin.request("DELETE", path)
    else:
        changed = deepcopy(original["spec"])
        tamper.change(changed)
        admin.patch_at(path, {"spec": changed})
    fresh = {key: original[key] for key in ("apiVersion", "kind", "spec")}
    try:
        yield
    finally:
        if tamper.change is not None:
            admin.request("DELETE", path)
        metadata = {key: original["metadata"].get(key) for key in ("name", "labels", "annotations")}
        admin.request("POST", collection, fresh | {"metadata": metadata})


def test_the_gate_works_on_a_fresh_installation(gate: ApprovalGate) -> None:
    assert in_force(gate) == GateState(
        True, "Working", "a forged approval is refused, and the admission policies are those shipped"
    )


def test_the_self_test_leaves_nothing_behind(gate: ApprovalGate, admin: Person) -> None:
    in_force(gate)

    assert admin.request("GET", "/apis/kintsugi.dev/v1alpha1/healingactions")["items"] == []


def test_a_refusal_by_rbac_proves_nothing(gate: ApprovalGate, admin: Person) -> None:
    in_force(gate)
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/kintsugi-operator"
    role = admin.request("GET", path)
    without = [
        rule for rule in role["rules"] if "create" not in rule["verbs"] or "healingactions" not in rule["resources"]
    ]
    admin.patch_at(path, {"rules": without})
    try:
        state = _until(lambda: gate.check(max_age=0), lambda state: not state.ok)
    finally:
        admin.patch_at(path, {"rules": role["rules"]})

    assert state.reason == "RefusedByOthers"
    assert "not by the policy kintsugi-actions, which proves nothing" in state.message
    assert "cannot create resource" in state.message


def test_policies_that_refuse_honest_requests_too_are_noticed(gate: ApprovalGate, admin: Person) -> None:
    in_force(gate)
    policies = f"{ADMISSION}/{VALIDATING}"
    rules = [
        {"apiGroups": ["kintsugi.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["healingactions"]}
    ]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "object.spec.nonsense == 1"}]}
    admin.request("POST", policies, {"metadata": {"name": "broken"}, "spec": spec})
    binding = {"metadata": {"name": "broken"}, "spec": {"policyName": "broken", "validationActions": ["Deny"]}}
    admin.request("POST", f"{ADMISSION}/{VALIDATING_BINDING}", binding)
    try:
        state = _until(lambda: gate.check(max_age=0), lambda state: not state.ok)
    finally:
        admin.request("DELETE", f"{ADMISSION}/{VALIDATING_BINDING}/broken")
        admin.request("DELETE", f"{policies}/broken")

    assert state.reason in ("HonestRequestRefused", "RefusedByOthers")
    assert "'broken'" in state.message


def test_an_operator_that_may_not_read_the_policies_does_not_trust_them(gate: ApprovalGate, admin: Person) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kintsugi-gate"
    binding = admin.request("GET", path)
    admin.request("DELETE", path)
    try:
        state = _until(lambda: gate.check(max_age=0), lambda state: state.reason == "NotAllowed")
    finally:
        again = {key: binding[key] for key in ("roleRef", "subjects")} | {"metadata": {"name": "kintsugi-gate"}}
        admin.request("POST", path.rpartition("/")[0], again)

    assert not state.ok
    assert "the operator may not look at the admission policies" in state.message


def test_a_process_logged_in_as_somebody_else_than_the_operator_is_told_so(own: Cluster, gate: ApprovalGate) -> None:
    state = ApprovalGate(load_api_client(str(own.kubeconfig))).check()

    assert state.reason == "PolicyChanged"
    assert f"== '{OPERATOR}'\" instead of" in state.message


def test_a_state_is_given_again_for_a_few_seconds_only(own: Cluster, gate: ApprovalGate, admin: Person) -> None:
    now = [0.0]
    caching = ApprovalGate(operators_api(own), clock=lambda: now[0])
    assert in_force(caching).ok

    with tampered(admin, TAMPERED[1]):
        now[0] = 4.0
        young = caching.check()
        now[0] = 6.0
        old = caching.check()

    assert young.ok
    assert not old.ok


def test_who_may_approve_is_asked_with_user_and_groups(gate: ApprovalGate, admin: Person) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rules = [{"apiGroups": ["kintsugi.dev"], "resources": ["healingactions/approve-high"], "verbs": ["update"]}]
    admin.request("POST", f"{rbac}/roles", {"metadata": {"name": "approver"}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "approver"}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "approvers"}
    binding = {"metadata": {"name": "approver"}, "roleRef": reference, "subjects": [group]}
    admin.request("POST", f"{rbac}/rolebindings", binding)

    _until(lambda: gate.may_approve("ann", ("approvers",), "high", "default", "a"), bool)
    assert not gate.may_approve("ann", (), "high", "default", "a")
    assert not gate.may_approve("ann", ("approvers",), "medium", "default", "a")
    assert not gate.may_approve("ann", ("approvers",), "high", "elsewhere", "a")

    admin.request("DELETE", f"{rbac}/rolebindings/approver")
    _until(lambda: gate.may_approve("ann", ("approvers",), "high", "default", "a"), lambda may: not may)


def test_an_api_server_that_does_not_answer_closes_the_gate(own: Cluster, gate: ApprovalGate) -> None:
    own.stop_apiserver()
    try:
        state = gate.check(max_age=0)
        with pytest.raises(GateError, match="whether ann may approve default/a could not be asked"):
            gate.may_approve("ann", (), "high", "default", "a")
    finally:
        own.start_apiserver()

    assert (state.ok, state.reason) == (False, "Unreachable")
    assert in_force(gate).ok


@pytest.mark.slow  # two restarts of an API server
def test_policies_that_are_installed_but_not_enforced_are_noticed(own: Cluster, gate: ApprovalGate) -> None:
    restart_with(own, "--disable-admission-plugins=ValidatingAdmissionPolicy")
    try:
        state = gate.check(max_age=0)
    finally:
        restart_with(own)

    assert state.reason == "ForgeryAccepted"
    assert "the API server accepted a forged approval in kintsugi-system" in state.message
    assert in_force(gate).ok


def test_the_shipped_policies_are_those_of_the_chart() -> None:
    assert admission.FILE.read_text(encoding="utf-8") == admission.text(), "run `make crds`"


def test_the_first_difference_is_named_by_its_path() -> None:
    shipped: dict[str, Any] = {"a": [{"b": 1}, {"b": 2}]}

    assert difference(shipped, {"a": [{"b": 1}, {"b": 2}]}, "spec") == ""
    assert difference(shipped, {"a": [{"b": 1}, {"b": 3}]}, "spec") == "spec.a[1].b is 3 instead of 2"
    assert difference(shipped, {"a": [{"b": 1}, {}]}, "spec") == "spec.a[1].b is missing"
    assert difference(shipped, {"a": {"b": 1}}, "spec") == 'spec.a is {"b": 1} instead of [{"b": 1}, {"b": 2}]'


def restart_with(cluster: Cluster, *flags: str) -> None:
    """Start the API server again with these flags added to its own, instead of those of an earlier call."""
    file = cluster.directory / "commands.json"
    commands = json.loads(file.read_text(encoding="utf-8"))
    plain = [
        each for each in commands["kube-apiserver"] if not each.startswith(("--disable-admission", "--runtime-config"))
    ]
    commands["kube-apiserver"] = [*plain, *flags]
    file.write_text(json.dumps(commands), encoding="utf-8")
    cluster.restart_apiserver()


def _until(ask: Callable[[], Any], enough: Callable[[Any], bool], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer} after {timeout_s:.0f} s"
        time.sleep(0.1)
    return answer
