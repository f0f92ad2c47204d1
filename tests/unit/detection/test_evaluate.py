import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi_ml.detection import evaluate, summary
from kintsugi_ml.detection.baselines import boosted, classical, unlearned
from kintsugi_ml.detection.baselines.common import Fixed
from kintsugi_ml.detection.protocol import Episode, Judged, Method, Run, by_class, episode
from kintsugi_ml.detection.results import Kept, Unit, judgements, read
from kintsugi_ml.detection.trials import SETS, TRIALS
from kintsugi_ml.lab import diagnosis


class Truth:
    """Knows the answer, but for a share of noise; counts how often it is trained."""

    uses_examples = True
    probabilities = True

    def __init__(self, noise: float = 0.0, name: str = "the truth") -> None:
        self.trained = 0
        self.noise = noise
        self.name = name

    def train(self, runs: Sequence[Run], seed: int) -> "Truth":
        self.trained += 1
        return self

    def score(self, episode: Episode) -> Judged:
        random = np.random.default_rng(len(episode.run.name))
        return Judged(episode.run.labels + self.noise * random.standard_normal(len(episode.run.labels)), 0.5, 0.5)


def hush(text: str) -> None:
    assert text


def going(folder: Path, runs: list[Run], method: Method, seeds: Sequence[int] = (0,)) -> list[str]:
    said: list[str] = []
    evaluate.run(by_class(runs), [method], seeds, folder, said.append, ("same", "other"))
    return said


def test_what_was_scored_once_is_not_scored_again(tmp_path: Path, toy_runs: list[Run]) -> None:
    truth = Truth()
    folds = by_class(toy_runs)
    evaluate.run(folds[:1], [truth], [0], tmp_path, hush, ("same", "other"))
    assert truth.trained == 1
    assert len(going(tmp_path, toy_runs, truth)) == 2
    assert truth.trained == 3
    assert going(tmp_path, toy_runs, truth) == []


def told(folder: Path, runs: list[Run], *others: str) -> dict[str, Any]:
    asked = summary.Asked(folder, ["the truth", *others], "the truth", 1, 20)
    return summary.document({"dbsherlock": by_class(runs)}, asked)


