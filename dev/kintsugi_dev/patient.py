"""A database with an application in it, and the product's own way to diagnose and heal it: for tests and benches.

The operator logs in as the documented least-privilege role, never as a superuser: a missing grant shows.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from kintsugi.api.database import DatabaseSpec
from kintsugi.domain.actions import NotProposed, Plan, Proposal, Step
from kintsugi.engines.engine import Diagnosis
from kintsugi.engines.registry import ENGINES
from kintsugi.shell.diagnose import NOTHING_KNOWN, Diagnoser, Surroundings, targets_for
from kintsugi.shell.errors import ConflictError, NotFoundError
from kintsugi.shell.execute import ProbeResult, StepResult, StepState, Targets, Workloads, run_probe, run_step
from kintsugi_dev.servers import Database, PgBouncer, PostgreSQL
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD
from kintsugi_dev.servers.roles import HEALER

POSTGRESQL = ENGINES["postgresql"]
APP_PASSWORD = "app"
HEALER_PASSWORD = "healer"


@dataclass(frozen=True, slots=True)
class Healing:
    """What came of one proposal: the steps' results up to the first that did not work, and the probe afterwards."""

    proposal: Proposal
    plan: Plan
    results: tuple[StepResult, ...]
    probe: ProbeResult

    @property
    def done(self) -> bool:
        """Whether every step that must work did."""
        pairs = zip(self.plan.steps, self.results, strict=False)
        return len(self.results) == len(self.plan.steps) and all(r.ok or s.optional for s, r in pairs)


class RecordedWorkloads:
    """A namespace without an API server: merge patches as RFC 7386 has them, and a record of them."""

    def __init__(self, **objects: dict[str, Any]) -> None:
        self.objects = {name.replace("__", "/").replace("_", "-"): value for name, value in objects.items()}
        self.patches: list[tuple[str, dict[str, Any]]] = []

    async def read(self, kind: str, name: str) -> Mapping[str, Any]:
        """The object, as JSON of its own."""
        found = self.objects.get(f"{kind}/{name}")
        if found is None:
            raise NotFoundError(f'{kind}s "{name}" not found (HTTP 404)')
        copied: dict[str, Any] = json.loads(json.dumps(found))
        return copied

    async def patch(self, kind: str, name: str, body: Mapping[str, Any], resource_version: str | None) -> Any:
        """Apply a merge patch if the version still is the object's."""
        found = self.objects[f"{kind}/{name}"]
        if resource_version not in (None, found["metadata"]["resourceVersion"]):
            raise ConflictError("the object has been modified (HTTP 409)")
        self.patches.append((f"{kind}/{name}", json.loads(json.dumps(dict(body)))))
        _merge(found, body)
        found["metadata"]["resourceVersion"] = str(int(found["metadata"]["resourceVersion"]) + 1)
        return found


