"""The verdict on an action at work, from the samples around it; the judging itself is `stages/verify.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.text import human
from kintsugi.domain.verdict import Outcome, Verdict
from kintsugi.loops.watch import Watch
from kintsugi.stages.verify import verify

BEFORE_SAMPLES = 3


def verdict_of(action: HealingAction, database: MonitoredDatabase, watch: Watch, now: datetime) -> Verdict | None:
    """The verdict, or None while it can't be told yet."""
    executed, attempts = action.status.executed_at, action.status.attempts
    if executed is None or not attempts:
        return None
    frame, at = watch.buffer.frame, now.timestamp()
    began, ended = attempts[0].started_at.timestamp(), executed.timestamp()
    slo, window = database.spec.slo, action.spec.verification.window.total_seconds()
    verdict = verify(
        before=frame.between(began - BEFORE_SAMPLES * frame.interval, began),
        after=frame.between(ended, at + frame.interval),
        reference=watch.reference(database, at),
        catalogue=watch.engine.catalogue,
        evidence=[signal.signal for signal in action.spec.evidence.signals],
        slo=(slo.signal, slo.target.total_seconds()) if slo and slo.signal else None,
        elapsed=at - ended,
        window=window,
        cascading=[impact.component for impact in action.spec.forecast.impacts],
    )
    return _with_free_slo(verdict, database, watch, at - ended >= window)


def _with_free_slo(verdict: Verdict | None, database: MonitoredDatabase, watch: Watch, over: bool) -> Verdict | None:
    """A free latency query has a say, too: nothing is healed while it is above its target, or gives nothing."""
    slo = database.spec.slo
    if verdict is None or verdict.outcome is not Outcome.HEALED or slo is None or slo.latency_query is None:
        return verdict
    if watch.slo_value is not None and watch.slo_value <= slo.target.total_seconds():
        return verdict
    if not over:
        return None
    if watch.slo_value is None:
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, reasons=("spec.slo.latencyQuery gives no number",))
    reason = f"spec.slo.latencyQuery is {human(watch.slo_value)}, its target {human(slo.target)}"
    return replace(verdict, outcome=Outcome.NOT_HEALED, reasons=(reason,))
