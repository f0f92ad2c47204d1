"""What people read of a model's opinion: in the status of a database and in the evidence of an action."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from kintsugi.api.action import ActionApproval, ActionSpec, ActionVerification, DatabaseRef, plan_hash
from kintsugi.api.database import JudgementStatus
from kintsugi.domain.anomaly import Anomaly, Effect, Health, Opinion
from kintsugi.domain.forecast import NO_FORECAST
from kintsugi.stages import summary
from kintsugi.stages.compose import Question, compose
from kintsugi_dev.builders import NOW, a_candidate

OPINION = Opinion(
    model="2026.11.22 (6e64daba4797)",
    probability=0.9312,
    threshold=0.4553,
    anomalies=3,
    normals=2,
    unusual=(("lock_waiters", 14.23), ("oldest_lock_wait", -7.7)),
    fault_class="lock-contention",
    nearest_class="lock-contention",
    class_probability=0.87,
    effect=Effect.OPENED,
)


def an_anomaly(opinion: Opinion | None, health: Health = Health.ANOMALOUS) -> Anomaly:
    return Anomaly(health, 0.8, NOW.timestamp(), (), {}, opinion=opinion)


def judged(opinion: Opinion, health: Health = Health.ANOMALOUS) -> JudgementStatus:
    found = summary.judgement_of(an_anomaly(opinion, health))
    assert found is not None
    return found


def a_spec(opinion: Opinion | None) -> ActionSpec:
    question = Question(
        runnable=True,
        approval=ActionApproval(required=True),
        verification=ActionVerification(window=timedelta(minutes=2), revert_on_failure=True),
        expires_after=timedelta(minutes=30),
        policies=(),
    )
    return compose(
        a_candidate(),
        question,
        database=DatabaseRef(name="orders", uid="uid-orders"),
        incident="1402",
        anomaly=an_anomaly(opinion),
        forecast=NO_FORECAST,
        summary="something is wrong",
        not_proposed=(),
        runner_up="",
        now=NOW,
    )


def test_the_sentence_has_probability_threshold_examples_signals_and_class() -> None:
    assert OPINION.sentence == (
        "the learned model gives 0.93, from its threshold 0.46; examples: 3 of anomalies, 2 of normal times; "
        "flagged because it looks like an anomaly that was labelled or healed here; "
        "most unusual: lock_waiters (14.2 scales), oldest_lock_wait (-7.7 scales); looks like lock-contention (0.87)"
    )


def test_signals_and_class_are_in_the_words_of_a_model_that_would_not_alarm() -> None:
    quiet = replace(OPINION, probability=0.1, effect=Effect.NOTHING)

    assert quiet.sentence == (
        "the learned model gives 0.10, below its threshold 0.46; examples: 3 of anomalies, 2 of normal times; "
        "most unusual: lock_waiters (14.2 scales), oldest_lock_wait (-7.7 scales); looks like lock-contention (0.87)"
    )


def test_an_unknown_class_is_said_where_one_was_asked_for() -> None:
    unknown = replace(OPINION, fault_class="unknown", class_probability=0.3)

    assert unknown.sentence.endswith("; looks like no class of fault that it knows (nearest: lock-contention, 0.30)")
    told = a_spec(unknown).to_json()["evidence"]["opinion"]
    assert (told["faultClass"], told["nearestClass"], told["classProbability"]) == ("unknown", "lock-contention", 0.3)
    assert replace(unknown, nearest_class="").sentence.endswith("; looks like no class of fault that it knows")
    assert "scales); looks like" not in replace(OPINION, fault_class="").sentence
    assert a_spec(replace(OPINION, fault_class="")).to_json()["evidence"]["opinion"]["faultClass"] == "unknown"


def test_the_evidence_of_an_action_has_the_opinion_in_words_and_numbers() -> None:
    spec = a_spec(OPINION)

    assert spec.evidence.opinion is not None
    assert spec.evidence.opinion.sentence == OPINION.sentence
    assert (spec.evidence.opinion.probability, spec.evidence.opinion.threshold) == (0.931, 0.455)
    assert (spec.evidence.opinion.fault_class, spec.evidence.opinion.class_probability) == ("lock-contention", 0.87)
    assert spec.to_json()["evidence"]["opinion"]["unusual"] == [
        {"signal": "lock_waiters", "deviation": 14.2},
        {"signal": "oldest_lock_wait", "deviation": -7.7},
    ]
    read_back = ActionSpec.model_validate(spec.to_json())
    assert plan_hash(read_back.to_json()) == spec.plan_hash


def test_an_action_that_no_model_saw_says_nothing_of_one() -> None:
    assert "opinion" not in a_spec(None).to_json()["evidence"]


def test_the_status_is_rounded_so_that_it_is_not_written_each_second() -> None:
    quiet = replace(OPINION, probability=0.07, effect=Effect.NOTHING)
    noisy = replace(quiet, probability=0.11, unusual=(("reads", 3.1),))

    assert judged(quiet, Health.NORMAL) == judged(noisy, Health.NORMAL)
    assert summary.judgement_of(an_anomaly(None)) is None


def test_the_status_has_signals_and_class_while_the_model_or_the_statistics_say_that_something_is_wrong() -> None:
    quiet = replace(OPINION, probability=0.07)

    for told in (judged(OPINION, Health.NORMAL), judged(quiet, Health.ANOMALOUS)):
        assert told.to_json()["unusual"] == [
            {"signal": "lock_waiters", "deviation": 14.0},
            {"signal": "oldest_lock_wait", "deviation": -8.0},
        ]
        assert (told.fault_class, told.nearest_class) == ("lock-contention", "lock-contention")
        assert told.class_probability == "0.87"
        assert "most unusual: lock_waiters (14 scales), oldest_lock_wait (-8 scales)" in told.sentence

    silent = judged(quiet, Health.NORMAL)
    assert (silent.unusual, silent.fault_class, silent.nearest_class, silent.class_probability) == ((), "", "", "")
    assert "lock" not in silent.sentence


def test_a_probability_over_the_threshold_is_never_rounded_below_it() -> None:
    found = judged(replace(OPINION, probability=0.456))

    assert found.probability >= found.threshold
    assert found.fault_class == "lock-contention"


def test_without_a_model_the_examples_that_count_are_said() -> None:
    found = judged(Opinion("", 0.0, 1.0, normals=1, effect=Effect.SILENCED), Health.NORMAL)

    assert (found.probability, found.threshold, found.normals) == ("", "", 1)
    assert found.sentence == (
        "examples: 0 of anomalies, 1 of normal times; "
        "not flagged because it goes no further than what was labelled normal here"
    )


def test_a_suspicion_is_shown_as_one() -> None:
    suspected = Anomaly(Health.LEARNING, 0.83, None, (), {}, "1 m of 5 m learned", suspected=True)

    assert summary.risk_of(suspected) == "~0.85"
    assert summary.risk_of(replace(suspected, suspected=False)) == "-"
    assert summary.phase_of(suspected, None, None, paused=False).value == "Learning"
