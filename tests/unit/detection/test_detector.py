import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.detector import Detector, Watch
from kintsugi_ml.detection.errors import ModelError, ReferenceDataError, SamplesError, SupportError
from kintsugi_ml.detection.model import Model, load

Build = Callable[..., Floats]


@pytest.fixture
def watch(toy_model: Model, calm: Build) -> Watch:
    return Detector(toy_model).learn(calm(40, seed=5), 1.0)


def test_an_anomaly_is_likelier_than_normality_without_any_example(watch: Watch, calm: Build, spiked: Build) -> None:
    found = watch.score(spiked(calm(40, seed=6), 20, 40, [1, 2, 3]))
    assert found.probability[0, 24:].min() > found.probability[0, 5:20].max()
    assert found.alarm[0, 24:].all()


def test_the_signals_that_moved_are_named_first(watch: Watch, calm: Build, spiked: Build) -> None:
    found = watch.score(spiked(calm(40, seed=6), 20, 40, [2, 7]))
    assert set(found.contributions(2)[0, 30].tolist()) == {2, 7}


def test_examples_make_the_same_anomaly_likelier_when_it_comes_again(watch: Watch, calm: Build, spiked: Build) -> None:
    faint = spiked(calm(40, seed=6), 20, 40, [1], 1.35)
    labels = np.arange(40) >= 22
    again = spiked(calm(40, seed=7), 20, 40, [1], 1.35)
    before, after = watch.score(again), watch.remember(0, faint, labels, np.arange(40) >= 12).score(again)

    def gap(probability: Floats) -> float:
        return float(np.median(probability[0, 24:]) - np.median(probability[0, 8:20]))

    assert gap(after.probability) > gap(before.probability)


def test_after_a_hole_an_anomaly_is_as_likely_as_without_one(watch: Watch, calm: Build, spiked: Build) -> None:
    known = watch.remember(0, spiked(calm(40, seed=6), 20, 40, [1, 2]), np.arange(40) >= 20)
    anomaly = spiked(calm(8, seed=7), 0, 8, [1, 2])
    hole = np.full((4, anomaly.shape[1]), np.nan)
    after = known.score(np.concatenate([calm(20, seed=8), hole, anomaly])).probability[0, 24:]
    np.testing.assert_allclose(after[1:], known.score(anomaly).probability[0, 1:], atol=0.05)


def test_normal_examples_alone_are_used_and_give_no_nan(watch: Watch, calm: Build) -> None:
    found = watch.remember(0, calm(10, seed=8), np.zeros(10, dtype=np.bool_)).score(calm(30, seed=9))
    assert np.isfinite(found.probability).all()


def test_scores_do_not_depend_on_the_order_of_the_columns(toy_model: Model, calm: Build, spiked: Build) -> None:
    values = spiked(calm(60, 17, seed=3), 45, 60, [1, 2, 3])
    order = np.random.default_rng(0).permutation(17)
    labels = np.arange(60) >= 50
    one = Detector(toy_model).learn(values[:30], 1.0).remember(0, values, labels, np.arange(60) >= 40)
    other = Detector(toy_model).learn(values[:30, order], 1.0)
    other = other.remember(0, values[:, order], labels, np.arange(60) >= 40)
    difference = np.abs(one.score(values).probability - other.score(values[:, order]).probability)
    assert np.quantile(difference, 0.9) < 0.01  # sums in another order may cross a threshold


@pytest.mark.parametrize("columns", [1, 5, 300])
def test_any_number_of_columns_is_scored(toy_model: Model, calm: Build, columns: int) -> None:
    found = Detector(toy_model).learn(calm(30, columns), 5.0).score(calm(20, columns, seed=1))
    assert found.probability.shape == (1, 20)
    assert np.isfinite(found.probability).all()


def test_columns_may_disappear_and_the_rest_is_still_judged(watch: Watch, calm: Build, spiked: Build) -> None:
    values = spiked(calm(40, seed=6), 20, 40, [1, 2, 3])
    values[:, 6:] = np.nan
    found = watch.score(values)
    assert found.judged.all()
    assert found.probability[0, 26:].min() > np.median(found.probability[0, 5:20])


def test_many_databases_get_what_each_gets_alone(toy_model: Model, calm: Build, spiked: Build) -> None:
    values = spiked(calm(60, 12, databases=6), 45, 60, [1, 2, 3])
    together = Detector(toy_model).learn(values[:, :40], 1.0).score(values)
    for index in range(6):
        alone = Detector(toy_model).learn(values[index, :40], 1.0).score(values[index])
        np.testing.assert_allclose(alone.probability[0], together.probability[index], atol=1e-3)


