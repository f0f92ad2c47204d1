"""Experience: which intervals of a database's past are examples of what, and what each action came to, in numbers.

An action that was verified to have healed says that the time before it was an anomaly, of the class that its evidence
names. One that was rejected as a false alarm, and an incident that was acknowledged as how the database is now, say
that the time was normal, as far as a person's name stands behind it. Every other end says nothing about the metrics:
what was not healed may have been no fault, or another one. Where a person has labelled, outcomes are silent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from kintsugi.api.action import HealingAction, Phase
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import ACKNOWLEDGE, ACKNOWLEDGED_BY
from kintsugi.domain.actions import Objectives
from kintsugi.domain.experience import Example, LabelKind, Source, Trial
from kintsugi.domain.frame import Bools, Frame
from kintsugi.domain.verdict import Outcome
from kintsugi.engines.classes import CLASSES
from kintsugi.stages.labels import Label, LabelError
from kintsugi.stages.reference import Incident, reference

SAMPLES: Final = 60
"""Of the time before an action, at most: what detection looks at."""

FEWEST: Final = 3
"""Measured samples that an example needs: fewer can't be told from a spike."""

FEWEST_BEFORE: Final = 25
"""Fault-free samples from before it that an example needs, to be an example of a deviation from anything."""

ROWS: Final = 600
"""Samples of an example that are kept, from its beginning: ten minutes at one a second."""

REFERENCE_ROWS: Final = 300
"""Samples of its reference that are kept, the newest: enough for medians, scales and extremes.

They stand as they were measured, on the window's grid: thinned out, a signal that only rises would be judged by steps
as many times too large, and a mean over 5 s by too little noise.
"""

