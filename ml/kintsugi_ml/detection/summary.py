"""From kept scores to docs/results/detection.json.

    {"made": {"commit", "command", "seeds", "draws", "shipped"},
     SET: {"k0" | "k1" | "k5" | "k10": {METRIC: {"mean", "low", "high"}}},      of the shipped detector
     "baselines": {NAME: {SET: …}},                                             the same of every other
     "differences": {NAME: {SET: {k: {METRIC: …}}}},                            shipped less the other, paired
     "seeds": {NAME: {SET: seeds}},                                             of all, the fewest of any k
     "diagnosis": {SET: {METRIC: …}},                                           kept from kintsugi_ml.lab.diagnosis
     "classes": {SET: {k: {CLASS: AP}}}, "reliability": {SET: {k: [[said, seen, samples], …]}}}

A mean is over folds and seeds; the interval is the 95 % bootstrap over the runs of each fold. null: the data give none.
A difference is over the folds and seeds that both have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import metrics, results
from kintsugi_ml.detection.protocol import Fold, Mask, Run, Source, episode
from kintsugi_ml.detection.results import Judgement, Unit, judgements
from kintsugi_ml.detection.trials import SETS, Set

SHOTS: Final = (0, 1, 5, 10)
COMPARED: Final = ("AP", "F1", "event F1")


Place = tuple[str, int]
"""A fold's name and a seed."""

Key = tuple[tuple[Path, ...], Source, int]
"""Files, and whose examples are left out of what is judged."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one method, set and k: by fold and seed what was judged, and each figure's draws `[W]`."""

    units: Mapping[Place, Sequence[Judgement]]
    draws: Mapping[Place, Mapping[str, Floats]]

    @property
    def seeds(self) -> float:
        """How many there are of each fold; of some there may be one more."""
        return len(self.units) / len({fold for fold, _ in self.units})

    def mean(self, metric: str) -> Floats:
        """A figure's draws `[W]` over all folds and seeds."""
        return results.mean([draws[metric] for draws in self.draws.values()])

    def less(self, other: Figures, metric: str) -> Floats:
        """How much more this has than another `[W]`, on the folds and seeds that both have."""
        both = [place for place in self.draws if place in other.draws]
        mine, theirs = ([one.draws[place][metric] for place in both] for one in (self, other))
        return results.mean(mine) - results.mean(theirs)


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the scores are and what is wanted of them."""

    folder: Path
    names: Sequence[str]
    shipped: str
    seeds: int
    draws: int


def document(folds: Mapping[str, Sequence[Fold]], asked: Asked, workers: int = 1) -> dict[str, Any]:
    """Everything but `made`, of what is there; `folds` by trial. Its sets are worked out in so many processes."""
    wanted = [one for one in SETS if one.trial in folds]
    tested = [[replace(fold, train=[]) for fold in folds[one.trial]] for one in wanted]
    if workers == 1:
        parts = [_of_set(asked, one, known) for one, known in zip(wanted, tested, strict=True)]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            parts = list(pool.map(partial(_of_set, asked), wanted, tested))
    return _together(parts)


def _of_set(asked: Asked, one: Set, folds: Sequence[Fold]) -> dict[str, Any]:
    out = _empty()
    cache: dict[Key, Figures] = {}
    weights = results.resamples({fold.name: len(fold.test) for fold in folds}, asked.draws)
    for k in SHOTS:
        found = {
            name: figures
            for name in asked.names
            if (figures := _figures(asked.folder / one.trial, folds, one, name, k, asked.seeds, weights, cache))
        }
        _tell(out, one.name, f"k{k}", found, asked.shipped)
    return out


def _empty() -> dict[str, Any]:
    return {"baselines": {}, "differences": {}, "seeds": {}, "classes": {}, "reliability": {}}


def _together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of several with different sets; the methods' names stand above those of the sets."""
    out = _empty()
    for part in parts:
        for name, content in part.items():
            if name in ("baselines", "differences", "seeds"):
                for method, sets in content.items():
                    out[name].setdefault(method, {}).update(sets)
            else:
                out.setdefault(name, {}).update(content)
    return out


def _tell(out: dict[str, Any], name: str, k: str, found: Mapping[str, Figures], shipped: str) -> None:
    for method, figures in found.items():
        many, seeds = int(figures.seeds), out["seeds"].setdefault(method, {})
        seeds[name] = min(many, seeds.get(name, many))
        place = out if method == shipped else out["baselines"].setdefault(method, {})
        place.setdefault(name, {})[k] = _numbers(figures)
        if method != shipped and shipped in found:
            apart = {one: asdict(results.interval(found[shipped].less(figures, one))) for one in COMPARED}
            out["differences"].setdefault(method, {}).setdefault(name, {})[k] = apart
    if shipped in found:
        out["classes"].setdefault(name, {})[k] = _per_class(found[shipped].units.values())
        out["reliability"].setdefault(name, {})[k] = _reliability(found[shipped].units.values())


