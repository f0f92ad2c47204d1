"""The lanes below a chart: what the database's status said, and where the actions were in their lives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from kintsugi_dev.demo.record import ActionRecord, Run
from kintsugi_dev.demo.report.chart import Lane, Segment

SHORT = {"AwaitingApproval": "awaiting approval"}


def database_lane(run: Run, end: float) -> Lane:
    """The phases of the database's status, as they were seen."""
    runs = [next(states) for _, states in groupby((s for s in run.states if s.phase), key=lambda s: s.phase)]
    ends = [state.at for state in runs[1:]] + [end] * bool(runs)
    segments = [Segment(s.at, until, s.phase, s.phase) for s, until in zip(runs, ends, strict=True)]
    return Lane("database", segments)


def action_lane(actions: Sequence[ActionRecord], end: float) -> Lane:
    """The phases of the actions, from the transitions that each recorded; the last one is a short end piece."""
    return Lane("action", [segment for action in actions for segment in _life(action, end)])


def _life(record: ActionRecord, end: float) -> list[Segment]:
    history = record.action.status.history
    spans = [(one.phase, one.at.timestamp(), two.at.timestamp()) for one, two in pairwise(history)]
    if history:
        last, at = history[-1].phase, history[-1].at.timestamp()
        spans.append((last, at, min(end, at + 6.0) if record.phase.ended else end))
    return [
        Segment(
            start,
            until,
            SHORT.get(phase, phase.lower()),
            phase,
            f"{record.action.spec.action} ({record.name}): {phase}",
        )
        for phase, start, until in spans
    ]
