"""What could be done about an anomaly: steps, plans, candidates, and the vector of what they are expected to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Risk(StrEnum):
    """How much could go wrong. The one table is `engines/risk.py`; high risk always asks a person."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for low, 2 for high."""
        return list(Risk).index(self)


class StepKind(StrEnum):
    """Which system a step talks to."""

    SQL = "sql"
    POOLER = "pooler"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a plan, word for word.

    `target` names where: for SQL `primary`, or a replication member's name; for the pooler `pgbouncer`; for Kubernetes
    `service/orders-rw` or `statefulset/orders`. `command` is the statement, the admin command or a JSON merge patch.
    `transaction` is False for statements that PostgreSQL refuses inside one (CREATE INDEX CONCURRENTLY).
    `optional` steps may fail without failing the action (fencing a server that is already dead).
    `expect` is True where the statement must return at least one row whose first column is true; anything else means
    that the facts changed, and the action ends as Superseded before anything is done.
    """

    kind: StepKind
    target: str
    command: str
    timeout: float = 10.0
    transaction: bool = True
    optional: bool = False
    expect: bool = False


class UndoKind(StrEnum):
    """What can be taken back. `Nothing` (ANALYZE) is harmless, `Impossible` (a terminated session) raises risk."""

    STEPS = "Steps"
    NOTHING = "Nothing"
    IMPOSSIBLE = "Impossible"


@dataclass(frozen=True, slots=True)
class Undo:
    """How an action is taken back, stored before it acts."""

    kind: UndoKind
    steps: tuple[Step, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an action will do, and how it is undone.

    `probe` is the read-only step that answers whether it is done already: its first column is `done`, `not-done` or
    `unknown`. `idempotent` says whether running it again when not done is safe.
    """

    steps: tuple[Step, ...]
    undo: Undo
    probe: Step
    idempotent: bool


@dataclass(frozen=True, slots=True)
class Objectives:
    """Expected or measured effect per objective, -1 (harm) to 1 (help); 0 is no change. Never summed before scoring."""

    latency: float = 0.0
    throughput: float = 0.0
    resources: float = 0.0
    consistency: float = 0.0

    def dot(self, weights: Objectives) -> float:
        """The weighted sum, with weights normalised to one."""
        total = weights.latency + weights.throughput + weights.resources + weights.consistency
        if total <= 0:
            return 0.0
        return (
            self.latency * weights.latency
            + self.throughput * weights.throughput
            + self.resources * weights.resources
            + self.consistency * weights.consistency
        ) / total


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an action, shown a diagnosis, offers to do: parameters from evidence, never from configuration.

    `evidence` are sentences with numbers; `touches` are identities (`role:app`, `table:shop.orders`, `database:orders`,
    `application:pg_dump`, `client:walsender`) that protection boundaries are checked against.
    """

    action: str
    parameters: Mapping[str, Any]
    expected: Objectives
    evidence: tuple[str, ...]
    touches: tuple[str, ...] = ()
    heals: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposal with its compiled plan and its place among the others.

    `score` is the policy-weighted expectation times how well the action fits the forecast's root; `propensity` is the
    probability with which the chooser picked it (1 for a deterministic rule).
    """

    proposal: Proposal
    plan: Plan
    risk: Risk
    score: float
    propensity: float = 1.0

    @property
    def action(self) -> str:
        """The action's name."""
        return self.proposal.action


@dataclass(frozen=True, slots=True)
class NotProposed:
    """An action that was considered and left out, and why: the answer to "why didn't it?"."""

    action: str
    reason: str