def _figures(
    folder: Path,
    folds: Sequence[Fold],
    one: Set,
    name: str,
    k: int,
    seeds: int,
    weights: Mapping[str, Floats],
    known: dict[Key, Figures],
) -> Figures | None:
    """None unless every fold is there; `known` are those of the same trial and mask by what they were made from."""
    uses = _uses_examples(folder, name)
    source: Source = one.source if uses and k else "none"
    wanted = [Unit(name, fold.name, source, k if uses else 0, seed) for fold in folds for seed in range(seeds)]
    there = [(unit, unit.file(folder)) for unit in wanted if unit.file(folder).exists()]
    if {unit.fold for unit, _ in there} != {fold.name for fold in folds}:
        return None
    others = (one.source, k) if k and not uses else ("none", 0)
    key = (tuple(file for _, file in there), *others)
    if key not in known:
        tests = {fold.name: tuple(fold.test) for fold in folds}
        units = {
            (unit.fold, unit.seed): _judged(file, tests[unit.fold], *others, unit.seed, one.mask)
            for unit, file in there
        }
        draws = {
            place: {metric: figure(judged, weights[place[0]]) for metric, figure in results.FIGURES.items()}
            for place, judged in units.items()
        }
        known[key] = Figures(units, draws)
    return known[key]


def _judged(file: Path, runs: tuple[Run, ...], source: Source, k: int, seed: int, mask: Mask) -> list[Judgement]:
    """A unit's runs; of a method without examples on those samples that the others' `k` examples leave to be judged."""
    kept = results.read(file)
    return judgements(replace(kept, scored=_scored(runs, source, k, seed)) if k else kept, runs, mask)


@lru_cache(maxsize=256)
def _scored(runs: tuple[Run, ...], source: Source, k: int, seed: int) -> tuple[Bools, ...]:
    return tuple(episode(run, source, k, seed, runs).scored for run in runs)


def _uses_examples(folder: Path, name: str) -> bool:
    """Whether anything was scored with examples; a method that uses none has the same scores for every k."""
    of_method = Unit(name, "any", "none", 0, 0).file(folder).parents[1]
    return any(not one.name.startswith("none") for one in of_method.glob("*"))


def _numbers(figures: Figures) -> dict[str, Any]:
    out: dict[str, Any] = {metric: asdict(results.interval(figures.mean(metric))) for metric in results.FIGURES}
    base = float(np.mean([results.base_rate(judged) for judged in figures.units.values()]))
    out["base rate"] = asdict(results.Interval(round(base, 4)))
    counts = [results.harmless(judged) for judged in figures.units.values()]
    hours = sum(one for _, one in counts)
    if hours:
        alarms, clean = sum(one for one, _ in counts) / figures.seeds, hours / figures.seeds
        most = results.most_per_day(alarms, clean)
        out["false alarms per day, harmless"] = {
            "mean": round(alarms * 24 / clean, 2),
            "low": 0.0,
            "high": round(most, 2),
        }
        out["harmless hours"] = asdict(results.Interval(round(clean, 2)))
    return out


def _per_class(units: Collection[Sequence[Judgement]]) -> dict[str, float]:
    """AP of each class' runs, with the normal samples of these runs only; averaged over the seeds."""
    found: dict[str, list[float]] = {}
    for judged in units:
        for group in dict.fromkeys(one.group for one in judged if one.labels.any()):
            own = [one for one in judged if one.group == group]
            found.setdefault(group, []).append(float(results.precision(own, np.ones((1, len(own))))[0]))
    return {group: round(float(np.mean(values)), 4) for group, values in found.items()}


def _reliability(units: Collection[Sequence[Judgement]]) -> list[list[float]]:
    every = [one for judged in units for one in judged]
    scores, labels = np.concatenate([one.scores for one in every]), np.concatenate([one.labels for one in every])
    return [[round(said, 4), round(seen, 4), many] for said, seen, many in metrics.reliability(scores, labels)]


def table(found: Mapping[str, Any]) -> list[str]:
    """A line per set and method: AP and F1 for each k."""
    out = []
    for name in found["classes"]:
        out.append(name)
        rows = {"shipped": found[name]} | {
            method: sets[name] for method, sets in found["baselines"].items() if name in sets
        }
        for method, shots in rows.items():
            cells = [f"{k} {_cell(shots[k], 'AP')} / {_cell(shots[k], 'F1')}" for k in shots]
            out.append(f"  {method:36} " + "   ".join(cells))
    return out


def _cell(figures: Mapping[str, Any], metric: str) -> str:
    mean = figures[metric]["mean"]
    return " – " if mean is None else f"{mean:.3f}"
