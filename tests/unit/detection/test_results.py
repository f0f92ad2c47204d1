import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import metrics, results
from kintsugi_ml.detection.results import Judgement


def judged(scores: Floats, labels: Bools, group: str = "class", places: list[int] | None = None) -> Judgement:
    """A run of which only `places` are scored, or everything."""
    kept = np.arange(len(labels)) if places is None else np.array(places)
    return Judgement(
        scores[kept], labels[kept], scores[kept] > 0.5, scores[kept] > 0.6, 1.0, group, kept.astype(np.int64), labels
    )


def a_fold(runs: int = 4, rows: int = 40, seed: int = 0, levels: int = 6) -> list[Judgement]:
    """Runs with one event each, but for the last, and scores of which many are alike."""
    random = np.random.default_rng(seed)
    out = []
    for index in range(runs):
        labels = np.zeros(rows, dtype=np.bool_)
        if index < runs - 1:
            labels[10 + index : 25] = True
        scores = np.round((0.5 * labels + random.random(rows)) * levels) / (1.5 * levels)
        out.append(judged(scores, labels, group=f"class {index}"))
    return out


def repeated(fold: list[Judgement], weights: Floats) -> list[Judgement]:
    return [run for run, many in zip(fold, weights.astype(int), strict=True) for _ in range(many)]


COUNTS = st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(lambda counts: sum(counts[:3]) > 0)

PLAIN: dict[str, Callable[[list[Judgement]], float]] = {
    "AP": lambda fold: metrics.average_precision(
        np.concatenate([r.scores for r in fold]), np.concatenate([r.labels for r in fold])
    ),
    "F1": lambda fold: metrics.f1(np.concatenate([r.flags for r in fold]), np.concatenate([r.labels for r in fold])),
    "VUS-PR": lambda fold: statistics.fmean([metrics.vus_pr(r.scores, r.labels, 10) for r in fold if r.labels.any()]),
    "event F1": lambda fold: metrics.event_f1([r.alarms for r in fold], [r.labels for r in fold], 3),
    "false alarms per hour": lambda fold: metrics.false_alarms(
        [r.alarms for r in fold], [r.labels for r in fold], slack=3
    ),
    "ECE": lambda fold: metrics.calibration_error(
        np.concatenate([r.scores for r in fold]), np.concatenate([r.labels for r in fold])
    ),
}


@pytest.mark.parametrize("figure", PLAIN)
@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(lambda counts: sum(counts[:3]) > 0), st.integers(0, 5)
)
@settings(max_examples=10, deadline=None)
def test_a_weighted_figure_is_that_of_the_runs_repeated(figure: str, counts: list[int], seed: int) -> None:
    fold, weights = a_fold(seed=seed), np.array([[1, 1, 1, 1], counts], dtype=np.float64)
    found = results.FIGURES[figure](fold, weights)
    expected = [PLAIN[figure](repeated(fold, one)) for one in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_delay_of_a_draw_is_the_median_over_its_runs() -> None:
    fold = a_fold()
    threshold = metrics.threshold_for([r.scores for r in fold], [r.labels for r in fold], results.BUDGET, slack=3)
    late = metrics.delays([r.scores >= threshold for r in fold], [r.labels for r in fold])
    each = results.delay(fold, np.eye(4))
    np.testing.assert_array_equal(each[:3], late)
    assert np.isnan(each[3])


def test_the_delay_counts_from_the_events_first_sample_though_that_is_an_example_and_not_scored() -> None:
    labels = np.arange(40) >= 10
    scores = np.where(np.arange(40) >= 18, 1.0, 0.0)
    for unscored in ([], [10], [10, 11, 12, 13, 14]):
        places = [place for place in range(40) if place not in unscored]
        assert results.delay([judged(scores, labels, places=places)], np.ones((1, 1))) == [8.0]
    assert results.delay(
        [judged(labels.astype(float), labels, places=[*range(10), *range(15, 40)])], np.ones((1, 1))
    ) == [5.0]


def test_a_missed_event_counts_as_late_as_it_is_long() -> None:
    labels = (np.arange(40) >= 10) & (np.arange(40) < 25)
    scores = np.where(labels, 0.0, 0.5)
    assert results.delay([judged(scores, labels)], np.ones((1, 1))) == [15.0]


def test_a_fault_of_which_only_examples_were_anomalous_is_not_harmless() -> None:
    labels = (np.arange(40) >= 10) & (np.arange(40) < 16)
    left = [place for place in range(40) if not 10 <= place < 16]
    assert results.harmless([judged(np.ones(40), labels, places=left)]) == (0, 0.0)
    alarms, hours = results.harmless([judged(np.ones(40), np.zeros(40, dtype=np.bool_))])
    assert alarms == 1
    assert hours == pytest.approx(40 / 3600)


def test_a_fold_without_an_event_has_no_precision_but_false_alarms() -> None:
    fold = a_fold()[3:]
    for figure in (results.precision, results.f1, results.event_f1):
        assert np.isnan(figure(fold, np.ones((1, 1)))[0])
    assert results.false_alarms(fold, np.ones((1, 1)))[0] > 0


def test_the_first_draw_is_the_data_and_each_other_has_as_many_runs() -> None:
    draws = results.resamples({"a": 5, "b": 3}, 50)
    assert (draws["a"][0] == 1).all()
    assert draws["a"].shape == (51, 5)
    assert (draws["b"].sum(axis=1) == 3).all()


def test_an_interval_leaves_out_draws_that_had_no_figure() -> None:
    found = results.interval(np.array([0.5, 0.4, np.nan, 0.6]))
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.405, 0.595))
    assert results.interval(np.array([np.inf, np.nan])) == results.Interval(None, None, None)


def test_ten_clean_hours_prove_no_less_than_seven_alarms_a_day() -> None:
    # No event in time t: the upper bound is -ln(0.05) / t.
    assert results.most_per_day(0, 10.0) == pytest.approx(-np.log(0.05) / 10 * 24)
    assert results.most_per_day(2, 10.0) > results.most_per_day(1, 10.0) > results.most_per_day(0.4, 10.0)
