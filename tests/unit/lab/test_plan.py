"""The plan is balanced wherever it is interrupted, and nothing in it goes with anything else."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.plan import NULL, Classes, blocks, plan

CLASSES = Classes(
    faults=tuple(f"fault-{number}" for number in range(23)),
    negatives=tuple(f"harmless-{number}" for number in range(10)),
    workloads=("tpcc", "keyvalue", "reporting", "ingest"),
    noises=("cpu", "disk"),
    forms={f"fault-{number}": ("abrupt", "ramped") for number in range(23)},
)


@pytest.fixture(scope="module")
def runs() -> list[Planned]:
    return plan(CLASSES, passes=7, seed=1, servers=(15, 18))


def alone(runs: list[Planned]) -> dict[str, list[Planned]]:
    """The runs of each fault class, compound ones left out."""
    found: defaultdict[str, list[Planned]] = defaultdict(list)
    for planned in runs:
        if planned.second is None:
            found[planned.fault].append(planned)
    return found


def test_every_fault_comes_once_in_every_pass(runs: list[Planned]) -> None:
    first = [planned.fault for planned in runs if planned.id.startswith("p0-") and planned.second is None]
    assert {name: first.count(name) for name in CLASSES.faults} == dict.fromkeys(CLASSES.faults, 1)
    assert all(len(alone(runs)[name]) == 7 for name in CLASSES.faults)


def test_a_class_meets_every_workload_both_forms_and_every_kind_of_remedy(runs: list[Planned]) -> None:
    for name in CLASSES.faults:
        own = alone(runs)[name]
        assert {planned.workload for planned in own} == set(CLASSES.workloads)
        assert Counter(planned.form for planned in own).most_common()[-1][1] >= 3
        assert {planned.remedy for planned in own} == {"right", "wrong", "nothing"}
        assert {planned.server for planned in own} == {15, 18}


def test_the_form_does_not_go_with_the_workload(runs: list[Planned]) -> None:
    together = Counter((planned.form, planned.workload) for planned in runs if planned.fault in CLASSES.faults)
    assert len(together) == 2 * len(CLASSES.workloads)
    assert min(together.values()) > 0.5 * max(together.values())


def test_a_fifth_of_the_runs_are_null_or_harmless(runs: list[Planned]) -> None:
    quiet = [planned for planned in runs if planned.fault == NULL or planned.fault in CLASSES.negatives]
    assert len(quiet) >= 0.2 * len(runs)
    assert all(planned.remedy in ("nothing", "wrong") for planned in quiet)


def test_the_same_seed_gives_the_same_plan_and_another_one_another(runs: list[Planned]) -> None:
    assert plan(CLASSES, passes=7, seed=1, servers=(15, 18)) == runs
    assert plan(CLASSES, passes=7, seed=2, servers=(15, 18)) != runs


def test_more_passes_only_add_runs(runs: list[Planned]) -> None:
    longer = plan(CLASSES, passes=9, seed=1, servers=(15, 18))
    assert longer[: len(runs)] == runs


def test_ids_are_unique_and_runs_of_a_block_share_their_world(runs: list[Planned]) -> None:
    assert len({planned.id for planned in runs}) == len(runs)
    found = list(blocks(runs))
    assert [planned for block in found for planned in block] == runs
    assert all(len({(p.workload, p.level, p.server) for p in block}) == 1 for block in found)
    assert len(found) <= 4 * 7
