"""A fresh run against the recorded ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kintsugi_ml.lab.compare import compare, left_out, peers_of
from kintsugi_ml.lab.manifest import Entry, GateEntry

Build = Callable[..., Any]
ORDER = {"lock-manager": 0.5, "pooler": 2.0, "client": 4.0, "connections": 6.0}


def a_gate(client: float | None = 3.0, passed: bool = True) -> GateEntry:
    return GateEntry(passed=passed, client_factor=client, sentence="p95 rose.")


@pytest.fixture
def recorded(entry: Build) -> list[Entry]:
    return [
        entry(
            f"p{number}-000-deadlocks", gate=a_gate(factor), onsets={name: late * slow for name, late in ORDER.items()}
        )
        for number, (factor, slow) in enumerate(((2.0, 1.0), (4.0, 1.2), (6.0, 2.0)))
    ]


def test_a_run_within_the_recorded_range_is_like_them(entry: Build, recorded: list[Entry]) -> None:
    comparison = compare(entry(gate=a_gate(5.0), onsets=ORDER), recorded)

    assert comparison.within, comparison.findings
    assert len(comparison.findings) == 5


@pytest.mark.parametrize(("factor", "within"), [(1.3, False), (1.4, True), (8.9, True), (9.1, False), (None, False)])
def test_the_client_factors_range_is_widened_by_half(
    entry: Build, recorded: list[Entry], factor: float | None, within: bool
) -> None:
    assert compare(entry(gate=a_gate(factor), onsets=ORDER), recorded).within is within


@pytest.mark.parametrize(("onset", "within"), [(1.9, True), (2.1, False), (None, False)])
def test_the_root_must_move_about_as_soon(
    entry: Build, recorded: list[Entry], onset: float | None, within: bool
) -> None:
    later = {"lock-manager": onset, "pooler": 2.2, "client": 4.0, "connections": 6.0}

    assert compare(entry(onsets=later), recorded).findings[2].within is within


def test_a_fault_that_starts_elsewhere_is_not_like_them(entry: Build, recorded: list[Entry]) -> None:
    comparison = compare(entry(onsets={"host-cpu": 0.1, **{name: late + 1 for name, late in ORDER.items()}}), recorded)

    assert not comparison.within
    assert "first mover host-cpu" in comparison.findings[3].sentence


def test_a_cascade_the_other_way_round_is_not_like_them(entry: Build, recorded: list[Entry]) -> None:
    backwards = dict(zip(ORDER, reversed(ORDER.values()), strict=True))

    order = compare(entry(onsets=backwards), recorded).findings[-1]

    assert not order.within
    assert "now connections moved before client" in order.sentence


def test_a_failed_gate_is_not_like_them(entry: Build, recorded: list[Entry]) -> None:
    assert not compare(entry(gate=a_gate(passed=False), onsets=ORDER), recorded).within


def test_without_recorded_runs_it_is_not_called_alike(entry: Build) -> None:
    comparison = compare(entry(), [entry("p9-000-x", "x")])

    assert not comparison.within
    assert "record it first" in comparison.findings[0].sentence


def test_other_workloads_are_compared_with_only_when_its_own_has_too_few(entry: Build) -> None:
    own = [entry(f"own-{number}") for number in range(2)]
    other = [entry(f"other-{number}", workload="ingest") for number in range(4)]

    assert peers_of(entry(), [*own, *other]) == [*own, *other]
    assert peers_of(entry(), [*own, *other, entry("own-3")]) == [*own, entry("own-3")]


def test_how_strongly_it_was_felt_is_compared_with_ramps_too_and_with_nothing_that_does_not_count(
    entry: Build, recorded: list[Entry]
) -> None:
    strong = entry(gate=a_gate(30.0), onsets=ORDER)
    ramped = entry("p3-000-deadlocks", form="ramped", gate=a_gate(40.0), onsets=ORDER)

    assert not compare(strong, recorded).within
    assert compare(strong, [*recorded, ramped]).within
    assert not compare(strong, [*recorded, ramped.model_copy(update={"status": "void"})]).within


def test_what_the_rule_is_worth_is_told_by_leaving_recorded_runs_out(entry: Build, recorded: list[Entry]) -> None:
    elsewhere = [
        entry(f"p{number}-001-cpu-hog", "cpu-hog", root="host-cpu", gate=a_gate(50.0), onsets={"host-cpu": 0.1})
        for number in range(2)
    ]

    found = left_out([*recorded, *elsewhere, entry("n", negative=True), entry("c", second="cpu-hog")])

    assert (found.own, found.others) == (5, 5)
    assert found.own_alike == 3 + 2 - 1, "the first of the three was felt too little for the other two"
    assert found.others_alike == 0
