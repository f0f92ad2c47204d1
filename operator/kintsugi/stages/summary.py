"""Summary: what one cycle saw and decided, as the status that a person reads.

Numbers are rounded so that a status changes, and is written, only when something has happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from kintsugi.api.action import HealingAction, Phase
from kintsugi.api.database import ComponentStatus, IncidentStatus, JudgementStatus, UnusualStatus
from kintsugi.domain.anomaly import Anomaly, Health
from kintsugi.domain.decision import DatabasePhase
from kintsugi.domain.forecast import Forecast
from kintsugi.domain.text import human
from kintsugi.domain.topology import Topology

PATIENCE = 15.0  # seconds until a person is asked for: some actions wait for a few seconds of evidence
QUIET = 0.3  # below this, a score of a healthy database is noise and shown as 0
STEP = 0.05


def phase_of(
    anomaly: Anomaly, live: HealingAction | None, incident: IncidentStatus | None, paused: bool
) -> DatabasePhase:
    """The database's phase in one word."""
    if paused:
        return DatabasePhase.PAUSED
    if live is not None and live.phase.at_work:
        return DatabasePhase.HEALING
    if anomaly.health is Health.BLIND:
        return DatabasePhase.BLIND
    if anomaly.health is Health.LEARNING:
        return DatabasePhase.LEARNING
    return DatabasePhase.DEGRADED if incident is not None or anomaly.flagged else DatabasePhase.HEALTHY


def risk_of(anomaly: Anomaly) -> str:
    """The anomaly's score as shown; with a ~ while it is only suspected, a dash when nothing can be said."""
    if anomaly.suspected:
        return f"~{_coarse(anomaly.score):.2f}"
    if anomaly.health in (Health.BLIND, Health.LEARNING):
        return "-"
    return f"{_coarse(anomaly.score):.2f}"


def judgement_of(anomaly: Anomaly) -> JudgementStatus | None:
    """The learned model's opinion, rounded; None where there is none.

    Signals and class are told while the model or the statistics say that something is wrong: at other times they would
    change with each second's noise.
    """
    opinion = anomaly.opinion
    if opinion is None:
        return None
    loud = bool(opinion.model) and opinion.probability >= opinion.threshold
    wrong = bool(opinion.model) and (loud or anomaly.flagged)
    seen = replace(
        opinion,
        probability=max(_coarse(opinion.probability), opinion.threshold) if loud else _coarse(opinion.probability),
        unusual=tuple((name, float(round(far))) for name, far in opinion.unusual) if wrong else (),
        fault_class=opinion.fault_class if wrong else "",
        nearest_class=opinion.nearest_class if wrong else "",
        class_probability=opinion.class_probability if wrong else 0.0,
    )
    return JudgementStatus(
        model=seen.model,
        probability=f"{seen.probability:.2f}" if seen.model else "",
        threshold=f"{seen.threshold:.2f}" if seen.model else "",
        anomalies=seen.anomalies,
        normals=seen.normals,
        unusual=tuple(UnusualStatus(signal=name, deviation=far) for name, far in seen.unusual),
        fault_class=seen.fault_class,
        nearest_class=seen.nearest_class,
        class_probability=f"{seen.class_probability:.2f}" if seen.fault_class else "",
        silent_since=None if seen.silent_since is None else datetime.fromtimestamp(seen.silent_since, UTC),
        sentence=seen.sentence,
    )


def soon_of(forecast: Forecast, topology: Topology) -> str:
    """The next component expected to degrade: `connections 0.84 in 40 s`."""
    ahead = forecast.ahead()
    if not ahead:
        return "-"
    impact = ahead[0]
    return f"{topology.title(impact.component)} {impact.probability:.2f} in {human(round(impact.eta))}"


def components_of(anomaly: Anomaly, forecast: Forecast) -> tuple[ComponentStatus, ...]:
    """Every component that is degraded or at risk, most at risk first."""
    at_risk = {impact.component: impact for impact in forecast.impacts}
    names = [name for name, score in anomaly.components.items() if _coarse(score) > 0]
    found = []
    for name in dict.fromkeys((*at_risk, *names)):
        impact = at_risk.get(name)
        risk = max(anomaly.components.get(name, 0.0), impact.probability if impact else 0.0)
        found.append(
            ComponentStatus(
                name=name,
                risk=round(_coarse(risk), 2),
                degraded=bool(impact and impact.degraded),
                eta_seconds=float(round(impact.eta)) if impact and not impact.degraded else None,
            )
        )
    return tuple(sorted(found, key=lambda c: (-c.risk, c.name)))


def summary_of(anomaly: Anomaly, forecast: Forecast, now: float) -> str:
    """What is wrong, in one sentence: the forecast's, and the worst signal's."""
    worst = max(anomaly.contributions, key=lambda c: c.deviation, default=None)
    since = f"for {human(now - anomaly.since)}" if anomaly.since else ""
    parts = [f"anomalous {since}".strip(), forecast.sentence if forecast.root else "", worst.sentence if worst else ""]
    return "; ".join(part for part in parts if part)


def doing_with(action: HealingAction) -> str:
    """What an action that has not ended means for its database."""
    name, what = action.metadata.name, action.spec.action
    if not action.spec.runnable:
        return f"recommends {what} ({name})"
    verbs: Mapping[Phase, str] = {
        Phase.PROPOSED: "proposed",
        Phase.AWAITING_APPROVAL: "waiting for approval of",
        Phase.APPROVED: "about to run",
        Phase.EXECUTING: "executing",
        Phase.VERIFYING: "verifying",
        Phase.REVERTING: "taking back",
    }
    return f"{verbs.get(action.phase, 'handling')} {name} ({what})"


def doing_without(
    phase: DatabasePhase, anomaly: Anomaly, held_back: Sequence[str], looked_for: float, pause_reason: str
) -> str:
    """What the operator does, and why not more, when no action is live; it has `looked_for` so many seconds."""
    if phase is DatabasePhase.PAUSED:
        return f"paused: {pause_reason}" if pause_reason else "paused"
    if phase in (DatabasePhase.LEARNING, DatabasePhase.BLIND):
        return anomaly.reason
    if phase is DatabasePhase.HEALTHY:
        return "watching"
    if held_back:
        return f"held back: {held_back[0]}"
    worst = max(anomaly.contributions, key=lambda c: c.deviation, default=None)
    what = f": {worst.sentence}" if worst else ""
    if looked_for < PATIENCE:
        return f"looking for a remedy{what}"
    return f"no action fits, a person is needed{what}; status.notProposed has the reasons"


def _coarse(score: float) -> float:
    return 0.0 if score < QUIET else round(score / STEP) * STEP
