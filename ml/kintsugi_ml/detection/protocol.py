"""How detectors are compared: one protocol for all of them, learned or not.

- **Split by class, or by system**: a method is trained on all classes but some and judged on these (`Fold`), or on all
  systems but one; never by time.
- **Few shots**: k anomalous and k normal samples of the same run, or of another run of the same class. The anomalous
  ones are the first of their event. What is an example is never scored.
- **Thresholds**, one for samples and one for events, come from the training classes only; nothing is ever tuned on the
  class that is judged.
- **No point adjustment**; every sample counts, those of the reference too.
- **Doubtful labels** are left out of training, and the figures are given with and without them.

A method that fits here needs three things: a name, `train` and `score`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.metrics import best_event_threshold, best_threshold, spans

REFERENCE_S = 25.0
"""Seconds at the start of a run that are its reference."""

SLACK_S = 3.0
"""By so much may an alarm miss an event's edge."""

Mask = Literal["nothing", "doubtful", "edges"]
"""Samples that are not judged: none, those of doubtful labels, or also those within `SLACK_S` of a label's edge, which
was set by hand or by a script's clock, while every mean over some seconds lags behind it."""

Source = Literal["none", "same", "other", "strict", "normals"]
"""Where the examples come from. `same` run: the k normal ones at random; `strict`: they precede the last anomalous
example, and what is scored comes after it; `other`: another run of the class; `normals`: k normal ones of the same run
and no anomalous ones. A run in which all is normal has no anomalous ones to give: for it `same` and `strict` mean those
of a fault on the same system."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One recorded run: values `[T, S]` (NaN missing), `labels` `[T]`, True where something was wrong.

    `doubtful` `[T]` marks samples whose label can't be trusted. `group` is the fault class, `system` what was measured.
    `interval` is in seconds.
    """

    name: str
    system: str
    group: str
    signals: tuple[str, ...]
    values: Floats
    labels: Bools
    doubtful: Bools
    interval: float = 1.0

    @property
    def reference(self) -> int:
        """How many samples at the start are the reference: never any that is anomalous."""
        wanted = round(REFERENCE_S / self.interval)
        first = int(np.argmax(self.labels)) if self.labels.any() else len(self.labels)
        return max(min(wanted, first), 1)


def left_out(run: Run, mask: Mask) -> Bools:
    """Which samples `[T]` of a run are not judged."""
    if mask == "nothing":
        return np.zeros_like(run.labels)
    if mask == "doubtful":
        return run.doubtful
    reach = round(SLACK_S / run.interval)
    out = run.doubtful.copy()
    for first, last in spans(run.labels):
        for edge in (first, last + 1):
            out[max(edge - reach, 0) : edge + reach] = True
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """The examples: rows `[K]` of a run, and which of them are anomalous `[K]`."""

    run: Run
    rows: NDArray[np.int64]
    labels: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A run to be scored, with its examples; `scored` `[T]` says which samples count."""

    run: Run
    support: Support | None
    scored: Bools


class Judged(NamedTuple):
    """Scores `[T]`, higher where something is wrong and never NaN; from which on a sample is called anomalous, and from
    which on an alarm is raised.
    """

    scores: Floats
    threshold: float
    alarm: float


class Thresholds(NamedTuple):
    """Learned from training runs: the best one per sample, and the best one per event."""

    sample: float
    event: float


class Trained(Protocol):
    """A method that has been trained."""

    def score(self, episode: Episode) -> Judged:
        """Judge every sample of the episode's run."""


class Method(Protocol):
    """A way to detect."""

    @property
    def name(self) -> str:
        """What it is called in tables and folders."""

    @property
    def uses_examples(self) -> bool:
        """Whether an episode's examples make any difference to it."""

    @property
    def probabilities(self) -> bool:
        """Whether its scores are calibrated probabilities."""

    def train(self, runs: Sequence[Run], seed: int) -> Trained:
        """Learn whatever can be learned from these runs alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What is learned from, and what is judged."""

    name: str
    train: list[Run]
    test: list[Run]


def classes(run: Run) -> frozenset[str]:
    """The classes in a run: two of a compound one, whose group joins them by `+`."""
    return frozenset(run.group.split("+"))


