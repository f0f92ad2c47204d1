"""Carrying out the steps of a plan, word for word, one at a time, and asking a probe what is true.

What a statement did is never guessed. A step ends in exactly one of five states. `SUPERSEDED`, `BUSY` and `FAILED` mean
that it changed nothing. When a connection dies in the middle the answer is `UNKNOWN`, and nothing is ever sent again by
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from kintsugi.domain.actions import Step, StepKind
from kintsugi.shell import sql
from kintsugi.shell.errors import KubeError, UnavailableError
from kintsugi.shell.pgbouncer import (
    PgBouncerConsole,
    PgBouncerError,
    PgBouncerLogin,
    PgBouncerUnreachableError,
    pgbouncer_console,
)
from kintsugi.shell.session import ReservedSession

ADVISORY_LOCK = 0x6B696E7473756769
"""`kintsugi` in ASCII: one executor at a time in a database, also when an old one lives on beside a new one."""

OUTPUT_LENGTH = 4000


class StepState(StrEnum):
    """How a step ended."""

    DONE = "done"
    SUPERSEDED = "superseded"
    BUSY = "busy"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step.

    DONE: it took effect; `output` is what the server answered. SUPERSEDED: it asked for facts that are no longer true
    and did nothing. BUSY: another session of ours is at work in this database; nothing was done, try later. FAILED: it
    was refused and changed nothing. UNKNOWN: nobody knows; ask the probe. `error` says why, for all but DONE.
    """

    state: StepState
    output: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the step took effect."""
        return self.state is StepState.DONE

    @property
    def changed(self) -> bool:
        """Whether the facts that the plan rests on have changed: the action is superseded."""
        return self.state is StepState.SUPERSEDED


class ProbeAnswer(StrEnum):
    """What a probe says: whether the plan's effect is there."""

    DONE = "done"
    NOT_DONE = "not-done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The probe's answer; `reason` says why it is unknown."""

    answer: ProbeAnswer
    reason: str = ""


class Workloads(Protocol):
    """The namespace's Services, StatefulSets and Deployments; errors are `KubeError`s."""

    async def read(self, kind: str, name: str) -> Mapping[str, Any]:
        """The object as it is now."""

    async def patch(self, kind: str, name: str, body: Mapping[str, Any], resource_version: str | None) -> Any:
        """Merge-patch it; with a resource version only if nobody changed it since."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Where steps go: PostgreSQL servers by name, the pooler, the namespace's workloads.

    `reserved` is the diagnostic session of the primary, used when every other connection is taken.
    """

    endpoints: Mapping[str, sql.Endpoint]
    pooler: PgBouncerLogin | None = None
    workloads: Workloads | None = None
    reserved: ReservedSession | None = field(default=None, compare=False)


async def run_step(step: Step, targets: Targets, action: str) -> StepResult:
    """Carry out one step as `kintsugi/<action>`. Never raises for what a server may do; cancelling it is UNKNOWN.

    An optional step ends DONE or FAILED: whatever became of it, the plan goes on.
    """
    run: Callable[[Step, Targets, str], Awaitable[StepResult]] = {
        StepKind.SQL: _run_sql,
        StepKind.POOLER: _run_pooler,
        StepKind.KUBERNETES: _run_kubernetes,
    }[step.kind]
    result = await run(step, targets, action)
    return replace(result, state=StepState.FAILED) if step.optional and not result.ok else result


async def run_probe(step: Step, targets: Targets, action: str) -> ProbeResult:
    """Ask whether a plan's effect is there.

    A Kubernetes probe is a merge patch: done when applying it would change nothing. An SQL probe waits for an earlier
    session of ours that still executes; while that lasts, the answer is unknown.
    """
    if step.kind is StepKind.KUBERNETES:
        return await _probe_kubernetes(step, targets)
    if step.kind is StepKind.POOLER:
        return await _probe_pooler(step, targets, action)
    result = await _run_sql(step, targets, action, wait=True)
    if not result.ok or result.output not in list(ProbeAnswer):
        return ProbeResult(ProbeAnswer.UNKNOWN, result.error or f"the probe answered {result.output!r}")
    return ProbeResult(ProbeAnswer(result.output))


# --- SQL ---


