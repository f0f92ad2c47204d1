"""What is evaluated on what: the data of each trial, its folds, and the sets that docs/results/detection.json names.

Trials on DBSherlock and on the lab (classes or workloads left out), as recorded, and with the same models judging what
a scrape every 5 s sees. In those on the lab DBSherlock is learned from as well: another engine, other signals. In
`transfer` nothing else is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kintsugi_ml.detection import dbsherlock, lab_v1
from kintsugi_ml.detection.protocol import Fold, Mask, Run, Source, by_class, by_system, every

MOST_FOLDS: Final = 6
"""Folds in which the lab's classes are left out, several at once: there are three dozen with the harmless ones."""

SLOW_S: Final = 5.0

_LONGEST: Final = 80  # characters of a fold's name, which is a file's


@dataclass(frozen=True, slots=True)
class Data:
    """Where the data sets lie."""

    dbsherlock: Path
    lab: Path


@dataclass(frozen=True, slots=True)
class Trial:
    """Data with their folds, which `folds` reads, and where examples come from."""

    name: str
    folds: Callable[[Data], list[Fold]]
    sources: tuple[Source, ...]


def _dbsherlock(data: Data) -> list[Fold]:
    return by_class(dbsherlock.load(data.dbsherlock))


def _slow(folds: Callable[[Data], list[Fold]]) -> Callable[[Data], list[Fold]]:
    """The same folds, judged on what a slower scrape sees."""

    def slowed(data: Data) -> list[Fold]:
        return [Fold(one.name, one.train, [every(run, SLOW_S) for run in one.test]) for one in folds(data)]

    return slowed


def _unseen_class(data: Data) -> list[Fold]:
    return _with(dbsherlock.load(data.dbsherlock), by_class(lab_v1.load(data.lab), MOST_FOLDS))


def _unseen_workload(data: Data) -> list[Fold]:
    return _with(dbsherlock.load(data.dbsherlock), by_system(lab_v1.load(data.lab)))


def _transfer(data: Data) -> list[Fold]:
    return _with(dbsherlock.load(data.dbsherlock), [Fold("lab", [], lab_v1.load(data.lab))])


def _with(more: list[Run], folds: Sequence[Fold]) -> list[Fold]:
    """Folds with more to learn from, named after their runs too: the lab's grow, and scores of fewer are stale then."""
    out = []
    for fold in folds:
        runs = " ".join(run.name for run in (*fold.train, *fold.test))
        name = f"{fold.name[:_LONGEST]} {zlib.crc32(runs.encode()):08x}"
        out.append(Fold(name, [*fold.train, *more], fold.test))
    return out


TRIALS: Final = (
    Trial("dbsherlock", _dbsherlock, ("same", "other", "strict", "normals")),
    Trial("dbsherlock-5s", _slow(_dbsherlock), ("same",)),
    Trial("lab-class", _unseen_class, ("same", "other")),
    Trial("lab-workload", _unseen_workload, ("same", "other")),
    Trial("lab-workload-5s", _slow(_unseen_workload), ("same",)),
    Trial("transfer", _transfer, ("same",)),
)


STATISTICAL: Final = "the operator's statistical detector"
"""Scored by tests/bench/statistical.py on the lab's trials: this package knows nothing of the operator."""


@dataclass(frozen=True, slots=True)
class Set:
    """What a name in the results means: a trial, which samples are not judged, and where the examples came from."""

    name: str
    trial: str
    mask: Mask
    source: Source


SETS: Final = (
    Set("dbsherlock raw", "dbsherlock", "nothing", "same"),
    Set("dbsherlock masked", "dbsherlock", "doubtful", "same"),
    Set("dbsherlock raw, other run", "dbsherlock", "nothing", "other"),
    Set("dbsherlock masked, other run", "dbsherlock", "doubtful", "other"),
    Set("dbsherlock masked, edges too", "dbsherlock", "edges", "same"),
    Set("dbsherlock masked, edges too, other run", "dbsherlock", "edges", "other"),
    Set("dbsherlock masked, only what follows the examples", "dbsherlock", "doubtful", "strict"),
    Set("dbsherlock masked, normal examples only", "dbsherlock", "doubtful", "normals"),
    Set("dbsherlock 5 s", "dbsherlock-5s", "doubtful", "same"),
    Set("lab unseen class", "lab-class", "doubtful", "same"),
    Set("lab unseen class, other run", "lab-class", "doubtful", "other"),
    Set("lab unseen workload", "lab-workload", "doubtful", "same"),
    Set("lab unseen workload, other run", "lab-workload", "doubtful", "other"),
    Set("lab unseen workload 5 s", "lab-workload-5s", "doubtful", "same"),
    Set("lab, learned on DBSherlock only", "transfer", "doubtful", "same"),
)
