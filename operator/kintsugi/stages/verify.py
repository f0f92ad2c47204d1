"""Verify: whether an action healed what it was meant to heal. What is missing is never success.

Judged are, against the same bands that the detector uses:

- what **must come back**: the evidence's symptoms (all of the evidence, if it has none), the SLO, and the client's
  latency and errors where they had left their bands;
- what **must stay**: every other symptom that was measured and fine before.

Healed may be said as soon as all that must come back has stayed in its band for `CONSECUTIVE` samples and nothing else
got worse. Every other verdict waits for the end of the window: caches warm up, pools reconnect, rates look back.
A signal that vanished is no failure unless it had to come back: after a failover the old replica's are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue, Role, Signal
from kintsugi.domain.text import human, quantity
from kintsugi.domain.verdict import Measure, Outcome, Verdict
from kintsugi.stages.baseline import Baseline, baseline, cells, median
from kintsugi.stages.contributions import title

CONSECUTIVE: Final = 5
"""Samples in a row that have to be in the band."""

FEWEST: Final = 2
"""Where the scrape interval is so long that five samples fill half the window, as many as fit, but never fewer."""

COVERAGE: Final = 0.5
"""Share of the samples since the action that must be there for a judgement."""

STALE: Final = 3.5
"""Scrape intervals of holes that a row of samples may have, and after which its newest is too old."""

WORSE: Final = 1.5
"""Thresholds out from which a signal that was fine before is clearly worse."""

AGAIN: Final = 2.0
"""Times what it was before the action; where that is unknown (a NaN), nothing is worse than it."""

CLIENT: Final = "client"

Slo = tuple[str, float]


class State(Enum):
    """Where a signal is after the action."""

    BACK = auto()
    OUT = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Judged:
    """One signal after the action: where it is, whether it was out before, whether it is clearly worse, the numbers.

    `covered` is the share of the samples since the action that were measured.
    """

    signal: Signal
    state: State
    was_out: bool
    worse: bool
    covered: float
    measure: Measure


def verify(
    before: Frame,
    after: Frame,
    reference: Frame,
    catalogue: Catalogue,
    evidence: Collection[str],
    slo: Slo | None,
    elapsed: float,
    window: float,
    cascading: Collection[str] = (),
) -> Verdict | None:
    """The verdict on an action, or None while it can't be told yet.

    Args:
        before: the last samples before the action; five are looked at.
        after: all samples since it has ended.
        reference: the fault-free reference that the incident was judged by.
        catalogue: the engine's signals.
        evidence: names of the signals that led to the action.
        slo: a signal that has to be at most this, in its unit; being in its band is as good.
        elapsed: seconds since the action has ended.
        window: seconds that it is given to take effect.
        cascading: components that the forecast said the fault itself would reach: while it goes on, their getting
            worse is not the action's doing, only a sign that it did not heal.
    """
    needed = int(np.clip(window / after.interval // 2, FEWEST, CONSECUTIVE))
    judged = judge(baseline(reference, catalogue), before, after, needed, elapsed, slo)
    wanted = _must_come_back(judged, catalogue, evidence, slo, before)
    required = [judged[name] for name in wanted if name in judged]
    harmed = _harmed(judged, wanted, cascading)
    missing = (*(_never(catalogue, name) for name in wanted if name not in judged), *_gaps(required))
    measures = tuple(one.measure for one in (*required, *(one for one in harmed if one not in required)))
    if required and not missing and not harmed and all(one.state is State.BACK for one in required):
        reasons = tuple(f"{_numbers(one)}: in its band for {needed} samples" for one in required)
        return Verdict(Outcome.HEALED, reasons, measures)
    if elapsed < window:
        return None
    outcome, reasons = _at_the_end(required, harmed, missing, elapsed)
    return Verdict(outcome, reasons, measures)


def judge(
    normal: Baseline, before: Frame, after: Frame, needed: int, elapsed: float, slo: Slo | None
) -> dict[str, Judged]:
    """Every signal of the baseline by name, judged by its newest `needed` samples after the action."""
    names = normal.names()
    past = median(cells(before, names)[-needed:])
    past_ratio = median(normal.deviations(before)[-needed:] / normal.threshold)
    now, now_ratio = cells(after, names), normal.deviations(after) / normal.threshold
    expected = max(elapsed / after.interval, len(after), 1.0)
    out = {}
    for index, signal in enumerate(normal.signals):
        known = np.flatnonzero(~np.isnan(now[:, index]))
        last, covered = known[-needed:], len(known) / expected
        values, ratios = now[last, index], now_ratio[last, index]
        target = slo[1] if slo is not None and slo[0] == signal.name else -np.inf
        whole = len(last) == needed and after.times[-1] - after.times[last[0]] <= (needed + STALE) * after.interval
        fine = bool(whole and ((ratios < 1) | (values <= target)).all())
        out[signal.name] = Judged(
            signal=signal,
            state=State.UNKNOWN if covered < COVERAGE else State.BACK if fine else State.OUT,
            was_out=bool(past_ratio[index] >= 1),
            worse=bool(whole and ratios.min() >= WORSE and ratios.min() >= AGAIN * past_ratio[index]),
            covered=covered,
            measure=_measure(signal, past[index], values, normal.median[index]),
        )
    return out


def _must_come_back(
    judged: Mapping[str, Judged], catalogue: Catalogue, evidence: Collection[str], slo: Slo | None, before: Frame
) -> tuple[str, ...]:
    """Which signals decide: the evidence's symptoms, the SLO if it was ever measured, the client's that were out."""
    roles = {signal.name: signal.role for signal in catalogue}
    led = [name for name in evidence if name in roles]
    symptoms = [name for name in led if roles[name] is Role.SYMPTOM] or led
    promised = [slo[0]] if slo is not None and (slo[0] in judged or len(before.column(slo[0]))) else []
    felt = [
        name
        for name, one in judged.items()
        if one.was_out and one.signal.component == CLIENT and one.signal.role is Role.SYMPTOM
    ]
    return tuple(dict.fromkeys((*symptoms, *promised, *felt)))


def _harmed(judged: Mapping[str, Judged], wanted: Collection[str], cascading: Collection[str]) -> list[Judged]:
    """What was fine and is clearly worse, and what the client suffers beyond what it did before.

    While the fault itself goes on, what it was going to reach is its own doing; once it is gone, nothing is.
    """
    worse = [
        one
        for name, one in judged.items()
        if one.worse
        and one.signal.role is Role.SYMPTOM
        and (one.signal.component == CLIENT or (name not in wanted and not one.was_out))
    ]
    gone = all(judged[name].state is State.BACK for name in wanted if name in judged and judged[name] not in worse)
    return [one for one in worse if gone or one.signal.component not in cascading]


def _at_the_end(
    required: Sequence[Judged], harmed: Sequence[Judged], missing: tuple[str, ...], elapsed: float
) -> tuple[Outcome, tuple[str, ...]]:
    """The verdict at the end of the window, when it is not Healed."""
    if harmed:
        return Outcome.HARMED, tuple(f"{_numbers(one)}: clearly worse than before the action" for one in harmed)
    still = [f"{_numbers(one)}: not back after {human(elapsed)}" for one in required if one.state is State.OUT]
    if still:
        return Outcome.NOT_HEALED, (*still, *missing)
    return Outcome.INCONCLUSIVE, missing or ("no signal led to this action that could be judged: nothing shows a cure",)


def _gaps(required: Sequence[Judged]) -> list[str]:
    return [
        f"{title(one.signal)}: only {one.covered * 100:.0f} % of its samples since the action arrived, half are needed"
        for one in required
        if one.state is State.UNKNOWN
    ]


def _never(catalogue: Catalogue, name: str) -> str:
    signal = catalogue.get(name)
    return f"{title(signal) if signal else name}: the reference has too few samples of it to say what is normal"


def _numbers(one: Judged) -> str:
    """As in "longest lock wait 12 s before, 0 ms after, normally 0 ms"."""
    measure = one.measure
    words = ((measure.before, "{} before"), (measure.after, "{} after"), (measure.reference, "normally {}"))
    parts = [text.format("unknown" if value is None else quantity(value, measure.unit)) for value, text in words]
    return f"{title(one.signal)} {', '.join(parts)}"


def _measure(signal: Signal, before: float, after: Floats, reference: float) -> Measure:
    middle = float(np.median(after)) if len(after) else float("nan")
    return Measure(signal.name, signal.unit, *(None if np.isnan(v) else float(v) for v in (before, middle, reference)))
