"""restart-workload: the last resort for a database that does not answer and has no replica to take over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from kintsugi.api.database import DatabaseSpec
from kintsugi.api.meta import Model, Name
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.domain.text import human
from kintsugi.engines.engine import Diagnosis
from kintsugi.engines.postgresql.actions.parameters import validated

NAME = "restart-workload"
ANNOTATION = "kubectl.kubernetes.io/restartedAt"
SILENT_FOR = 60.0
"""Seconds of silence: the kubelet's own restarts and crash recovery come first."""


class WorkloadParameters(Model):
    """Which workload, and the moment that marks this restart."""

    kind: Literal["StatefulSet", "Deployment"]
    name: Name
    restarted_at: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


class RestartWorkload:
    """Restarts the pods, as `kubectl rollout restart` does."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """A restart, if nothing else is left."""
        reason = _not_yet(diagnosis, spec)
        if reason is not None or diagnosis.workload is None:
            return [NotProposed(NAME, reason or "the workload is unknown")]
        return [_proposal(diagnosis, diagnosis.workload, spec)]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """One merge patch of the pod template's annotation."""
        wanted = validated(WorkloadParameters, parameters, NAME)
        target = f"{wanted.kind.lower()}/{wanted.name}"
        annotations = {"annotations": {ANNOTATION: wanted.restarted_at}}
        patch = json.dumps({"spec": {"template": {"metadata": annotations}}}, sort_keys=True)
        return Plan(
            steps=(Step(StepKind.KUBERNETES, target, patch),),
            undo=Undo(UndoKind.IMPOSSIBLE, note="a restart can't be taken back; sessions are lost"),
            probe=Step(StepKind.KUBERNETES, target, patch),
            idempotent=True,
        )


def _proposal(diagnosis: Diagnosis, workload: Mapping[str, Any], spec: DatabaseSpec) -> Proposal:
    kind, name = workload["kind"], workload["name"]
    return Proposal(
        action=NAME,
        parameters={"kind": kind, "name": name, "restartedAt": diagnosis.extra["diagnosed_at"]},
        expected=Objectives(latency=0.5, throughput=0.5, resources=-0.2, consistency=-0.2),
        evidence=(
            f"the server has been silent for {human(diagnosis.unreachable_for)}, and the metrics see it down too",
            f"{kind} {name} has {workload['ready']} of {workload['replicas']} pods ready",
            "there is no replica to fail over to; every session is lost, and the server starts by crash recovery",
        ),
        touches=(f"database:{spec.connection.database}",),
        heals=frozenset({"connections", "query-engine", "lock-manager", "host-memory", "client"}),
    )


def _not_yet(diagnosis: Diagnosis, spec: DatabaseSpec) -> str | None:
    if spec.workload_ref is None:
        return "the database names no workload (spec.workloadRef)"
    if diagnosis.primary_reachable:
        return "the server answers"
    if diagnosis.unreachable_for < SILENT_FOR:
        return (
            f"the server has been silent for {human(diagnosis.unreachable_for)} only; the kubelet and crash recovery"
            f" are given {human(SILENT_FOR)}"
        )
    if any(member.reachable and member.in_recovery for member in diagnosis.members):
        return "a replica can take over: see failover"
    if diagnosis.metrics_down is not True:
        return "the metrics do not see the server down: the way to it may be broken instead"
    if diagnosis.workload is None:
        return f"{spec.workload_ref.kind} {spec.workload_ref.name} can't be read"
    return None
