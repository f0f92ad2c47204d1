"""The approval gate: whether the API server really keeps forged approvals out, and whether an approver still may.

Kubernetes lets a cluster admin change or remove an admission policy at any time, and then anybody's annotation would
look like an approval. So the operator proves the gate before it relies on it: it tries to forge (a dry run, nothing is
stored) and must be refused by our policy, by name, and the installed policies must equal those that this version ships.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from kubernetes import client

from kintsugi.api.meta import API_VERSION, APPROVE, APPROVED_BY, APPROVED_GROUPS, GROUP, VERSION
from kintsugi.shell.errors import ForbiddenError, InvalidError, KubeError, NotFoundError, UnavailableError
from kintsugi.shell.kube import send, translated

Json = dict[str, Any]
T = TypeVar("T")

POLICY = "kintsugi-actions"
"""The policy that has to refuse a forged approval, as its refusals name it."""
REFUSAL = (
    f"forbidden: ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}' denied request: "
    "a HealingAction cannot be created approved"
)
OPERATOR = "{operator}"
"""Stands for the operator's user name in `admission.json`."""
MAX_AGE = 5.0
"""Seconds for which a check is not repeated: one pass over several waiting actions makes one check."""

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_REMEDY = "have a cluster admin run `helm upgrade` of the kintsugi chart, and find out who changed it"


class GateError(KubeError):
    """It could not be found out whether somebody may approve; nothing is executed on it."""


@dataclass(frozen=True, slots=True)
class GateState:
    """Whether approvals can be relied on.

    `reason` is CamelCase for the condition `ApprovalGateMissing`: Working, PolicyMissing, PolicyChanged,
    ForgeryAccepted, RefusedByOthers, HonestRequestRefused, NotAllowed or Unreachable. `message` begins with it and says
    what is wrong and what to do; docs/approval.md explains each.
    """

    ok: bool
    reason: str
    message: str