def test_a_row_without_any_measurement_is_not_judged(watch: Watch, calm: Build) -> None:
    values = calm(20)
    values[5:18] = np.nan
    found = watch.score(values)
    assert found.judged[0, :9].all()  # means of 5 s still see the last measured sample
    assert not found.judged[0, 10:18].any()
    assert (found.probability[0, 10:18] == 0).all()
    assert not found.alarm[0, 10:18].any()


def test_one_row_is_scored(watch: Watch, calm: Build) -> None:
    assert watch.score(calm(1)).probability.shape == (1, 1)


def test_constant_columns_are_no_trouble(toy_model: Model) -> None:
    found = Detector(toy_model).learn(np.full((30, 4), 7.0), 1.0).score(np.full((10, 4), 7.0))
    assert np.isfinite(found.probability).all()
    assert not found.alarm.any()


@pytest.mark.parametrize(
    ("reference", "interval", "said"),
    [
        (np.ones((2, 3)), 1.0, "has 2 samples"),
        (np.full((30, 3), np.nan), 1.0, "no signal of database 0"),
        (np.ones((30, 3)), 0.0, "interval is 0.0:"),
        (np.ones((30, 3)), float("nan"), "interval is nan:"),
    ],
)
def test_a_reference_that_says_nothing_is_refused(
    toy_model: Model, reference: Floats, interval: float, said: str
) -> None:
    with pytest.raises(ReferenceDataError, match=said):
        Detector(toy_model).learn(reference, interval)


def test_examples_that_do_not_fit_are_refused(watch: Watch, calm: Build) -> None:
    with pytest.raises(SupportError, match="one row per label"):
        watch.remember(0, calm(3), np.zeros(2, dtype=np.bool_))
    with pytest.raises(SupportError, match=r"are \(3, 11\): give \(rows, 12\)"):
        watch.remember(0, calm(3)[:, :11], np.zeros(3, dtype=np.bool_))
    with pytest.raises(SupportError, match=r"`labelled` has the shape \(2,\), not \(3,\)"):
        watch.remember(0, calm(3), np.zeros(3, dtype=np.bool_), np.ones(2, dtype=np.bool_))
    with pytest.raises(SupportError, match="none of the examples"):
        watch.remember(0, np.full((3, 12), np.nan), np.ones(3, dtype=np.bool_))


@pytest.mark.parametrize("label", [float("nan"), 2, 0.5, -1, "1", None])
def test_a_label_that_is_neither_0_nor_1_is_refused_by_its_row(watch: Watch, calm: Build, label: Any) -> None:
    labels: Any = [0, 1, label]
    with pytest.raises(SupportError, match=r"`labels\[\d\]` is .*: it is 1 or 0"):
        watch.remember(0, calm(3), labels)
    with pytest.raises(SupportError, match=r"`labelled\[\d\]` is"):
        watch.remember(0, calm(3), np.ones(3, dtype=np.bool_), labels)


def test_labels_may_be_numbers_and_of_rows_that_are_no_examples_anything(watch: Watch, calm: Build) -> None:
    wanted = np.array([True, True, False, True])
    plain = watch.remember(0, calm(4), np.array([True, False, False, True]), wanted)
    number: Any = [1, 0.0, float("nan"), 1]
    np.testing.assert_array_equal(
        watch.remember(0, calm(4), number, wanted).score(calm(9)).probability, plain.score(calm(9)).probability
    )


