"""The conditions of a `MonitoredDatabase`: one aspect each, in words that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kintsugi.api.meta import Condition, set_condition
from kintsugi.domain.anomaly import Anomaly, Effect, Health

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kintsugi.loops.cycle import Cycle, Outcome
    from kintsugi.shell.gate import GateState

Said = tuple[str, bool | None, str, str]
"""Type, status, reason, message."""


def conditions_of(
    cycle: Cycle, outcome: Outcome, barred: Sequence[str], gate: GateState | None
) -> tuple[Condition, ...]:
    """All of them; the transition times of unchanged ones stay."""
    conditions = cycle.database.status.conditions
    said = [_healthy(cycle.anomaly), _metrics(cycle, barred), _connected(cycle, barred), _policy(cycle)]
    said.append(_actions(cycle, outcome))
    if gate is not None:
        said.append(("ApprovalGate", gate.ok, "Working" if gate.ok else "ApprovalGateMissing", gate.message))
    if cycle.database.spec.slo and cycle.watch.slo_problem:
        said.append(("SloMeasured", False, cycle.watch.slo_problem.reason, cycle.watch.slo_problem.message))
    elif any(condition.type == "SloMeasured" for condition in conditions):
        said.append(("SloMeasured", True, "Measured", "spec.slo is measured"))
    said += [(type_, *saying) for type_, saying in sorted(cycle.watch.beside.items())]
    for type_, status, reason, message in said:
        conditions = set_condition(
            conditions,
            type_,
            status,
            reason,
            message,
            now=cycle.now,
            generation=cycle.database.metadata.generation,
        )
    return conditions


def _healthy(anomaly: Anomaly) -> Said:
    if anomaly.health is Health.NORMAL and anomaly.opinion and anomaly.opinion.effect is Effect.SILENCED:
        return ("Healthy", True, "LabelledNormal", anomaly.opinion.effect.value)
    if anomaly.health is Health.NORMAL:
        return ("Healthy", True, "WithinReference", "everything that is measured is as in the reference window")
    if anomaly.health is Health.ANOMALOUS:
        worst = max(anomaly.contributions, key=lambda c: c.deviation, default=None)
        return ("Healthy", False, "Anomaly", worst.signal + " deviates from the reference" if worst else "anomalous")
    return ("Healthy", None, "Suspected" if anomaly.suspected else anomaly.health.value, anomaly.reason)


def _metrics(cycle: Cycle, barred: Sequence[str]) -> Said:
    problem = cycle.watch.metrics_problem
    if barred:
        return ("MetricsAvailable", False, "OutsideCeiling", barred[0])
    if problem:
        return ("MetricsAvailable", False, problem.reason, problem.message)
    if cycle.anomaly.health is Health.BLIND:
        return ("MetricsAvailable", False, "Stale", cycle.anomaly.reason)
    return ("MetricsAvailable", True, "Fresh", "samples arrive as expected")


def _connected(cycle: Cycle, barred: Sequence[str]) -> Said:
    problem = cycle.watch.connection_problem
    if barred:
        return ("Connected", False, "OutsideCeiling", barred[0])
    if problem:
        return ("Connected", False, problem.reason, problem.message)
    if not cycle.watch.connected:
        return ("Connected", None, "NotTried", "no connection has been opened yet")
    return ("Connected", True, "Connected", "the database answers the operator's own connection")


def _policy(cycle: Cycle) -> Said:
    if not cycle.policy.refs:
        message = cycle.policy.notes[0] if cycle.policy.notes else "no policy matches"
        return ("PolicyFound", False, "NoPolicy", message)
    names = ", ".join(ref.name for ref in cycle.policy.refs)
    notes = "; ".join(cycle.policy.notes)
    message = f"mode {cycle.policy.mode} from {names}" + (f" ({notes})" if notes else "")
    return ("PolicyFound", True, "Capped" if notes else "Found", message)


def _actions(cycle: Cycle, outcome: Outcome) -> Said:
    if cycle.paused:
        return ("ActionsAllowed", False, "Paused", "nothing runs while it is paused")
    if outcome.held_back and cycle.live is None:
        return ("ActionsAllowed", False, "HeldBack", "; ".join(outcome.held_back))
    return ("ActionsAllowed", True, "Nothing", "no boundary holds an action back")
