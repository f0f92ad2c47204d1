"""Which runs make up the data set, in which order; always the same for the same seed.

The runs come in passes: each has every class once, so that the set is balanced wherever it is interrupted. From pass to
pass a class changes its workload, its form, its remedy and the server's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeVar

from kintsugi_ml.lab.parts import Planned

T = TypeVar("T")

NULL: Final = "null"
Level = Literal["low", "high"]
Remedied = Literal["right", "wrong", "nothing"]
LEVELS: Final[tuple[Level, ...]] = ("low", "high")
PATTERNS: Final = ("steady", "wave", "spikes", "growth")
REMEDIES: Final[tuple[Remedied, ...]] = ("right", "wrong", "nothing", "right", "wrong", "right", "nothing")
NEGATIVE_REMEDIES: Final[tuple[Remedied, ...]] = ("nothing", "wrong")
NULLS_PER_PASS: Final = 2
COMPOUNDS_PER_PASS: Final = 2
NEGATIVES_PER_PASS: Final = 6
NOISE_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Classes:
    """What there is to choose from, by name; `forms` says which forms a class has."""

    faults: Sequence[str]
    negatives: Sequence[str]
    workloads: Sequence[str]
    noises: Sequence[str]
    forms: dict[str, tuple[str, ...]]


def plan(classes: Classes, *, passes: int, seed: int, servers: Sequence[int]) -> list[Planned]:
    """All runs in the order in which they are carried out: pass by pass, in blocks of one workload and level."""
    forms = {
        name: _cycle(classes.forms.get(name, ("abrupt",)), passes, f"{seed}/form/{name}") for name in _names(classes)
    }
    remedies = {name: _cycle(_remedies(classes, name), passes, f"{seed}/remedy/{name}") for name in _names(classes)}
    runs: list[Planned] = []
    for number in range(passes):
        random = Random(f"{seed}/{number}")
        for workload, level, members in _blocks(classes, number, random):
            for fault, second in members:
                runs.append(
                    Planned(
                        id=f"p{number}-{len(runs):03d}-{fault}" + (f"+{second}" if second else ""),
                        fault=fault,
                        form="ramped" if forms[fault][number] == "ramped" else "abrupt",
                        workload=workload,
                        level=level,
                        pattern=random.choice(PATTERNS),
                        severity=round(random.uniform(0.25, 1.0), 2),
                        seed=random.randrange(2**31),
                        remedy=remedies[fault][number],
                        server=servers[number % len(servers)],
                        second=second,
                        noise=random.choice(list(classes.noises)) if random.random() < NOISE_SHARE else None,
                    )
                )
    return runs


Drawn = tuple[str, str | None]


def _blocks(classes: Classes, number: int, random: Random) -> Iterator[tuple[str, Level, list[Drawn]]]:
    """One block per workload; the classes change their workload from pass to pass, the workloads their level."""
    workloads = list(classes.workloads)
    levels = [LEVELS[index % 2] for index in range(len(workloads))]
    random.shuffle(levels)
    members: dict[str, list[Drawn]] = {workload: [] for workload in workloads}
    for index, drawn in enumerate(_pass(classes, number, random)):
        members[workloads[(index + number) % len(workloads)]].append(drawn)
    order = list(zip(workloads, levels, strict=True))
    random.shuffle(order)
    for workload, level in order:
        random.shuffle(members[workload])
        yield workload, level, members[workload]


def _names(classes: Classes) -> list[str]:
    return [*classes.faults, *classes.negatives, NULL]


def _remedies(classes: Classes, name: str) -> tuple[Remedied, ...]:
    if name == NULL:
        return ("nothing",)
    return NEGATIVE_REMEDIES if name in classes.negatives else REMEDIES


def _cycle(values: Sequence[T], length: int, seed: str) -> list[T]:
    """`length` values, round after round all of them, each round in an order that goes with nothing else."""
    drawn: list[T] = []
    while len(drawn) < length:
        some = list(values)
        Random(f"{seed}/{len(drawn)}").shuffle(some)
        drawn += some
    return drawn[:length]


def blocks(runs: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Neighbours that can share one world: the same workload, level and server."""
    block: list[Planned] = []
    for run in runs:
        if block and (run.workload, run.level, run.server) != (block[0].workload, block[0].level, block[0].server):
            yield block
            block = []
        block.append(run)
    if block:
        yield block


def _pass(classes: Classes, number: int, random: Random) -> Iterator[tuple[str, str | None]]:
    """Every class once; negatives and compounds in turn; in an order of its own, which decides the workloads."""
    faults = list(classes.faults)
    yield from ((fault, None) for fault in faults)
    start = number * NEGATIVES_PER_PASS
    for offset in range(NEGATIVES_PER_PASS):
        yield classes.negatives[(start + offset) % len(classes.negatives)], None
    for _ in range(NULLS_PER_PASS):
        yield NULL, None
    for _ in range(COMPOUNDS_PER_PASS):
        first, second = random.sample(faults, 2)
        yield first, second
