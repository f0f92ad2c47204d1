import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from kintsugi_ml.detection.errors import ModelError
from kintsugi_ml.detection.trees import MOST_LEAVES, from_boosting


@pytest.mark.parametrize("leaves", [2, 8, MOST_LEAVES])
def test_trees_score_as_the_boosting_they_come_from(leaves: int) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((3000, 6)).astype(np.float32).round(1)  # ties with the thresholds
    labels = features[:, 0] * features[:, 1] + features[:, 2] > 0.3
    boosting = HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=leaves, early_stopping=False)
    boosting.fit(features, labels)
    forest = from_boosting(boosting, 6)
    np.testing.assert_allclose(forest.logits(features), boosting.decision_function(features), rtol=1e-4, atol=1e-4)


def test_trees_that_do_not_fit_together_are_refused() -> None:
    features = np.random.default_rng(0).standard_normal((200, 3))
    boosting = HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=4, early_stopping=False)
    forest = from_boosting(boosting.fit(features, features[:, 0] > 0), 3)
    with pytest.raises(ModelError, match="damaged"):
        dataclasses.replace(forest, feature=forest.feature + 3)
    with pytest.raises(ModelError, match="3 features and was given 2"):
        forest.logits(np.zeros((1, 2), dtype=np.float32))
