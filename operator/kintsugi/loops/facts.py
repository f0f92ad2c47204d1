"""What the guard is told about one candidate on one database; the same when it is proposed and when it is to run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import PAUSE
from kintsugi.domain.actions import Candidate, Objectives, Plan, Proposal, Risk
from kintsugi.engines.engine import Diagnosis
from kintsugi.loops.services import Services
from kintsugi.loops.watch import Watch
from kintsugi.stages.budget import pooled, record_of
from kintsugi.stages.compose import step_of, undo_of
from kintsugi.stages.judgement import Facts
from kintsugi.stages.policy import applying

FRESH_INTERVALS = 4
"""Scrape intervals that the newest sample may be old before nothing acts any more."""


def guard_facts(
    services: Services,
    database: MonitoredDatabase,
    watch: Watch,
    candidate: Candidate,
    incident: str,
    now: datetime,
    *,
    this: str = "",
) -> Facts:
    """The facts for `candidate`; `this` is the name of its own object, which is not counted against it."""
    interval = database.spec.metrics.scrape_interval.total_seconds()
    mine = [action for action in services.fleet.actions_of(database) if action.metadata.name != this]
    others = _others_at_work(services, database, this)
    status = database.status
    return Facts(
        now=now,
        database_name=database.spec.connection.database,
        database_paused=database.metadata.annotations.get(PAUSE),
        newest_sample_age=newest_sample_age(watch, now.timestamp()),
        freshest_needed=FRESH_INTERVALS * interval,
        last_action_ended=status.budget.last_ended_at,
        started=tuple(
            start for start in status.budget.started_at if start not in _own_starts(services, database, this)
        ),
        at_work_here=next((a.metadata.name for a in mine if a.phase.at_work), ""),
        at_work=_by_policy(services, others, database.metadata.namespace),
        at_work_fleet=len(others),
        open_incidents=sum(1 for known in services.fleet.databases.values() if known.status.incident is not None),
        databases=len(services.fleet.databases),
        record=record_of(status.track_record, candidate.action),
        trusted=pooled(
            [record for known in services.fleet.databases.values() for record in known.status.track_record],
            candidate.action,
        ),
        tried=sum(1 for action in mine if action.spec.incident == incident and action.status.attempts),
        data_loss_bytes=_number(candidate.proposal.parameters.get("dataLossBytes")),
        replication_lag=_number(candidate.proposal.parameters.get("lagSeconds")),
        observers=observers(watch.diagnosis),
    )


def candidate_of(action: HealingAction) -> Candidate:
    """The candidate that an existing action was made from, with the plan of its spec.

    The guard judges what is touched and how risky it is; that the plan is the compiled one is checked beside it.
    """
    spec = action.spec
    steps = tuple(step_of(step) for step in spec.plan)
    return Candidate(
        proposal=Proposal(spec.action, spec.parameters, Objectives(), spec.evidence.facts, spec.touches),
        plan=Plan(steps, undo_of(spec.undo), probe=steps[0], idempotent=False),
        risk=Risk(spec.risk),
        score=0.0,
    )


def newest_sample_age(watch: Watch, now: float) -> float | None:
    """Seconds between now and the newest sample of any signal; None when there is none.

    A sample from the future is as far off as one from the past: the clock was set back, and nothing newer was read.
    """
    frame = watch.buffer.frame
    seen = frame.times[frame.mask.any(axis=1)] if len(frame) else frame.times
    return abs(now - float(seen[-1])) if len(seen) else None


def observers(diagnosis: Diagnosis | None) -> Mapping[str, bool | None]:
    """Who sees the primary as down: Prometheus, a direct connection, and each replica by its WAL receiver."""
    if diagnosis is None:
        return {}
    seen: dict[str, bool | None] = {
        "metrics": diagnosis.metrics_down,
        "direct connection": not diagnosis.primary_reachable,
    }
    for member in diagnosis.members:
        if member.name != diagnosis.primary_member:
            streaming = member.wal_receiver_streaming
            seen[member.name] = None if not member.reachable or streaming is None else not streaming
    return seen


def _others_at_work(services: Services, database: MonitoredDatabase, this: str) -> list[HealingAction]:
    return [
        action
        for action in services.fleet.actions.values()
        if action.phase.at_work
        and not (action.metadata.name == this and action.metadata.namespace == database.metadata.namespace)
    ]


def _by_policy(services: Services, at_work: list[HealingAction], namespace: str) -> Mapping[str, int]:
    """By name of the namespace's policies, how many of these actions are on databases that it matches."""
    counts: dict[str, int] = {}
    for action in at_work:
        if action.metadata.namespace != namespace:
            continue
        database = services.fleet.databases.get(f"{action.metadata.namespace}/{action.spec.database.name}")
        if database is None:
            continue
        for policy in applying(services.fleet.policies_in(action.metadata.namespace), database):
            counts[policy.metadata.name] = counts.get(policy.metadata.name, 0) + 1
    return counts


def _own_starts(services: Services, database: MonitoredDatabase, this: str) -> set[datetime]:
    own = services.fleet.actions.get(f"{database.metadata.namespace}/{this}")
    return {attempt.started_at for attempt in own.status.attempts} if own else set()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
