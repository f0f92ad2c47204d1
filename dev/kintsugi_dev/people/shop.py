"""`Shop`: a namespace with people in it who may do different things, as real teams have them.

eve and dan edit the namespace's objects and nothing else; ann and ben may approve high risk and reject, lou approve low
risk; pat is on call and may pause, acknowledge and label; dora is the DBA who writes databases and policies.
The operator's ServiceAccount may edit too, more than the chart gives it: what refuses it is then the policy, not RBAC.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes import client

from kintsugi.api.meta import PAUSE, PAUSED_BY
from kintsugi_dev.people.objects import a_database, a_policy, an_action
from kintsugi_dev.people.person import Person, RefusedError, at

Json = dict[str, Any]

ACTIONS, DATABASES, POLICIES = "healingactions", "monitoreddatabases", "healingpolicies"
OPERATOR = "system:serviceaccount:kintsugi-system:kintsugi"

EDITORS, APPROVERS, JUNIORS, ONCALL, DBAS = "editors", "approvers", "juniors", "oncall", "dbas"

POLICIES_S = 30.0

_VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
_OURS = "kintsugi.dev"
_ROLES: Mapping[str, Sequence[Json]] = {
    EDITORS: (
        {
            "apiGroups": [_OURS],
            "resources": [each for plural in (ACTIONS, DATABASES, POLICIES) for each in (plural, f"{plural}/status")],
            "verbs": _VERBS,
        },
    ),
    APPROVERS: (
        {"apiGroups": [_OURS], "resources": [f"{ACTIONS}/approve-high", f"{ACTIONS}/reject"], "verbs": ["update"]},
    ),
    JUNIORS: ({"apiGroups": [_OURS], "resources": [f"{ACTIONS}/approve-low"], "verbs": ["update"]},),
    ONCALL: (
        {
            "apiGroups": [_OURS],
            "resources": [
                *(f"{DATABASES}/{each}" for each in ("pause", "acknowledge", "label")),
                f"{POLICIES}/pause",
            ],
            "verbs": ["update"],
        },
    ),
    DBAS: (
        {"apiGroups": [_OURS], "resources": [f"{POLICIES}/automate"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets", "deployments"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["patch"]},
    ),
}


@dataclass(frozen=True)
class Shop:
    """A namespace, everybody in it, and short ways to make objects there."""

    namespace: str
    admin: Person

    @classmethod
    def opened(
        cls, api: client.ApiClient, name: str = "shop", roles: Sequence[str] = tuple(_ROLES), *, stamped: bool = True
    ) -> Shop:
        """Create the namespace (`name` and a random end) and let the groups called `roles` do there what they do.

        Returns when the admission policies are in force; a cluster before 1.36 has none that stamps (`stamped`).
        """
        shop = cls(f"{name}-{secrets.token_hex(3)}", Person(api))
        shop.admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": shop.namespace}})
        for role in roles:
            shop.grant(role, _ROLES[role])
        shop._wait_for_policies(stamped)
        return shop

    def grant(self, role: str, rules: Sequence[Json], *, user: str = "") -> None:
        """Give a group (called as the role), or one user, a role in this namespace; editors' also to the operator.

        Returns when it holds: the API server learns of new roles a moment after it has stored them.
        """
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        subjects = [_subject("User", user) if user else _subject("Group", role)]
        if role == EDITORS:
            subjects.append(_subject("User", OPERATOR))
        self.admin.request("POST", f"{rbac}/roles", {"metadata": {"name": role}, "rules": list(rules)})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
        body = {"metadata": {"name": role}, "roleRef": reference, "subjects": subjects}
        self.admin.request("POST", f"{rbac}/rolebindings", body)
        deadline = time.monotonic() + POLICIES_S
        while not self._holds(rules[-1], user or "somebody", role):
            if time.monotonic() > deadline:
                raise TimeoutError(f"role {role} in {self.namespace} did not take effect in {POLICIES_S:.0f} s")
            time.sleep(0.02)

    def _holds(self, rule: Json, user: str, group: str) -> bool:
        """Whether this user in this group may do what the rule says last."""
        resource, _, subresource = rule["resources"][-1].partition("/")
        attributes = {"namespace": self.namespace, "group": rule["apiGroups"][0], "verb": rule["verbs"][-1]}
        attributes |= {"resource": resource, "subresource": subresource, "name": rule.get("resourceNames", [""])[-1]}
        review = {"spec": {"user": user, "groups": [group], "resourceAttributes": attributes}}
        answer = self.admin.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def _wait_for_policies(self, stamped: bool) -> None:
        """A policy takes a second or two to come into force after it is created; until then tests would see nothing."""
        probe = f"{at(DATABASES, self.namespace)}?dryRun=All"
        deadline = time.monotonic() + POLICIES_S
        while not (self._refused(probe, {PAUSED_BY: "nobody"}) and self._refused(probe, {PAUSE: "x"}) != stamped):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the admission policies were not in force after {POLICIES_S:.0f} s; is the chart in?"
                )
            time.sleep(0.1)

    def _refused(self, path: str, annotations: dict[str, str]) -> bool:
        """Whether an admin is refused a database with these annotations: a stamp alone, or a pause without one."""
        try:
            self.admin.request("POST", path, a_database("probe", annotations=annotations))
        except RefusedError:
            return True
        return False

    def close(self) -> None:
        """Delete the namespace without waiting for it."""
        self.admin.request("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def person(self, user: str, *groups: str) -> Person:
        """Anybody."""
        return Person(self.admin.api, user, groups)

    @property
    def eve(self) -> Person:
        """Edits the namespace's objects."""
        return self.person("eve", EDITORS)

    @property
    def ann(self) -> Person:
        """Approves high risk."""
        return self.person("ann", EDITORS, APPROVERS)

    @property
    def ben(self) -> Person:
        """Approves high risk, too."""
        return self.person("ben", EDITORS, APPROVERS)

    @property
    def lou(self) -> Person:
        """Approves low risk only."""
        return self.person("lou", EDITORS, JUNIORS)

    @property
    def pat(self) -> Person:
        """Is on call: pauses, acknowledges, labels."""
        return self.person("pat", EDITORS, ONCALL)

    @property
    def dora(self) -> Person:
        """Is the DBA: names Secrets and workloads, writes policies."""
        return self.person("dora", EDITORS, DBAS)

    @property
    def operator(self) -> Person:
        """The operator's ServiceAccount."""
        return self.person(OPERATOR, "system:serviceaccounts", "system:authenticated")

    def action(self, *, phase: str = "AwaitingApproval", **spec: Any) -> str:
        """A new HealingAction, made by the operator, in `phase`; its name."""
        name: str = self.operator.create(ACTIONS, self.namespace, an_action(**spec))["metadata"]["name"]
        if phase:
            self.operator.patch(ACTIONS, self.namespace, name, {"status": {"phase": phase}}, subresource="status")
        return name

    def database(self, **spec: Any) -> str:
        """A new MonitoredDatabase, made by the DBA; its name."""
        name: str = self.dora.create(DATABASES, self.namespace, a_database(**spec))["metadata"]["name"]
        return name

    def policy(self, **spec: Any) -> str:
        """A new HealingPolicy, made by the DBA; its name."""
        name: str = self.dora.create(POLICIES, self.namespace, a_policy(**spec))["metadata"]["name"]
        return name

    def plan_hash(self, action: str) -> str:
        """The hash that an approval of this action carries."""
        found: str = self.admin.get(ACTIONS, self.namespace, action)["spec"]["planHash"]
        return found

    def annotations(self, plural: str, name: str) -> Json:
        """The annotations of one object as they are now."""
        found: Json = self.admin.get(plural, self.namespace, name)["metadata"].get("annotations", {})
        return found


def _subject(kind: str, name: str) -> Json:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