class ApprovalGate:
    """Asks the API server as the operator itself: whoever `api` logs in as. Synchronous; safe to call from threads."""

    def __init__(self, api: client.ApiClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[float, str, GateState] | None = None

    def check(self, namespace: str = "", *, max_age: float = MAX_AGE) -> GateState:
        """Whether approvals in `namespace` (the operator's own by default) can be relied on just now; never raises.

        A state younger than `max_age` seconds is given again.
        """
        with self._lock:
            now = self._clock()
            if self._last and self._last[1] == namespace and now - self._last[0] < max_age:
                return self._last[2]
            state = self._checked(namespace)
            self._last = (now, namespace, state)
            return state

    def may_approve(self, user: str, groups: Sequence[str], risk: str, namespace: str, name: str) -> bool:
        """Whether RBAC lets this user, being in these groups, approve this action of this risk now.

        Raises:
            GateError: the API server could not be asked.
        """
        attributes = {
            "group": GROUP,
            "version": VERSION,
            "resource": "healingactions",
            "subresource": f"approve-{risk}",
            "verb": "update",
            "namespace": namespace,
            "name": name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": list(groups), "resourceAttributes": attributes},
        }
        try:
            status = self._send("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]
        except KubeError as error:
            raise GateError(
                f"whether {user} may approve {namespace}/{name} could not be asked: {error}; the action waits"
            ) from error
        return bool(status.get("allowed")) and not status.get("denied")

    def _checked(self, namespace: str) -> GateState:
        try:
            operator = self._who()
            return next(self._faults(operator, namespace or _namespace_of(operator)), _WORKING)
        except ForbiddenError as error:
            return _bad(
                "NotAllowed", f"the operator may not look at the admission policies: {error}", "reinstall the chart"
            )
        except UnavailableError as error:
            return _bad("Unreachable", f"the approval gate could not be checked: {error}", "nothing; it is tried again")
        except KubeError as error:
            return _bad("Unreachable", f"the approval gate could not be checked: {error}", _REMEDY)

    def _faults(self, operator: str, namespace: str) -> Iterator[GateState]:
        """Everything that is wrong; the first is what a person reads."""
        served = self._served()
        for shipped in shipped_policies(operator):
            if _resource(shipped["kind"]) in served:
                yield from self._compared(shipped, operator)
        yield from self._forged(operator, namespace)
        yield from self._honest(namespace)

    def _who(self) -> str:
        """The user name that we are logged in as."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        name: str = answer["status"]["userInfo"]["username"]
        return name

    def _served(self) -> frozenset[str]:
        """The kinds of admission policies that this server has: mutating ones only from 1.36 on."""
        return frozenset(each["name"] for each in self._send("GET", _ADMISSION)["resources"])

    def _compared(self, shipped: Json, operator: str) -> Iterator[GateState]:
        kind, name = shipped["kind"], shipped["metadata"]["name"]
        try:
            installed = self._send("GET", f"{_ADMISSION}/{_resource(kind)}/{name}")
        except NotFoundError:
            yield _bad("PolicyMissing", f"the {kind} {name} is not installed", _REMEDY)
            return
        path = difference(shipped["spec"], installed["spec"], "spec")
        if path:
            what = f"the {kind} {name} is not what this version ships for its operator, {operator}: {path}"
            yield _bad("PolicyChanged", what, _REMEDY)

    def _forged(self, operator: str, namespace: str) -> Iterator[GateState]:
        """An action that its creator approves himself."""
        body = specimen(namespace)
        body["metadata"]["annotations"] = {
            APPROVE: body["spec"]["planHash"],
            APPROVED_BY: operator,
            APPROVED_GROUPS: "system:serviceaccounts",
        }
        try:
            self._dry_run(body, namespace)
        except (ForbiddenError, InvalidError) as error:  # a policy whose expression fails answers 422
            if REFUSAL not in str(error):
                what = f"a forged approval was refused, but not by the policy {POLICY}, which proves nothing: {error}"
                yield _bad("RefusedByOthers", what, _REMEDY)
        else:
            what = f"the API server accepted a forged approval in {namespace}, so anybody's would look real"
            yield _bad("ForgeryAccepted", what, _REMEDY)

    def _honest(self, namespace: str) -> Iterator[GateState]:
        """A policy with an error refuses everything, which looks like a gate that works."""
        try:
            self._dry_run(specimen(namespace), namespace)
        except (UnavailableError, NotFoundError):
            raise
        except KubeError as error:
            yield _bad("HonestRequestRefused", f"the operator cannot create actions in {namespace}: {error}", _REMEDY)

    def _dry_run(self, body: Json, namespace: str) -> None:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/healingactions"
        self._send("POST", path, body, {"dryRun": "All"})

    def _send(self, method: str, path: str, body: Json | None = None, query: Json | None = None) -> Json:
        return translated(lambda: send(self._api, method, path, body, query=query))


def shipped_policies(operator: str) -> tuple[Json, ...]:
    """The policies and bindings that belong to this version, with `operator` as the operator's user name."""
    return tuple(json.loads(_shipped_text().replace(OPERATOR, operator)))


def difference(shipped: Any, installed: Any, path: str) -> str:
    """Where `installed` first differs from `shipped` and how, in words; empty when they are equal."""
    if isinstance(shipped, Mapping) and isinstance(installed, Mapping):
        for key in sorted({*shipped, *installed}):
            if key not in installed:
                return f"{path}.{key} is missing"
            if key not in shipped:
                return f"{path}.{key} was added ({_short(installed[key])})"
            if found := difference(shipped[key], installed[key], f"{path}.{key}"):
                return found
        return ""
    if isinstance(shipped, list) and isinstance(installed, list):
        if len(shipped) != len(installed):
            return f"{path} has {len(installed)} entries instead of {len(shipped)}"
        pairs = enumerate(zip(shipped, installed, strict=True))
        return next((found for i, (a, b) in pairs if (found := difference(a, b, f"{path}[{i}]"))), "")
    return "" if shipped == installed else f"{path} is {_short(installed)} instead of {_short(shipped)}"


def specimen(namespace: str) -> Json:
    """A harmless action of the gate's own, valid by schema, used for dry runs only."""
    return {
        "apiVersion": API_VERSION,
        "kind": "HealingAction",
        "metadata": {"generateName": "kintsugi-self-test-", "namespace": namespace},
        "spec": {
            "database": {"name": "self-test", "uid": "00000000-0000-0000-0000-000000000000"},
            "incident": "self-test",
            "action": "analyze-table",
            "parameters": {},
            "runnable": True,
            "plan": [
                {
                    "kind": "sql",
                    "target": "primary",
                    "command": "SELECT 1",
                    "timeout": "1s",
                    "transaction": True,
                    "optional": False,
                    "expect": False,
                }
            ],
            "undo": {"kind": "Nothing", "steps": [], "note": "never run"},
            "risk": "high",
            "evidence": {"summary": "self-test of the approval gate", "facts": [], "signals": [], "notProposed": []},
            "forecast": {"root": "", "sentence": "", "impacts": []},
            "expected": {"latency": 0, "throughput": 0, "resources": 0, "consistency": 0, "runnerUp": ""},
            "propensity": 1,
            "expiresAt": "2100-01-01T00:00:00Z",
            "policies": [{"name": "self-test", "uid": "self-test", "generation": 1}],
            "approval": {"required": True, "approvers": 1, "why": "self-test"},
            "verification": {"window": "1m", "revertOnFailure": False},
            "planHash": "0" * 12,
        },
    }


_WORKING = GateState(True, "Working", "a forged approval is refused, and the admission policies are those shipped")


@cache
def _shipped_text() -> str:
    return (resources.files("kintsugi.shell") / "admission.json").read_text(encoding="utf-8")


def _resource(kind: str) -> str:
    plural = kind.lower()
    return plural[:-1] + "ies" if plural.endswith("y") else plural + "s"


def _namespace_of(operator: str) -> str:
    """The ServiceAccount's namespace; somebody who runs the operator as a person has none, and gets `default`."""
    parts = operator.split(":")
    return parts[2] if parts[:2] == ["system", "serviceaccount"] else "default"


def _bad(reason: str, what: str, remedy: str) -> GateState:
    return GateState(False, reason, f"{reason}: {what}; nothing that needs approval runs; {remedy}")


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}…"