def _merge(found: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            _merge(found.setdefault(key, {}), value)
        else:
            found[key] = value


class Patient:
    """One database under care. Seconds added to `later` pass at once for the diagnoser."""

    def __init__(self, database: Database, app: str, spec: DatabaseSpec, workloads: Workloads | None = None) -> None:
        self.database = database
        self.app = app
        self.spec = spec
        self.targets: Targets = targets_for(
            spec,
            {"username": HEALER, "password": HEALER_PASSWORD},
            {"username": ADMIN, "password": ADMIN_PASSWORD},
            workloads,
        )
        self.later = 0.0
        self.diagnoser = Diagnoser(POSTGRESQL, spec, self.targets, clock=lambda: time.monotonic() + self.later)

    async def session(self, user: str | None = None, application: str = "shop", **settings: str) -> asyncpg.Connection:
        """A session of the application's (or of `user`); the caller closes it."""
        user = user or self.app
        password = APP_PASSWORD if user == self.app else HEALER_PASSWORD if user == HEALER else None
        return await asyncpg.connect(
            self.database.dsn(user, password), server_settings={"application_name": application, **settings}
        )

    async def diagnose(self, around: Surroundings = NOTHING_KNOWN) -> Diagnosis:
        """A diagnosis as the operator makes it."""
        return await self.diagnoser.diagnose(around)

    async def propose(self, action: str, around: Surroundings = NOTHING_KNOWN) -> Proposal | NotProposed:
        """The first answer of one action to a fresh diagnosis."""
        return POSTGRESQL.actions[action].propose(await self.diagnose(around), self.spec)[0]

    async def proposal(self, action: str, around: Surroundings = NOTHING_KNOWN) -> Proposal:
        """As `propose`, where only a proposal will do."""
        answer = await self.propose(action, around)
        if isinstance(answer, Proposal):
            return answer
        raise AssertionError(f"{action} was not proposed: {answer.reason}")

    async def heal(self, action: str, around: Surroundings = NOTHING_KNOWN) -> Healing:
        """Diagnose, propose, compile as after a restart (through JSON), carry out, and ask the probe."""
        proposal = await self.proposal(action, around)
        plan = compile_again(action, proposal.parameters)
        results = await self.carry_out(plan.steps, action)
        return Healing(proposal, plan, results, await self.probe(plan, action))

    async def carry_out(self, steps: Sequence[Step], action: str) -> tuple[StepResult, ...]:
        """The steps one after another, until one that is not optional does not work."""
        results: list[StepResult] = []
        for step in steps:
            results.append(await run_step(step, self.targets, action))
            if not results[-1].ok and not step.optional:
                break
        return tuple(results)

    async def probe(self, plan: Plan, action: str) -> ProbeResult:
        """What the plan's probe says."""
        return await run_probe(plan.probe, self.targets, action)

    async def close(self) -> None:
        """Give all connections back."""
        await self.diagnoser.close()


def compile_again(action: str, parameters: Mapping[str, Any]) -> Plan:
    """The plan from parameters as Kubernetes gives them back."""
    return POSTGRESQL.actions[action].compile(json.loads(json.dumps(dict(parameters))))


def unfinished(results: Sequence[StepResult]) -> list[tuple[StepState, str]]:
    """What did not work, for a test's message."""
    return [(result.state, result.error) for result in results if not result.ok]


def database_spec(
    server: PostgreSQL,
    database: str,
    *,
    members: Mapping[str, PostgreSQL] | None = None,
    pooler: PgBouncer | None = None,
    **more: Any,
) -> DatabaseSpec:
    """A spec for a local server, as a user would write it."""
    spec: dict[str, Any] = {
        "engine": "postgresql",
        "connection": {
            "host": server.host,
            "port": server.port,
            "database": database,
            "secretRef": "db",
            "tls": "disable",
        },
        "metrics": {"prometheus": "http://127.0.0.1:9090", "matchers": {"service": "orders"}},
        **more,
    }
    if members:
        places = [{"name": name, "host": member.host, "port": member.port} for name, member in members.items()]
        spec["replication"] = {"streaming": {"service": "orders-rw", "members": places}}
    if pooler is not None:
        spec["pooler"] = {
            "pgbouncer": {"host": pooler.host, "port": pooler.port, "secretRef": "pooler", "maxPoolSize": 20}
        }
    return DatabaseSpec.model_validate(spec)


@asynccontextmanager
async def patient(
    database: Database,
    *,
    schema: str = "",
    members: Mapping[str, PostgreSQL] | None = None,
    pooler: PgBouncer | None = None,
    workloads: Workloads | None = None,
    app: str | None = None,
    **more: Any,
) -> AsyncIterator[Patient]:
    """A database whose tables (`schema` is SQL) belong to an application's role that is dropped afterwards."""
    role = app or f"app_{secrets.token_hex(4)}"
    quoted = role.replace('"', '""')
    await asyncio.to_thread(database.execute, f"CREATE ROLE \"{quoted}\" LOGIN PASSWORD '{APP_PASSWORD}'")
    await asyncio.to_thread(database.create_roles, owner=role)
    await asyncio.to_thread(database.execute, f'GRANT CREATE ON SCHEMA public TO "{quoted}"')
    await asyncio.to_thread(database.execute, f'GRANT CREATE ON DATABASE "{database.name}" TO "{quoted}"')
    if schema:
        await asyncio.to_thread(database.execute, f'SET ROLE "{quoted}"; {schema}')
    spec = database_spec(database.server, database.name, members=members, pooler=pooler, **more)
    under_care = Patient(database, role, spec, workloads)
    try:
        yield under_care
    finally:
        await under_care.close()
        if database.server.running:
            await asyncio.to_thread(_forget, database, quoted)


def _forget(database: Database, quoted: str) -> None:
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    database.execute(f'DROP OWNED BY "{quoted}" CASCADE; DROP ROLE "{quoted}"')
