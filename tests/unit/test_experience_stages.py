"""What becomes an example of what, and what an action did, from objects and samples alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi.api.action import ActionStatus, ApprovalStatus, Attempt, HealingAction, Phase, VerdictStatus
from kintsugi.api.database import DatabaseStatus, MonitoredDatabase
from kintsugi.api.meta import ACKNOWLEDGE, ACKNOWLEDGED_BY
from kintsugi.domain.experience import LabelKind, Source
from kintsugi.domain.frame import Frame
from kintsugi.engines.classes import CLASSES
from kintsugi.engines.registry import ENGINES
from kintsugi.engines.risk import RISKS
from kintsugi.stages.effect import effect
from kintsugi.stages.experience import (
    FEWEST_BEFORE,
    REFERENCE_ROWS,
    ROWS,
    Claim,
    claim_of_acknowledgement,
    claim_of_action,
    claim_of_label,
    counts_as_trial,
    example_of,
    overruled,
    trial_of,
)
from kintsugi.stages.labels import LabelError, parse_label
from kintsugi_dev.builders import NOW, a_database, a_spec, an_action

BEGAN = NOW.timestamp()
CATALOGUE = ENGINES["postgresql"].catalogue


def healed(action: str = "terminate-blocker", outcome: Any = "Healed", phase: Phase = Phase.SUCCEEDED) -> HealingAction:
    status = ActionStatus(
        phase=phase,
        attempts=(Attempt(started_at=NOW, executor="operator/1", outcome="done"),),
        verdict=VerdictStatus(outcome=outcome, reasons=("because",)),
        executed_at=NOW + timedelta(seconds=1),
        ended_at=NOW + timedelta(seconds=30),
    )
    return made(an_action(a_spec(action), status))


def rejected(reason: str, by: str = "ann") -> HealingAction:
    status = ActionStatus(
        phase=Phase.REJECTED,
        approval=ApprovalStatus(rejected_by=by, reason=reason),
        ended_at=NOW + timedelta(minutes=5),
    )
    return made(an_action(status=status))


def made(action: HealingAction, at: datetime = NOW - timedelta(seconds=5)) -> HealingAction:
    return action.model_copy(update={"metadata": action.metadata.model_copy(update={"creation_timestamp": at})})


# --- what an end says ---


def test_what_was_healed_was_an_anomaly_of_the_class_that_the_action_is_evidence_of() -> None:
    claim = claim_of_action(healed(), 1.0, opened=BEGAN - 20)

    assert claim is not None
    assert (claim.kind, claim.fault_class, claim.source) == (LabelKind.ANOMALY, "lock-contention", Source.OUTCOME)
    assert (claim.start, claim.end) == (BEGAN - 20, BEGAN)
    assert (claim.database, claim.action) == ("uid-orders", "uid-action")


def test_every_action_is_evidence_of_a_class_or_said_to_be_of_none() -> None:
    assert set(CLASSES) == set(RISKS)


def test_a_long_incident_is_an_example_of_its_last_minute_before_the_action() -> None:
    claim = claim_of_action(healed(), 1.0, opened=BEGAN - 3600)

    assert claim is not None
    assert claim.start == BEGAN - 60


def test_after_a_restart_an_incident_is_known_since_the_action_was_proposed() -> None:
    claim = claim_of_action(healed(), 1.0, opened=None)

    assert claim is not None
    assert claim.start == BEGAN - 5


def test_an_action_at_once_is_still_an_example_of_a_few_samples() -> None:
    claim = claim_of_action(made(healed(), NOW), 15.0, opened=None)

    assert claim is not None
    assert claim.start == BEGAN - 45


@pytest.mark.parametrize(
    "action",
    [
        healed(outcome="NotHealed", phase=Phase.FAILED),
        healed(outcome="Harmed", phase=Phase.ROLLED_BACK),
        healed(outcome="Inconclusive", phase=Phase.INCONCLUSIVE),
        rejected("planned maintenance"),
        rejected("no false alarm at all, but not now"),
        rejected("false alarm", by=""),
        rejected("false alarm", by="somebody unknown"),
        made(an_action(status=ActionStatus(phase=Phase.EXPIRED))),
    ],
    ids=["not healed", "harmed", "inconclusive", "rejected", "denied", "nameless", "unstamped", "expired"],
)
def test_every_other_end_says_nothing_about_the_metrics(action: HealingAction) -> None:
    assert claim_of_action(action, 1.0, opened=BEGAN - 20) is None


@pytest.mark.parametrize("reason", ["false alarm", "False alarm: nightly report", "false-alarm", " FALSE ALARM!"])
def test_what_a_person_rejects_as_a_false_alarm_was_normal(reason: str) -> None:
    claim = claim_of_action(rejected(reason), 1.0, opened=BEGAN - 20)

    assert claim is not None
    assert (claim.kind, claim.source, claim.who) == (LabelKind.NORMAL, Source.PERSON, "ann")
    assert (claim.start, claim.end) == (BEGAN - 20, BEGAN - 5 + 60)


def acknowledged(word: str = "1402", **changes: Any) -> MonitoredDatabase:
    database = a_database()
    annotations = {ACKNOWLEDGE: word, ACKNOWLEDGED_BY: "ann"} | changes.pop("annotations", {})
    status = DatabaseStatus(**({"acknowledged": word, "reference_since": NOW} | changes))
    metadata = database.metadata.model_copy(update={"annotations": annotations})
    return database.model_copy(update={"metadata": metadata, "status": status})


def test_an_incident_acknowledged_as_how_the_database_is_was_normal() -> None:
    claim = claim_of_acknowledgement(acknowledged(), list(RISKS))

    assert claim is not None
    assert (claim.kind, claim.who, claim.start) == (LabelKind.NORMAL, "ann", BEGAN)
    assert claim.end > claim.start


@pytest.mark.parametrize(
    "database",
    [
        a_database(),
        acknowledged("all"),
        acknowledged("create-index"),
        acknowledged(reference_since=None),
        acknowledged(acknowledged=""),
        acknowledged(annotations={ACKNOWLEDGED_BY: ""}),
    ],
    ids=["none", "all circuits", "one circuit", "no incident", "not acted upon yet", "nameless"],
)
def test_every_other_acknowledgement_says_nothing(database: MonitoredDatabase) -> None:
    assert claim_of_acknowledgement(database, list(RISKS)) is None


def test_where_a_person_has_labelled_an_outcome_is_silent() -> None:
    claim = claim_of_action(healed(), 1.0, opened=BEGAN - 20)
    assert claim is not None

    def label(start: timedelta) -> Any:
        return parse_label(f"normal@{(NOW + start).isoformat()}/PT5S", "ann")

    assert overruled(claim, [label(timedelta(seconds=-8))])
    assert not overruled(claim, [label(timedelta(seconds=-25)), label(timedelta(0))])


def test_a_label_that_only_forgets_is_no_example() -> None:
    with pytest.raises(LabelError, match="what is to be forgotten"):
        claim_of_label(parse_label("forget@2026-01-02T03:04:00Z/PT2M", "ann"), "uid-orders")


# --- samples ---


CLAIM = Claim("c1", "uid-orders", BEGAN - 20, BEGAN, LabelKind.ANOMALY, "bloat", Source.OUTCOME)


def samples(start: float, end: float, interval: float = 1.0, **columns: float) -> Frame:
    """Constant columns of the catalogue's signals; whatever is not named was never measured."""
    times = np.arange(start, end, interval)
    names = CATALOGUE.names()
    values = np.full((len(times), len(names)), np.nan)
    for name, value in columns.items():
        values[:, names.index(name)] = value
    return Frame(names, times, values, np.isfinite(values), interval)


