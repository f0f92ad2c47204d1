"""What both loops share: the clients, the registry, and per database where its diagnostics and plans go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import Model, ObjectMeta
from kintsugi.loops.fleet import Fleet
from kintsugi.loops.watch import Watch
from kintsugi.shell.audit import AuditChain
from kintsugi.shell.diagnose import Diagnoser, Surroundings, targets_for
from kintsugi.shell.errors import KubeError, UnavailableError
from kintsugi.shell.events import EventRecorder
from kintsugi.shell.execute import Targets
from kintsugi.shell.gate import ApprovalGate, GateState
from kintsugi.shell.kube import Kube, merge_patch
from kintsugi.shell.secrets import Secrets
from kintsugi.shell.telemetry import OperatorMetrics
from kintsugi.stages.lifecycle_facts import Audit
from kintsugi.stages.policy import Ceiling, EffectivePolicy, effective

AWAY = 2.0
"""Seconds for which no status is tried after the API server did not answer: a frozen one costs 5 s each time."""


@dataclass(frozen=True, slots=True)
class Workloads:
    """The Services, StatefulSets and Deployments of one namespace."""

    kube: Kube
    namespace: str

    async def read(self, kind: str, name: str) -> Mapping[str, Any]:
        """The object as it is now."""
        return await self.kube.get_workload(self.namespace, kind, name)

    async def patch(self, kind: str, name: str, body: Mapping[str, Any], resource_version: str | None) -> Any:
        """Merge-patch it; with a resource version only if nobody changed it since."""
        patch = dict(body)
        if resource_version:
            patch["metadata"] = {**patch.get("metadata", {}), "resourceVersion": resource_version}
        return await self.kube.patch_workload(self.namespace, kind, name, patch)


@dataclass(slots=True)
class Access:
    """Where one database's diagnostics and plans go, for one set of credentials."""

    fingerprint: tuple[Any, ...]
    targets: Targets
    diagnoser: Diagnoser


