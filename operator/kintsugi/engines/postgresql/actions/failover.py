"""failover: make a streaming replica the primary after everybody who can see the old one agrees that it is gone.

The old primary is fenced before the new one is promoted: first the Service stops naming it, then, where it still
answers, it is made read-only and its clients are sent away. A plan is only as good as its facts, so the first steps ask
again: does the candidate still hear nothing from the primary, does the Service still name whom it named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from kintsugi.api.database import DatabaseSpec, Streaming
from kintsugi.api.meta import Model, Name
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.domain.text import human, quantity
from kintsugi.engines.engine import Diagnosis, MemberView
from kintsugi.engines.postgresql import election
from kintsugi.engines.postgresql.actions.parameters import validated
from kintsugi.engines.postgresql.diagnostics import RECEIVED_LSN, TIMELINE

NAME = "failover"
FENCE = "kintsugi-fenced."
"""A pod of this name never exists: a Service that selects it routes to nobody. The old primary's name follows."""
SILENT = f"{election.RECEIVER_SILENT:.0f} s"
PROMOTE_SECONDS = 60
LABEL_LENGTH = 63

POOL_NAME = r"^[A-Za-z0-9_.-]{1,63}$"
PoolName = Annotated[str, Field(pattern=POOL_NAME)]


class FailoverParameters(Model):
    """Whom to promote, in whose place, and what was true when this was proposed."""

    candidate: Name
    old_primary: Name
    service: Name
    selector_key: Annotated[str, Field(min_length=1, max_length=317)]
    selector: Mapping[str, str]
    timeline: Annotated[int, Field(ge=1)]
    received_lsn: Annotated[int, Field(ge=0)]
    data_loss_bytes: Annotated[int, Field(ge=0)] | None
    lag_seconds: Annotated[float, Field(ge=0)] | None
    pools: tuple[PoolName, ...] = Field(max_length=16)


