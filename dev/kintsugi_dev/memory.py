"""The loops without a cluster: an API server in memory that can be away or lose its answers, and services around it.

For tests of what the loops do between two requests; what a real API server says is for the contract tests.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
from kubernetes import client

from kintsugi.api.action import (
    ActionApproval,
    ActionStatus,
    ActionVerification,
    DatabaseRef,
    HealingAction,
    Phase,
    PolicyRef,
)
from kintsugi.api.database import DatabaseStatus, IncidentStatus, MonitoredDatabase
from kintsugi.api.meta import API_VERSION, Model, ObjectMeta
from kintsugi.api.policy import HealingPolicy
from kintsugi.domain.actions import Candidate, Objectives, Proposal
from kintsugi.domain.anomaly import Anomaly, Contribution, Health
from kintsugi.domain.forecast import NO_FORECAST
from kintsugi.engines.engine import Diagnosis
from kintsugi.engines.postgresql.indexes import IndexIdea, index_name
from kintsugi.engines.registry import ENGINES
from kintsugi.engines.risk import RISKS
from kintsugi.loops.fleet import Fleet
from kintsugi.loops.services import Access, Services
from kintsugi.loops.watch import Watch, new_watch
from kintsugi.shell.audit import AuditChain
from kintsugi.shell.errors import ConflictError, KubeError, NotFoundError, UnavailableError
from kintsugi.shell.events import EventRecorder
from kintsugi.shell.execute import Targets
from kintsugi.shell.gate import GateState
from kintsugi.shell.kube import Kube
from kintsugi.shell.prometheus import Samples
from kintsugi.shell.secrets import Secrets
from kintsugi.shell.telemetry import OperatorMetrics
from kintsugi.stages.compose import Question, action_name, compose
from kintsugi.stages.policy import NO_CEILING, Ceiling
from kintsugi_dev.builders import a_database, a_policy

Json = dict[str, Any]
T = TypeVar("T")
POSTGRESQL = ENGINES["postgresql"]
SHOP = "shop"
POLICIES = HealingPolicy.PLURAL


class MemoryKube(Kube):
    """Objects by path, with resource versions and merge patches.

    `faults` says what befalls the next writes, one after another: `away` (nothing arrives), `lost` (it arrives, the
    answer does not), any `KubeError`, or nothing. While `down` is set, everything fails.
    """

    def __init__(self) -> None:
        self.api = client.ApiClient(client.Configuration(host="http://127.0.0.1:1"))  # which nobody answers
        self.objects: dict[str, Json] = {}
        self.faults: list[str | KubeError | None] = []
        self.down = False
        self.writes: list[tuple[str, str]] = []
        self._versions = itertools.count(1)

    async def run(self, call: Callable[[], T]) -> T:
        """At once."""
        return call()

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Json | None = None, seconds: float = 5
    ) -> Json:
        """As the API server."""
        if self.down:
            raise UnavailableError("the Kubernetes API server does not answer")
        if method == "GET":
            return copy.deepcopy(self._found(path))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, KubeError):
            raise fault
        if fault == "away":
            raise UnavailableError("the Kubernetes API server does not answer")
        answer = self._write(method, path, body or {})
        if fault == "lost":
            raise UnavailableError("the Kubernetes API server does not answer")
        return answer

    def put(self, plural: str, body: Json) -> Json:
        """Place an object as somebody else would."""
        meta = body["metadata"]
        path = f"/apis/{API_VERSION}/namespaces/{meta['namespace']}/{plural}/{meta['name']}"
        self.objects[path] = copy.deepcopy(body)
        self.objects[path]["metadata"]["resourceVersion"] = str(next(self._versions))
        return self.objects[path]

    def _found(self, path: str) -> Json:
        if path not in self.objects:
            raise NotFoundError(f"{path} not found (HTTP 404)")
        return self.objects[path]

    def _write(self, method: str, path: str, body: Json) -> Json:
        self.writes.append((method, path))
        if method == "POST":
            return self._create(path, body)
        if method == "DELETE":
            self._found(path)
            return self.objects.pop(path)
        found = self._found(path.removesuffix("/status"))
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise ConflictError("the object has been modified (HTTP 409)")
        if "status" in body:
            found["status"] = _merged(found.get("status") or {}, body["status"])
        found["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(found)

    def _create(self, path: str, body: Json) -> Json:
        whole = f"{path}/{body['metadata']['name']}"
        if whole in self.objects:
            raise ConflictError(f"{whole} already exists (HTTP 409)")
        created = copy.deepcopy(body)
        version = next(self._versions)
        created["metadata"] |= {"resourceVersion": str(version), "uid": f"uid-{version}", "generation": 1}
        created["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
        self.objects[whole] = created
        return copy.deepcopy(created)


def _merged(found: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(found) if isinstance(found, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


class OpenGate:
    """An approval gate that works, and lets everybody approve."""

    def check(self) -> GateState:
        """It works."""
        return GateState(True, "Working", "works")

    def may_approve(self, *_: Any) -> bool:
        """Yes."""
        return True


class Notes(EventRecorder):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def emit(
        self, kind: str, meta: ObjectMeta, reason: str, note: str, *, now: datetime, warning: bool = False
    ) -> None:
        """Remember."""
        self.told.append((kind, reason, note))

    def reasons(self, kind: str) -> list[str]:
        """The reasons about one kind, in order."""
        return [reason for told, reason, _ in self.told if told == kind]


@dataclass(slots=True)
class MemoryServices(Services):
    """Services whose databases are never connected to."""

    refusal: Exception | None = None

    async def access(self, database: MonitoredDatabase) -> Access:
        """Nowhere; or the refusal that a test has set."""
        if self.refusal:
            raise self.refusal
        return Access((), Targets({}), None)  # type: ignore[arg-type]


@dataclass
class Memory:
    """A database with its incident, its policy and its samples, in memory."""

    kube: MemoryKube = field(default_factory=MemoryKube)
    notes: Notes = field(default_factory=Notes)
    identity: str = "operator/1"
    ceiling: Ceiling = NO_CEILING
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def services(self) -> MemoryServices:
        """What both loops get; everything placed so far is listed."""
        fleet = Fleet(complete=True)
        services = MemoryServices(
            kube=self.kube,
            secrets=Secrets(self.kube),
            recorder=self.notes,
            gate=OpenGate(),  # type: ignore[arg-type]
            metrics=OperatorMetrics(),
            fleet=fleet,
            watches={},
            ceiling=self.ceiling,
            identity=self.identity,
            audit_chain=AuditChain(),
            wake=lambda: None,
            wake_action=lambda _: None,
        )
        for path, body in self.kube.objects.items():
            fleet.apply(path.split("/")[-2], body)
        for key, database in fleet.databases.items():
            services.watches[key] = self.watch(database)
        return services

    def watch(self, database: MonitoredDatabase) -> Watch:
        """A watch with fresh samples."""
        watch = new_watch(database, POSTGRESQL, self.now.timestamp())
        end = float(int(self.now.timestamp()))
        times = np.arange(end - 30, end + 1, dtype=np.float64)
        watch.buffer.append(Samples(times, {"postgres_up": np.ones(len(times))}))
        watch.offers = {"postgres_up": ("kintsugi",)}
        return watch

    def policy(self, **spec: Any) -> HealingPolicy:
        """Place a policy that acts at once."""
        policy = a_policy(**({"limits": {"cooldown": "0s", "perHour": 100}} | spec))
        self.kube.put(HealingPolicy.PLURAL, _json(policy))
        return policy

    def database(self, incident: str = "1402", **spec: Any) -> MonitoredDatabase:
        """Place a database in the middle of an incident (in none when it is empty)."""
        found = IncidentStatus(id=incident, opened_at=self.now - timedelta(seconds=5)) if incident else None
        database = a_database(**({"metrics": METRICS} | spec)).model_copy(
            update={"status": DatabaseStatus(incident=found)}
        )
        self.kube.put(MonitoredDatabase.PLURAL, _json(database))
        return database

    def action(
        self, action: str = "terminate-blocker", *, asks: bool = False, status: ActionStatus | None = None
    ) -> str:
        """Place an action on the database as the operator would have made it; its key."""
        spec = compose(
            candidate(action),
            Question(
                runnable=True,
                approval=ActionApproval(required=asks),
                verification=ActionVerification(window=timedelta(seconds=30), revert_on_failure=True),
                expires_after=timedelta(minutes=30),
                policies=(PolicyRef(name="critical", uid="uid-critical", generation=1),),
            ),
            database=DatabaseRef(name="orders", uid="uid-orders"),
            incident="1402",
            anomaly=ANOMALOUS,
            forecast=NO_FORECAST,
            summary="locks",
            not_proposed=(),
            runner_up="",
            now=self.now,
        )
        name = action_name("orders", "1402", action)
        meta = ObjectMeta(name=name, namespace=SHOP, uid="uid-action", creation_timestamp=self.now)
        self.kube.put(
            HealingAction.PLURAL, _json(HealingAction(metadata=meta, spec=spec, status=status or ActionStatus()))
        )
        return meta.key

    def another_policy(self, name: str, **spec: Any) -> Json:
        """Place one more policy; its body."""
        return self.kube.put(HealingPolicy.PLURAL, _json(a_policy(name, **spec)))

    def ended_action(self, number: int) -> Json:
        """Place an action that has ended, the higher its number the younger; its body."""
        key = self.action(status=ActionStatus(phase=Phase.REJECTED))
        body = copy.deepcopy(self.body(key))
        created = (self.now - timedelta(hours=1) + timedelta(seconds=number)).isoformat()
        body["metadata"] |= {"name": f"ended-{number:02}", "uid": f"uid-{number}", "creationTimestamp": created}
        return self.kube.put(HealingAction.PLURAL, body)

    def body(self, key: str) -> Json:
        """An action's JSON as the API server has it."""
        namespace, _, name = key.partition("/")
        return self.kube.objects[f"/apis/{API_VERSION}/namespaces/{namespace}/{HealingAction.PLURAL}/{name}"]

    def read(self, key: str) -> HealingAction:
        """An action as the API server has it."""
        namespace, _, name = key.partition("/")
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/{HealingAction.PLURAL}/{name}"
        body = self.kube.objects[path]
        return HealingAction.model_validate(
            {part: body[part] for part in ("metadata", "spec", "status") if part in body}
        )


