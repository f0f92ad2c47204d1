from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection import normal, relation, tokens
from kintsugi_ml.detection.features import FEATURES, Described, describe, refer
from kintsugi_ml.detection.normal import finite

Build = Callable[..., Floats]


def described(reference: Floats, values: Floats, interval: float = 1.0) -> Described:
    return describe(refer(reference[None], interval), values[None])


def column(found: Described, name: str) -> Floats:
    return found.features[0, :, FEATURES.index(name)].astype(np.float64)


def test_what_is_like_the_reference_is_near_zero_and_what_is_not_is_far(calm: Build, spiked: Build) -> None:
    values = spiked(calm(100), 60, 80, [1, 2, 3])
    found = described(values[:40], values)
    for name in ("mean3.q1", "beyond3.mean", "nearest", "coupling"):
        assert column(found, name)[65:80].min() > 1.5 * column(found, name)[40:60].max()


def test_features_do_not_depend_on_the_order_of_the_columns(calm: Build, spiked: Build) -> None:
    values = spiked(calm(90, 23), 60, 80, [1, 2, 3])
    order = np.random.default_rng(1).permutation(23)
    one, other = described(values[:40], values), described(values[:40, order], values[:, order])
    np.testing.assert_allclose(one.features, other.features, rtol=1e-3, atol=2e-3)


def test_features_do_not_depend_on_the_units_of_the_columns(calm: Build, spiked: Build) -> None:
    values = spiked(calm(90), 60, 80, [1, 2, 3])
    unit = 10.0 ** np.random.default_rng(1).uniform(-3, 3, 12)
    one, other = described(values[:40], values), described(values[:40] * unit, values * unit)
    np.testing.assert_allclose(one.features, other.features, rtol=1e-3, atol=2e-3)


def test_a_column_that_is_never_measured_changes_nothing(calm: Build, spiked: Build) -> None:
    values = spiked(calm(90), 60, 80, [1, 2, 3])
    wider = np.concatenate([values, np.full((90, 1), np.nan)], axis=1)
    one, other = described(values[:40], values), described(wider[:40], wider)
    np.testing.assert_allclose(one.features, other.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 2, 5, 500])
def test_any_number_of_columns_gives_the_same_features(columns: int, calm: Build) -> None:
    values = calm(70, columns)
    found = described(values[:40], values)
    assert found.features.shape == (1, 70, len(FEATURES))
    assert np.isfinite(found.features).all()


def test_many_databases_at_once_get_what_each_gets_alone(calm: Build, spiked: Build) -> None:
    values = spiked(calm(60, 20, databases=40), 45, 55, [3, 4])
    together = describe(refer(values[:, :40], 1.0), values)
    for index in (0, 17, 39):
        alone = described(values[index, :40], values[index])
        np.testing.assert_allclose(alone.features[0], together.features[index], rtol=1e-4, atol=1e-5)


def test_a_long_input_gets_what_its_pieces_get(calm: Build) -> None:
    values = calm(4000, 60)
    found = described(values[:100], values)
    piece = described(values[:100], values[3000:3100])
    np.testing.assert_allclose(found.features[0, 3010:3100], piece.features[0, 10:], rtol=1e-4, atol=1e-5)


def test_windows_are_in_seconds() -> None:
    assert [tokens.samples(5.0, interval) for interval in (1, 2, 5, 15)] == [5, 2, 1, 1]
    assert tokens.context(1.0) == 4


def test_the_short_window_sees_first_that_an_event_is_over(calm: Build, spiked: Build) -> None:
    values = spiked(calm(100), 60, 80, [1, 2, 3])
    found = described(values[:40], values)
    short, long = column(found, "nearest@1s"), column(found, "nearest@5s")
    assert short[80:].max() < 1.5 * short[40:60].max()
    assert long[80:83].min() > 1.5 * long[45:60].max()


def test_the_long_window_sees_what_is_faint_more_clearly(calm: Build, spiked: Build) -> None:
    values = spiked(calm(300), 200, 300, range(12), 1.04)
    found = described(values[:100], values)

    def clear(name: str) -> float:
        calm_part, faint = column(found, name)[110:200], column(found, name)[210:]
        return float((np.median(faint) - np.median(calm_part)) / calm_part.std())

    assert clear("nearest@5s") > clear("nearest") > clear("nearest@1s")


def test_windows_of_a_slow_scrape_are_the_same_single_sample(calm: Build, spiked: Build) -> None:
    values = spiked(calm(100), 60, 80, [1, 2, 3])
    found = described(values[:40], values, 5.0)
    for kind in relation.KINDS:
        np.testing.assert_array_equal(column(found, kind), column(found, f"{kind}@1s"))
        np.testing.assert_array_equal(column(found, kind), column(found, f"{kind}@5s"))


def test_examples_are_compared_in_the_coordinates_of_the_reference(calm: Build) -> None:
    values = calm(60)
    reference = refer(values[None, :40], 1.0)
    np.testing.assert_array_equal(describe(reference, values[None, :40]).points, reference.anchors.points)