def test_an_example_has_the_samples_of_its_interval_and_fault_free_ones_from_before() -> None:
    frame = samples(BEGAN - 400, BEGAN + 60, commits=100.0, lock_waiters=3.0)

    example = example_of(CLAIM, frame, incidents=[(BEGAN - 200, BEGAN - 150), (BEGAN - 20, None)], window=300.0)

    assert example is not None
    assert example.window.times.tolist() == list(np.arange(BEGAN - 20, BEGAN))
    assert example.window.signals == ("commits", "lock_waiters")
    assert example.reference.times[-1] == BEGAN - 30
    assert not ((example.reference.times >= BEGAN - 210) & (example.reference.times <= BEGAN - 150)).any()
    assert len(example.reference) <= REFERENCE_ROWS


def test_a_long_example_is_cut_and_its_reference_is_what_came_right_before() -> None:
    frame = samples(BEGAN - 5000, BEGAN, commits=100.0)

    example = example_of(replace(CLAIM, start=BEGAN - 2000), frame, [], window=1800.0)

    assert example is not None
    assert len(example.window) == ROWS
    assert example.window.times[0] == BEGAN - 2000
    assert len(example.reference) == REFERENCE_ROWS
    assert set(np.diff(example.reference.times)) == {example.reference.interval} == {example.window.interval}