_FALSE_ALARM: Final = re.compile(r"\s*false[ -]?alarm\b", re.IGNORECASE)
_NAMELESS: Final = ("", "somebody unknown")
_TRIED: Final = (Phase.SUCCEEDED, Phase.FAILED, Phase.ROLLED_BACK, Phase.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody or something says about an interval, before its samples are at hand; fields as in `Example`."""

    id: str
    database: str
    start: float
    end: float
    kind: LabelKind
    fault_class: str
    source: Source
    who: str = ""
    action: str = ""

    def __str__(self) -> str:
        return f"what {self.who or 'an outcome'} says of {self.end - self.start:.0f} s ({self.kind.value})"


def claim_of_label(label: Label, database: str) -> Claim:
    """What a person's label says of a database (its uid).

    Raises:
        LabelError: it only says what is to be forgotten.
    """
    if label.kind is None:
        raise LabelError(f"label {label} is no example; it says what is to be forgotten")
    start, end = label.start.timestamp(), label.end.timestamp()
    return Claim(label.id, database, start, end, label.kind, label.fault_class, Source.PERSON, label.who)


def claim_of_action(action: HealingAction, interval: float, opened: float | None) -> Claim | None:
    """What the end of an action says about the time before it; None when it says nothing.

    Args:
        action: one that has ended.
        interval: seconds between two samples.
        opened: when its incident opened (Unix seconds), where that is still known.
    """
    verdict, attempts, created = action.status.verdict, action.status.attempts, action.metadata.creation_timestamp
    if created is None:
        return None
    proposed = created.timestamp()
    since = proposed if opened is None else min(opened, proposed)
    healed = verdict is not None and verdict.outcome == Outcome.HEALED.value and action.phase is Phase.SUCCEEDED
    if healed and attempts:
        began = attempts[0].started_at.timestamp()
        start = min(max(since, began - SAMPLES * interval), began - FEWEST * interval)
        fault_class = CLASSES.get(action.spec.action, "")
        return _claimed(action, start, began, LabelKind.ANOMALY, fault_class, Source.OUTCOME, "")
    by = action.status.approval.rejected_by
    if action.phase is Phase.REJECTED and by not in _NAMELESS and _FALSE_ALARM.match(action.status.approval.reason):
        ended = (action.status.ended_at or created).timestamp()
        start = max(since, proposed - SAMPLES * interval)
        end = max(start + FEWEST * interval, min(ended, proposed + SAMPLES * interval))
        return _claimed(action, start, end, LabelKind.NORMAL, "false-alarm", Source.PERSON, by)
    return None


def claim_of_acknowledgement(database: MonitoredDatabase, actions: Sequence[str]) -> Claim | None:
    """What a person says who acknowledged an incident as how the database is now; None where nobody did.

    `actions` are the names that an acknowledgement may mean instead: those whose open circuit it closes.
    """
    word, by = (
        database.metadata.annotations.get(ACKNOWLEDGE, ""),
        database.metadata.annotations.get(ACKNOWLEDGED_BY, ""),
    )
    since = database.status.reference_since
    if since is None or not by or not word or word != database.status.acknowledged or word in ("all", *actions):
        return None
    start = since.timestamp()
    end = start + SAMPLES * database.spec.metrics.scrape_interval.total_seconds()
    uid = database.metadata.uid
    return Claim(
        _digest(uid, "acknowledged", f"{start:.3f}"),
        uid,
        start,
        end,
        LabelKind.NORMAL,
        "false-alarm",
        Source.PERSON,
        by,
    )


def overruled(claim: Claim, labels: Sequence[Label]) -> bool:
    """Whether a person has said something else, or anything, about a part of the same time."""
    return any(label.overlaps(claim.start, claim.end) for label in labels)


def example_of(claim: Claim, frame: Frame, incidents: Sequence[Incident], window: float) -> Example | None:
    """The example that a claim makes of these samples; None when too few of them were measured.

    Args:
        claim: what is said.
        frame: the samples of the interval and of the time before it.
        incidents: (start, end) of what must not count as fault-free, as in `stages/reference.py`.
        window: seconds of fault-free samples to look back for.
    """
    inside = frame.between(claim.start, claim.end)
    before = reference(frame, incidents, claim.start, window)
    if int(inside.mask.any(axis=1).sum()) < FEWEST or len(before) < FEWEST_BEFORE:
        return None
    measured: Bools = np.logical_or(inside.mask.any(axis=0), before.mask.any(axis=0))
    return Example(
        id=claim.id,
        database=claim.database,
        start=claim.start,
        end=claim.end,
        kind=claim.kind,
        fault_class=claim.fault_class,
        source=claim.source,
        who=claim.who,
        action=claim.action,
        window=_columns(_rows(inside, slice(0, ROWS)), measured),
        reference=_columns(_rows(before, slice(-REFERENCE_ROWS, None)), measured),
    )


def counts_as_trial(action: HealingAction) -> bool:
    """Whether an ended action says anything about what actions do: it ran, or a person said no to it."""
    return action.phase is Phase.REJECTED or (action.phase in _TRIED and bool(action.status.attempts))


def trial_of(action: HealingAction, measured: Mapping[str, float | None]) -> Trial:
    """What came of an ended action, with what was `measured` of its effect."""
    spec, status = action.spec, action.status
    ended = status.ended_at or status.executed_at or action.metadata.creation_timestamp
    return Trial(
        action=action.metadata.uid,
        database=spec.database.uid,
        name=action.metadata.key,
        kind=spec.action,
        incident=spec.incident,
        evidence=spec.evidence.to_json(),
        forecast=spec.forecast.to_json(),
        propensity=spec.propensity,
        predicted=Objectives(
            spec.expected.latency, spec.expected.throughput, spec.expected.resources, spec.expected.consistency
        ),
        measured=measured,
        verdict=status.verdict.outcome if status.verdict else "",
        phase=action.phase.value,
        ended=ended.timestamp() if ended else 0.0,
    )


def _claimed(
    action: HealingAction, start: float, end: float, kind: LabelKind, fault_class: str, source: Source, who: str
) -> Claim:
    uid, database = action.metadata.uid, action.spec.database.uid
    return Claim(_digest(uid, kind), database, start, end, kind, fault_class, source, who, uid)


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def _rows(frame: Frame, rows: slice) -> Frame:
    return replace(frame, times=frame.times[rows], values=frame.values[rows], mask=frame.mask[rows])


def _columns(frame: Frame, keep: Bools) -> Frame:
    """Without the signals that were never measured."""
    signals = tuple(name for name, use in zip(frame.signals, keep, strict=True) if use)
    return Frame(signals, frame.times, frame.values[:, keep], frame.mask[:, keep], frame.interval)
