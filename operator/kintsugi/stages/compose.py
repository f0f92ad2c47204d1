"""Compose: a chosen candidate as the immutable spec of a `HealingAction`, and back again.

The plan of an object is never trusted: before executing, it is compiled again from action and parameters and must equal
what was approved.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kintsugi.api.action import (
    ActionApproval,
    ActionForecast,
    ActionSpec,
    ActionVerification,
    DatabaseRef,
    Evidence,
    EvidenceOpinion,
    EvidenceSignal,
    EvidenceUnusual,
    Expected,
    ForecastImpact,
    PlanStep,
    PolicyRef,
    UndoPlan,
    plan_hash,
)
from kintsugi.domain.actions import Candidate, Plan, Risk, Step, StepKind, Undo, UndoKind
from kintsugi.domain.anomaly import UNKNOWN, Anomaly, Opinion
from kintsugi.domain.forecast import Forecast
from kintsugi.engines.engine import Action, BadParametersError

SHOWN_SIGNALS = 8
SHOWN_IMPACTS = 8
UNHASHED = "0" * 12


@dataclass(frozen=True, slots=True)
class Question:
    """How the action is to be asked for and judged, as the policies have it."""

    runnable: bool
    approval: ActionApproval
    verification: ActionVerification
    expires_after: timedelta
    policies: tuple[PolicyRef, ...]


def compose(
    candidate: Candidate,
    question: Question,
    *,
    database: DatabaseRef,
    incident: str,
    anomaly: Anomaly,
    forecast: Forecast,
    summary: str,
    not_proposed: Sequence[str],
    runner_up: str,
    now: datetime,
) -> ActionSpec:
    """The whole spec, with its hash."""
    expected = candidate.proposal.expected
    spec = ActionSpec(
        database=database,
        incident=incident,
        action=candidate.action,
        parameters=dict(candidate.proposal.parameters),
        touches=candidate.proposal.touches,
        runnable=question.runnable,
        plan=tuple(plan_step(step) for step in candidate.plan.steps),
        undo=undo_plan(candidate.plan.undo),
        risk=candidate.risk.value,
        evidence=evidence_of(candidate, anomaly, summary, not_proposed),
        forecast=forecast_of(forecast),
        expected=Expected(
            latency=expected.latency,
            throughput=expected.throughput,
            resources=expected.resources,
            consistency=expected.consistency,
            runner_up=runner_up,
        ),
        propensity=candidate.propensity,
        expires_at=now + question.expires_after,
        policies=question.policies,
        approval=question.approval,
        verification=question.verification,
        plan_hash=UNHASHED,
    )
    return spec.model_copy(update={"plan_hash": plan_hash(spec.to_json())})


def action_name(database: str, incident: str, action: str) -> str:
    """Fixed by database, incident and action, so that creating it twice is a conflict and not a repetition."""
    digest = hashlib.sha256(f"{incident}/{action}".encode()).hexdigest()[:8]
    return f"{database[:240]}-{digest}"


def recompiled(spec: ActionSpec, actions: Mapping[str, Action], risks: Mapping[str, Risk]) -> str:
    """Why the spec is not what its action and parameters compile to; empty when it is."""
    action = actions.get(spec.action)
    if action is None or spec.action not in risks:
        return f"this operator knows no action {spec.action}"
    try:
        plan = action.compile(spec.parameters)
    except BadParametersError as error:
        return f"the parameters do not compile: {error}"
    if tuple(plan_step(step) for step in plan.steps) != spec.plan or undo_plan(plan.undo) != spec.undo:
        return "the plan is not what the action and its parameters compile to"
    if risks[spec.action] != spec.risk:
        return f"the risk of {spec.action} is {risks[spec.action].value}, not {spec.risk}"
    if plan_hash(spec.to_json()) != spec.plan_hash:
        return "planHash does not match the spec"
    return ""


def plan_step(step: Step) -> PlanStep:
    """A step as the API has it."""
    return PlanStep(
        kind=step.kind.value,
        target=step.target,
        command=step.command,
        timeout=timedelta(seconds=step.timeout),
        transaction=step.transaction,
        optional=step.optional,
        expect=step.expect,
    )


def step_of(step: PlanStep) -> Step:
    """A step of the API as the executor has it."""
    return Step(
        kind=StepKind(step.kind),
        target=step.target,
        command=step.command,
        timeout=step.timeout.total_seconds(),
        transaction=step.transaction,
        optional=step.optional,
        expect=step.expect,
    )


def plan_of(spec: ActionSpec, actions: Mapping[str, Action]) -> Plan:
    """The compiled plan of a spec that has been found to be `recompiled`."""
    return actions[spec.action].compile(spec.parameters)


def undo_plan(undo: Undo) -> UndoPlan:
    """An undo as the API has it."""
    return UndoPlan(kind=undo.kind.value, steps=tuple(plan_step(step) for step in undo.steps), note=undo.note)


def undo_of(undo: UndoPlan) -> Undo:
    """An undo of the API as the executor has it."""
    return Undo(kind=UndoKind(undo.kind), steps=tuple(step_of(step) for step in undo.steps), note=undo.note)


def evidence_of(candidate: Candidate, anomaly: Anomaly, summary: str, not_proposed: Sequence[str]) -> Evidence:
    """Why, in words and numbers: the diagnosis' facts and the signals that deviate most."""
    known = [c for c in anomaly.contributions if all(map(math.isfinite, (c.deviation, c.value, c.reference)))]
    shown = sorted(known, key=lambda c: -c.deviation)[:SHOWN_SIGNALS]
    return Evidence(
        summary=summary,
        facts=candidate.proposal.evidence,
        signals=tuple(
            EvidenceSignal(
                signal=c.signal,
                component=c.component,
                deviation=round(c.deviation, 2),
                value=_rounded(c.value),
                reference=_rounded(c.reference),
                sentence=c.sentence,
            )
            for c in shown
        ),
        opinion=opinion_of(anomaly.opinion) if anomaly.opinion else None,
        not_proposed=tuple(not_proposed),
    )


def opinion_of(opinion: Opinion) -> EvidenceOpinion:
    """The learned model's opinion as the API has it."""
    return EvidenceOpinion(
        model=opinion.model,
        probability=round(opinion.probability, 3),
        threshold=round(opinion.threshold, 3),
        anomalies=opinion.anomalies,
        normals=opinion.normals,
        unusual=tuple(EvidenceUnusual(signal=name, deviation=round(far, 1)) for name, far in opinion.unusual),
        fault_class=opinion.fault_class or UNKNOWN,
        nearest_class=opinion.nearest_class,
        class_probability=round(opinion.class_probability, 3),
        sentence=opinion.sentence,
    )


def forecast_of(forecast: Forecast) -> ActionForecast:
    """The forecast as the API has it."""
    return ActionForecast(
        root=forecast.root or "",
        sentence=forecast.sentence,
        impacts=tuple(
            ForecastImpact(
                component=impact.component,
                probability=round(impact.probability, 3),
                eta_seconds=round(impact.eta, 1),
                path=impact.path,
            )
            for impact in forecast.impacts[:SHOWN_IMPACTS]
        ),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
