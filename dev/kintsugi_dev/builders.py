"""Values for tests, with defaults that let everything pass, so that a test says only what it is about.

A policy that lets everything run, a low-risk candidate, facts of a calm fleet: each test turns one of them bad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kintsugi.api.action import (
    ActionApproval,
    ActionForecast,
    ActionSpec,
    ActionStatus,
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
from kintsugi.api.database import DatabaseSpec, MonitoredDatabase, TrackRecord
from kintsugi.api.meta import ObjectMeta
from kintsugi.api.policy import HealingPolicy, PolicySpec
from kintsugi.domain.actions import Candidate, Objectives, Plan, Proposal, Risk, Step, StepKind, Undo, UndoKind
from kintsugi.stages.judgement import Facts
from kintsugi.stages.policy import NO_CEILING, Ceiling, EffectivePolicy, merge

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NAMESPACE = "shop"


def a_policy(name: str = "critical", namespace: str = NAMESPACE, **spec: Any) -> HealingPolicy:
    """A policy over the whole namespace in mode AutoMediumRisk; `spec` as in YAML, in camelCase or snake_case."""
    body = {"selector": {}, "mode": "AutoMediumRisk"} | spec
    metadata = ObjectMeta(name=name, namespace=namespace, uid=f"uid-{name}", generation=1)
    return HealingPolicy(metadata=metadata, spec=PolicySpec.model_validate(body))


def an_effective_policy(ceiling: Ceiling = NO_CEILING, **spec: Any) -> EffectivePolicy:
    """What one policy with this spec comes to."""
    return merge((a_policy(**spec),), ceiling)


def a_database(
    name: str = "orders", labels: Mapping[str, str] | None = None, namespace: str = NAMESPACE, **spec: Any
) -> MonitoredDatabase:
    """A database; `spec` as in YAML."""
    body = {
        "engine": "postgresql",
        "connection": {"host": f"{name}-rw", "database": name, "secretRef": f"{name}-kintsugi"},
        "metrics": {"prometheus": "http://prometheus.monitoring:9090", "matchers": {"service": name}},
    } | spec
    return MonitoredDatabase(
        metadata=ObjectMeta(name=name, namespace=namespace, uid=f"uid-{name}", labels=labels or {}),
        spec=DatabaseSpec.model_validate(body),
    )


def a_candidate(
    action: str = "analyze-table",
    risk: Risk = Risk.LOW,
    touches: Sequence[str] = ("table:shop.orders",),
    consistency: float = 0.0,
) -> Candidate:
    """A candidate of one harmless step."""
    step = Step(StepKind.SQL, "primary", "SELECT true")
    plan = Plan((step,), Undo(UndoKind.NOTHING), probe=step, idempotent=True)
    proposal = Proposal(action, {}, Objectives(latency=0.5, consistency=consistency), ("because",), tuple(touches))
    return Candidate(proposal, plan, risk, score=0.5)


def a_failover() -> Candidate:
    """The high-risk candidate that most boundaries are about."""
    return a_candidate("failover", Risk.HIGH, touches=())


CALM = Facts(
    now=NOW,
    database_name="orders",
    database_paused=None,
    newest_sample_age=1.0,
    freshest_needed=45.0,
    last_action_ended=None,
    started=(),
    at_work_here="",
    at_work={},
    at_work_fleet=0,
    open_incidents=1,
    databases=20,
    record=TrackRecord(action="analyze-table"),
    trusted=TrackRecord(action="analyze-table"),
    tried=0,
    data_loss_bytes=0.0,
    replication_lag=0.0,
    observers={"metrics": True, "direct connection": True, "orders-1": True},
)


def facts(**changes: Any) -> Facts:
    """Facts of a calm fleet, with changes."""
    return replace(CALM, **changes)


def a_step(command: str = "SELECT true", **changes: Any) -> PlanStep:
    """One SQL step on the primary, ten seconds at most."""
    return PlanStep(kind="sql", target="primary", command=command, timeout=timedelta(seconds=10), **changes)


def a_spec(
    action: str = "create-index",
    approval: ActionApproval | None = None,
    plan: Sequence[PlanStep] = (),
    undo: UndoPlan | None = None,
    expires_at: datetime = NOW + timedelta(minutes=30),
    revert_on_failure: bool = True,
    **changes: Any,
) -> ActionSpec:
    """A spec with its hash: one step, undone by another, no approval needed."""
    spec = ActionSpec(
        database=DatabaseRef(name="orders", uid="uid-orders"),
        incident="orders-1",
        action=action,
        parameters={"table": "shop.orders"},
        plan=tuple(plan) or (a_step(),),
        undo=undo or UndoPlan(kind="Steps", steps=(a_step("SELECT undo"),)),
        risk=changes.pop("risk", "medium"),
        evidence=Evidence(summary="slow scans"),
        forecast=ActionForecast(),
        expected=Expected(latency=0.5, throughput=0.5, resources=0.0, consistency=0.0),
        expires_at=expires_at,
        policies=(PolicyRef(name="critical", uid="uid-critical", generation=1),),
        approval=approval or ActionApproval(required=False),
        verification=ActionVerification(window=timedelta(minutes=2), revert_on_failure=revert_on_failure),
        plan_hash="0" * 12,
        **changes,
    )
    return spec.model_copy(update={"plan_hash": plan_hash(spec.to_json())})


def an_action(spec: ActionSpec | None = None, status: ActionStatus | None = None) -> HealingAction:
    """An action; a fresh one unless a status is given."""
    return HealingAction(
        metadata=ObjectMeta(name="orders-7c1f", namespace=NAMESPACE, uid="uid-action", generation=1),
        spec=spec or a_spec(),
        status=status or ActionStatus(),
    )
