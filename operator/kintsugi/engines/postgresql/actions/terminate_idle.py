"""terminate-idle-in-transaction: end a transaction that somebody left open and that holds others up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.api.database import DatabaseSpec
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.domain.text import human
from kintsugi.engines.engine import Diagnosis, Row
from kintsugi.engines.postgresql import sessions
from kintsugi.engines.postgresql.actions.parameters import validated
from kintsugi.engines.postgresql.sessions import SessionParameters

NAME = "terminate-idle-in-transaction"
IDLE_BEHIND_WAITERS = 10.0
IDLE_WITH_SNAPSHOT = 300.0
OLD_SNAPSHOT = 10_000
"""How many transactions a snapshot must have outlived before it counts as holding back vacuum."""
IDLE_WHILE_FULL = 30.0
FULL = 0.9


class TerminateIdleInTransaction:
    """Ends a session that has left its transaction open, blocks others, holds back vacuum, or fills the connections."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """The idle transaction with the most victims, else the oldest harmful one."""
        if "idle" in diagnosis.errors:
            return [NotProposed(NAME, f"idle transactions are unknown: {diagnosis.errors['idle']}")]
        rows = diagnosis.rows.get("idle", ())
        if not rows:
            return [NotProposed(NAME, "no session is idle in a transaction")]
        full = _connections_full(diagnosis)
        reasons = []
        for row in sorted(rows, key=lambda row: (-row["victims"], -(row["xact_age"] or 0.0))):
            harm = _harm(row, full)
            if harm is not None and (reason := sessions.untouchable(row)) is None:
                return [_proposal(row, harm)]
            reasons.append(f"{sessions.describe(row)} is left alone: {reason if harm else _harmless(row)}")
        return [NotProposed(NAME, reasons[0])]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """One statement that checks who it is, that it is still idle in that transaction, and terminates it."""
        session = validated(SessionParameters, parameters, NAME)
        statement = (
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a"
            f" WHERE {sessions.identity(session)} AND {sessions.terminable()}"
            " AND a.state LIKE 'idle in transaction%'"
        )
        return Plan(
            steps=(Step(StepKind.SQL, "primary", statement, timeout=5.0, expect=True),),
            undo=Undo(UndoKind.IMPOSSIBLE, note="what the session had not committed is rolled back for good"),
            probe=Step(StepKind.SQL, "primary", sessions.gone(session), timeout=5.0),
            idempotent=True,
        )


def _connections_full(diagnosis: Diagnosis) -> bool:
    server = next(iter(diagnosis.rows.get("server", ())), None)
    if server is None:
        return False
    usable = server["max_connections"] - server["reserved_connections"]
    return bool(server["used_connections"] >= FULL * usable)


def _harm(row: Row, full: bool) -> str | None:
    """What the idle transaction does to others, in words; None for a harmless one."""
    idle = row["state_age"] or 0.0
    if row["victims"] and idle >= IDLE_BEHIND_WAITERS:
        return f"{row['victims']} session{'s wait' if row['victims'] > 1 else ' waits'} for its locks"
    if row["holds_oldest_xmin"] and idle >= IDLE_WITH_SNAPSHOT and (row["xmin_age"] or 0) >= OLD_SNAPSHOT:
        return f"its snapshot is the oldest: vacuum can remove nothing of the last {row['xmin_age']:,} transactions"
    if full and idle >= IDLE_WHILE_FULL:
        return "nearly every connection is taken, and it uses its own for nothing"
    return None


def _harmless(row: Row) -> str:
    if row["victims"]:
        return f"it blocks {row['victims']}, but has been idle for less than {human(IDLE_BEHIND_WAITERS)}"
    return "it blocks nobody, holds back no vacuum and takes nobody's connection"


def _proposal(row: Row, harm: str) -> Proposal:
    evidence = [f"{sessions.describe(row)}: {harm}", f"its transaction has been open for {human(row['xact_age'])}"]
    evidence.append("it has written what will be rolled back" if row["has_written"] else "it has written nothing")
    if row["query"]:
        evidence.append(f"its last statement: {row['query']}")
    blocks = bool(row["victims"])
    return Proposal(
        action=NAME,
        parameters=sessions.parameters_of(row),
        expected=Objectives(
            latency=0.8 if blocks else 0.2,
            throughput=0.8 if blocks else 0.2,
            resources=0.3,
            consistency=-0.1 if row["has_written"] else 0.0,
        ),
        evidence=tuple(evidence),
        touches=sessions.touches(row),
        heals=frozenset({"lock-manager", "connections", "autovacuum", "pooler", "client"}),
    )
