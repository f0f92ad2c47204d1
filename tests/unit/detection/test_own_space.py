import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from kintsugi_ml.detection import own_space
from kintsugi_ml.detection.normal import Singles


def points(rows: int, signals: int, seed: int, moved: float = 0.0) -> Singles:
    out = np.random.default_rng(seed).standard_normal((rows, signals)).astype(np.float32)
    out[:, :2] += moved
    return out


@pytest.mark.parametrize("signals", [4, 60])
def test_the_regression_is_that_of_scikit_learn(signals: int) -> None:
    normal, anomalous = points(20, signals, 0), points(5, signals, 1, 2.0)
    memory = own_space.remember(normal, anomalous, np.ones(5, dtype=np.bool_))
    truth = np.repeat([0, 1], [20, 5])
    # Balanced classes weigh n / 2 each there and 1 here.
    strength = 2 / (25 * own_space.WEIGHT_RIDGE)
    library = LogisticRegression(C=strength, class_weight="balanced", tol=1e-8, max_iter=1000)
    library.fit(np.concatenate([normal, anomalous]), truth)
    np.testing.assert_allclose(memory.weights, library.coef_[0], atol=2e-3)
    assert memory.offset == pytest.approx(float(library.intercept_[0]), abs=2e-3)


def test_what_moves_as_the_examples_did_is_more_like_them_than_what_moves_otherwise() -> None:
    normal, anomalous = points(25, 10, 0), points(5, 10, 1, 3.0)
    memory = own_space.remember(normal, anomalous, np.ones(5, dtype=np.bool_))
    alike = own_space.likeness(memory, points(30, 10, 2, 3.0))
    unlike = own_space.likeness(memory, points(30, 10, 3, 3.0)[:, ::-1].copy())
    for one, other in zip(alike, unlike, strict=True):
        assert np.median(one) > np.quantile(other, 0.9)


def test_likeness_does_not_depend_on_the_order_of_the_signals() -> None:
    order = np.random.default_rng(9).permutation(10)
    normal, anomalous, new = points(25, 10, 0), points(5, 10, 1, 3.0), points(8, 10, 2, 1.0)
    labels = np.ones(5, dtype=np.bool_)
    one = own_space.likeness(own_space.remember(normal, anomalous, labels), new)
    other = own_space.likeness(own_space.remember(normal[:, order], anomalous[:, order], labels), new[:, order])
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_labelled_normal_sample_is_familiar_and_what_is_far_is_not() -> None:
    normal, new = points(25, 10, 0), points(1, 10, 5, 4.0)
    memory = own_space.remember(normal, new, np.zeros(1, dtype=np.bool_))
    found = own_space.familiarity(memory, np.concatenate([new, -new]))
    assert found[0, 0] < 0.01 < found[1, 0]
    assert found[0, 1] > 1 > found[1, 1]
