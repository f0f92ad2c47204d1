import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from kintsugi_ml.detection.features import CLOSE, LEAN, chosen
from kintsugi_ml.detection.protocol import Run, every
from kintsugi_ml.detection.training import (
    BINS,
    SLOW_S,
    SLOW_SHARE,
    boost,
    mean_of,
    rows,
    slowed,
    views,
    whole,
    zero_shot,
)


def test_no_feature_that_grows_makes_a_sample_look_more_normal(toy_runs: list[Run]) -> None:
    forest = zero_shot(tuple(toy_runs), 0)
    features = chosen(whole(toy_runs[0]).features)
    before = forest.logits(features)
    for feature in range(features.shape[1]):
        grown = features.copy()
        grown[:, feature] += np.float32(0.5)
        assert (forest.logits(grown) >= before - 1e-6).all()
    assert (forest.logits(features + np.float32(5)) > before).any()


def test_both_relations_and_single_signals_are_looked_at(toy_runs: list[Run]) -> None:
    used = {LEAN[feature] for feature in zero_shot(tuple(toy_runs), 0).feature}
    assert used & set(CLOSE)
    assert used - set(CLOSE)


def test_the_mean_of_two_forests_has_the_mean_of_their_logits() -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((600, 4)).astype(np.float32)
    one = boost(features, features[:, 0] > 0, seed=0, trees=5, leaves=4)
    other = boost(features, features[:, 3] > 0.5, seed=1, trees=9)
    expected = (one.logits(features) + other.logits(features)) / 2
    np.testing.assert_allclose(mean_of(one, other).logits(features), expected, rtol=1e-5, atol=1e-5)


def test_without_copies_each_run_is_seen_once_and_all_weigh_the_same(toy_runs: list[Run]) -> None:
    features, labels, weights = rows(toy_runs, 0, changed=False, slow=False)
    assert len(features) == len(labels) < len(rows(toy_runs, 0, slow=False)[0])
    np.testing.assert_allclose(weights, 1.0)


@pytest.mark.parametrize("changed", [False, True])
def test_a_third_of_every_run_s_weight_is_on_its_slow_copy(toy_runs: list[Run], changed: bool) -> None:
    for run in toy_runs:
        shares = [share for _, share, _ in views(run, 0, changed=changed, slow=True)]
        assert sum(shares) == pytest.approx(1.0)
        assert shares[-1] == SLOW_SHARE
    slow = slowed(toy_runs[0])
    assert slow.run.interval == SLOW_S
    features, _, weights = rows(toy_runs[:1], 0, changed=changed)
    many = int(np.count_nonzero(~slow.run.doubtful[slow.reference :]))
    np.testing.assert_array_equal(
        features[-many:], slow.features[slow.reference :][~slow.run.doubtful[slow.reference :]]
    )
    assert weights[-many:].sum() / weights.sum() == pytest.approx(SLOW_SHARE)


def test_a_run_that_was_slow_already_is_its_own_slow_copy(toy_runs: list[Run]) -> None:
    run = every(toy_runs[0], SLOW_S)
    np.testing.assert_array_equal(slowed(run).features, whole(run).features)


@pytest.mark.parametrize("weighted", [False, True])
def test_cutting_features_beforehand_gives_the_trees_that_scikit_learn_would(weighted: bool) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((3000, 4)).astype(np.float32)
    features[:, 1] = features[:, 1].round(1)  # few values, many ties
    features[:, 2] = np.where(random.random(3000) < 0.9, 0, features[:, 2])  # most of its quantiles are one value
    features[:, 3] = 1.0
    labels = features[:, 0] + features[:, 1] * features[:, 2] > 0.3
    weights = random.uniform(0.5, 2, 3000) if weighted else None
    plain = HistGradientBoostingClassifier(
        max_iter=20,
        max_leaf_nodes=8,
        min_samples_leaf=30,
        l2_regularization=1.0,
        max_bins=BINS,
        early_stopping=False,
        monotonic_cst=[1] * 4,
    ).fit(features, labels, sample_weight=weights)
    ours = boost(features, labels, weights, seed=0, trees=20, leaves=8)
    same = np.isclose(ours.logits(features), plain.decision_function(features), atol=1e-3)
    assert same.mean() > 0.98
