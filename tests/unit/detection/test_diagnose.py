"""A fault is called by its name from the signals that moved, by their names; one like none of them is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kintsugi_ml.detection import diagnose
from kintsugi_ml.detection.diagnose import UNKNOWN, Diagnosis
from kintsugi_ml.detection.diagnose_fit import Signatures, choose_least, fit, macro_f1, said
from kintsugi_ml.detection.errors import ModelError
from kintsugi_ml.lab.diagnosis import evaluate

SIGNALS = tuple(f"s{number}" for number in range(12))
MOVED = {"locks": (0, 1), "disk": (2, 3), "memory": (4, 5), "network": (6, 7), "indexes": (8, 9)}


def made(seed: int = 0, runs: int = 4) -> Signatures:
    """Five classes of runs on two workloads; each class moves two signals of its own."""
    random = np.random.default_rng(seed)
    rows, classes, names, workloads = [], [], [], []
    for name, moved in MOVED.items():
        for run in range(runs):
            for _ in range(3):
                deviation = random.normal(0, 1, len(SIGNALS))
                deviation[list(moved)] += random.uniform(8, 40)
                rows.append(diagnose.squashed(deviation))
                classes.append(name)
                names.append(f"{name}-{run}")
                workloads.append("tpcc" if run % 2 else "ingest")
    return Signatures(SIGNALS, np.array(rows), np.array(classes), np.array(names), np.array(workloads))


@pytest.fixture(scope="module")
def model() -> Diagnosis:
    return fit(made(), 0, "made up")


def moved(*places: int) -> np.ndarray:
    deviation = np.zeros(len(SIGNALS))
    deviation[list(places)] = 20
    return deviation


def test_a_fault_is_called_by_its_name_whatever_the_order_of_the_signals(model: Diagnosis) -> None:
    found = model.classify(moved(2, 3), SIGNALS)
    turned = model.classify(moved(2, 3)[::-1], SIGNALS[::-1])

    assert found[:2] == ("disk", "disk")
    assert 0.6 < found[2] <= 1
    assert found == turned


def test_signals_that_are_missing_or_that_it_never_saw_are_left_out(model: Diagnosis) -> None:
    names = ("s2", "new", "s3")
    assert model.classify(np.array([20.0, np.nan, 20.0]), names)[0] == "disk"
    assert model.classify(np.array([[20.0, 1e9, 20.0], [20.0, -1e9, 20.0]]), names)[0] == "disk"
    assert model.classify(np.array([5.0]), ("new",))[0] == UNKNOWN


def test_of_what_is_unknown_the_nearest_class_is_told_with_its_probability(model: Diagnosis) -> None:
    strict = replace(model, least=1.1)
    known, unknown = model.classify(moved(2, 3), SIGNALS), strict.classify(moved(2, 3), SIGNALS)

    assert unknown == (UNKNOWN, "disk", known[2])


def test_an_anomaly_like_none_of_them_is_unknown() -> None:
    known = made()
    without = known.part(known.classes != "indexes")
    model = fit(without, 0, least=choose_least(without, 0))

    strange = said(model, known.part(known.classes == "indexes"))
    others = said(model, made(seed=1).part(known.classes != "indexes"))

    assert set(strange.values()) == {UNKNOWN}
    assert np.mean([run.startswith(answer) for run, answer in others.items()]) > 0.9


def test_the_same_seed_learns_the_same(model: Diagnosis) -> None:
    assert np.array_equal(fit(made(), 0).weights, model.weights)


def test_one_class_can_not_be_told_apart() -> None:
    known = made()
    with pytest.raises(ValueError, match="at least two classes, there are 1"):
        fit(known.part(known.classes == "disk"), 0)


def test_macro_f1_counts_each_class_alike() -> None:
    truth, answers = ["a", "a", "a", "b"], ["a", "a", UNKNOWN, "a"]
    assert macro_f1(truth, answers) == pytest.approx((2 * 2 / (2 * 2 + 2) + 0) / 2)


def test_it_comes_back_from_its_file_as_it_was(model: Diagnosis, tmp_path: Path) -> None:
    file = tmp_path / "diagnosis.npz"
    model.save(file)
    again = diagnose.load(file)

    assert (again.classes, again.signals, again.least, again.trained_on) == (
        model.classes,
        model.signals,
        model.least,
        "made up",
    )
    assert np.allclose(again.weights, model.weights, rtol=1e-6)


def test_a_missing_damaged_or_foreign_file_is_refused_with_what_to_do(model: Diagnosis, tmp_path: Path) -> None:
    file = tmp_path / "diagnosis.npz"
    with pytest.raises(ModelError, match="there is no model at"):
        diagnose.load(file)
    model.save(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is damaged"):
        diagnose.load(file)
    file.write_bytes(content)
    with np.load(file) as arrays:
        parts = dict(arrays)
    np.savez(file, **(parts | {"weights": parts["weights"][:, :3]}))
    with pytest.raises(ModelError, match="don't fit together"):
        diagnose.load(file)
    np.savez(file, **(parts | {"offset": np.full(len(MOVED), np.nan)}))
    with pytest.raises(ModelError, match="isn't finite"):
        diagnose.load(file)
    np.savez(file, **(parts | {"about": np.array('{"format": 99}')}))
    with pytest.raises(ModelError, match="has format 99"):
        diagnose.load(file)


def test_it_is_judged_on_the_runs_of_other_splits_and_unknown_is_right_for_a_class_never_learned() -> None:
    known = made(runs=8)
    unseen = {run for run in known.runs.tolist() if run.startswith("indexes")}
    train = {run for run in known.runs.tolist() if int(run[-1]) < 4} - unseen
    others = set(known.runs.tolist()) - unseen - train
    splits: dict[str, set[str]] = {"train": train, "validation": set(), "test-workload": others}
    splits |= {"test-class": unseen, "test-both": set()}

    found = evaluate(known, splits, seeds=2)

    assert found["known class, another workload"]["runs"]["mean"] == 4 * 4
    assert found["class never seen"]["called unknown"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    of_all = found["all of them"]
    assert of_all["runs"]["mean"] == 4 * 4 + 8
    scores = [of_all[name]["mean"] for name in ("macro-F1 of the nearest class", "macro-F1")]
    assert (scores[0] or 0) < 0.9 < (scores[1] or 0)
    assert set(found["each class, called right"]) == set(MOVED)