METRICS = {"prometheus": "http://127.0.0.1:9090", "matchers": {"service": "orders"}, "scrapeInterval": "1s"}
SESSION = {
    "pid": 4711,
    "backendStart": "2026-11-22T01:00:00.000001Z",
    "xactStart": "2026-11-22T01:00:01.000001Z",
    "role": "shop_app",
    "database": "orders",
}
INDEX = IndexIdea("public", "order_lines", ("order_id",))
PARAMETERS: dict[str, Json] = {
    "terminate-blocker": SESSION,
    "create-index": {
        "schema": INDEX.schema,
        "table": INDEX.table,
        "columns": list(INDEX.columns),
        "index": index_name(INDEX),
    },
}
ANOMALOUS = Anomaly(
    health=Health.ANOMALOUS,
    score=0.9,
    since=1.0,
    contributions=(Contribution("lock_waiters", "lock-manager", 12.0, 9.0, 0.0, "sessions", "lock waiters 9"),),
    components={"lock-manager": 0.9},
)
NORMAL = Anomaly(health=Health.NORMAL, score=0.0, since=None, contributions=(), components={})


def candidate(action: str) -> Candidate:
    """A candidate with the plan that its parameters compile to."""
    parameters = PARAMETERS[action]
    plan = POSTGRESQL.actions[action].compile(parameters)
    proposal = Proposal(action, parameters, Objectives(latency=0.9), ("because",), ())
    return Candidate(proposal, plan, RISKS[action], 0.9)


def a_diagnosis(**rows: Any) -> Diagnosis:
    """A diagnosis in which nothing stands but these rows."""
    return Diagnosis(rows=rows, errors={}, server_version=15, primary_reachable=True)


def _json(thing: MonitoredDatabase | HealingPolicy | HealingAction) -> Json:
    body: Json = {"apiVersion": API_VERSION, "kind": thing.KIND}
    for part in ("metadata", "spec", "status"):
        value: Model = getattr(thing, part)
        body[part] = value.to_json()
    return body
