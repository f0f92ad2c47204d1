"""What a run of the demo recorded: everything that its table, its summary and its report are made of, as JSON and back.

All times are Unix seconds of one machine's wall clock. An action is kept as the API server returned it last; the
present is never asked again, so that a report can be rendered from the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from kintsugi.api.action import HealingAction, Phase

VERSION = 1


@dataclass(frozen=True)
class Second:
    """The requests whose scheduled start lies in one second, percentiles in ms; `failed` had no good answer."""

    second: int
    count: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    failed: int = 0


@dataclass(frozen=True)
class State:
    """What the database's status said from `at` on."""

    at: float
    phase: str
    risk: str
    soon: str
    doing: str


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event on one of our objects."""

    at: float
    object: str
    reason: str
    note: str
    warning: bool = False


@dataclass(frozen=True)
class Incident:
    """The incident of a fault as the database's status told it."""

    id: str
    opened_at: float
    root: str
    summary: str


@dataclass(frozen=True)
class ActionRecord:
    """One HealingAction, whole, as last seen."""

    body: Mapping[str, Any]

    @cached_property
    def action(self) -> HealingAction:
        """The object with types."""
        return HealingAction.model_validate({key: self.body[key] for key in ("metadata", "spec", "status")})

    @property
    def name(self) -> str:
        """Its name."""
        return self.action.metadata.name

    @property
    def phase(self) -> Phase:
        """Its last phase."""
        return self.action.phase

    @property
    def verdict(self) -> str:
        """The verdict in one word; empty while there is none."""
        return self.action.status.verdict.outcome if self.action.status.verdict else ""

    @property
    def healed(self) -> bool:
        """Whether it ended well, and verification says so."""
        return self.phase is Phase.SUCCEEDED and self.verdict == "Healed"

    def entered(self, phase: Phase) -> float | None:
        """When it entered a phase; None when it never did."""
        times = [step.at.timestamp() for step in self.action.status.history if step.phase == phase.value]
        return times[0] if times else None


@dataclass(frozen=True)
class Say:
    """Somebody's `kubectl annotate`: the command, and what the API server answered."""

    who: str
    command: str
    answer: str
    at: float
    by_demo: bool = True


@dataclass(frozen=True)
class P99:
    """The client's p99 in ms: medians of its seconds before, during and after; `worst` is the worst second of all."""

    before: float | None
    during: float | None
    after: float | None
    worst: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class FaultRecord:
    """One fault from its injection to its end."""

    name: str
    title: str
    settled_from: float
    injected_at: float
    ended_at: float
    hurt_at: float | None
    healed_at: float | None
    p99: P99
    incident: Incident | None = None
    actions: tuple[ActionRecord, ...] = ()
    refused: Say | None = None
    approved: Say | None = None
    policy: str = ""
    repair: str = ""
    repaired_at: float | None = None

    @property
    def detected_s(self) -> float | None:
        """Seconds from the injection to the incident's opening."""
        return self.incident.opened_at - self.injected_at if self.incident else None

    @property
    def healed_s(self) -> float | None:
        """Seconds from the injection until the client is served as before."""
        return self.healed_at - self.injected_at if self.healed_at is not None else None

    @property
    def decisive(self) -> ActionRecord | None:
        """The action that healed it; else the last one that there was."""
        return next((a for a in self.actions if a.healed), self.actions[-1] if self.actions else None)

    @property
    def approved_by(self) -> str | None:
        """The person, or the policy that needed none."""
        if self.decisive is None:
            return None
        approval = self.decisive.action.status.approval
        people = [name for name in (approval.approved_by, approval.second_approved_by) if name]
        return " and ".join(people) or f"policy ({self.policy})"

    @property
    def verified(self) -> bool:
        """Healed by an action, verified by the operator, and the client is back."""
        return self.decisive is not None and self.decisive.healed and self.healed_at is not None


@dataclass(frozen=True)
class Machine:
    """Where it ran."""

    cpus: int
    memory_gib: float
    python: str
    postgresql: str
    kubernetes: str


@dataclass(frozen=True)
class Run:
    """A whole run."""

    operator: bool
    started_at: float
    ended_at: float
    machine: Machine
    rate: float
    slo_ms: float
    timeout_ms: float
    max_data_loss: str
    faults: tuple[FaultRecord, ...]
    seconds: tuple[Second, ...]
    states: tuple[State, ...] = ()
    events: tuple[Event, ...] = ()
    lost_writes: int | None = None
    acknowledged_writes: int | None = None
    bound_s: float | None = None
    version: int = field(default=VERSION)

    @property
    def passed(self) -> bool:
        """Every fault healed and verified, and no acknowledged write lost; without the operator: it ran through."""
        if not self.operator:
            return True
        return bool(self.faults) and all(fault.verified for fault in self.faults) and self.lost_writes == 0


_RUN = TypeAdapter(Run)


def write(run: Run, path: Path) -> None:
    """Write the run as JSON."""
    path.write_bytes(_RUN.dump_json(run, indent=1) + b"\n")


def read(path: Path) -> Run:
    """Read a run that `write` wrote.

    Raises:
        pydantic.ValidationError: it is something else.
    """
    return _RUN.validate_json(path.read_bytes())
