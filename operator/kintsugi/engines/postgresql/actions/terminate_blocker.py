"""terminate-blocker: end the session at the root of a blocking tree, so that everybody who waits for it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kintsugi.api.database import DatabaseSpec
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.domain.text import human
from kintsugi.engines.engine import Diagnosis, Row
from kintsugi.engines.postgresql import sessions
from kintsugi.engines.postgresql.actions.parameters import validated
from kintsugi.engines.postgresql.sessions import Root, SessionParameters

NAME = "terminate-blocker"
WAIT_BEHIND_IDLE = 2.0
WAIT_BEHIND_ACTIVE = 5.0
"""Seconds that it must have blocked somebody: a session that does nothing, and one that is at work."""


class TerminateBlocker:
    """Ends the root of the blocking tree; what that session had not committed is rolled back."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """The root with the most victims that may be terminated."""
        if "blocking" in diagnosis.errors:
            return [NotProposed(NAME, f"the blocking tree is unknown: {diagnosis.errors['blocking']}")]
        rows = diagnosis.rows.get("blocking", ())
        reasons: list[str] = []
        for root in sessions.roots(rows):
            if (reason := _left_alone(root)) is None:
                return [_proposal(root)]
            reasons.append(f"{sessions.describe(root.row)} is the root, but {reason}")
        reasons += [_prepared(row) for row in _prepared_blockers(diagnosis)]
        return [NotProposed(NAME, reasons[0] if reasons else "no blocking tree: no session waits for another's lock")]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """One statement that checks who the session is, that it is still the root, and terminates it."""
        session = validated(SessionParameters, parameters, NAME)
        statement = (
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a"
            f" WHERE {sessions.identity(session)} AND {sessions.terminable()}"
            " AND cardinality(pg_blocking_pids(a.pid)) = 0"
            " AND EXISTS (SELECT FROM pg_stat_activity w WHERE w.pid <> a.pid AND w.wait_event_type = 'Lock'"
            " AND a.pid = ANY (pg_blocking_pids(w.pid)))"
        )
        return Plan(
            steps=(Step(StepKind.SQL, "primary", statement, timeout=5.0, expect=True),),
            undo=Undo(UndoKind.IMPOSSIBLE, note="a terminated session's open transaction is rolled back for good"),
            probe=Step(StepKind.SQL, "primary", sessions.gone(session), timeout=5.0),
            idempotent=True,
        )


def _left_alone(root: Root) -> str | None:
    needed = WAIT_BEHIND_ACTIVE if root.row["state"] == "active" else WAIT_BEHIND_IDLE
    if reason := sessions.untouchable(root.row):
        return reason
    if root.blocked_for < needed:
        return f"nobody has waited for it longer than {human(root.blocked_for)} (acts from {human(needed)})"
    return None


def _proposal(root: Root) -> Proposal:
    row = root.row
    evidence = [
        f"{sessions.describe(row)} is the root of the blocking tree: {root.direct} wait for it directly,"
        f" {root.transitive} in all, the longest for {human(root.longest_wait)}",
        f"its transaction has been open for {human(row['xact_age'])} and waits for nobody",
    ]
    if root.blocked_for > root.longest_wait:
        evidence.append(f"somebody has waited for it all the last {human(root.blocked_for)}, giving up each time")
    if row["query"]:
        evidence.append(f"its {'statement' if row['state'] == 'active' else 'last statement'}: {row['query']}")
    return Proposal(
        action=NAME,
        parameters=sessions.parameters_of(row),
        # A session at work loses that work; an idle one only what it did not commit.
        expected=Objectives(
            latency=0.9, throughput=0.9, resources=0.2, consistency=-0.1 if row["state"] != "active" else -0.2
        ),
        evidence=tuple(evidence),
        touches=sessions.touches(row),
        heals=frozenset({"lock-manager", "connections", "pooler", "client"}),
    )


def _prepared_blockers(diagnosis: Diagnosis) -> Sequence[Row]:
    blocked = any(0 in row["blocked_by"] for row in diagnosis.rows.get("blocking", ()))
    return diagnosis.rows.get("prepared", ()) if blocked else ()


def _prepared(row: Row) -> str:
    return (
        f"the lock is held by prepared transaction {row['gid']!r} of {row['owner']}, open for {human(row['age'])}:"
        " only its transaction manager knows whether to COMMIT PREPARED or ROLLBACK PREPARED it"
    )
