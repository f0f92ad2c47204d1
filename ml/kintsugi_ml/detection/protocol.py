"""How detectors are compared: one protocol for all of them, learned or not.

- **Split by class**: a method is trained on all classes but one and judged on that one (`leave_one_out`).
- **Few shots**: k anomalous and k normal samples of the same run, or of another run of the same class. The anomalous
  ones are the first of their event. What is an example is never scored.
- **Thresholds** come from the training classes only; nothing is ever tuned on the class that is judged.
- **No point adjustment**; every sample counts, those of the reference too unless they are left out of the summary.
- **Doubtful labels** are left out of training, and the figures are given with and without them.

A method that fits here needs three things: a name, `train` and `score`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats

REFERENCE_S = 25.0
"""Seconds at the start of a run that are its reference."""

Source = Literal["none", "same", "other", "strict", "normals"]
"""Where the examples come from. `same` run: the k normal ones at random; `strict`: they precede the last anomalous
example, and what is scored comes after it; `other`: another run of the class; `normals`: k normal ones of the same run
and no anomalous ones."""


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
    """Scores `[T]`, higher where something is wrong and never NaN, and from which score on a sample is flagged."""

    scores: Floats
    threshold: float


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


def leave_one_out(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run], list[Run]]]:
    """Each class with the runs of all others (to train on) and its own (to be judged on)."""
    for group in dict.fromkeys(run.group for run in runs):
        yield group, [run for run in runs if run.group != group], [run for run in runs if run.group == group]


def episode(run: Run, source: Source, k: int, seed: int, others: Sequence[Run] = ()) -> Episode:
    """The episode of a run; the same arguments always give the same one.

    Args:
        run: what is scored.
        source: where the examples come from; with `none`, or k = 0, there are none.
        k: examples of each kind, fewer where a run has fewer.
        seed: of the choice.
        others: further runs of the same class, of which `other` takes one.
    """
    everything = np.ones(len(run.labels), dtype=np.bool_)
    if source == "none" or k == 0:
        return Episode(run, None, everything)
    random = np.random.default_rng([seed, k, zlib.crc32(run.name.encode())])
    donors = [one for one in others if one.name != run.name]
    if source == "other" and donors:
        return Episode(run, support(donors[int(random.integers(len(donors)))], k, random), everything)
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