@dataclass(slots=True)
class Services:
    """Everything that does I/O, and the registry."""

    kube: Kube
    secrets: Secrets
    recorder: EventRecorder
    gate: ApprovalGate
    metrics: OperatorMetrics
    fleet: Fleet
    watches: dict[str, Watch]
    ceiling: Ceiling
    identity: str
    audit_chain: AuditChain
    wake: Callable[[], None]
    wake_action: Callable[[str], None]
    gate_state: GateState | None = None
    _access: dict[str, Access] = field(default_factory=dict)
    _away_until: float = 0.0
    _stale: list[Access] = field(default_factory=list)

    def policy_for(self, database: MonitoredDatabase) -> EffectivePolicy:
        """The boundaries that hold for a database now."""
        return effective(self.fleet.policies_in(database.metadata.namespace), database, self.ceiling)

    async def access(self, database: MonitoredDatabase) -> Access:
        """Where to ask and act; new when the spec or a Secret has changed.

        Raises:
            SecretError: a Secret is missing or incomplete.
            KubeError: the API server could not be asked for it.
        """
        spec, namespace, key = database.spec, database.metadata.namespace, database.metadata.key
        credentials = await self.secrets.get(namespace, spec.connection.secret_ref, "username", "password")
        pooler = None
        if spec.pooler:
            pooler = await self.secrets.get(namespace, spec.pooler.pgbouncer.secret_ref, "username", "password")
        fingerprint: tuple[Any, ...] = (
            database.metadata.uid,
            database.metadata.generation,
            tuple(sorted(credentials.items())),
        )
        if pooler:
            fingerprint = (*fingerprint, tuple(sorted(pooler.items())))
        known = self._access.get(key)
        if known and known.fingerprint == fingerprint:
            return known
        self.forget(key)
        targets = targets_for(spec, credentials, pooler, Workloads(self.kube, namespace))
        engine = self.watches[key].engine
        self._access[key] = Access(fingerprint, targets, Diagnoser(engine, spec, targets))
        await self.close_stale()
        return self._access[key]

    def forget(self, key: str) -> None:
        """Close a database's sessions soon: it is gone, or is to be reached in another way."""
        if access := self._access.pop(key, None):
            self._stale.append(access)

    async def surroundings(self, database: MonitoredDatabase) -> Surroundings:
        """What Prometheus and Kubernetes say about a database; what can't be read is left out."""
        watch = self.watches[database.metadata.key]
        return Surroundings(
            metrics_down=_metrics_down(watch),
            workload=await self._workload(database),
            **await self._service(database),
        )

    async def write_status(self, plural: str, meta: ObjectMeta, status: Model, *, swap: bool = False) -> bool:
        """Write a status if it differs from what the server has; whether anything was written.

        Raises:
            ConflictError: with `swap`, somebody changed the object since it was read.
            KubeError: the API server could not be asked, or refused.
        """
        raw = self.fleet.raw_status.get((plural, meta.key), {})
        patch = merge_patch(raw, status.to_json())
        if not patch:
            return False
        version = meta.resource_version if swap else None
        if not swap and time.monotonic() < self._away_until:
            raise UnavailableError("the Kubernetes API server did not answer a moment ago; the status is written later")
        try:
            body = await self.kube.patch_status(plural, meta.namespace, meta.name, patch, version)
        except UnavailableError:
            self._away_until = time.monotonic() + AWAY
            raise
        self.fleet.apply(plural, body)
        return True

    def emit(
        self,
        database: MonitoredDatabase | None,
        action: HealingAction | None,
        reason: str,
        note: str,
        *,
        now: datetime,
        warning: bool = False,
    ) -> None:
        """An Event on the action, and the same on the database."""
        if action is not None:
            self.recorder.emit("HealingAction", action.metadata, reason, note, now=now, warning=warning)
            note = f"{action.metadata.name}: {note}"
        if database is not None:
            self.recorder.emit("MonitoredDatabase", database.metadata, reason, note, now=now, warning=warning)

    def audit(self, action: HealingAction, effect: Audit, now: datetime) -> None:
        """One line in the audit chain."""
        entry = {
            "namespace": action.metadata.namespace,
            "database": action.spec.database.name,
            "name": action.metadata.name,
            "action": action.spec.action,
            "incident": action.spec.incident,
            "planHash": action.spec.plan_hash,
            "phase": effect.phase,
            "reason": effect.reason,
            "message": effect.message,
            "by": effect.by,
        }
        self.audit_chain.append(entry, now)

    async def close(self) -> None:
        """Close every session."""
        for key in list(self._access):
            self.forget(key)
        await self.close_stale()

    async def close_stale(self) -> None:
        """Close the sessions that were forgotten."""
        stale, self._stale[:] = list(self._stale), []
        for access in stale:
            await access.diagnoser.close()

    async def _service(self, database: MonitoredDatabase) -> dict[str, Any]:
        if database.spec.replication is None:
            return {}
        name = database.spec.replication.streaming.service
        with contextlib.suppress(KubeError):  # the failover action says itself that the Service is unknown
            service = await self.kube.get_workload(database.metadata.namespace, "service", name)
            selector = service["spec"].get("selector") or {}
            members = {member.name for member in database.spec.replication.streaming.members}
            primary = next((value for value in selector.values() if value in members), None)
            return {"primary_member": primary, "extra": {"service_selector": selector}}
        return {}

    async def _workload(self, database: MonitoredDatabase) -> dict[str, Any] | None:
        ref = database.spec.workload_ref
        if ref is None:
            return None
        with contextlib.suppress(KubeError):  # restart-workload says itself that the workload is unknown
            found = await self.kube.get_workload(database.metadata.namespace, ref.kind, ref.name)
            return {
                "kind": ref.kind,
                "name": ref.name,
                "replicas": found["spec"].get("replicas", 1),
                "ready": (found.get("status") or {}).get("readyReplicas", 0),
            }
        return None


def _metrics_down(watch: Watch) -> bool | None:
    """Whether Prometheus sees the server down; None when it says nothing."""
    up = watch.buffer.frame.last("postgres_up")
    return None if up is None or watch.metrics_problem else up == 0
