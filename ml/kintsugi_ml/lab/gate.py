"""The effect gate: whether what was injected has hurt, against the run's own normal part.

Pure. Of an abrupt fault all of it counts, of a ramped one its second half, when it is at its height. A hard negative
passes the other way round: it took place, and the client did not suffer. It may be short (a lock wait of two seconds),
so the peaks of its signal are compared instead of the means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue, Hurts, Signal
from kintsugi_ml.lab.clienttrack import Requests
from kintsugi_ml.lab.faults.base import Effect
from kintsugi_ml.lab.parts import Form, Parts

LATENCY: Final = "client_latency_p95"
"""The catalogue's signal whose floor a rise of the client's p95 has to pass, too."""
HARMLESS_FACTOR: Final = 1.5
HARMLESS_FAILURES: Final = 0.01
"""What a hard negative may do to the client: p95 and the share of failed requests."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdict. Factors say how much worse than normal; None where there was nothing to compare."""

    passed: bool
    client_factor: float | None
    signal_factor: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class _Client:
    """What clients felt in a part: p95 of latency (s) and the share of due requests that were answered."""

    p95: float
    answered: float


def judge(
    effect: Effect,
    negative: bool,
    parts: Parts,
    client: Requests,
    frame: Frame,
    catalogue: Catalogue,
    *,
    form: Form,
    failed: str | None = None,
) -> Gate:
    """Whether the run shows the effect that its class promises (or, for a hard negative, that it is harmless).

    `failed` says what ended a hard negative before its time: harmless is only what took place.
    """
    start = _height(parts, form)
    normal = _felt(client.between(parts.normal, parts.injected))
    fault = _felt(client.between(start, parts.remedied))
    factor, felt = _client(normal, fault, catalogue)
    moved, of_signal = _signal(effect, negative, parts, start, frame, catalogue)
    signal_passed = moved is not None and moved >= effect.factor
    sentence = "; ".join(part for part in (felt, of_signal) if part)
    if negative:
        passed, why = _harmless(factor, fault, effect.signal is None or signal_passed, failed)
        return Gate(passed, factor, moved, f"{sentence}; {why}.")
    hurt = effect.client is not None and factor is not None and factor >= effect.client
    return Gate(hurt or signal_passed, factor, moved, f"{sentence}.")


def _height(parts: Parts, form: Form) -> float:
    """From when on the fault part counts."""
    return parts.injected if form == "abrupt" else (parts.injected + parts.remedied) / 2


def _felt(requests: Requests) -> _Client | None:
    if len(requests) == 0:
        return None
    return _Client(float(np.percentile(requests.latency, 95)), float(requests.ok.mean()))


def _client(normal: _Client | None, fault: _Client | None, catalogue: Catalogue) -> tuple[float | None, str]:
    """How much worse the client fared: the larger of p95's rise (if past its floor) and the answered share's fall."""
    if normal is None or fault is None or normal.answered == 0:
        return None, "the clients have no requests to compare"
    signal = catalogue.get(LATENCY)
    slower = fault.p95 / max(normal.p95, 1e-6) if fault.p95 - normal.p95 > (signal.floor if signal else 0.0) else 1.0
    # Against what was due, not per second: offered load changes by itself (patterns.py).
    fewer = normal.answered / max(fault.answered, 1e-3)
    words = f"the client's p95 went from {normal.p95 * 1000:.0f} to {fault.p95 * 1000:.0f} ms"
    return max(slower, fewer), f"{words}, answered requests from {normal.answered:.1%} to {fault.answered:.1%}"


def _signal(
    effect: Effect, negative: bool, parts: Parts, start: float, frame: Frame, catalogue: Catalogue
) -> tuple[float | None, str | None]:
    """By what factor the class' signal moved into the direction that hurts; 1 when by less than its floor."""
    if effect.signal is None:
        return None, None
    signal = catalogue.get(effect.signal)
    if signal is None:
        return None, f"there is no signal {effect.signal}"
    normal = frame.between(parts.normal, parts.injected).column(signal.name)
    fault = frame.between(start, parts.remedied).column(signal.name)
    if len(normal) == 0 or len(fault) == 0:
        return None, f"{signal.name} was not measured"
    before, after = (_peak(part, signal) if negative else float(part.mean()) for part in (normal, fault))
    words = f"{signal.name} went from {before:.4g} to {after:.4g} {signal.unit}"
    return factor_of(before, after, signal), words


def _peak(values: Floats, signal: Signal) -> float:
    return float(values.min() if signal.hurts is Hurts.DOWN else values.max())


def factor_of(before: float, after: float, signal: Signal) -> float:
    """The ratio of two means, each at least the floor, so that a rise from nothing is a number."""
    if abs(after - before) <= signal.floor:
        return 1.0
    up = max(after, signal.floor) / max(before, signal.floor)
    match signal.hurts:
        case Hurts.UP:
            return up
        case Hurts.DOWN:
            return 1 / up
        case Hurts.BOTH:
            return max(up, 1 / up)


def _harmless(factor: float | None, fault: _Client | None, took_place: bool, failed: str | None) -> tuple[bool, str]:
    if factor is None or fault is None:
        return False, "whether the client suffered is unknown"
    if failed is not None:
        return False, f"it did not take place: {failed}"
    if not took_place:
        return False, "it did not take place"
    if factor > HARMLESS_FACTOR or 1 - fault.answered > HARMLESS_FAILURES:
        return False, "the client suffered, which a hard negative must not cause"
    return True, "it took place and the client did not suffer"
