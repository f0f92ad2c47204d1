import numpy as np

from kintsugi_ml.detection.features import CLOSE, LEAN, chosen
from kintsugi_ml.detection.protocol import Run
from kintsugi_ml.detection.training import boost, mean_of, rows, whole, zero_shot


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


def test_without_changed_copies_each_run_is_seen_once_and_all_weigh_the_same(toy_runs: list[Run]) -> None:
    features, labels, weights = rows(toy_runs, 0, changed=False)
    assert len(features) == len(labels) < len(rows(toy_runs, 0)[0])
    np.testing.assert_allclose(weights, 1.0)