@pytest.mark.parametrize(
    "frame",
    [
        samples(BEGAN - 400, BEGAN - 18, commits=1.0),
        samples(BEGAN - 20 - FEWEST_BEFORE, BEGAN, commits=1.0),
        samples(BEGAN - 400, BEGAN),
    ],
    ids=["too little of it", "too little before it", "never measured"],
)
def test_too_few_samples_make_no_example(frame: Frame) -> None:
    assert example_of(CLAIM, frame, [], window=300.0) is None


# --- what an action did ---


def test_an_effect_is_a_vector_of_what_went_and_what_came() -> None:
    normal = samples(BEGAN - 300, BEGAN, client_latency_p99=0.01, client_requests=100.0, host_cpu_used=0.2)
    before = samples(BEGAN - 5, BEGAN, client_latency_p99=1.0, client_requests=20.0, host_cpu_used=0.2)
    after = samples(BEGAN, BEGAN + 5, client_latency_p99=0.01, client_requests=60.0, host_cpu_used=0.95)

    found = effect(before, after, normal, CATALOGUE)

    assert found["latency"] == 1.0
    assert found["throughput"] == pytest.approx(0.5)
    assert found["resources"] == -1.0
    assert found["consistency"] is None


def test_what_was_never_far_from_normal_has_hardly_an_effect() -> None:
    normal = samples(BEGAN - 300, BEGAN, client_latency_p99=0.010)
    before = samples(BEGAN - 5, BEGAN, client_latency_p99=0.013)

    found = effect(before, samples(BEGAN, BEGAN + 5, client_latency_p99=0.010), normal, CATALOGUE)

    assert 0 < (found["latency"] or 0) < 0.2


def test_without_samples_nothing_is_measured() -> None:
    nothing = samples(BEGAN, BEGAN)

    assert set(effect(nothing, nothing, nothing, CATALOGUE).values()) == {None}


def test_a_trial_says_what_was_expected_what_came_and_how_it_ended() -> None:
    trial = trial_of(healed(), {"latency": 0.8})

    assert (trial.kind, trial.verdict, trial.phase, trial.propensity) == (
        "terminate-blocker",
        "Healed",
        "Succeeded",
        1.0,
    )
    assert (trial.predicted.latency, trial.measured) == (0.5, {"latency": 0.8})
    assert (trial.name, trial.ended) == ("shop/orders-7c1f", BEGAN + 30)
    assert trial.evidence["summary"] == "slow scans"


def test_what_ran_or_was_rejected_is_a_trial_and_what_was_never_begun_is_none() -> None:
    assert counts_as_trial(healed())
    assert counts_as_trial(rejected("no"))
    for phase in (Phase.EXPIRED, Phase.SUPERSEDED, Phase.FAILED):
        assert not counts_as_trial(an_action(status=ActionStatus(phase=phase)))


def test_the_docs_name_the_class_of_every_action() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experience.md").read_text(encoding="utf-8")
    none = next(line for line in page.splitlines() if "they heal too many things" in line)

    for action, fault_class in CLASSES.items():
        assert f"| {action} | {fault_class} |" in page if fault_class else action in none