class Failover:
    """Promotes the replica that has received the most."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """The best replica, once metrics, a direct connection and the replicas agree that the primary is gone."""
        if spec.replication is None:
            return [NotProposed(NAME, "the database has no replicas (spec.replication)")]
        seat = _seat(diagnosis, spec.replication.streaming)
        if isinstance(seat, str):
            return [NotProposed(NAME, seat)]
        key, old_primary = seat
        if reason := election.alive(diagnosis, old_primary):
            return [NotProposed(NAME, reason)]
        candidate = election.candidate(diagnosis, old_primary)
        if isinstance(candidate, str):
            return [NotProposed(NAME, candidate)]
        return [_proposal(diagnosis, spec, key, old_primary, candidate)]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """Ask again, fence, promote, point the Service and the pooler to the new primary."""
        wanted = validated(FailoverParameters, parameters, NAME)
        service = f"service/{wanted.service}"
        fence, new = _selector(wanted, fence_of(wanted.old_primary)), _selector(wanted, wanted.candidate)
        still = [{"spec": {"selector": dict(wanted.selector)}}, fence, new]
        return Plan(
            steps=(
                Step(StepKind.SQL, wanted.candidate, _may_lead(wanted), timeout=5.0, expect=True),
                Step(StepKind.KUBERNETES, service, _json(still), expect=True),
                Step(StepKind.KUBERNETES, service, _json(fence)),
                *_sent_away(wanted.old_primary),
                Step(StepKind.SQL, wanted.candidate, _PROMOTE, timeout=PROMOTE_SECONDS + 15.0, expect=True),
                Step(StepKind.SQL, wanted.candidate, "SELECT NOT pg_is_in_recovery()", expect=True),
                Step(StepKind.KUBERNETES, service, _json(new)),
                *(Step(StepKind.POOLER, "pgbouncer", f'RECONNECT "{pool}"', optional=True) for pool in wanted.pools),
            ),
            undo=Undo(UndoKind.IMPOSSIBLE, note="there is no way back: fail back is a planned switchover later"),
            probe=Step(StepKind.KUBERNETES, service, _json(new)),
            idempotent=True,
        )


# --- proposing ---


def fence_of(member: str) -> str:
    """The label value that stands for a fenced primary."""
    return (FENCE + member)[:LABEL_LENGTH].rstrip("-._")


def _seat(diagnosis: Diagnosis, streaming: Streaming) -> tuple[str, str] | str:
    """The selector's key that names the primary's pod, and the primary; or why they are unknown."""
    selector = diagnosis.extra.get("service_selector")
    if not selector:
        return f"the selector of Service {streaming.service} is unknown"
    members = [member.name for member in streaming.members]
    fenced = {fence_of(name): name for name in members}
    for key, value in selector.items():
        if value in members:
            return key, value
        if value in fenced:
            return key, fenced[value]
    return f"the selector of Service {streaming.service} names none of the members ({', '.join(members)})"


def _proposal(diagnosis: Diagnosis, spec: DatabaseSpec, key: str, old_primary: str, candidate: MemberView) -> Proposal:
    loss, lag = election.data_loss(diagnosis, candidate), election.lag(diagnosis, candidate)
    service = spec.replication.streaming.service if spec.replication else ""
    pools = _pools(diagnosis, spec)
    return Proposal(
        action=NAME,
        parameters={
            "candidate": candidate.name,
            "oldPrimary": old_primary,
            "service": service,
            "selectorKey": key,
            "selector": dict(diagnosis.extra["service_selector"]),
            "timeline": candidate.timeline,
            "receivedLsn": candidate.receive_lsn,
            "dataLossBytes": loss,
            "lagSeconds": lag,
            "pools": pools,
        },
        expected=Objectives(latency=0.9, throughput=0.9, resources=-0.2, consistency=-0.1 if loss == 0 else -0.4),
        evidence=(
            f"{old_primary} has been silent for {human(diagnosis.unreachable_for)}: a direct connection, the metrics"
            f" and {election.witnesses(diagnosis, old_primary)} agree",
            f"{candidate.name} is in recovery on timeline {candidate.timeline} and has received the most WAL of all"
            " replicas that answer",
            _loss_sentence(diagnosis, candidate, loss),
            f"{old_primary} must not come back by itself: rebuild it as a replica (pg_rewind or pg_basebackup), and if"
            " it was made read-only, ALTER SYSTEM RESET default_transaction_read_only there",
        ),
        touches=(f"database:{spec.connection.database}",),
        heals=frozenset(
            {"query-engine", "lock-manager", "buffer-pool", "storage", "wal", "connections", "pooler", "replication"}
            | {"host-cpu", "host-memory", "host-io", "client"}
        ),
    )


def _loss_sentence(diagnosis: Diagnosis, candidate: MemberView, loss: int | None) -> str:
    if loss is None:
        return "how much of the last writes would be lost is unknown: the primary's last position was never recorded"
    if candidate.name in diagnosis.extra.get("synchronous_standbys", ()):
        return f"{candidate.name} was a synchronous standby: no acknowledged write is lost"
    age = human(diagnosis.extra.get("pulse_age", 0.0))
    return (
        f"about {quantity(loss, 'B')} of WAL could be lost: the primary's position, last read {age} ago and carried on"
        f" at its rate until it fell silent, against what {candidate.name} has received"
    )


def _pools(diagnosis: Diagnosis, spec: DatabaseSpec) -> list[str]:
    """PgBouncer's databases that lead to ours; one with a name that can't be quoted there reconnects by itself."""
    if diagnosis.pooler is None:
        return []
    ours = (row["name"] for row in diagnosis.pooler["databases"] if row["database"] == spec.connection.database)
    return sorted(name for name in ours if name != "pgbouncer" and re.fullmatch(POOL_NAME, name))[:16]


# --- compiling ---

_PROMOTE = f"SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, {PROMOTE_SECONDS}) ELSE true END"


def _may_lead(wanted: FailoverParameters) -> str:
    """True of a replica that still hears nothing from the primary, and of one that this plan has promoted already."""
    return (
        f"SELECT CASE WHEN pg_is_in_recovery() THEN {TIMELINE} = {wanted.timeline}"
        f" AND {RECEIVED_LSN} >= {wanted.received_lsn}"
        " AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        f" AND last_msg_receipt_time > clock_timestamp() - interval '{SILENT}')"
        f" ELSE {TIMELINE} > {wanted.timeline} END"
    )


def _sent_away(member: str) -> tuple[Step, ...]:
    """Where the old primary still answers: no more writes there. It is probably dead, so these may fail."""
    read_only = "ALTER SYSTEM SET default_transaction_read_only = on"
    away = (
        "SELECT pg_reload_conf(), count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return (
        Step(StepKind.SQL, member, read_only, timeout=2.0, transaction=False, optional=True),
        Step(StepKind.SQL, member, away, timeout=2.0, optional=True),
    )


def _selector(wanted: FailoverParameters, pod: str) -> dict[str, Any]:
    return {"spec": {"selector": {wanted.selector_key: pod}}}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
