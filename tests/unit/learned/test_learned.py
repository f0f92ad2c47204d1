"""Detection with a model and a database's own examples beside the statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kintsugi.domain.anomaly import Anomaly, Effect, Health
from kintsugi.domain.experience import Example, LabelKind
from kintsugi.domain.frame import Floats
from kintsugi.stages.detect import RobustDetector
from kintsugi.stages.learned import PER_KIND, LearnedDetector
from kintsugi.stages.ports import Lesson, Observed
from kintsugi.stages.scoring import RETRY, ROWS_WITHOUT
from kintsugi_dev.judged import NAMES, Database, Said, Says, an_example, now_of

ANOMALY, NORMAL = LabelKind.ANOMALY, LabelKind.NORMAL
BACKUP = {"wait_age": 40.0, "waiters": 40.0}
UID = "uid-orders"


class Judged:
    """A database judged second by second by one detector, its state carried on."""

    def __init__(self, detector: LearnedDetector, **spoilt: float) -> None:
        self.detector = detector
        self.database = Database(spoilt=spoilt)

    def at(self, samples: int) -> Anomaly:
        observed = self.database.observed(samples)
        [(anomaly, self.database.state)] = self.detector.detect([observed], now_of(observed))
        return anomaly


def heard(*examples: Example, model: Says | None = None) -> LearnedDetector:
    detector = LearnedDetector(model)
    detector.hear(UID, examples)
    return detector


# --- one call for all


def test_two_hundred_databases_are_scored_in_one_call() -> None:
    model = Says()
    observed = [Database(f"db{n}", seed=n).observed(3) for n in range(200)]

    verdicts = LearnedDetector(model).detect(observed, now_of(observed[0]))

    assert model.batches == [(200, ROWS_WITHOUT, len(NAMES))]
    assert [anomaly.health for anomaly, _ in verdicts] == [Health.NORMAL] * 200
    assert all(anomaly.opinion is not None for anomaly, _ in verdicts)


def test_databases_of_other_shapes_and_those_that_cannot_be_judged_do_not_disturb_the_batch() -> None:
    model = Says(probability=0.4)
    young = Database("young", reference_samples=40, minimum=60).observed(0)
    blind = Database("blind").observed(0)
    blind = replace(blind, recent=replace(blind.recent, mask=np.zeros_like(blind.recent.mask)))
    plain = Database("plain", learned=False).observed(0)
    observed = [Database("a", seed=1).observed(0), blind, young, plain, Database("b", seed=2).observed(1)]

    verdicts = LearnedDetector(model).detect(observed, now_of(observed[-1]))

    assert sorted(batch[0] for batch in model.batches) == [1, 2]
    assert [anomaly.health for anomaly, _ in verdicts] == [
        Health.NORMAL,
        Health.BLIND,
        Health.LEARNING,
        Health.NORMAL,
        Health.NORMAL,
    ]
    probabilities = [anomaly.opinion.probability if anomaly.opinion else None for anomaly, _ in verdicts]
    assert probabilities == [0.4, None, 0.4, None, 0.4]


def test_a_reference_is_learned_once_while_it_stands() -> None:
    model = Says()
    judged = Judged(LearnedDetector(model))

    for samples in range(5):
        judged.at(samples)

    assert model.learned == 1


def test_what_examples_say_beside_a_reference_is_worked_out_once_while_both_stand() -> None:
    model = Says()
    detector = heard(an_example(LabelKind.ANOMALY, BACKUP), model=model)
    judged = Judged(detector)

    for samples in range(5):
        judged.at(samples)
    assert model.recalled == 1

    detector.hear(UID, [an_example(LabelKind.ANOMALY, BACKUP), an_example(LabelKind.NORMAL, BACKUP)])
    judged.at(5)
    assert model.recalled == 2


# --- without examples the statistics decide


@pytest.mark.parametrize("probability", [0.0, 0.99])
@pytest.mark.parametrize("spoilt", [{}, BACKUP], ids=["quiet", "a fault"])
def test_without_examples_the_verdict_is_that_of_the_statistics(probability: float, spoilt: dict[str, float]) -> None:
    judged, database = Judged(LearnedDetector(Says(probability)), **spoilt), Database(spoilt=spoilt)
    statistical = RobustDetector()
    for samples in range(8):
        ours = judged.at(samples)
        observed = database.observed(samples)
        [(theirs, database.state)] = statistical.detect([observed], now_of(observed))

        assert replace(ours, opinion=None) == theirs
        assert ours.opinion is not None
        assert (ours.opinion.probability, ours.opinion.threshold) == (probability, 0.5)


# --- what a label changes


def test_a_label_normal_changes_the_next_cycle() -> None:
    judged = Judged(LearnedDetector(Says(0.99)), **BACKUP)
    assert [judged.at(samples).flagged for samples in (0, 1, 2)] == [False, True, True]

    judged.detector.hear(UID, [an_example(NORMAL, BACKUP)])

    after = judged.at(3)
    assert not after.flagged
    assert after.opinion is not None
    assert after.opinion.effect is Effect.SILENCED
    assert "1 of normal times" in after.opinion.sentence


def test_a_label_normal_works_without_any_model() -> None:
    judged = Judged(heard(an_example(NORMAL, BACKUP)), **BACKUP)

    assert not any(judged.at(samples).flagged for samples in range(10))


def test_what_goes_further_than_the_label_is_flagged() -> None:
    judged = Judged(heard(an_example(NORMAL, BACKUP)), wait_age=400.0, waiters=400.0)

    assert judged.at(3).flagged


def test_another_signal_than_those_of_the_label_is_flagged() -> None:
    judged = Judged(heard(an_example(NORMAL, BACKUP)), **BACKUP, latency=40.0)

    assert judged.at(3).flagged


def test_two_labels_are_never_put_together() -> None:
    apart = heard(an_example(NORMAL, {"wait_age": 40.0}), an_example(NORMAL, {"latency": 40.0}))

    assert Judged(apart, wait_age=40.0, latency=40.0).at(3).flagged


def test_a_server_that_is_down_is_never_familiar() -> None:
    detector = heard(an_example(NORMAL, {"postgres_up": 0.0, "wait_age": 40.0}))

    assert Judged(detector, postgres_up=0.0, wait_age=40.0).at(3).flagged


def test_a_label_silences_half_as_long_again_as_it_lasted_and_no_longer() -> None:
    judged = Judged(heard(an_example(NORMAL, BACKUP, samples=20)), **BACKUP)

    first = next(samples for samples in range(60) if judged.at(samples).flagged)

    assert 30 <= first <= 34


def test_a_label_anomaly_flags_what_the_statistics_find_too_weak() -> None:
    weak = {"wait_age": 11.0}
    unlabelled, labelled = Judged(LearnedDetector(Says(0.9)), **weak), Judged(LearnedDetector(Says(0.9)), **weak)
    labelled.detector.hear(UID, [an_example(ANOMALY, weak)])

    assert not any(unlabelled.at(samples).flagged for samples in range(10))
    found = [labelled.at(samples) for samples in range(10)]
    assert found[-1].flagged
    assert found[-1].opinion is not None
    assert found[-1].opinion.effect is Effect.OPENED
    assert found[-1].opinion.anomalies == 1


def test_with_a_label_anomaly_alone_a_quiet_database_stays_quiet_whatever_the_model_says() -> None:
    judged = Judged(heard(an_example(ANOMALY, BACKUP), model=Says(0.99)))

    assert not any(judged.at(samples).flagged for samples in range(10))


def test_forgotten_examples_have_no_effect_any_more() -> None:
    judged = Judged(heard(an_example(NORMAL, BACKUP)), **BACKUP)
    assert not judged.at(3).flagged

    judged.detector.hear(UID, [])

    assert judged.at(4).flagged


def test_the_newest_examples_of_each_kind_are_used() -> None:
    model = Says()
    old = [an_example(ANOMALY, {"wait_age": 50.0 + n}, samples=3) for n in range(PER_KIND + 5)]
    detector = heard(*old, an_example(NORMAL), model=model)

    Judged(detector).at(1)

    [lessons] = model.lessons
    assert len(lessons) == PER_KIND + 1
    assert lessons[0][1][:, NAMES.index("wait_age")].max() == 55.0


def test_an_example_with_other_signals_is_used_for_those_it_shares() -> None:
    model = Says()
    renamed = an_example(ANOMALY, {"wait_age": 40.0}, signals=("wait_age", "a_signal_of_an_older_version", "latency"))
    nothing_shared = an_example(NORMAL, signals=("another", "older"))

    anomaly = Judged(heard(renamed, nothing_shared, model=model)).at(1)

    (_, samples, interval, anomalous), (_, nothing, _, _) = model.lessons[0]
    measured = {name for name, column in zip(NAMES, samples.T, strict=True) if not np.isnan(column).all()}
    assert measured == {"wait_age", "latency"}
    assert (interval, anomalous) == (1.0, True)
    assert np.isnan(nothing).all()
    assert anomaly.health is Health.NORMAL


def test_a_fault_is_called_by_its_class_and_quiet_is_not() -> None:
    judged = Judged(LearnedDetector(Says(0.1)), **BACKUP)

    assert judged.at(0).fault_class == "unknown"
    trouble = judged.at(3)
    assert trouble.fault_class == "lock-contention"
    assert trouble.opinion is not None
    assert "looks like lock-contention (0.80)" in trouble.opinion.sentence


# --- a database that is still being learned


def test_a_new_database_is_judged_provisionally_and_never_flagged() -> None:
    judged = Judged(LearnedDetector(Says(0.99)), wait_age=400.0, waiters=400.0)
    judged.database.reference_samples, judged.database.minimum = 30, 300.0

    quiet, trouble = judged.at(0), judged.at(3)

    assert (quiet.health, quiet.suspected, quiet.flagged) == (Health.LEARNING, False, False)
    assert "30 s of 5 m of fault-free samples learned; judged provisionally" in quiet.reason
    assert "nothing suspicious so far" in quiet.reason
    assert (trouble.health, trouble.suspected, trouble.flagged) == (Health.LEARNING, True, False)
    assert "suspicious: wait" in trouble.reason
    assert not judged.database.state.flagged


def test_a_database_with_a_handful_of_samples_is_not_judged_at_all() -> None:
    judged = Judged(LearnedDetector(Says()), wait_age=400.0, waiters=400.0)
    judged.database.reference_samples, judged.database.minimum = 9, 300.0

    anomaly = judged.at(3)

    assert anomaly.reason == "9 s of 5 m of fault-free samples learned"
    assert not anomaly.suspected


# --- what fails


@pytest.mark.parametrize("error", [ValueError("shapes"), MemoryError(), RuntimeError("a defect")])
def test_a_model_that_fails_costs_its_opinion_and_nothing_else(error: Exception) -> None:
    failures: list[Exception] = []
    detector = LearnedDetector(Says(error=error), failures.append)
    judged = Judged(detector, wait_age=400.0, waiters=400.0)

    anomaly = judged.at(3)

    assert failures == [error]
    assert anomaly.flagged
    assert anomaly.opinion is None


def test_probabilities_that_are_none_are_a_failure_of_the_model() -> None:
    failures: list[Exception] = []
    judged = Judged(LearnedDetector(Says(probability=np.nan), failures.append))

    assert judged.at(1).opinion is None
    assert len(failures) == 1


class FailsOn(Says):
    """Fails on databases whose reference is so long, in one of its verbs."""

    def __init__(self, verb: str, samples: int) -> None:
        super().__init__(0.4)
        self.verb, self.samples, self.mended = verb, samples, False

    def learn(self, reference: Floats, *more: Any) -> Any:
        if self.verb == "learn" and len(reference) == self.samples and not self.mended:
            raise ValueError("a defect")
        return super().learn(reference, *more)

    def shape(self, learned: Any) -> tuple[int, ...]:
        if self.verb == "shape" and learned == self.samples and not self.mended:
            raise ValueError("a defect")
        return ()

    def score(self, learned: Sequence[Any], values: Floats) -> Said:
        if self.verb == "score" and self.samples in learned and not self.mended:
            raise ValueError("a defect")
        return super().score(learned, values)


@pytest.mark.parametrize("verb", ["learn", "shape", "score"])
def test_a_database_that_the_model_fails_on_is_left_to_the_statistics_and_others_are_not(verb: str) -> None:
    failures: list[Exception] = []
    model = FailsOn(verb, 77)
    detector = LearnedDetector(model, failures.append)
    databases = [Database(f"db{n}", seed=n) for n in range(5)]
    databases.insert(2, Database("odd", reference_samples=77))

    def observed_after(seconds: int) -> list[Observed]:
        return [database.observed(3 + seconds) for database in databases]

    now = now_of(databases[0].observed(3))

    verdicts = [anomaly for anomaly, _ in detector.detect(observed_after(0), now)]

    assert [anomaly.opinion is None for anomaly in verdicts] == [False, False, True, False, False, False]
    assert verdicts[2].health is Health.NORMAL
    assert failures == []
    assert isinstance(detector.failing("shop/odd"), ValueError)
    assert detector.failing("shop/db0") is None

    model.mended = True
    soon, later = (detector.detect(observed_after(after), now + after)[2][0] for after in (int(RETRY) - 1, int(RETRY)))
    assert soon.opinion is None
    assert later.opinion is not None
    assert detector.failing("shop/odd") is None


def test_examples_that_the_model_fails_on_are_taught_when_it_can() -> None:
    class Forgetful(Says):
        mended = False

        def teach(self, examples: Sequence[Lesson], *more: Any) -> Any | None:
            if not self.mended:
                raise ValueError("a defect")
            return super().teach(examples, *more)

    model = Forgetful(0.4)
    detector = heard(an_example(ANOMALY, BACKUP), model=model)
    good, database = Database("good", seed=3), Database()
    now = now_of(database.observed(3))
    opinions = []
    for after in (0, int(RETRY)):
        model.mended = after > 0
        observed = [one.observed(3 + after) for one in (good, database)]
        opinions.append(detector.detect(observed, now + after)[1][0].opinion)

    assert opinions[0] is not None
    assert (opinions[0].model, opinions[0].anomalies) == ("", 1)
    assert len(model.lessons) == 1
    assert model.recalled == 1


# --- what is kept


def test_examples_are_let_go_once_they_were_taught_and_asked_for_when_there_is_another_model() -> None:
    detector = heard(an_example(NORMAL, BACKUP), an_example(ANOMALY, BACKUP), model=Says())
    judged = Judged(detector, **BACKUP)

    assert not judged.at(10).flagged
    assert detector._heard == {}
    assert detector.unheard() == set()

    detector.use(Says())
    assert detector.unheard() == {UID}
    assert detector.unheard() == set()
    assert not judged.at(12).flagged  # what was labelled normal is known all the time
    opinion = judged.at(13).opinion
    assert opinion is not None
    assert (opinion.anomalies, opinion.normals) == (1, 1)


def test_without_a_model_examples_are_kept_until_there_is_one() -> None:
    detector = heard(an_example(NORMAL, BACKUP))
    judged, model = Judged(detector, **BACKUP), Says()
    assert not judged.at(10).flagged

    detector.use(model)

    assert detector.unheard() == set()
    assert not judged.at(11).flagged
    assert len(model.lessons) == 1