async def _run_sql(step: Step, targets: Targets, action: str, wait: bool = False) -> StepResult:
    endpoint = targets.endpoints.get(step.target)
    if endpoint is None:
        return StepResult(
            StepState.FAILED, error=f"no server is called {step.target}; the spec names {_names(targets)}"
        )
    try:
        async with _session(step, targets, endpoint, action) as connection:
            return await _locked(step, connection, endpoint, wait)
    except sql.SqlError as error:
        return StepResult(StepState.FAILED, error=str(error))


@contextlib.asynccontextmanager
async def _session(step: Step, targets: Targets, endpoint: sql.Endpoint, action: str) -> AsyncIterator[sql.Connection]:
    """A fresh session, or the reserved one when the server has no connection left."""
    application = f"kintsugi/{action}"
    try:
        connection = await sql.connect(
            endpoint,
            application=application,
            statement_timeout=step.timeout,
            # Outside a transaction only CREATE and DROP INDEX CONCURRENTLY run: nobody queues behind their waiting.
            lock_timeout=min(sql.LOCK_SECONDS, step.timeout) if step.transaction else step.timeout,
            within=min(sql.CONNECT_SECONDS, step.timeout),
        )
    except sql.TooManyConnectionsError:
        if targets.reserved is None or step.target != sql.PRIMARY or not step.transaction:
            raise
        async with targets.reserved.lent(application, statement_timeout=step.timeout) as lent:
            yield lent
        return
    try:
        yield connection
    finally:
        await sql.close(connection)


async def _locked(step: Step, connection: sql.Connection, endpoint: sql.Endpoint, wait: bool) -> StepResult:
    """Run the statement as the only executor in this database."""
    deadline = asyncio.get_running_loop().time() + step.timeout
    try:
        while not await connection.fetchval(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})"):
            if not wait or asyncio.get_running_loop().time() > deadline:
                return StepResult(
                    StepState.BUSY,
                    error=f"another session of Kintsugi's is at work in {endpoint}; wait until it has ended",
                )
            await asyncio.sleep(0.2)
    except sql.STATEMENT_ERRORS as error:
        return StepResult(StepState.FAILED, error=str(sql.explain_statement(error, endpoint)))
    try:
        return await _execute(step, connection, endpoint)
    finally:
        with contextlib.suppress(*sql.STATEMENT_ERRORS):
            # Only the reserved session lives on; where the connection is lost, the lock is too.
            await connection.execute(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})", timeout=2)


async def _execute(step: Step, connection: sql.Connection, endpoint: sql.Endpoint) -> StepResult:
    try:
        rows = await _fetch(step, connection)
    except sql.STATEMENT_ERRORS as error:
        explained = sql.explain_statement(error, endpoint)
        await sql.abandon(connection, isinstance(explained, sql.ConnectionLostError))
        return _failed(explained)
    first = rows[0][0] if rows else None
    if step.expect and first is not True:
        return StepResult(
            StepState.SUPERSEDED,
            error=f"the facts on {endpoint} are no longer those of the plan; nothing was done, look at it anew",
        )
    return StepResult(StepState.DONE, output=_text(first))


async def _fetch(step: Step, connection: sql.Connection) -> Sequence[Any]:
    """The statement's rows. The server's own limit comes first; ours, a little later, catches a frozen server."""
    patience = step.timeout + sql.MARGIN
    if not step.transaction:
        return await connection.fetch(step.command, timeout=patience)
    await connection.execute("BEGIN", timeout=patience)
    rows = await connection.fetch(step.command, timeout=patience)
    await connection.execute("COMMIT", timeout=patience)
    return rows


def _failed(error: sql.SqlError) -> StepResult:
    lost = isinstance(error, sql.ConnectionLostError)
    return StepResult(StepState.UNKNOWN if lost else StepState.FAILED, error=str(error))


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:OUTPUT_LENGTH]


def _names(targets: Targets) -> str:
    return ", ".join(sorted(targets.endpoints)) or "none"


# --- PgBouncer ---


async def _run_pooler(step: Step, targets: Targets, action: str) -> StepResult:
    """Run an admin command; with `expect`, `SET key = value` is not run but must be so already."""
    if targets.pooler is None:
        return StepResult(StepState.FAILED, error="the database has no pooler; name it in spec.pooler")
    try:
        async with pgbouncer_console(targets.pooler, within=step.timeout, application=f"kintsugi/{action}") as console:
            if not step.expect:
                return await _command(step, console.command)
            if await _set_already(step, console):
                return StepResult(StepState.DONE)
    except PgBouncerError as error:
        return StepResult(StepState.FAILED, error=str(error))
    return StepResult(StepState.SUPERSEDED, error="somebody has changed the pooler's setting; nothing was done")


