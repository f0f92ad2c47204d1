"""Valid objects of the three kinds, built from the models, with what a test needs changed merged in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kintsugi.api.action import (
    ActionApproval,
    ActionForecast,
    ActionSpec,
    ActionVerification,
    DatabaseRef,
    Evidence,
    Expected,
    HealingAction,
    PlanStep,
    PolicyRef,
    UndoPlan,
    plan_hash,
)
from kintsugi.api.database import Connection, DatabaseSpec, Metrics, MonitoredDatabase
from kintsugi.api.meta import API_VERSION
from kintsugi.api.policy import HealingPolicy, PolicySpec, Selector

Json = dict[str, Any]


def an_action(name: str = "", *, namespace: str = "", annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    """A high-risk failover that waits for approval, with its true planHash; without a name the API server makes one."""
    body = _ACTION.to_json() | spec
    body["planHash"] = plan_hash(body)
    return _object(HealingAction.KIND, name, namespace, body, annotations)


def a_database(name: str = "", *, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    """A database whose Secret is called `orders`."""
    return _object(MonitoredDatabase.KIND, name, "", _DATABASE.to_json() | spec, annotations)


def a_policy(name: str = "", *, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    """A policy that only observes, over all databases of its namespace."""
    return _object(HealingPolicy.KIND, name, "", _POLICY.to_json() | spec, annotations)


def _object(kind: str, name: str, namespace: str, spec: Json, annotations: dict[str, str] | None) -> Json:
    metadata: Json = {"name": name} if name else {"generateName": f"{kind.lower()}-"}
    if namespace:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


_ACTION = ActionSpec(
    database=DatabaseRef(name="orders", uid="5f0c8b1e-6f1b-4c39-9a55-b8a3a7a1a0f1"),
    incident="orders-20260101-120000",
    action="failover",
    parameters={"candidate": "orders-1"},
    plan=(
        PlanStep(kind="sql", target="orders-1", command="SELECT pg_promote(true, 10)", timeout=timedelta(seconds=15)),
    ),
    undo=UndoPlan(kind="Impossible", note="fail back is a planned switchover later"),
    risk="high",
    evidence=Evidence(summary="the primary does not answer"),
    forecast=ActionForecast(),
    expected=Expected(latency=0.9, throughput=0.9, resources=0.0, consistency=0.0),
    expires_at=datetime(2100, 1, 1, tzinfo=UTC),
    policies=(PolicyRef(name="critical", uid="0b6a3f6e-52d5-4b3c-8a1c-5b6b8f3f2c11", generation=1),),
    approval=ActionApproval(required=True, approvers=1, why="failover is high risk"),
    verification=ActionVerification(window=timedelta(minutes=2), revert_on_failure=False),
    plan_hash="0" * 12,
)

_DATABASE = DatabaseSpec(
    engine="postgresql",
    connection=Connection(host="orders-rw", database="orders", secret_ref="orders"),
    metrics=Metrics(prometheus="http://prometheus.monitoring:9090", matchers={"service": "orders"}),
)

_POLICY = PolicySpec(selector=Selector())
