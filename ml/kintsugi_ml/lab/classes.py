"""All classes of the lab by name: faults, hard negatives, and how a planned run becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from random import Random
from types import ModuleType
from typing import Final

from kintsugi_ml.lab import negatives
from kintsugi_ml.lab.compound import Compound
from kintsugi_ml.lab.faults import (
    bloat,
    connections,
    host,
    indexes,
    load,
    locks,
    network,
    queries,
    replication,
    statistics,
    storage,
    wal,
)
from kintsugi_ml.lab.faults.base import Fault
from kintsugi_ml.lab.noise import NOISES
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.plan import NULL, Classes
from kintsugi_ml.lab.workloads import WORKLOADS
from kintsugi_ml.lab.world import World


def _faults_of(*modules: ModuleType) -> Iterator[type[Fault]]:
    for module in modules:
        for _, kind in sorted(inspect.getmembers(module, inspect.isclass), key=lambda item: item[1].__qualname__):
            if issubclass(kind, Fault) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                yield kind


FAULTS: Final[dict[str, type[Fault]]] = {
    kind.name: kind
    for kind in _faults_of(
        indexes, queries, statistics, locks, connections, bloat, wal, storage, replication, network, load, host
    )
}
NEGATIVES: Final[dict[str, type[Fault]]] = {kind.name: kind for kind in _faults_of(negatives)}


def known() -> Classes:
    """What a plan chooses from."""
    return Classes(
        faults=tuple(FAULTS),
        negatives=tuple(NEGATIVES),
        workloads=tuple(WORKLOADS),
        noises=tuple(NOISES),
        forms={name: kind.forms for name, kind in {**FAULTS, **NEGATIVES}.items()},
    )


def kind_of(name: str) -> type[Fault]:
    """The class called `name`; KeyError with the names that there are."""
    try:
        return {**FAULTS, **NEGATIVES}[name]
    except KeyError:
        raise KeyError(f"no fault is called {name!r}; there are {', '.join((*FAULTS, *NEGATIVES))}") from None


def make(planned: Planned, world: World, random: Random) -> Fault | None:
    """The fault of a run; None for a null run."""
    if planned.fault == NULL:
        return None
    first = kind_of(planned.fault)(world, planned.severity, random)
    if planned.second is None:
        return first
    return Compound(first, kind_of(planned.second)(world, planned.severity, random))


def unavailable(planned: Planned, world: World) -> str | None:
    """Why this machine can't have the run; None where it can."""
    names = [name for name in (planned.fault, planned.second) if name is not None and name != NULL]
    return next((reason for name in names if (reason := kind_of(name).unavailable(world)) is not None), None)