@pytest.mark.parametrize("database", [1, -1, 3])
def test_examples_of_a_database_that_was_not_learned_are_refused(watch: Watch, calm: Build, database: int) -> None:
    with pytest.raises(SupportError, match=f"no database {database}: 1 learned, give an index from 0 to 0"):
        watch.remember(database, calm(3), np.ones(3, dtype=np.bool_))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((4, 11), r"the samples are \(1, 4, 11\) and what was learned is of 1 database\(s\) with 12 signal\(s\)"),
        ((4, 13), r"give \(1, T, 12\)"),
        ((0, 12), "T at least 1"),
        ((2, 4, 12), r"the samples are \(2, 4, 12\)"),
        ((12,), r"shape is \(12,\): give \(rows, signals\)"),
        ((), r"shape is \(\): give \(rows, signals\)"),
        ((1, 1, 4, 12), r"shape is \(1, 1, 4, 12\)"),
    ],
)
def test_samples_of_another_shape_than_was_learned_are_refused(watch: Watch, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(SamplesError, match=said):
        watch.score(np.ones(shape))


@pytest.mark.parametrize(
    ("shape", "more", "said"),
    [
        ((30,), {}, r"shape is \(30,\): give \(rows, signals\)"),
        ((), {}, r"shape is \(\): give"),
        ((0, 30, 3), {}, r"shape is \(0, 30, 3\)"),
        ((30, 3), {"floor": np.ones(2)}, r"`floor` has the shape \(2,\): give one per signal, \(3,\)"),
        ((30, 3), {"floor": np.ones((3, 1))}, r"`floor` has the shape \(3, 1\)"),
        ((30, 3), {"floor": np.array([1, np.nan, 1])}, r"`floor\[1\]` is missing"),
        ((30, 3), {"hurts": np.ones(4)}, r"`hurts` has the shape \(4,\)"),
    ],
)
def test_a_reference_or_what_is_known_of_its_signals_of_a_wrong_shape_is_refused(
    toy_model: Model, shape: tuple[int, ...], more: dict[str, Floats], said: str
) -> None:
    with pytest.raises(ReferenceDataError, match=said):
        Detector(toy_model).learn(np.ones(shape), 1.0, **more)


def test_what_is_no_array_of_numbers_is_refused(watch: Watch, toy_model: Model, calm: Build) -> None:
    ragged: Any = [[1.0, 2.0], [3.0]]
    with pytest.raises(ReferenceDataError, match="no array of numbers"):
        Detector(toy_model).learn(ragged, 1.0)
    with pytest.raises(SamplesError, match="no array of numbers"):
        watch.score(ragged)
    with pytest.raises(SupportError, match="no array"):
        watch.remember(0, calm(2), ragged)


@pytest.mark.parametrize("huge", [1e200, 1e308, -1.7e308])
def test_values_near_the_end_of_the_numbers_give_no_warning_and_finite_scores(
    toy_model: Model, calm: Build, huge: float
) -> None:
    reference, values = calm(30, 5), calm(12, 5, seed=1)
    reference[::3, 0] = huge
    reference[5:7, 1] = -huge
    reference[:, 2] = huge * np.linspace(-1, 1, 30)
    reference[:, 3] = huge
    values[6:] = -huge
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch = Detector(toy_model).learn(reference, 1.0).remember(0, values, np.arange(12) >= 6)
        found = watch.score(np.concatenate([reference, values]))
    assert np.isfinite(found.probability).all()
    assert np.isfinite(found.deviation).all()


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_score_is_ever_nan(toy_model: Model, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 6))
    reference = data.draw(arrays(np.float64, (data.draw(st.integers(1, 12)), width), elements=numbers))
    values = data.draw(arrays(np.float64, (data.draw(st.integers(1, 8)), width), elements=numbers))
    try:
        watch = Detector(toy_model).learn(reference, data.draw(st.sampled_from([1.0, 5.0, 15.0])))
        if data.draw(st.booleans()):
            watch = watch.remember(0, values, data.draw(arrays(np.bool_, len(values))))
    except (ReferenceDataError, SupportError):
        return
    found = watch.score(values)
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert np.isfinite(found.deviation).all()


def test_a_model_that_was_saved_scores_the_same(toy_model: Model, watch: Watch, calm: Build, tmp_path: Path) -> None:
    toy_model.save(tmp_path / "m.npz")
    again = Detector(load(tmp_path / "m.npz")).learn(calm(40, seed=5), 1.0)
    np.testing.assert_array_equal(again.score(calm(20)).probability, watch.score(calm(20)).probability)


def test_a_missing_damaged_or_foreign_model_is_refused_with_what_to_do(toy_model: Model, tmp_path: Path) -> None:
    file = tmp_path / "m.npz"
    with pytest.raises(ModelError, match="no model at"):
        load(file)
    file.write_bytes(b"junk")
    with pytest.raises(ModelError, match="damaged"):
        load(file)
    toy_model.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        load(file)
    toy_model.save(file)
    with np.load(file) as content:
        arrays_in = dict(content)
    np.savez(file, **(arrays_in | {"about": np.array(json.dumps({"format": 99, "trained_on": ""}))}))
    with pytest.raises(ModelError, match="format 99"):
        load(file)
    np.savez(file, **(arrays_in | {"first.inputs": np.array(["x"])}))
    with pytest.raises(ModelError, match="other features"):
        load(file)


def test_the_model_that_comes_with_the_package_tells_an_anomaly_apart(calm: Build, spiked: Build) -> None:
    found = Detector().learn(calm(40, 20, seed=5), 1.0).score(spiked(calm(40, 20, seed=6), 20, 40, [1, 2, 3, 9]))
    assert found.alarm[0, 24:].mean() > 0.8  # single samples are noise; the episode is an alarm
    assert found.probability[0, 5:20].mean() < 0.5
