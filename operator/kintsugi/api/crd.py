"""The CustomResourceDefinitions of the three kinds, as data: schema, rules, printer columns, names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from kintsugi.api.action import ActionSpec, ActionStatus, HealingAction
from kintsugi.api.database import DatabaseSpec, DatabaseStatus, MonitoredDatabase
from kintsugi.api.meta import GROUP, VERSION
from kintsugi.api.policy import HealingPolicy, PolicySpec, PolicyStatus
from kintsugi.api.rules import ACTION_RULES, DATABASE_RULES, POLICY_RULES, Rule, explained, mode_rules, risk_rule
from kintsugi.api.schema import Schema, at, structural, walk


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the engines know by name: `risks` are the actions that exist, `latencies` what an SLO may name."""

    risks: Mapping[str, str]
    latencies: Sequence[str]


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column; `wide` ones show with `-o wide` only."""

    title: str
    path: str
    wide: bool = False
    type: str = "string"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a CRD says beyond its model.

    `keys` are the lists whose items are known by a field, `sets` those whose items are unique; `actions` and
    `latencies` the fields that hold such a name; `optional` those whose absence a rule explains better than the API
    server; `free` may hold anything. Without `defaults` the API server stores exactly what was sent.
    """

    name: str
    plural: str
    short: str
    summary: str
    spec: type[BaseModel]
    status: type[BaseModel]
    rules: tuple[Rule, ...]
    columns: tuple[Column, ...]
    keys: Mapping[str, str]
    rules_of_actions: Callable[[Mapping[str, str]], tuple[Rule, ...]] = lambda risks: ()
    sets: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    latencies: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    defaults: bool = True


AGE = Column("AGE", ".metadata.creationTimestamp", type="date")


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


DATABASES = Kind(
    name=MonitoredDatabase.KIND,
    plural=MonitoredDatabase.PLURAL,
    short="mdb",
    summary="A database to watch and to heal, and what Kintsugi sees and decides about it.",
    spec=DatabaseSpec,
    status=DatabaseStatus,
    rules=DATABASE_RULES,
    columns=(
        Column("HEALTH", ".status.phase"),
        Column("RISK", ".status.risk"),
        Column("SOON", ".status.soon"),
        Column("DOING", ".status.doing"),
        Column("MODE", ".status.effectiveMode", wide=True),
        Column("POLICIES", ".status.policies", wide=True),
        Column("INCIDENT", ".status.incident.id", wide=True),
        AGE,
    ),
    keys={"spec.replication.streaming.members": "name", "spec.dependsOn": "name", "status.conditions": "type"},
    latencies=("spec.slo.signal",),
)

POLICIES = Kind(
    name=HealingPolicy.KIND,
    plural=HealingPolicy.PLURAL,
    short="hp",
    summary="What Kintsugi may do to the databases it selects, and where it must stop.",
    spec=PolicySpec,
    status=PolicyStatus,
    rules=POLICY_RULES,
    columns=(
        Column("MODE", ".spec.mode"),
        Column("MATCHED", ".status.matched", type="integer"),
        Column("PAUSED", ".spec.paused", type="boolean"),
        Column("READY", _ready("reason")),
        Column("PRIORITY", ".spec.priority", wide=True, type="integer"),
        Column("MESSAGE", _ready("message"), wide=True),
        AGE,
    ),
    rules_of_actions=mode_rules,
    keys={"spec.actions": "name", "spec.windows": "name", "status.conditions": "type"},
    sets=(
        "spec.windows[].actions",
        "spec.constraints.protected",
        "spec.actions[].protectRoles",
    ),
    actions=("spec.actions[].name", "spec.windows[].actions[]"),
    optional=("spec.selector",),
)

ACTIONS = Kind(
    name=HealingAction.KIND,
    plural=HealingAction.PLURAL,
    short="ha",
    summary="One decision: what will be done to a database, why, how it is undone, and how it went.",
    spec=ActionSpec,
    status=ActionStatus,
    rules=ACTION_RULES,
    columns=(
        Column("DATABASE", ".spec.database.name"),
        Column("ACTION", ".spec.action"),
        Column("RISK", ".spec.risk"),
        Column("PHASE", ".status.phase"),
        Column("VERDICT", ".status.verdict.outcome"),
        Column("WAITS FOR", ".status.waitsFor"),
        Column("INCIDENT", ".spec.incident", wide=True),
        Column("APPROVED BY", ".status.approval.approvedBy", wide=True),
        Column("EXPIRES", ".spec.expiresAt", wide=True),
        Column("MESSAGE", ".status.message", wide=True),
        AGE,
    ),
    rules_of_actions=lambda risks: (risk_rule(risks),),
    keys={"status.conditions": "type"},
    actions=("spec.action",),
    free=("spec.parameters",),
    defaults=False,  # planHash is over the spec: what is hashed must be what is stored
)

KINDS: tuple[Kind, ...] = (DATABASES, POLICIES, ACTIONS)


def crd(kind: Kind, words: Vocabulary) -> dict[str, Any]:
    """The CustomResourceDefinition of `kind`.

    Raises:
        UnmappableFieldError: a field has no exact counterpart in Kubernetes, or a rule names no field.
        UnexplainedPatternError: a pattern has no sentence that says how such a value is written.
    """
    columns = [
        {"name": c.title, "type": c.type, "jsonPath": c.path} | ({"priority": 1} if c.wide else {})
        for c in kind.columns
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "kintsugi", "app.kubernetes.io/part-of": "kintsugi"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["kintsugi"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema(kind, words)},
                }
            ],
        },
    }


def schema(kind: Kind, words: Vocabulary) -> Schema:
    """The whole schema of `kind` with its rules.

    Raises:
        UnmappableFieldError: a field has no exact counterpart in Kubernetes, or a rule names no field.
        UnexplainedPatternError: a pattern has no sentence that says how such a value is written.
    """
    whole: Schema = {
        "type": "object",
        "description": kind.summary,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec, "spec", defaults=kind.defaults, free=kind.free),
            "status": structural(kind.status, "status", defaults=False),
        },
    }
    for path in kind.actions:
        _only(at(whole, path), sorted(words.risks))
    for path in kind.latencies:
        _only(at(whole, path), words.latencies)
    for path, key in kind.keys.items():
        at(whole, path).update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})
    for path in kind.sets:
        at(whole, path)["x-kubernetes-list-type"] = "set"
    for path in kind.optional:
        parent, _, name = path.rpartition(".")
        _not_required(at(whole, parent), name)
    _attach(whole, _explanations(whole))
    _attach(whole, (*kind.rules, *kind.rules_of_actions(words.risks)))
    return whole


def _only(node: Schema, values: Sequence[str]) -> None:
    """The node's value must be one of these; what else was said about its form then adds nothing."""
    for key in ("pattern", "minLength", "maxLength"):
        node.pop(key, None)
    node["enum"] = list(values)


def _not_required(node: Schema, name: str) -> None:
    node["required"].remove(name)
    if not node["required"]:
        del node["required"]


def _explanations(whole: Schema) -> list[Rule]:
    """Bare patterns taken out of `whole`, each as a rule with a sentence."""
    nodes = [(path, node) for path, node in walk(whole) if "pattern" in node]
    return [rule for path, node in nodes if (rule := explained(node.pop("pattern"), path)).says]


def _attach(whole: Schema, rules: Sequence[Rule]) -> None:
    for rule in rules:
        entry = {"rule": rule.cel, "messageExpression" if rule.computed else "message": rule.says}
        if rule.field:
            entry["fieldPath"] = rule.field
        at(whole, rule.at).setdefault("x-kubernetes-validations", []).append(entry)