async def _command(step: Step, command: Callable[[str], Awaitable[None]]) -> StepResult:
    try:
        await command(step.command)
    except PgBouncerUnreachableError as error:
        return StepResult(StepState.UNKNOWN, error=str(error))
    return StepResult(StepState.DONE, output=step.command)


async def _probe_pooler(step: Step, targets: Targets, action: str) -> ProbeResult:
    """`SET key = value` is done when SHOW CONFIG says so."""
    if targets.pooler is None:
        return ProbeResult(ProbeAnswer.UNKNOWN, "the database has no pooler; name it in spec.pooler")
    try:
        async with pgbouncer_console(targets.pooler, within=step.timeout, application=f"kintsugi/{action}") as console:
            done = await _set_already(step, console)
    except PgBouncerError as error:
        return ProbeResult(ProbeAnswer.UNKNOWN, str(error))
    return ProbeResult(ProbeAnswer.DONE if done else ProbeAnswer.NOT_DONE)


async def _set_already(step: Step, console: PgBouncerConsole) -> bool:
    key, _, value = step.command.removeprefix("SET ").partition(" = ")
    return any(row["key"] == key and row["value"] == value for row in await console.config())


# --- Kubernetes ---


async def _run_kubernetes(step: Step, targets: Targets, action: str) -> StepResult:
    """Merge-patch the object as it was when read; with `expect` nothing is patched, it must be so already."""
    if targets.workloads is None:
        return StepResult(StepState.FAILED, error=f"{step.target} can't be reached: no Kubernetes client is given")
    kind, _, name = step.target.partition("/")
    wanted = json.loads(step.command)
    try:
        async with asyncio.timeout(step.timeout):
            found = await targets.workloads.read(kind, name)
    except (KubeError, TimeoutError) as error:
        return StepResult(StepState.FAILED, error=str(error) or f"{step.target} was not answered for in time")
    if step.expect:
        alternatives = wanted if isinstance(wanted, list) else [wanted]
        if any(contains(found, alternative) for alternative in alternatives):
            return StepResult(StepState.DONE)
        return StepResult(StepState.SUPERSEDED, error=f"somebody has changed {step.target}; nothing was done")
    return await _patch(step, targets.workloads, (kind, name), wanted, found)


async def _patch(
    step: Step, workloads: Workloads, target: tuple[str, str], wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> StepResult:
    if contains(found, wanted):
        return StepResult(StepState.DONE, output=f"{step.target} was so already")
    version = found.get("metadata", {}).get("resourceVersion")
    try:
        async with asyncio.timeout(step.timeout):
            await workloads.patch(*target, wanted, version)
    except (UnavailableError, TimeoutError) as error:
        return StepResult(StepState.UNKNOWN, error=str(error) or f"{step.target} was not answered for in time")
    except KubeError as error:
        return StepResult(StepState.FAILED, error=str(error))
    return StepResult(StepState.DONE, output=f"{step.target} patched")


async def _probe_kubernetes(step: Step, targets: Targets) -> ProbeResult:
    if targets.workloads is None:
        return ProbeResult(ProbeAnswer.UNKNOWN, f"{step.target} can't be read: no Kubernetes client is given")
    kind, _, name = step.target.partition("/")
    try:
        async with asyncio.timeout(step.timeout):
            found = await targets.workloads.read(kind, name)
    except (KubeError, TimeoutError) as error:
        return ProbeResult(ProbeAnswer.UNKNOWN, str(error) or f"{step.target} was not answered for in time")
    return ProbeResult(ProbeAnswer.DONE if contains(found, json.loads(step.command)) else ProbeAnswer.NOT_DONE)


def contains(found: Any, patch: Any) -> bool:
    """Whether the merge patch would leave `found` as it is (RFC 7386: null means absent)."""
    if not isinstance(patch, Mapping):
        return bool(found == patch)
    if not isinstance(found, Mapping):
        return False
    return all(
        key not in found if value is None else key in found and contains(found[key], value)
        for key, value in patch.items()
    )
