"""Classes of which too few runs count get more of them, and remedies that were tried least come first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from kintsugi_ml.lab import dataset
from kintsugi_ml.lab.faults.base import Fault, Trial
from kintsugi_ml.lab.manifest import Entry, RemedyEntry
from kintsugi_ml.lab.needs import ENOUGH, ENOUGH_HARMLESS, remedied, spare_needed, tried
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.session import Session

Make = Callable[..., Entry]


def planned(id: str, remedy: Literal["right", "wrong", "nothing"] = "right") -> Planned:
    return Planned(id, "deadlocks", "abrupt", "keyvalue", "low", "steady", 0.5, 3, remedy, 15)


SPARE = [planned("s1"), planned("s2", "nothing"), planned("s3", "wrong"), planned("s4")]


def recorded(entry: Make, number: int, **known: object) -> list[Entry]:
    """So many runs that count, with two wrong remedies among them."""
    actions = ["vacuum-table", "cache-flush", *["nothing"] * number]
    return [
        entry(f"r{index}", remedy=RemedyEntry(action=actions[index], right=False), **known) for index in range(number)
    ]


def test_a_class_with_enough_runs_needs_none(entry: Make) -> None:
    assert spare_needed(SPARE, recorded(entry, ENOUGH)) == []


def test_runs_that_failed_their_gate_are_made_up_for_and_stay(entry: Make) -> None:
    runs = [*recorded(entry, ENOUGH - 2), entry("x", status="gate-failed")]
    assert [one.id for one in spare_needed(SPARE, runs)] == ["s1", "s2"]
    # The first of them is there now, and still named: whoever asks can tell that it was one of those needed.
    assert [one.id for one in spare_needed(SPARE, [*runs, entry("s1")])] == ["s1", "s2"]


def test_a_class_whose_gate_fails_too_often_gets_runs_until_four_in_five_count(entry: Make) -> None:
    runs = recorded(entry, ENOUGH)
    failed = [entry(f"f{number}", status="gate-failed") for number in range(2)]
    assert spare_needed(SPARE, [*runs, *failed[:1]]) == []
    assert [one.id for one in spare_needed(SPARE, [*runs, *failed])] == ["s1", "s2"], "8 of 10"


def test_a_class_without_two_different_wrong_remedies_gets_a_run_with_one(entry: Make) -> None:
    runs = [entry(f"r{number}", remedy=RemedyEntry(action="vacuum-table")) for number in range(ENOUGH)]
    assert [one.id for one in spare_needed(SPARE, runs)] == ["s3"]
    assert spare_needed([SPARE[0]], runs) == []


def test_a_planned_run_tries_a_wrong_remedy_when_too_few_would_be_tried_otherwise(entry: Make) -> None:
    runs = [entry("r0", remedy=RemedyEntry(action="vacuum-table"))]
    last = planned("a")
    assert remedied(last, [last], runs).remedy == "wrong"
    assert remedied(last, [last, planned("b", "wrong")], runs) == last
    assert remedied(last, [last], recorded(entry, 2)) == last
    compound = replace(last, second="cpu-hog")
    assert remedied(compound, [compound], runs) == compound
    assert remedied(last, [last], [entry("r0", negative=True)]) == last


def test_a_harmless_class_needs_fewer_and_no_wrong_remedy(entry: Make) -> None:
    runs = [entry(f"r{number}", negative=True) for number in range(ENOUGH_HARMLESS)]
    assert spare_needed(SPARE, runs) == []
    assert [one.id for one in spare_needed(SPARE, runs[1:])] == ["s1"]


def test_compound_runs_count_for_neither_of_their_classes(entry: Make) -> None:
    runs = [*recorded(entry, ENOUGH - 1), entry("z", second="cpu-hog")]
    assert [one.id for one in spare_needed(SPARE, runs)] == ["s1"]


def test_spare_runs_come_after_all_that_is_planned(tmp_path: Path, entry: Make) -> None:
    session = Session(tmp_path, [planned("a"), planned("b")], print, spare=SPARE)
    dataset.write_entry(tmp_path, entry("a"))
    assert [one.id for one in session.missing()] == ["b"]
    dataset.write_entry(tmp_path, entry("b", status="gate-failed"))
    assert [one.id for one in session.missing()] == ["s1", "s2", "s3", "s4"]


def test_what_was_tried_is_counted_over_runs_that_count(entry: Make) -> None:
    runs = [entry("a"), entry("b"), entry("c", status="void"), entry("d", fault="cpu-hog")]
    assert tried(planned("next"), runs) == {"terminate-blocker": 2}


@pytest.mark.parametrize(("counts", "expected"), [({}, "first"), ({"first": 1}, "second"), ({"second": 3}, "first")])
def test_of_several_right_remedies_the_least_tried_comes_next(counts: dict[str, int], expected: str) -> None:
    from kintsugi_ml.lab import run

    class Two(Fault):
        def __init__(self) -> None: ...

        async def inject(self, ramp: float) -> None: ...

        def trials(self) -> list[Trial]:
            return [Trial("first", right=True), Trial("second", right=True), Trial("third", right=False)]

    timing = run.Timing.short(Random(1), "abrupt")
    going = run._Recording(planned("x"), None, Two(), timing, Random(1), counts)  # type: ignore[arg-type]
    assert [trial.action for trial in going._trials()] == [expected]
