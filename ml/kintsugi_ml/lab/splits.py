"""Which runs a model may learn from, and which measure it: by workload and by fault class, never by window.

Two things are held out at once, so that four questions can be answered apart:

                        classes to learn from    classes held out
    other workloads     train                    test-class
    VALIDATION          validation               test-class
    TEST                test-workload            test-both

A compound run goes with a held-out class if either of its two is one. Null runs have no class: their workload decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from kintsugi_ml.lab.manifest import Entry

NAMES: Final = ("train", "validation", "test-workload", "test-class", "test-both")

TEST_WORKLOAD: Final = "reporting"
"""Long reads beside short ones: the least like the others, so the hardest to transfer to."""
VALIDATION_WORKLOAD: Final = "keyvalue"

HELD_OUT: Final = (
    "deadlocks",  # a lock fault; two relatives stay in training
    "runaway-query",  # a query fault, with relatives
    "memory-pressure",  # a component that no class in training starts from
    "replication-lag",  # with one relative
    "bulk-insert",  # writes too much, with relatives
    "deploy",  # a harmless one: many new sessions
    "short-lock-wait",  # a harmless one: looks like lock contention
)
"""About one class in five, of both kinds: some with relatives among those learned from, some without."""


def assign(
    runs: Iterable[Entry],
    *,
    held_out: Collection[str] = HELD_OUT,
    test: str = TEST_WORKLOAD,
    validation: str = VALIDATION_WORKLOAD,
) -> dict[str, list[str]]:
    """The ids of the runs in each split, ordered; runs that do not count are in none."""
    result: dict[str, list[str]] = {name: [] for name in NAMES}
    for run in sorted(runs, key=lambda run: run.id):
        if run.counts:
            result[_split(run, held_out, test, validation)].append(run.id)
    return result


def _split(run: Entry, held_out: Collection[str], test: str, validation: str) -> str:
    unknown = any(name in held_out for name in run.classes)
    if run.workload == test:
        return "test-both" if unknown else "test-workload"
    if unknown:
        return "test-class"
    return "validation" if run.workload == validation else "train"
