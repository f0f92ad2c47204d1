"""The card: made from the manifest, and told when it is stale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kintsugi_ml.lab import card, classes
from kintsugi_ml.lab.cascades import first_movers, typical
from kintsugi_ml.lab.dataset import read_run
from kintsugi_ml.lab.expected import EXPECTED
from kintsugi_ml.lab.figures import cascade
from kintsugi_ml.lab.manifest import DatasetError
from kintsugi_ml.lab.signals import recorded
from kintsugi_ml.lab.splits import HELD_OUT

Build = Callable[..., Any]
PAGE = card.PAGE.read_text(encoding="utf-8")


@pytest.fixture
def places(tmp_path: Path, entry: Build, recording: Build) -> tuple[Path, Path, Path]:
    """A data set of two classes that are alike before the injection, a page with every marker, a place for pictures."""
    data, page = tmp_path / "data", tmp_path / "lab.md"
    for number in range(4):
        recording(entry(f"p{number}-000-deadlocks"), seed=number).write(data)
        recording(entry(f"p{number}-001-null", "null", onsets={}), seed=number).write(data)
    recording(entry("p4-000-deadlocks", status="gate-failed"), seed=20).write(data)
    page.write_text(PAGE)
    return data, page, tmp_path / "images"


def test_a_card_just_written_is_not_stale_and_is_written_alike_again(places: tuple[Path, Path, Path]) -> None:
    card.write(*places)
    first = places[1].read_text()

    assert card.problems(*places) == []
    assert "| deadlocks | lock-manager | 4 | 4 / 0 | 4 of 5 |" in first
    card.write(*places)
    assert places[1].read_text() == first


def test_a_table_changed_by_hand_and_a_missing_picture_are_told(places: tuple[Path, Path, Path]) -> None:
    card.write(*places)
    places[1].write_text(places[1].read_text().replace("4 of 5", "5 of 5"))
    (places[2] / "deadlocks.svg").unlink()
    (places[0] / "leaks.csv").write_text("class,signal\n")

    stale, old, missing = card.problems(*places)

    assert "lab.md is stale" in stale
    assert "leaks.csv is stale" in old
    assert "deadlocks.svg" in missing


def test_a_run_that_the_manifest_does_not_know_is_told(
    places: tuple[Path, Path, Path], recording: Build, entry: Build
) -> None:
    card.write(*places)
    recording(entry("p5-000-deadlocks"), seed=21).write(places[0])

    assert ["manifest.json is not what the runs say" in line for line in card.problems(*places)] == [True]


def test_of_first_movers_that_are_as_frequent_the_root_comes_first_then_the_alphabet(entry: Build) -> None:
    together = {"wal": 0.1, "client": 0.1, "lock-manager": 0.1, "host-io": 9.0}
    runs = [entry("a", onsets=together), entry("b", onsets=together), entry("c", onsets={"wal": 0.1})]

    assert first_movers(runs) == [("wal", 3), ("lock-manager", 2), ("client", 2)]


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(DatasetError, match="cascades"):
        card.filled("<!-- lab:classes -->\n<!-- /lab -->\n", {"classes": "…", "cascades": "…"})


def test_an_empty_data_set_says_how_to_record_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="make lab"):
        card.write(tmp_path, tmp_path / "lab.md", tmp_path / "images")


def test_a_picture_shows_every_component_that_moved_in_order_and_is_small(
    tmp_path: Path, entry: Build, recording: Build
) -> None:
    made = recording(entry())
    column, since = made.truth.names.index, made.truth.times - made.entry.injected_at
    made.truth.values[since > 2, column("clients_waiting")] = 20.0
    made.truth.values[since > 1, column("lock_waiters")] = 30.0

    svg = cascade(read_run(tmp_path, made.write(tmp_path)), "deadlocks")

    assert 0 < svg.index("lock-manager") < svg.index("pooler")
    assert "autovacuum" not in svg
    assert len(svg) < 60_000


def test_the_typical_run_is_the_one_nearest_to_the_medians(entry: Build) -> None:
    runs = [entry(f"p{number}", onsets={"wal": late, "client": 2 * late}) for number, late in enumerate((1, 4, 5, 60))]

    assert typical(runs).id in {"p1", "p2"}


def test_what_is_held_out_or_expected_is_called_as_the_lab_calls_it() -> None:
    known = {*classes.FAULTS, *classes.NEGATIVES}
    signals = recorded().names()

    assert set(HELD_OUT) <= known
    assert 0.15 < len(HELD_OUT) / len(known) < 0.25, "about one class in five"
    assert EXPECTED.keys() <= known
    assert {signal for told in EXPECTED.values() for signal in told} <= set(signals)
