import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from kintsugi.domain.frame import Bools
from kintsugi_ml.detection import metrics
from kintsugi_ml.detection.calibrate import fit


def flags(text: str) -> Bools:
    return np.array([character == "x" for character in text])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 5))
def test_average_precision_and_f1_are_those_of_scikit_learn(seed: int, size: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.random(size) < 0.4
    labels[0] = True
    scores = random.integers(0, levels + 1, size) / levels  # many ties
    assert metrics.average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))
    assert metrics.f1(scores > 0.5, labels) == pytest.approx(f1_score(labels, scores > 0.5))


def test_the_best_threshold_for_events_ignores_flickers_that_cost_few_samples() -> None:
    labels = np.arange(100) >= 50
    scores = np.where(labels, 1.0, 0.0)
    scores[50:80] = scores[[10, 20, 30]] = 0.5
    per_sample = metrics.best_threshold(scores, labels)
    per_event = metrics.best_event_threshold([scores], [labels])
    assert per_sample < 0.5 < per_event
    assert metrics.event_f1([scores >= per_event], [labels]) == 1
    assert metrics.best_event_threshold([scores], [np.zeros(100, dtype=np.bool_)]) == np.inf


def test_the_less_recall_counts_the_higher_is_the_threshold_for_events() -> None:
    # Ten faint events and ten clear ones; every other faint one has its like where nothing is wrong.
    labels = np.zeros(400, dtype=np.bool_)
    scores = np.zeros(400)
    for number in range(20):
        labels[20 * number + 10 : 20 * number + 15] = True
        scores[20 * number + 10 : 20 * number + 15] = 0.5 if number % 2 else 0.9
        scores[20 * number + 2] = 0.5 if number % 4 == 1 else 0.0
    evenly, precisely = (metrics.best_event_threshold([scores], [labels], 0, beta) for beta in (1.0, 0.25))
    assert evenly < 0.5 < precisely
    # Ten of twenty found, no false alarm: (1 + 1/4) · 1 · .5 / (1/4 · 1 + .5).
    assert metrics.event_f1([scores > 0.6], [labels], beta=0.5) == pytest.approx(1.25 * 0.5 / 0.75)


def test_the_best_threshold_is_between_the_classes() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert metrics.best_threshold(scores, scores > 0.5) == pytest.approx(0.5)
    assert metrics.best_threshold(scores, np.zeros(4, dtype=np.bool_)) == np.inf


def test_spans_are_first_and_last_index() -> None:
    assert metrics.spans(flags("xx..x.x")) == [(0, 1), (4, 4), (6, 6)]
    assert metrics.spans(flags("...")) == []


def test_an_event_is_found_by_any_overlap_and_an_alarm_without_one_is_false() -> None:
    # Two events, one found; two alarms, one true: precision and recall are both a half.
    assert metrics.event_f1([flags("..x.....x.")], [flags(".xxx.xx...")]) == pytest.approx(0.5)


def test_slack_lets_an_alarm_miss_the_edge_and_joins_alarms() -> None:
    truth = [flags("..xx......")]
    assert metrics.event_f1([flags("....x.....")], truth) == 0
    assert metrics.event_f1([flags("....x.....")], truth, slack=1) == 1
    assert metrics.event_f1([flags("..x.x.....")], truth, slack=1) == 1


def test_an_alarm_that_was_on_before_the_event_is_false() -> None:
    truth = [flags(".....xxx")]
    assert metrics.event_f1([flags("xxxxxxxx")], truth, slack=2) == 0
    assert metrics.event_f1([flags("...xxxxx")], truth, slack=2) == 1
    assert metrics.false_count(flags("xxxxxxxx"), truth[0], 2) == 1


def test_no_alarm_is_no_success() -> None:
    assert metrics.event_f1([flags("....")], [flags(".xx.")]) == 0
    assert np.isnan(metrics.event_f1([flags("....")], [flags("....")]))


def test_delay_counts_from_the_events_first_sample_and_a_missed_one_is_infinite() -> None:
    found = metrics.delays([flags("x...x.....")], [flags("..xxxx..xx")], interval=5.0)
    assert found.tolist() == [10.0, np.inf]


def test_false_alarms_are_counted_per_normal_hour() -> None:
    truth = np.zeros(3700, dtype=np.bool_)
    truth[:100] = True
    raised = np.zeros(3700, dtype=np.bool_)
    raised[90:110] = True  # touches the event
    raised[[1000, 2000]] = True
    assert metrics.false_alarms([raised], [truth]) == pytest.approx(2.0)


def test_the_budgets_threshold_is_the_lowest_that_keeps_it() -> None:
    scores = np.zeros(3600)
    scores[[10, 20, 30]] = [0.7, 0.8, 0.9]
    truth = np.zeros(3600, dtype=np.bool_)
    assert metrics.threshold_for([scores], [truth], budget=1.0) == 0.9
    assert metrics.threshold_for([scores], [truth], budget=2.0) == 0.8
    assert metrics.threshold_for([scores], [truth], budget=0.0) == np.inf


def test_calibration_error_is_the_mean_gap_between_said_and_seen() -> None:
    # Half of the samples say 0.25 and none is anomalous, the other half say 0.75 and all are.
    said = np.repeat([0.25, 0.75], 50)
    assert metrics.calibration_error(said, said > 0.5) == pytest.approx(0.25)
    assert metrics.reliability(said, said > 0.5) == [(0.25, 0.0, 50), (0.75, 1.0, 50)]


def test_vus_of_perfect_scores_without_buffer_is_one() -> None:
    truth = flags("....xxxx....")
    assert metrics.vus_pr(truth.astype(float), truth, 0) == pytest.approx(1.0)


def test_vus_matches_a_value_computed_by_hand() -> None:
    # Scores flag the event, then everything. No buffer: precision and recall are 1, then 0.5 at no further recall.
    truth = flags("..xx")
    assert metrics.vus_pr(truth.astype(float), truth, 0) == pytest.approx(1.0)
    # Buffer of 2: one softened sample of weight sqrt(1/2) before. Its event weighs (2 + 2.7071) / 2 = 2.3536.
    # Flags on the event: recall 2 / 2.3536, precision 1. On all: recall 1, precision 2.7071 / 4.
    soft = 2 / 2.35355 + (1 - 2 / 2.35355) * (1 + 2.70711 / 4) / 2
    assert metrics.vus_pr(truth.astype(float), truth, 2) == pytest.approx((1 + _at_width_one() + soft) / 3, rel=1e-4)


def _at_width_one() -> float:
    return 1.0  # half of a buffer of one sample is none


def test_vus_pays_for_a_flag_just_before_the_event() -> None:
    truth = flags("........xxxx........")
    early, far = flags(".......x............"), flags("x...................")
    assert metrics.vus_pr(early.astype(float), truth, 6) > metrics.vus_pr(far.astype(float), truth, 6)


def test_calibration_turns_scores_into_frequencies() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(0, 3, 20_000)
    labels = random.random(20_000) < 1 / (1 + np.exp(-(0.5 * scores - 1)))
    found = fit(scores, labels)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.offset == pytest.approx(-1, abs=0.06)
    assert metrics.calibration_error(found.probability(scores), labels) < 0.02


def test_calibration_without_one_of_the_classes_is_flat_and_finite() -> None:
    found = fit(np.arange(5.0), np.zeros(5, dtype=np.bool_))
    assert found.slope == 0
    assert 0 < found.probability(np.array([9.0]))[0] < 0.3


def test_scores_that_point_the_wrong_way_are_not_trusted() -> None:
    found = fit(np.arange(20.0), np.arange(20) < 10)
    assert found.slope == 0
