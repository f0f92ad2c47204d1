"""What limits are counted from, and how an action type earns trust: pure updates of a database's status.

All of it lives in the status of `MonitoredDatabase`, so that it survives a restart; and every update may be applied
twice without counting twice, because a killed operator can't know whether its last write arrived.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from kintsugi.api.action import HealingAction, Phase
from kintsugi.api.database import Budget, TrackRecord
from kintsugi.domain.verdict import Outcome

HOUR = timedelta(hours=1)
CONFIDENCE = 0.95

Records = tuple[TrackRecord, ...]

_ACTED = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ROLLED_BACK, Phase.INCONCLUSIVE})
"""The other ends (superseded, expired, rejected) leave the database as it was: nothing to cool down from."""


def milliseconds(moment: datetime) -> datetime:
    """`moment` as precise as a status keeps it, so that what was written equals what is read back."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def started(budget: Budget, at: datetime, now: datetime) -> Budget:
    """`budget` with an action counted that started at `at`; once, however often it is said."""
    kept = {*recent(budget, now), milliseconds(at)}
    return budget.model_copy(update={"started_at": tuple(sorted(kept))})


def recent(budget: Budget, now: datetime) -> tuple[datetime, ...]:
    """The starts within the last hour; a start in the future (a clock was set back) still counts."""
    return tuple(start for start in budget.started_at if start > now - HOUR)


def settle(budget: Budget, records: Records, action: HealingAction) -> tuple[Budget, Records]:
    """Both with the end of `action` counted; unchanged when it changed nothing, is not over, or was counted before.

    Actions on one database end one after another, so an end not after `last_ended_at` was counted already.
    """
    ended = action.status.ended_at
    if action.phase not in _ACTED or not action.status.attempts or ended is None:
        return budget, records
    ended = milliseconds(ended)
    if budget.last_ended_at is not None and ended <= budget.last_ended_at:
        return budget, records
    return budget.model_copy(update={"last_ended_at": ended}), _judged(records, action)


def acknowledged(records: Records, action: str | None = None) -> Records:
    """`records` with the circuit closed again, for one action type or (None) for all of them."""
    return tuple(
        record.model_copy(update={"failed_in_a_row": 0}) if action in (None, record.action) else record
        for record in records
    )


def record_of(records: Records, action: str) -> TrackRecord:
    """The record of one action type; an empty one when it never ran here."""
    return next((record for record in records if record.action == action), TrackRecord(action=action))


def pooled(records: Sequence[TrackRecord], action: str) -> TrackRecord:
    """One record of `action` from those of several databases: sums, and the worst run of failures."""
    mine = [record for record in records if record.action == action]
    return TrackRecord(
        action=action,
        succeeded=sum(record.succeeded for record in mine),
        harmed=sum(record.harmed for record in mine),
        failed_in_a_row=max((record.failed_in_a_row for record in mine), default=0),
    )


def harm_rate_bound(succeeded: int, harmed: int) -> float:
    """The exact (Clopper–Pearson) one-sided 95 % upper bound of the rate of harm; 1 while nothing is known.

    Without harm it is 1 - .05^(1/n): under 10 % from 29 successes on, under 2 % from 149 on.
    """
    trials = succeeded + harmed
    if trials == 0 or succeeded == 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(harmed, trials, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def successes_needed(harmed: int, rate: float) -> int | None:
    """How many verified successes, beside `harmed` harms, bring the bound to `rate`; None when none could (0 %)."""
    if rate <= 0:
        return None
    low, high = 0, 1
    while harm_rate_bound(high, harmed) > rate:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if harm_rate_bound(middle, harmed) > rate else (low, middle)
    return high


def _at_most(count: int, trials: int, rate: float) -> float:
    """The binomial probability of at most `count` among `trials`, by logarithms so that thousands don't underflow."""
    if rate <= 0 or rate >= 1:
        return 1.0 if rate <= 0 or count >= trials else 0.0
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        for k in range(count + 1)
    )  # fmt: skip
    return math.fsum(math.exp(log) for log in logs)


def _judged(records: Records, action: HealingAction) -> Records:
    """`records` after this outcome. An inconclusive one is neither a success nor a failure."""
    verdict = action.status.verdict
    old = record_of(records, action.spec.action)
    if action.phase is Phase.SUCCEEDED:
        new = old.model_copy(update={"succeeded": old.succeeded + 1, "failed_in_a_row": 0})
    elif action.phase in (Phase.FAILED, Phase.ROLLED_BACK):
        harm = verdict is not None and verdict.outcome == Outcome.HARMED.value
        new = old.model_copy(
            update={"harmed": old.harmed + harm, "failed_in_a_row": old.failed_in_a_row + 1},
        )
    else:
        return records
    if all(record.action != new.action for record in records):
        return (*records, new)
    return tuple(new if record.action == new.action else record for record in records)
