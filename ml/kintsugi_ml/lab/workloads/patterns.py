"""How the load changes over a run without anything being wrong: a factor on the base rate over time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

SLOT_SECONDS: Final = 30.0
"""One burst of `spikes` falls into each half minute."""
GROWTH_SECONDS: Final = 180.0
"""`growth` takes longer than any run (the longest: 6 + 34 + 82 + 26 s)."""


def factor(pattern: str, t: float, seed: int) -> float:
    """What the rate is multiplied by, `t` seconds after the pattern began; KeyError for a pattern there is not."""
    return PATTERNS[pattern](t, seed)


def _steady(t: float, seed: int) -> float:
    del t, seed
    return 1.0


def _wave(t: float, seed: int) -> float:
    random = Random(seed)
    period, phase = random.uniform(60, 120), random.uniform(0, 2 * math.pi)
    return 1 + 0.25 * math.sin(2 * math.pi * t / period + phase)


def _spikes(t: float, seed: int) -> float:
    slot = math.floor(t / SLOT_SECONDS)
    random = Random(f"{seed}/{slot}")
    length = random.uniform(4, 8)
    begin = random.uniform(0, SLOT_SECONDS - length)
    return 1.5 if begin <= t - slot * SLOT_SECONDS < begin + length else 1.0


def _growth(t: float, seed: int) -> float:
    del seed
    return 0.85 + (1.2 - 0.85) * min(1.0, max(0.0, t / GROWTH_SECONDS))


PATTERNS: Final[Mapping[str, Callable[[float, int], float]]] = {
    "steady": _steady,
    "wave": _wave,
    "spikes": _spikes,
    "growth": _growth,
}
