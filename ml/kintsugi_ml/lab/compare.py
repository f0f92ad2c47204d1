"""Whether a fresh run of a class is like the recorded ones. The rule, once:

- its gate passed;
- its client factor lies within the recorded range widened by half (lowest / 1.5 to highest × 1.5), over all runs of the
  class: the gate judges a ramp at its height, so its form makes no difference;
- the onset at its root lies within the recorded range widened likewise, and by `TOGETHER_SECONDS` for the sampling;
- one of its first movers has been a first mover before;
- of the pairs of components that always moved in the same order, at least three in four did so again.

The last three are compared with runs of the same class, form and workload; where those are fewer than three, with all
workloads'. `left_out` says what the rule is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from kintsugi_ml.lab.cascades import by_class
from kintsugi_ml.lab.manifest import TOGETHER_SECONDS, Entry

WIDENED: Final = 1.5
ORDER_SHARE: Final = 0.75
ENOUGH: Final = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the rule: whether it holds, and the numbers, in a sentence."""

    within: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each part of the rule said; `peers` are the recorded runs it was compared with."""

    peers: tuple[Entry, ...]
    findings: tuple[Finding, ...]

    @property
    def within(self) -> bool:
        """Whether the fresh run is like the recorded ones."""
        return bool(self.peers) and all(finding.within for finding in self.findings)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Of recorded runs, each left out in turn, how many are like the others of their class, and like another class."""

    own: int
    own_alike: int
    others: int
    others_alike: int


def compare(fresh: Entry, recorded: Iterable[Entry]) -> Comparison:
    """Judge a fresh run against the recorded ones."""
    same = [run for run in recorded if run.counts and (run.fault, run.second) == (fresh.fault, fresh.second)]
    peers = peers_of(fresh, same)
    if not peers:
        missing = Finding(False, f"no run of {fresh.fault}, {fresh.form}, is recorded that counts; record it first")
        return Comparison((), (missing,))
    findings = (
        _gate(fresh),
        _client(fresh, same),
        _root(fresh, peers),
        _first(fresh, peers),
        _order(fresh, peers),
    )
    return Comparison(tuple(peers), tuple(finding for finding in findings if finding is not None))


def left_out(recorded: Iterable[Entry]) -> LeftOut:
    """What the rule says of the recorded runs themselves: how often it is wrong, and how easily it is right."""
    runs = [run for same in by_class(recorded).values() for run in same if not run.negative]
    faults = sorted({run.fault for run in runs})
    own: list[bool] = []
    others: list[bool] = []
    for run in runs:
        rest = [one for one in runs if one is not run]
        for fault in faults:
            judged = compare(run.model_copy(update={"fault": fault}), rest)
            if judged.peers:
                (own if fault == run.fault else others).append(judged.within)
    return LeftOut(len(own), sum(own), len(others), sum(others))


def peers_of(fresh: Entry, same: Iterable[Entry]) -> list[Entry]:
    """Of the class' runs, those whose course the fresh one is to be like."""
    alike = [run for run in same if run.form == fresh.form]
    same_workload = [run for run in alike if run.workload == fresh.workload]
    return same_workload if len(same_workload) >= ENOUGH else alike


def _gate(fresh: Entry) -> Finding:
    if fresh.gate is None:
        return Finding(False, f"there is no verdict of the gate: the run {fresh.status} ({fresh.reason})")
    return Finding(fresh.gate.passed, f"gate {'passed' if fresh.gate.passed else 'failed'}: {fresh.gate.sentence}")


def _client(fresh: Entry, same: Sequence[Entry]) -> Finding | None:
    known = [factor for run in same if run.gate and (factor := run.gate.client_factor) is not None]
    if not known:
        return None
    now = fresh.gate.client_factor if fresh.gate else None
    low, high = min(known) / WIDENED, max(known) * WIDENED
    within = now is not None and low <= now <= high
    return Finding(within, f"client factor {_shown(now, '×')}, recorded {min(known):.2g}–{max(known):.2g}×")


def _root(fresh: Entry, peers: Sequence[Entry]) -> Finding | None:
    root = peers[0].root
    known = [onset for run in peers if root and (onset := run.onsets.get(root)) is not None]
    if not known:
        return None
    now = fresh.onsets.get(str(root))
    low, high = min(known) / WIDENED - TOGETHER_SECONDS, max(known) * WIDENED + TOGETHER_SECONDS
    within = len(known) < len(peers) if now is None else low <= now <= high
    return Finding(within, f"{root} moved after {_shown(now, ' s')}, recorded {min(known):.1f}–{max(known):.1f} s")


def _first(fresh: Entry, peers: Sequence[Entry]) -> Finding | None:
    known = frozenset().union(*(run.first_movers() for run in peers))
    if not known:
        return None
    now = fresh.first_movers()
    return Finding(bool(now & known), f"first mover {_listed(now)}, recorded {_listed(known)}")


def _order(fresh: Entry, peers: Sequence[Entry]) -> Finding | None:
    always = set.intersection(*(set(_ordered(run)) for run in peers))
    comparable = [pair for pair in always if set(pair) <= dict(fresh.movers()).keys()]
    if not comparable or len(peers) < ENOUGH:
        return None
    reversed_ = [pair for pair in comparable if pair[::-1] in set(_ordered(fresh))]
    kept = len(comparable) - len(reversed_)
    turned = "".join(f"; now {later} moved before {earlier}" for earlier, later in sorted(reversed_))
    return Finding(
        kept >= ORDER_SHARE * len(comparable), f"{kept} of {len(comparable)} pairs in the recorded order{turned}"
    )


def _ordered(run: Entry) -> Iterator[tuple[str, str]]:
    """The pairs of components of which the first clearly moved before the second."""
    for (one, early), (other, late) in permutations(run.movers(), 2):
        if late - early > TOGETHER_SECONDS:
            yield one, other


def _shown(value: float | None, unit: str) -> str:
    return "never" if value is None else f"{value:.2g}{unit}"


def _listed(names: Iterable[str]) -> str:
    return " or ".join(sorted(names)) or "none"
