"""Which runs make up the data set, in which order; always the same for the same seed.

The runs come in passes: each has every class once, so that the set is balanced wherever it is interrupted. From pass to
pass a class changes its workload, its form, its remedy and the server's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from kintsugi_ml.lab.parts import Form, Planned

NULL: Final = "null"
LEVELS: Final[tuple[Literal["low", "high"], ...]] = ("low", "high")
PATTERNS: Final = ("steady", "wave", "spikes", "growth")
REMEDIES: Final[tuple[Literal["right", "wrong", "nothing"], ...]] = ("right", "wrong", "right", "nothing", "wrong")
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
    runs: list[Planned] = []
    for number in range(passes):
        random = Random(f"{seed}/{number}")
        drawn = list(_pass(classes, number, random))
        blocks: dict[tuple[str, str], list[tuple[str, str | None]]] = {}
        for index, (fault, second) in enumerate(drawn):
            workload = classes.workloads[(index + number) % len(classes.workloads)]
            level = LEVELS[(index // len(classes.workloads) + number) % 2]
            blocks.setdefault((workload, level), []).append((fault, second))
        order = sorted(blocks)
        random.shuffle(order)
        for workload, level in order:
            members = blocks[workload, level]
            random.shuffle(members)
            for fault, second in members:
                known = len(runs)
                runs.append(
                    Planned(
                        id=f"p{number}-{known:03d}-{fault}",
                        fault=fault,
                        form=_form(classes, fault, number, known),
                        workload=workload,
                        level="low" if level == "low" else "high",
                        pattern=random.choice(PATTERNS),
                        severity=round(random.uniform(0.25, 1.0), 2),
                        seed=random.randrange(2**31),
                        remedy="nothing" if fault == NULL else _remedy(classes, fault, number),
                        server=servers[number % len(servers)],
                        second=second,
                        noise=random.choice(list(classes.noises)) if random.random() < NOISE_SHARE else None,
                    )
                )
    return runs


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


def _form(classes: Classes, fault: str, number: int, known: int) -> Form:
    forms = classes.forms.get(fault, ("abrupt",))
    index = classes.faults.index(fault) if fault in classes.faults else known
    return "ramped" if forms[(number + index) % len(forms)] == "ramped" else "abrupt"


def _remedy(classes: Classes, fault: str, number: int) -> Literal["right", "wrong", "nothing"]:
    if fault in classes.negatives:
        return ("nothing", "wrong")[number % 2]  # type: ignore[return-value]
    return REMEDIES[(number + classes.faults.index(fault)) % len(REMEDIES)]
