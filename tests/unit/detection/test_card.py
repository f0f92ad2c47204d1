import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kintsugi_ml.detection import card


def figure(mean: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high}


def figures(ap: float) -> dict[str, Any]:
    known = {name: figure(0.9, 0.8, 0.95) for name in card.SHOWN} | {"AP": figure(ap, ap - 0.01, ap + 0.01)}
    alarms = {"false alarms per day, harmless": figure(2.0, None, 31.5), "harmless hours": figure(1.5)}
    return known | {"delay": figure(None), "base rate": figure(0.4)} | alarms


def a_result() -> dict[str, Any]:
    """One set; `worse` is worse for certain, `level` is not."""
    name = "dbsherlock masked"
    return {
        "made": {"commit": "abc", "command": "evaluate all", "seeds": 5, "draws": 1000, "shipped": "stack"},
        name: {"k0": figures(0.9), "k5": figures(0.97)},
        "baselines": {
            "worse": {name: {"k0": figures(0.7)}},
            "level": {name: {"k0": figures(0.9), "k5": figures(0.96)}},
        },
        "differences": {
            "worse": {name: {"k0": {"AP": figure(0.2, 0.1, 0.3)}}},
            "level": {name: {"k0": {"AP": figure(0.0, -0.1, 0.1)}, "k5": {"AP": figure(-0.1, -0.2, -0.05)}}},
        },
        "seeds": {"worse": {name: 2}, "level": {name: 5}},
        "diagnosis": {
            "class never seen": {"runs": figure(30), "called unknown": figure(0.9, 0.8, 1.0)},
            "each class": {"bloat": figure(0.5), "backup": figure(1.0)},
        },
        "classes": {name: {"k0": {"Lock <x>": 0.7, "disk": 0.95}, "k5": {"Lock <x>": 0.9, "disk": 0.97}}},
        "reliability": {name: {"k0": [[0.1, 0.05, 100], [0.9, 0.95, 80]], "k5": [[0.1, 0.1, 50]]}},
    }


def test_what_is_better_or_worse_for_certain_is_marked() -> None:
    rows = {line.split(" | ")[0].strip("| "): line for line in card.compared(a_result()).splitlines()}
    assert "0.7 ▽ | –" in rows["worse (2 of 5 seeds)"]
    assert "| 0.9 | 0.96 ▲ |" in rows["level"]


def test_the_weakest_classes_come_first() -> None:
    assert "Lock <x> 0.700, disk 0.950" in card.weak(a_result())


def test_the_false_alarms_that_the_clean_hours_allow_are_told() -> None:
    assert "| dbsherlock masked | 0 | 1.5 | 2 | 31.5 |" in card.harmless(a_result())


def test_a_target_is_reached_missed_or_not_measured() -> None:
    rows = [line.strip("| ").split(" | ") for line in card.targets(a_result()).splitlines()]
    verdicts = {tuple(row[:3]): row[-1] for row in rows}
    assert verdicts["dbsherlock masked", "0", "AP ≥ 0.965"] == "**no**"
    assert verdicts["dbsherlock masked", "5", "AP ≥ 0.97"] == "yes"
    assert verdicts["lab unseen class, other run", "5", "delay ≤ 3"] == "not measured"


def test_a_figure_that_must_be_small_is_reached_from_below() -> None:
    target = card.Target("lab unseen class", 5, "delay", 3.0, at_most=True)
    assert target.row({"lab unseen class": {"k5": {"delay": figure(2.0)}}})[-1] == "yes"
    assert target.row({"lab unseen class": {"k5": {"delay": figure(4.0)}}})[-1] == "**no**"


def test_meta_learning_stands_beside_what_ships_with_and_without_doubtful_samples() -> None:
    name, raw = "dbsherlock masked", "dbsherlock raw"
    sets = {name: {"k5": figures(0.976)}, raw: {"k5": figures(0.941)}}
    found = a_result() | {raw: {"k5": figures(0.958)}, "baselines": {card.META[0]: sets}}
    rows = {line.split(" | ")[0].strip("| "): line for line in card.meta(found).splitlines()}
    assert "| 0.97 (0.958) |" in rows["shipped"]
    assert "| 0.976 (0.941) |" in rows[card.META[0]]


def test_the_first_try_stands_beside_what_ships_where_both_were_measured() -> None:
    rows = card.first_try(a_result()).splitlines()
    assert "| dbsherlock masked | 0 | 0.961 | 0.9 (0.89–0.91) |" in rows
    assert "| dbsherlock raw | 10 | 0.988 | – |" in rows


def test_the_diagnosis_is_told_with_its_intervals_and_each_class() -> None:
    rows = card.diagnosis(a_result()).splitlines()
    assert "| class never seen | called unknown | 0.9 (0.8–1) |" in rows
    assert "| each class | share | backup 1, bloat 0.5 |" in rows
    assert card.diagnosis({}) == "Not measured yet."


def test_a_page_without_a_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="markers for nothing"):
        card.filled("# A page", a_result())


def test_the_real_page_has_a_place_for_every_part() -> None:
    assert "evaluate all" in card.filled(card.PAGE.read_text(encoding="utf-8"), a_result())


def test_a_stale_card_is_told_and_a_written_one_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = tmp_path / "detection.json", tmp_path / "detection.md"
    results.write_text(json.dumps(a_result()))
    page.write_text(card.PAGE.read_text(encoding="utf-8"))

    def run(*arguments: str) -> int:
        return card.main(arguments, results=results, page=page, to=tmp_path / "images")

    assert run("--check") == 1
    assert "classes.svg is stale" in capsys.readouterr().err
    assert run() == 0
    assert run("--check") == 0


def test_pictures_are_well_formed_and_have_a_mark_for_each_class_and_number_of_examples() -> None:
    drawn = {name: ElementTree.fromstring(text) for name, text in card.drawn(a_result()).items()}
    marks = [mark for mark in drawn["classes.svg"].iter() if mark.tag.endswith("title")]
    assert len(marks) == 4
    assert len([line for line in drawn["reliability.svg"].iter() if line.tag.endswith("polyline")]) == 2
