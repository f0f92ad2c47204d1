"""What the client felt, second by second: the one place that says when it hurts and when it is healed.

A second is judged by the p99 of the requests whose scheduled start lies in it. A request that failed has no latency;
where more than one in a hundred failed, the second counts as one whose p99 is the client's whole timeout, since failing
is no better than waiting in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from kintsugi_dev.demo.record import P99, Second
from kintsugi_dev.load.client import TIMEOUT_SECONDS

TIMEOUT_MS = TIMEOUT_SECONDS * 1000
CALM_SECONDS = 5
"""So many seconds in a row must be calm for the client to be back."""
FACTOR, MARGIN_MS = 2.0, 20.0
FAILED_SHARE = 0.01


def second_of(sample: Mapping[str, Any]) -> Second:
    """A line of the load's samples file."""
    return Second(
        second=sample["second"],
        count=sample["count"],
        p50_ms=sample["p50_ms"],
        p95_ms=sample["p95_ms"],
        p99_ms=sample["p99_ms"],
        failed=sum(sample["errors"].values()),
    )


def felt_ms(second: Second) -> float:
    """The p99 of one second as the client felt it, in ms."""
    unanswered = second.p99_ms is None or second.failed > FAILED_SHARE * second.count
    return max(TIMEOUT_MS, second.p99_ms or 0.0) if unanswered else float(second.p99_ms or 0.0)


def typical_ms(seconds: Iterable[Second]) -> float | None:
    """The median of the seconds' p99, in ms; None without seconds."""
    values = [felt_ms(second) for second in seconds]
    return round(median(values), 2) if values else None


def limit_ms(before: float) -> float:
    """Up to where a second is calm: twice the p99 before the fault, or 20 ms above it, whichever is more."""
    return max(FACTOR * before, before + MARGIN_MS)


def between(seconds: Iterable[Second], start: float, end: float) -> list[Second]:
    """The seconds that lie wholly within `start` and `end`."""
    return [second for second in seconds if second.second >= start and second.second + 1 <= end]


def hurt_at(seconds: Sequence[Second], injected_at: float, limit: float) -> float | None:
    """When the client first felt it: the start of the first second above the limit, not before the injection."""
    hurt = (s.second for s in seconds if s.second + 1 > injected_at and felt_ms(s) > limit)
    found = next(hurt, None)
    return None if found is None else max(float(found), injected_at)


def healed_at(seconds: Sequence[Second], hurt: float | None, limit: float) -> float | None:
    """When the client was back: the start of the first five calm seconds in a row after it had hurt; None: not yet."""
    run: list[int] = []
    for second in seconds:
        if hurt is None or second.second <= hurt - 1:
            continue
        calm = felt_ms(second) <= limit
        run = [*(run if run and run[-1] == second.second - 1 else []), second.second] if calm else []
        if len(run) == CALM_SECONDS:
            return float(run[0])
    return None


def p99_of(
    seconds: Sequence[Second], settled_from: float, injected_at: float, ended_at: float
) -> tuple[P99, float | None, float | None]:
    """The client's p99 around a fault, when it first hurt, and when it was healed.

    Each is a median over seconds: those before the injection, the slow ones until it was healed, the first calm ones.
    """
    before = typical_ms(between(seconds, settled_from, injected_at))
    if before is None:
        return P99(None, None, None), None, None
    limit = limit_ms(before)
    until = [s for s in seconds if s.second < ended_at]
    hurt = hurt_at(until, injected_at, limit)
    healed = healed_at(until, hurt, limit)
    return _summary(until, before, limit, hurt, healed), hurt, healed


def _summary(seconds: Sequence[Second], before: float, limit: float, hurt: float | None, healed: float | None) -> P99:
    if hurt is None:
        return P99(before, None, None, limit=limit)
    end = healed if healed is not None else float("inf")
    bad = [s for s in seconds if s.second > hurt - 1 and s.second + 1 <= end and felt_ms(s) > limit]
    calm = [s for s in seconds if s.second >= end][:CALM_SECONDS]
    worst = max((felt_ms(s) for s in bad), default=None)
    return P99(before, typical_ms(bad), typical_ms(calm), worst, limit)
