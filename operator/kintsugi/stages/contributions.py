"""What a verdict says: which signals are out of their bands, by how much, in numbers and words; and the components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from kintsugi.domain.anomaly import Contribution
from kintsugi.domain.signals import Hurts, Signal
from kintsugi.domain.text import quantity
from kintsugi.stages.evidence import EDGE, Model, Rows, score

MOST: Final = 12
"""Contributions shown."""


def components(model: Model, rows: Rows, *, flagged: bool) -> Mapping[str, float]:
    """Each component's score: its worst signal. The workload's own signals count only while something is wrong."""
    counted = model.symptoms | model.causes
    out: dict[str, float] = {}
    for signal, ratio, counts in zip(model.normal.signals, rows.held[-1], counted, strict=True):
        seen = score(float(ratio)) if counts or (flagged and signal.hurts is not Hurts.BOTH) else 0.0
        out[signal.component] = max(out.get(signal.component, 0.0), seen)
    return out


def contributions(model: Model, rows: Rows, first_at: Mapping[str, float]) -> tuple[Contribution, ...]:
    """The signals beyond the edge of their bands, the furthest out first, and each component's first departure."""
    order = np.argsort(-rows.held[-1], kind="stable")
    chosen = [int(index) for index in order if rows.held[-1, index] >= EDGE][:MOST]
    chosen += [index for index in _first_of_each(model, rows, first_at) if index not in chosen]
    return tuple(_contribution(model, rows, index, first_at) for index in chosen)


def _first_of_each(model: Model, rows: Rows, first_at: Mapping[str, float]) -> list[int]:
    """Per component, the signal that left its band first in this incident, where it was measured lately."""
    first: dict[str, int] = {}
    for index, signal in enumerate(model.normal.signals):
        if signal.name not in first_at or np.isnan(rows.values[:, index]).all():
            continue
        known = first.get(signal.component)
        if known is None or first_at[signal.name] < first_at[model.normal.signals[known].name]:
            first[signal.component] = index
    return list(first.values())


def _contribution(model: Model, rows: Rows, index: int, first_at: Mapping[str, float]) -> Contribution:
    signal, reference = model.normal.signals[index], float(model.normal.median[index])
    newest = int(np.flatnonzero(~np.isnan(rows.values[:, index]))[-1])
    value, deviation = float(rows.values[newest, index]), float(rows.deviation[newest, index])
    return Contribution(
        signal=signal.name,
        component=signal.component,
        deviation=deviation,
        value=value,
        reference=reference,
        unit=signal.unit,
        sentence=_sentence(signal, value, reference, deviation),
        first_at=first_at.get(signal.name),
    )


def _sentence(signal: Signal, value: float, reference: float, deviation: float) -> str:
    """As in "lock wait age 12 s, normally 0 ms (24 σ)"."""
    if signal.name.endswith("_up") and value < 0.5:
        return f"{signal.name.removesuffix('_up')} does not answer"
    sigmas = f"{deviation:.0f} σ" if deviation < 1000 else "> 1000 σ"
    return f"{title(signal)} {quantity(value, signal.unit)}, normally {quantity(reference, signal.unit)} ({sigmas})"


def title(signal: Signal) -> str:
    """What a signal is called in a sentence: its name as words, without the unit that follows the number."""
    words = signal.name.replace("_", " ")
    return words.removesuffix(f" {signal.unit}")
