from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from kintsugi_ml.detection import evaluate
from kintsugi_ml.detection.baselines import boosted, classical, unlearned
from kintsugi_ml.detection.baselines.common import Fixed
from kintsugi_ml.detection.protocol import Episode, Judged, Method, Run, episode
from kintsugi_ml.detection.results import Kept, Unit, interval, judgements, read


class Truth:
    """Knows the answer, but for a share of noise; counts how often it is trained."""

    name = "the truth"
    uses_examples = True
    probabilities = True

    def __init__(self, noise: float = 0.0) -> None:
        self.trained = 0
        self.noise = noise

    def train(self, runs: Sequence[Run], seed: int) -> "Truth":
        self.trained += 1
        return self

    def score(self, episode: Episode) -> Judged:
        random = np.random.default_rng(len(episode.run.name))
        return Judged(episode.run.labels + self.noise * random.standard_normal(len(episode.run.labels)), 0.5)


def going(folder: Path, runs: list[Run], method: Method, groups: Sequence[str] = ()) -> list[str]:
    said: list[str] = []
    evaluate.run(runs, [method], groups, [0], folder, said.append)
    return said


def test_what_was_scored_once_is_not_scored_again(tmp_path: Path, toy_runs: list[Run]) -> None:
    truth = Truth()
    going(tmp_path, toy_runs, truth, ["lock"])
    assert truth.trained == 1
    assert len(going(tmp_path, toy_runs, truth)) == 2
    assert truth.trained == 3
    assert going(tmp_path, toy_runs, truth) == []


def test_the_truth_has_perfect_figures_and_noise_has_not(tmp_path: Path, toy_runs: list[Run]) -> None:
    for folder, method in ((tmp_path / "a", Truth()), (tmp_path / "b", Truth(noise=0.5))):
        going(folder, toy_runs, method)
    perfect = evaluate.summary(toy_runs, [Truth()], [0], tmp_path / "a", 20)["the truth"]["k5 same"]["raw"]
    noisy = evaluate.summary(toy_runs, [Truth()], [0], tmp_path / "b", 20)["the truth"]["k5 same"]["raw"]
    assert perfect["AP"]["mean"] == perfect["F1"]["mean"] == perfect["event F1"]["mean"] == 1
    assert perfect["delay"]["mean"] == perfect["false alarms per hour"]["mean"] == 0
    assert noisy["AP"]["low"] <= noisy["AP"]["mean"] <= noisy["AP"]["high"] < 1


def test_doubtful_samples_and_examples_do_not_count(a_run: Callable[..., Run]) -> None:
    run = a_run()
    run.doubtful[30:40] = True
    kept = Kept((np.zeros(100),), (episode(run, "same", 5, 0).scored,), np.array([0.5]))
    (masked,) = judgements(kept, [run], masked=True, reference=True)
    (raw,) = judgements(kept, [run], masked=False, reference=False)
    assert len(raw.labels) == 100 - 10 - 25
    assert len(masked.labels) <= 100 - 10 - 10 + 5


def test_scores_survive_the_file(tmp_path: Path) -> None:
    file = Unit("a method, new", "I/O Saturation", "same", 5, 1).file(tmp_path)
    Kept((np.array([0.5, 1.0]), np.array([2.0])), (np.array([True, False]), np.array([True])), np.ones(2)).save(file)
    again = read(file)
    assert [one.tolist() for one in again.scores] == [[0.5, 1.0], [2.0]]
    assert [one.tolist() for one in again.scored] == [[True, False], [True]]


def test_an_interval_leaves_out_draws_that_had_no_figure() -> None:
    found = interval([0.4, float("nan"), 0.6], 0.5)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.405, 0.595))


@pytest.mark.parametrize("method", [*unlearned.METHODS, *classical.METHODS], ids=lambda method: method.name)
def test_every_baseline_without_training_scores_the_anomaly_higher(
    method: Method, toy_runs: list[Run], a_run: Callable[..., Run]
) -> None:
    trained = method.train(toy_runs[:3], 0)
    assert isinstance(trained, Fixed)
    run = a_run("cpu/9", "cpu", seed=77)
    scores = trained.score(episode(run, "none", 0, 0)).scores
    assert np.isfinite(scores).all()
    if method.name == "latency threshold":
        assert not scores.any()  # none of these signals is called a latency
    elif method.name == "matrix profile":
        assert scores[40:50].mean() > scores[25:40].mean()  # it sees the step
    else:
        assert np.median(scores[45:70]) > np.quantile(scores[25:40], 0.9)


@pytest.mark.parametrize("method", boosted.METHODS, ids=lambda method: method.name)
def test_every_learned_baseline_scores_the_anomaly_higher(method: Method, toy_runs: list[Run]) -> None:
    trained = method.train(toy_runs[3:], 0)
    judged = trained.score(episode(toy_runs[0], "same", 5, 0))
    labels = toy_runs[0].labels
    assert np.median(judged.scores[labels]) > np.quantile(judged.scores[~labels], 0.9)