def test_means_skip_what_is_missing() -> None:
    values = np.array([[[1.0], [np.nan], [3.0], [np.nan], [np.nan], [np.nan]]], dtype=np.float32)
    np.testing.assert_array_equal(tokens.mean_over(values, 3)[0, :, 0], [1, 1, 2, 3, 3, np.nan])
    np.testing.assert_array_equal(tokens.peak_over(values, 3)[0, :, 0], [1, 1, 3, 3, 3, np.nan])


def test_a_counter_is_judged_by_its_steps(calm: Build) -> None:
    steps = 100 + np.random.default_rng(0).normal(0, 5, (80, 1))
    rising = np.cumsum(steps, axis=0)
    noise = calm(80, 5)
    found = described(np.hstack([rising, noise])[:40], np.hstack([rising, noise]))
    assert np.abs(found.deviation[0, 60:, 0]).max() < 4


def test_a_counter_that_starts_again_is_missing_for_one_sample() -> None:
    values = np.array([[[5.0], [6.0], [1.0], [3.0]]])
    out = normal.steps(values, np.array([[True]]))
    np.testing.assert_array_equal(out[0, :, 0], [np.nan, 1, np.nan, 2])


def test_a_counter_s_step_over_blank_cells_is_what_it_is_per_sample() -> None:
    beside = np.arange(7.0)
    counter = np.array([10, np.nan, np.nan, 40, 50, np.nan, 20])
    both = np.stack([counter, beside], axis=1)[None]
    out = normal.steps(both, np.array([[True, False]]))
    np.testing.assert_array_equal(out[0, :, 0], [np.nan, np.nan, np.nan, 10, 10, np.nan, np.nan])
    np.testing.assert_array_equal(out[0, :, 1], beside)


def test_no_step_is_taken_over_a_sample_with_nothing_in_it() -> None:
    values = np.array([[[1.0, 5.0], [2.0, 5.0], [np.nan, np.nan], [900.0, 5.0], [901.0, 5.0]]])
    out = normal.steps(values, np.array([[True, False]]))
    np.testing.assert_array_equal(out[0, :, 0], [np.nan, 1, np.nan, np.nan, 1])


def test_a_rare_rise_makes_a_counter_only_when_there_are_many() -> None:
    rows = np.arange(120.0)
    kept = {every: bool(normal.counters((rows // every * 1.0)[None, :, None])[0, 0]) for every in (2, 10, 14, 30)}
    assert kept == {2: True, 10: True, 14: True, 30: False}


def test_a_counter_is_known_for_one_whatever_is_blank() -> None:
    rows = np.arange(40.0)
    assert normal.counters(np.where(rows % 2 == 0, rows, np.nan)[None, :, None])[0, 0]
    assert not normal.counters(np.where(rows % 2 == 0, -rows, np.nan)[None, :, None])[0, 0]


def test_a_gauge_that_falls_once_is_no_counter() -> None:
    gauge = np.concatenate([np.arange(30.0), [28.0]])
    assert not normal.counters(gauge[None, :, None])[0, 0]
    assert normal.counters(gauge[None, :30, None])[0, 0]


def test_quantiles_match_numpy_where_some_are_missing(calm: Build) -> None:
    values = calm(50, 3)
    values[::7, 1] = np.nan
    learned = normal.learn(values[None])
    np.testing.assert_allclose(learned.centre[0], np.nanmedian(values, axis=0))
    low = (np.nanquantile(values, 0.05, axis=0) - learned.centre[0]) / learned.scale[0]
    np.testing.assert_allclose(learned.low[0], low, rtol=1e-5)


def test_harmless_changes_count_less(calm: Build, spiked: Build) -> None:
    values = calm(60)
    fallen = spiked(values, 45, 60, [0, 1, 2, 3], 0.3)
    both = describe(refer(values[None, :40], 1.0), fallen[None])
    hurts_up = describe(refer(values[None, :40], 1.0, hurts=np.ones(12)), fallen[None])
    assert column(hurts_up, "mean3.q1")[50] < column(both, "mean3.q1")[50]


def test_a_floor_makes_small_changes_nothing() -> None:
    values = np.zeros((60, 3))
    values[45:] = 1.0
    plain = describe(refer(values[None, :40], 1.0), values[None])
    floored = describe(refer(values[None, :40], 1.0, floor=np.full(3, 10.0)), values[None])
    assert np.abs(plain.deviation[0, 50]).min() == normal.CLIP
    assert np.abs(floored.deviation[0, 50]).max() < 0.2


def test_the_precision_is_the_same_on_both_ways_to_compute_it() -> None:
    points = np.random.default_rng(0).standard_normal((1, 1, 20, 20)).astype(np.float32)
    wide = np.concatenate([points, np.zeros((1, 1, 20, 5), dtype=np.float32)], axis=3)
    one, other = relation.anchor(points, np.array([20.0])), relation.anchor(wide, np.array([20.0]))
    np.testing.assert_allclose(one.precision[0, 0], other.precision[0, 0, :20, :20], rtol=1e-2, atol=1e-3)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=numbers), st.sampled_from([1, 5, 15])
)
def test_whatever_the_numbers_no_feature_is_nan(values: Floats, interval: float) -> None:
    clean = finite(values)
    found = described(clean[: len(clean) // 2 + 1], clean, interval)
    assert np.isfinite(found.features).all()
    assert np.isfinite(found.deviation).all()