def by_class(runs: Sequence[Run], most: int | None = None) -> list[Fold]:
    """Folds that leave classes out: one class each, or as many at once as keep the folds at `most`.

    A run in which one class of the fold takes part, beside others, is in neither half.
    """
    known = list(dict.fromkeys(run.group for run in runs))
    many = len(known) if most is None else min(most, len(known))
    out = []
    for number in range(many):
        left = known[number::many]
        own = frozenset[str]().union(*(group.split("+") for group in left))
        test = [run for run in runs if run.group in left]
        out.append(Fold(", ".join(left), [run for run in runs if not classes(run) & own], test))
    return out


def by_system(runs: Sequence[Run]) -> list[Fold]:
    """Folds that leave one system out each."""
    known = dict.fromkeys(run.system for run in runs)
    return [Fold(one, [r for r in runs if r.system != one], [r for r in runs if r.system == one]) for one in known]


def donors(run: Run, runs: Sequence[Run]) -> list[Run]:
    """Of `runs` those that may give a run's examples: others of its class; if all of it is normal, of its system."""
    if run.labels.any():
        return [one for one in runs if one.group == run.group and one.name != run.name]
    return [one for one in runs if one.system == run.system and one.labels.any() and one.name != run.name]


def episode(run: Run, source: Source, k: int, seed: int, others: Sequence[Run] = ()) -> Episode:
    """The episode of a run; the same arguments always give the same one.

    Args:
        run: what is scored.
        source: where the examples come from; with `none`, or k = 0, there are none.
        k: examples of each kind, fewer where a run has fewer.
        seed: of the choice.
        others: runs among which `other` finds one of the same class; without one nothing is scored.
    """
    everything = np.ones(len(run.labels), dtype=np.bool_)
    if source == "none" or k == 0:
        return Episode(run, None, everything)
    random = np.random.default_rng([seed, k, zlib.crc32(run.name.encode())])
    if source == "other" or (source in ("same", "strict") and not run.labels.any()):
        found = donors(run, others)
        if not found:
            return Episode(run, None, ~everything)
        return Episode(run, support(found[int(random.integers(len(found)))], k, random), everything)
    chosen = support(run, k, random, before=source == "strict", anomalous=source != "normals")
    scored = everything.copy()
    scored[chosen.rows] = False
    if source == "strict":
        scored[: int(chosen.rows.max(initial=-1)) + 1] = False
    return Episode(run, chosen, scored)


def support(run: Run, k: int, random: np.random.Generator, *, before: bool = False, anomalous: bool = True) -> Support:
    """The first k anomalous samples of a run and k random normal ones, none of them from its reference or doubtful."""
    wrong = np.flatnonzero(run.labels & ~run.doubtful)[: k if anomalous else 0]
    allowed = ~run.labels & ~run.doubtful
    allowed[: run.reference] = False
    if before and len(wrong):
        allowed[wrong[-1] :] = False
    pool = np.flatnonzero(allowed)
    normal = np.sort(random.permutation(pool)[:k])
    rows = np.concatenate([wrong, normal]).astype(np.int64)
    return Support(run, rows, np.arange(len(rows)) < len(wrong))


def thresholds(scores: Sequence[Floats], labels: Sequence[Bools], interval: float, beta: float = 1.0) -> Thresholds:
    """Both thresholds, from the scores `[T]` and labels `[T]` of several runs sampled every `interval` seconds.

    For alarms recall counts `beta` times as much as precision.
    """
    sample = best_threshold(np.concatenate(list(scores)), np.concatenate(list(labels)))
    return Thresholds(sample, best_event_threshold(scores, labels, round(SLACK_S / interval), beta))


def every(run: Run, seconds: float) -> Run:
    """The same run as a slower scrape would have seen it."""
    step = max(1, round(seconds / run.interval))
    kept = slice(step - 1, None, step)
    return replace(
        run,
        values=run.values[kept],
        labels=run.labels[kept],
        doubtful=run.doubtful[kept],
        interval=run.interval * step,
    )


def part(run: Run, start: int) -> Run:
    """The same run without its first samples."""
    if start == 0:
        return run
    return replace(run, values=run.values[start:], labels=run.labels[start:], doubtful=run.doubtful[start:])
