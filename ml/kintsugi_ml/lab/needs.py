"""Which runs a data set still needs when all that was planned is there, and which remedies were tried least.

Pure: what is recorded in, a choice out. A run that fails its gate is not made good by forgetting it: it stays, counts
against its class' rate, and the class gets another one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from kintsugi_ml.lab.manifest import NOTHING, NULL, Entry
from kintsugi_ml.lab.parts import Planned

ENOUGH: Final = 6
"""Runs that count which a fault class needs."""
ENOUGH_HARMLESS: Final = 3
GATE_RATE: Final = Fraction(4, 5)
"""The share of a class' judged runs that has to count. One below it was mended, or is called weak."""
WRONG: Final = 2
"""Different wrong remedies which a fault class needs."""


def spare_needed(spare: Sequence[Planned], known: Sequence[Entry]) -> list[Planned]:
    """What of `spare` is to be recorded, in its order; those that are recorded already are among them."""
    chosen = {planned.id for fault in sorted({one.fault for one in known}) for planned in _of(fault, spare, known)}
    return [planned for planned in spare if planned.id in chosen]


def tried(planned: Planned, known: Sequence[Entry]) -> Mapping[str, int]:
    """How often each action was tried in runs of this class that count."""
    return Counter(run.remedy.action for run in _single(planned.fault, known) if run.counts and run.remedy)


def remedied(planned: Planned, missing: Sequence[Planned], known: Sequence[Entry]) -> Planned:
    """`planned`, with a wrong remedy when what else is `missing` would leave its class with too few different ones."""
    own = _single(planned.fault, known)
    if planned.second is not None or planned.fault == NULL or not own or own[0].negative:
        return planned
    coming = sum(
        one.remedy == "wrong" and one.second is None and one.fault == planned.fault and one.id != planned.id
        for one in missing
    )
    return replace(planned, remedy="wrong") if len(_wrong(own)) + coming < WRONG else planned


def _of(fault: str, spare: Sequence[Planned], known: Sequence[Entry]) -> list[Planned]:
    own = _single(fault, known)
    if fault == NULL or not own:
        return []
    there = {run.id for run in known}
    mine = [planned for planned in spare if planned.fault == fault and planned.second is None]
    done = [planned for planned in mine if planned.id in there]
    left = [planned for planned in mine if planned.id not in there]
    counting = sum(run.counts for run in own)
    failed = sum(run.status == "gate-failed" for run in own)
    wanted = max(ENOUGH_HARMLESS if own[0].negative else ENOUGH, math.ceil(failed * GATE_RATE / (1 - GATE_RATE)))
    lacking = max(0, wanted - counting)
    chosen = left[:lacking]
    if not own[0].negative and len(_wrong(own)) < WRONG and not any(one.remedy == "wrong" for one in chosen):
        chosen += [one for one in left[lacking:] if one.remedy == "wrong"][:1]
    return done + chosen


def _wrong(runs: Sequence[Entry]) -> set[str]:
    """The wrong actions that were tried; doing nothing is none."""
    return {
        run.remedy.action
        for run in runs
        if run.counts and run.remedy and not run.remedy.right and run.remedy.action != NOTHING
    }


def _single(fault: str, known: Sequence[Entry]) -> list[Entry]:
    return [run for run in known if run.fault == fault and run.second is None]
