"""Splits by workload and by class, never by window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from kintsugi_ml.lab.manifest import NULL, Entry
from kintsugi_ml.lab.splits import HELD_OUT, NAMES, TEST_WORKLOAD, VALIDATION_WORKLOAD, assign

Build = Callable[..., Any]
KNOWN, UNKNOWN = "lock-contention", HELD_OUT[0]


@pytest.fixture
def runs(entry: Build) -> list[Entry]:
    faults = (KNOWN, "missing-index", *HELD_OUT, NULL)
    workloads = ("tpcc", "ingest", VALIDATION_WORKLOAD, TEST_WORKLOAD)
    return [
        entry(f"p{number}-{workload}-{fault}", fault, workload=workload)
        for number in range(2)
        for workload in workloads
        for fault in faults
    ]


def test_every_run_that_counts_is_in_exactly_one_split(runs: list[Entry]) -> None:
    made = assign(runs)

    assert tuple(made) == NAMES
    assert all(made.values())
    assert sorted(id for ids in made.values() for id in ids) == sorted(run.id for run in runs)
    assert not any(set(one) & set(other) for one, other in combinations(made.values(), 2))


def test_what_is_learned_from_holds_no_held_out_class_and_no_test_workload(runs: list[Entry]) -> None:
    made = assign(runs)
    learned = [run for run in runs if run.id in {*made["train"], *made["validation"]}]

    assert not any(set(run.classes) & set(HELD_OUT) for run in learned)
    assert all(run.workload != TEST_WORKLOAD for run in learned)
    assert {run.workload for run in runs if run.id in made["validation"]} == {VALIDATION_WORKLOAD}


@pytest.mark.parametrize(
    ("workload", "fault", "split"),
    [
        ("tpcc", KNOWN, "train"),
        (VALIDATION_WORKLOAD, KNOWN, "validation"),
        (TEST_WORKLOAD, KNOWN, "test-workload"),
        ("tpcc", UNKNOWN, "test-class"),
        (VALIDATION_WORKLOAD, UNKNOWN, "test-class"),
        (TEST_WORKLOAD, UNKNOWN, "test-both"),
        (TEST_WORKLOAD, NULL, "test-workload"),
    ],
)
def test_the_table_in_the_docstring_holds(entry: Build, workload: str, fault: str, split: str) -> None:
    made = assign([entry("p0-000-x", fault, workload=workload)])

    assert made[split] == ["p0-000-x"]


@pytest.mark.parametrize(("first", "second"), [(KNOWN, UNKNOWN), (UNKNOWN, KNOWN)])
def test_a_compound_run_goes_with_its_held_out_class(entry: Build, first: str, second: str) -> None:
    made = assign([entry("p0-000-x", first, second=second)])

    assert made["test-class"] == ["p0-000-x"]


def test_runs_that_do_not_count_are_in_no_split(entry: Build) -> None:
    statuses = ("gate-failed", "void", "crashed")

    made = assign([entry(f"p0-00{number}-x", status=status) for number, status in enumerate(statuses)])

    assert not any(made.values())


def test_the_order_of_the_runs_does_not_matter(runs: list[Entry]) -> None:
    assert assign(runs) == assign(reversed(runs))
