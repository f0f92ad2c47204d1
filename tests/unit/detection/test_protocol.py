from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kintsugi_ml.detection.protocol import Run, Source, by_class, by_system, episode, every
from kintsugi_ml.detection.shots import decide_labelled
from kintsugi_ml.detection.training import copies, crossfit, rows, see

ARun = Callable[..., Run]


def test_a_class_is_judged_by_what_never_saw_it(toy_runs: list[Run]) -> None:
    for fold in by_class(toy_runs):
        assert {run.group for run in fold.test} == {fold.name}
        assert fold.name not in {run.group for run in fold.train}
        assert len(fold.test) + len(fold.train) == len(toy_runs)


def test_several_classes_left_out_at_once_still_leave_out_each_once(toy_runs: list[Run]) -> None:
    folds = by_class(toy_runs, 2)
    assert [fold.name for fold in folds] == ["lock, cpu", "disk"]
    assert sorted(run.name for fold in folds for run in fold.test) == sorted(run.name for run in toy_runs)


def test_a_compound_run_is_not_learned_from_where_one_of_its_classes_is_judged(a_run: ARun) -> None:
    runs = [a_run("0", "lock"), a_run("1", "disk"), a_run("2", "lock+disk"), a_run("3", "cpu")]
    trained = {fold.name: [run.name for run in fold.train] for fold in by_class(runs)}
    assert trained == {"lock": ["1", "3"], "disk": ["0", "3"], "lock+disk": ["3"], "cpu": ["0", "1", "2"]}


def test_a_system_left_out_is_only_judged(toy_runs: list[Run]) -> None:
    runs = [replace(run, system=str(index % 2)) for index, run in enumerate(toy_runs)]
    for fold in by_system(runs):
        assert {run.system for run in fold.test} == {fold.name}
        assert fold.name not in {run.system for run in fold.train}


def test_examples_for_a_normal_run_come_from_a_fault_on_the_same_system(a_run: ARun) -> None:
    calm = replace(a_run("calm", "null"), labels=np.zeros(100, dtype=np.bool_))
    fault, elsewhere = a_run("fault", "lock"), replace(a_run("elsewhere", "lock"), system="another")
    sources: tuple[Source, ...] = ("other", "same", "strict")
    for source in sources:
        chosen = episode(calm, source, 5, 0, [elsewhere, fault, calm])
        assert chosen.support is not None
        assert chosen.support.run is fault
        assert chosen.scored.all()


def test_without_another_run_of_its_class_nothing_of_a_run_is_scored(a_run: ARun) -> None:
    assert not episode(a_run(), "other", 5, 0, [a_run()]).scored.any()


def test_examples_of_the_same_run_are_its_first_anomalous_samples_and_are_not_scored(a_run: ARun) -> None:
    chosen = episode(a_run(start=40, end=70), "same", 5, seed=0)
    assert chosen.support is not None
    assert chosen.support.rows[:5].tolist() == [40, 41, 42, 43, 44]
    assert chosen.support.labels.tolist() == [True] * 5 + [False] * 5
    assert not chosen.scored[chosen.support.rows].any()
    assert chosen.scored.sum() == 90


def test_examples_never_come_from_the_reference_or_from_doubtful_samples(a_run: ARun) -> None:
    run = a_run()
    run.doubtful[25:60] = True
    for seed in range(20):
        chosen = episode(run, "same", 10, seed)
        assert chosen.support is not None
        assert chosen.support.rows.min() >= 60


def test_strict_examples_precede_all_that_is_scored(a_run: ARun) -> None:
    chosen = episode(a_run(start=40, end=70), "strict", 5, seed=0)
    assert chosen.support is not None
    assert chosen.support.rows.max() == 44
    assert np.flatnonzero(chosen.scored)[0] == 45


def test_examples_of_another_run_leave_every_sample_to_be_scored(a_run: ARun) -> None:
    one, other = a_run("lock/0"), a_run("lock/1")
    chosen = episode(one, "other", 5, 0, [one, other])
    assert chosen.support is not None
    assert chosen.support.run is other
    assert chosen.scored.all()


def test_the_same_arguments_give_the_same_episode_and_another_seed_another(a_run: ARun) -> None:
    def normals(seed: int) -> list[int]:
        chosen = episode(a_run(), "same", 5, seed)
        assert chosen.support is not None
        return [int(row) for row in chosen.support.rows[5:]]

    assert normals(1) == normals(1)
    assert normals(1) != normals(2)


def test_a_run_that_goes_wrong_early_has_a_shorter_reference(a_run: ARun) -> None:
    assert a_run(start=40).reference == 25
    assert a_run(start=10).reference == 10


@pytest.mark.parametrize("seconds", [1, 5, 15])
def test_a_slower_scrape_keeps_the_newest_sample_of_each_interval(a_run: ARun, seconds: int) -> None:
    run = a_run()
    slow = every(run, seconds)
    assert slow.interval == seconds
    np.testing.assert_array_equal(slow.values[0], run.values[seconds - 1])
    assert len(slow.labels) == 100 // seconds


def test_copies_differ_in_start_and_signals_and_are_the_same_for_the_same_seed(a_run: ARun) -> None:
    run = a_run()
    first, again = copies(run, 3), copies(a_run(), 3)
    assert {seen.points.shape[1] for seen in first} != {12}
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_doubtful_samples_and_the_reference_are_not_trained_on(a_run: ARun) -> None:
    run, spoilt = a_run(), a_run()
    spoilt.doubtful[70:] = True
    assert len(rows([spoilt], 0)[0]) < len(rows([run], 0)[0])
    before_onset = see(a_run(start=100, end=100))
    assert before_onset.reference == 25


def test_cross_fitted_logits_of_a_class_do_not_know_it(toy_runs: list[Run]) -> None:
    found = crossfit(toy_runs, 0)
    later = np.arange(100) >= 60
    changed = [replace(run, labels=run.labels ^ later) for run in toy_runs[:3]]
    again = crossfit([*changed, *toy_runs[3:]], 0)
    np.testing.assert_array_equal(found[toy_runs[0].name], again[toy_runs[0].name])
    assert not np.array_equal(found[toy_runs[5].name], again[toy_runs[5].name])


def test_examples_help_where_the_first_step_is_blind(toy_runs: list[Run]) -> None:
    blind = {run.name: np.zeros(len(run.labels)) for run in toy_runs}
    calibration, thresholds = decide_labelled(toy_runs, blind, 0, beta=1.0)
    assert calibration.slope > 0
    assert 0 < thresholds.sample < 1
    assert 0 < thresholds.event < 1