def test_the_truth_has_perfect_figures_and_noise_has_not(tmp_path: Path, toy_runs: list[Run]) -> None:
    for method in (Truth(), Truth(noise=0.5, name="noise")):
        going(tmp_path / "dbsherlock", toy_runs, method)
    found = told(tmp_path, toy_runs, "noise", "never run")
    perfect, noisy = found["dbsherlock raw"]["k5"], found["baselines"]["noise"]["dbsherlock raw"]["k5"]
    assert perfect["AP"] == perfect["F1"] == perfect["event F1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert perfect["false alarms per hour"]["mean"] == 0
    assert (
        found["dbsherlock raw"]["k0"]["delay"]["mean"] == found["dbsherlock raw, other run"]["k5"]["delay"]["mean"] == 0
    )
    assert perfect["delay"]["mean"] == 5, "five samples are examples and not judged"
    assert noisy["AP"]["low"] <= noisy["AP"]["mean"] <= noisy["AP"]["high"] < 1
    assert found["differences"]["noise"]["dbsherlock raw"]["k5"]["AP"]["low"] > 0
    assert set(found["classes"]["dbsherlock raw"]["k0"]) == {"lock", "disk", "cpu"}
    assert "never run" not in found["baselines"]
    assert "lab unseen class" not in found
    json.dumps(found, allow_nan=False)


def test_a_difference_is_over_the_seeds_that_both_have(tmp_path: Path, toy_runs: list[Run]) -> None:
    going(tmp_path / "dbsherlock", toy_runs, Truth(), seeds=(0,))
    going(tmp_path / "dbsherlock", toy_runs, Truth(noise=0.5), seeds=(1,))  # the truth has a bad second seed
    going(tmp_path / "dbsherlock", toy_runs, Truth(name="one seed"), seeds=(0,))
    asked = summary.Asked(tmp_path, ["the truth", "one seed"], "the truth", 2, 20)
    found = summary.document({"dbsherlock": by_class(toy_runs)}, asked)
    assert found["dbsherlock raw"]["k5"]["AP"]["mean"] < 1
    assert found["differences"]["one seed"]["dbsherlock raw"]["k5"]["AP"]["mean"] == 0
    assert (found["seeds"]["the truth"]["dbsherlock raw"], found["seeds"]["one seed"]["dbsherlock raw"]) == (2, 1)


@pytest.mark.parametrize(
    "part", [["--trial", "dbsherlock"], ["--method", "stack"], ["--seeds", "1"], ["--draws", "20"], ["--fold", "tpcc"]]
)
def test_figures_of_a_part_never_take_the_place_of_those_of_all(part: list[str]) -> None:
    assert evaluate.destination(evaluate.parser().parse_args(["summary"])) == evaluate.TO
    assert evaluate.destination(evaluate.parser().parse_args(["summary", *part])) == evaluate.PART
    assert evaluate.destination(evaluate.parser().parse_args(["summary", *part, "--to", "here"])) == Path("here")


def test_what_was_found_out_about_the_diagnosis_stays_in_the_results(tmp_path: Path) -> None:
    file = tmp_path / "detection.json"
    assert evaluate.diagnosed(file) == {}
    diagnosis.keep({"class never seen": {"runs": {"mean": 30, "low": None, "high": None}}}, file)
    assert list(evaluate.diagnosed(file)) == ["diagnosis"]
    file.write_text(json.dumps({"made": 1, **evaluate.diagnosed(file)}))
    diagnosis.keep({}, file)
    assert json.loads(file.read_text()) == {"made": 1, "diagnosis": {}}


def test_several_processes_tell_the_same_as_one(tmp_path: Path, toy_runs: list[Run]) -> None:
    for method in (Truth(), Truth(noise=0.5, name="noise")):
        going(tmp_path / "dbsherlock", toy_runs, method)
    asked = summary.Asked(tmp_path, ["the truth", "noise"], "the truth", 1, 5)
    alone, together = (summary.document({"dbsherlock": by_class(toy_runs)}, asked, workers) for workers in (1, 2))
    assert json.dumps(alone) == json.dumps(together)


def test_a_method_that_was_not_run_on_every_fold_has_no_figures(tmp_path: Path, toy_runs: list[Run]) -> None:
    evaluate.run(by_class(toy_runs)[:2], [Truth()], [0], tmp_path / "dbsherlock", hush, ("same",))
    assert "dbsherlock raw" not in told(tmp_path, toy_runs)


def test_figures_without_examples_do_not_stand_in_for_those_with_some(tmp_path: Path, toy_runs: list[Run]) -> None:
    evaluate.run(by_class(toy_runs), [Truth()], [0], tmp_path / "dbsherlock", hush, ("other",))
    found = told(tmp_path, toy_runs)
    assert set(found["dbsherlock raw"]) == {"k0"}
    assert set(found["dbsherlock raw, other run"]) == {"k0", "k1", "k5", "k10"}


def test_a_method_without_examples_is_judged_on_the_samples_that_the_others_are(
    tmp_path: Path, toy_runs: list[Run]
) -> None:
    going(tmp_path / "dbsherlock", toy_runs, Truth())
    going(tmp_path / "dbsherlock", toy_runs, unlearned.METHODS[1])
    found = told(tmp_path, toy_runs, "MAD z")
    for name in ("dbsherlock raw", "dbsherlock raw, other run"):
        rates = {k: figures["base rate"]["mean"] for k, figures in found["baselines"]["MAD z"][name].items()}
        assert rates == {k: figures["base rate"]["mean"] for k, figures in found[name].items()}
    of_other = found["baselines"]["MAD z"]["dbsherlock raw, other run"]
    assert of_other["k0"] == of_other["k10"]
    assert (
        found["baselines"]["MAD z"]["dbsherlock raw"]["k10"]["base rate"]["mean"] < of_other["k10"]["base rate"]["mean"]
    )


def test_every_set_names_a_trial_that_draws_examples_from_there() -> None:
    sources = {trial.name: trial.sources for trial in TRIALS}
    assert all(one.source in sources[one.trial] for one in SETS)


def test_doubtful_samples_and_examples_do_not_count(a_run: Callable[..., Run]) -> None:
    run = a_run()
    run.doubtful[30:40] = True
    kept = Kept((np.zeros(100),), (episode(run, "same", 5, 0).scored,), np.array([[0.5, 0.5]]))
    (masked,), (raw,) = (judgements(kept, [run], mask) for mask in ("doubtful", "nothing"))
    assert len(raw.labels) == 100 - 10
    assert len(masked.labels) == 100 - 10 - 10


def test_near_a_labels_edge_nothing_is_judged_if_so_asked(a_run: Callable[..., Run]) -> None:
    run = a_run(start=50)
    last = int(np.flatnonzero(run.labels)[-1])
    kept = Kept((np.zeros(100),), (np.ones(100, dtype=np.bool_),), np.array([[0.5, 0.5]]))
    (judged,) = judgements(kept, [run], "edges")
    out = sorted(set(range(100)) - set(judged.places.tolist()))
    assert out == [*range(47, 53), *range(last - 2, min(last + 4, 100))]
    assert not run.doubtful.any()  # the run itself is as it was


def test_scores_survive_the_file(tmp_path: Path) -> None:
    file = Unit("a method, new", "I/O Saturation", "same", 5, 1).file(tmp_path)
    Kept((np.array([0.5, 1.0]), np.array([2.0])), (np.array([True, False]), np.array([True])), np.ones((2, 2))).save(
        file
    )
    again = read(file)
    assert [one.tolist() for one in again.scores] == [[0.5, 1.0], [2.0]]
    assert [one.tolist() for one in again.scored] == [[True, False], [True]]


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
