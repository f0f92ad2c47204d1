"""The experience loop: what people say and what actions came to is kept once, survives, and never stops anything."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kintsugi.api.action import ActionStatus, ApprovalStatus, Attempt, HealingAction, Phase, VerdictStatus
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import ACKNOWLEDGE, ACKNOWLEDGED_BY, LABEL, LABELLED_BY
from kintsugi.domain.experience import Example, LabelKind, Source
from kintsugi.domain.frame import Frame
from kintsugi.loops.buffer import RingBuffer
from kintsugi.loops.conditions import conditions_of
from kintsugi.loops.cycle import Cycle, Outcome
from kintsugi.loops.experience import KEPT, ExperienceLoop
from kintsugi.loops.people import UNDERSTOOD, People
from kintsugi.loops.watch import Watch
from kintsugi.shell.errors import PrometheusError
from kintsugi.shell.experience import ExperienceStore
from kintsugi.shell.prometheus import Samples
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import METRICS, NORMAL, POSTGRESQL, Memory, MemoryServices

KEY = "shop/orders"
ORDERS = "uid-orders"
OTHER = "shop/customers"
CUSTOMERS = "uid-customers"


class Prometheus:
    """Remembers every second of every time, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.empty = False
        self.broken: dict[str, Exception] = {}  # by key of a database
        self.asked: list[tuple[float, float]] = []

    async def past(self, database: MonitoredDatabase, watch: Watch, start: float, end: float) -> Frame:
        self.asked.append((start, end))
        if database.metadata.key in self.broken:
            raise self.broken[database.metadata.key]
        if self.away:
            raise PrometheusError("PrometheusUnreachable", "Prometheus at http://prometheus can't be reached")
        times = np.arange(int(start), int(end) + 1, dtype=np.float64)
        names = POSTGRESQL.catalogue.names()
        values = np.full((len(times), len(names)), np.nan)
        if not self.empty:
            values[:, names.index("commits")] = 100.0
        return Frame(names, times, values, np.isfinite(values), 1.0)


class Kept:
    """One database, its experience loop, and what is kept of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.memory = Memory()
        self.memory.database()
        self.prometheus = Prometheus()
        self.heard: list[tuple[str, tuple[Example, ...]]] = []
        self.services: MemoryServices = self.memory.services()
        self.restart()

    def restart(self) -> None:
        """Another process: nothing is remembered but what is stored and what Kubernetes has."""
        offers = {key: watch.offers for key, watch in self.services.watches.items()}
        self.services = self.memory.services()
        for key, watch in self.services.watches.items():
            watch.offers = offers.get(key, {"commits": ("kintsugi",)})
        self.loop = ExperienceLoop(
            self.services,
            lambda: ExperienceStore(self.url),
            self.prometheus.past,
            lambda uid, examples: self.heard.append((uid, examples)),
        )

    def restart_as_it_was(self) -> None:
        """Another process that finds the objects as they are now."""
        databases = dict(self.services.fleet.databases)
        self.restart()
        self.services.fleet.databases.update(databases)

    def another(self) -> None:
        """A second database, `OTHER`."""
        other = a_database("customers", metrics=METRICS)
        self.memory.kube.put(MonitoredDatabase.PLURAL, other.model_dump(mode="json", by_alias=True))
        self.restart()

    @property
    def watch(self) -> Watch:
        return self.services.watches[KEY]

    @property
    def now(self) -> float:
        return self.memory.now.timestamp()

    async def look(self, after: float = 1.0) -> bool:
        return await self.loop.look(self.now + after)

    def examples(self, uid: str = ORDERS) -> tuple[Example, ...]:
        return ExperienceStore(self.url).examples_of(uid)

    def acknowledge(self, ago: float = 600.0) -> str:
        """Acknowledge an incident that opened so many seconds before now; when that was."""
        since = datetime.fromtimestamp(int(self.now) - ago, UTC)
        status = {"acknowledged": "1402", "reference_since": since}
        self.annotate(status=status, acknowledge="1402", acknowledged_by="ann")
        return since.isoformat()

    def annotate(self, status: dict[str, Any] | None = None, key: str = KEY, **annotations: str | None) -> None:
        """As a person through the API server would, stamps included."""
        names = {"label": LABEL, "by": LABELLED_BY, "acknowledge": ACKNOWLEDGE, "acknowledged_by": ACKNOWLEDGED_BY}
        database = self.services.fleet.databases[key]
        now = {**database.metadata.annotations, **{names[name]: value for name, value in annotations.items()}}
        metadata = database.metadata.model_copy(
            update={"annotations": {name: value for name, value in now.items() if value is not None}}
        )
        update: dict[str, Any] = {"metadata": metadata}
        if status:
            update["status"] = database.status.model_copy(update=status)
        self.services.fleet.databases[key] = database.model_copy(update=update)

    def label(self, what: str, ago: float = 600.0, seconds: int = 60) -> str:
        """A label about so many seconds before now."""
        start = datetime.fromtimestamp(int(self.now) - ago, UTC)
        return f"{what}@{start.isoformat()}/PT{seconds}S"

    def ended(self, **status: Any) -> HealingAction:
        """Place an action that has healed, unless it is said to have ended otherwise."""
        at = self.memory.now - timedelta(seconds=40)
        whole: dict[str, Any] = {
            "phase": Phase.SUCCEEDED,
            "attempts": (Attempt(started_at=at, executor="operator/1", outcome="done"),),
            "verdict": VerdictStatus(outcome="Healed", reasons=("because",)),
            "executed_at": at + timedelta(seconds=1),
            "ended_at": at + timedelta(seconds=30),
        }
        key = self.memory.action(status=ActionStatus(**(whole | status)))
        self.services.fleet.apply(HealingAction.PLURAL, self.memory.body(key))
        return self.services.fleet.actions[key]

    def ended_of_another(self) -> None:
        """As `ended`, of the second database."""
        action = self.ended()
        body = copy.deepcopy(self.memory.body(action.metadata.key))
        body["metadata"] |= {"name": "customers-1", "uid": "uid-other-action"}
        body["spec"]["database"] = {"name": "customers", "uid": CUSTOMERS}
        self.services.fleet.apply(HealingAction.PLURAL, body)

    def remember(self, seconds: float, *incidents: tuple[float, float | None]) -> None:
        """Fill the buffer with so many seconds, and the watch with incidents (seconds before now)."""
        times = np.arange(int(self.now) - seconds, int(self.now) + 1, dtype=np.float64)
        self.watch.buffer = RingBuffer(POSTGRESQL.catalogue.names(), 1.0, len(times))
        self.watch.buffer.append(Samples(times, {"commits": np.full(len(times), 100.0)}))
        at = float(int(self.now))
        self.watch.incidents = [(at - start, None if end is None else at - end) for start, end in incidents]

    def condition(self, type_: str, key: str = KEY) -> tuple[bool, str, str]:
        return self.services.watches[key].beside[type_]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "experience.db")


def kinds(examples: Sequence[Example]) -> list[tuple[str, str, str, str]]:
    return [(one.kind.value, one.fault_class, one.source.value, one.who) for one in examples]


# --- outcomes ---


async def test_a_healed_action_is_kept_with_its_outcome_and_as_an_example(kept: Kept) -> None:
    action = kept.ended()

    assert await kept.look()

    (trial,) = ExperienceStore(kept.url).trials_of(ORDERS)
    assert (trial.action, trial.verdict, trial.kind) == (action.metadata.uid, "Healed", "terminate-blocker")
    assert kinds(kept.examples()) == [("anomaly", "lock-contention", "outcome", "")]
    assert kept.condition(KEPT) == (True, "Kept", "examples: 1 of anomalies, 0 of normal times")


async def test_an_action_is_kept_once_however_often_it_is_looked_at(kept: Kept) -> None:
    kept.ended()

    for _ in range(3):
        await kept.look()
    kept.restart()
    await kept.look()

    assert len(kept.examples()) == 1
    assert len(kept.prometheus.asked) == 1


async def test_an_operator_killed_before_it_kept_an_outcome_keeps_it_after_its_restart(kept: Kept) -> None:
    kept.ended()

    kept.restart()
    await kept.look()

    assert len(kept.examples()) == 1


async def test_an_action_that_did_not_heal_is_an_outcome_and_no_example(kept: Kept) -> None:
    kept.ended(phase=Phase.FAILED, verdict=VerdictStatus(outcome="NotHealed", reasons=("still",)))

    await kept.look()

    assert [trial.verdict for trial in ExperienceStore(kept.url).trials_of(ORDERS)] == ["NotHealed"]
    assert kept.examples() == ()


async def test_a_false_alarm_that_a_person_rejects_is_an_example_of_normal(kept: Kept) -> None:
    approval = ApprovalStatus(rejected_by="ann", reason="false alarm, the weekly report")
    kept.ended(phase=Phase.REJECTED, verdict=None, attempts=(), executed_at=None, approval=approval)

    await kept.look(after=120)

    assert kinds(kept.examples()) == [("normal", "false-alarm", "person", "ann")]


async def test_while_prometheus_is_away_an_outcome_waits_and_is_not_lost(kept: Kept) -> None:
    kept.ended()
    kept.prometheus.away = True
    assert await kept.look(1)
    kept.prometheus.away = False

    await kept.look(2)
    assert ExperienceStore(kept.url).trials_of(ORDERS) == ()  # not asked again at once

    await kept.look(62)
    assert len(kept.examples()) == 1


async def test_samples_that_nobody_has_any_more_cost_only_the_example(kept: Kept) -> None:
    kept.ended()
    kept.prometheus.empty = True

    await kept.look()

    assert kept.examples() == ()
    assert len(ExperienceStore(kept.url).trials_of(ORDERS)) == 1


async def test_an_outcome_is_silent_where_a_person_has_spoken(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal:deploy", ago=44, seconds=3), by="ann")
    kept.ended()

    await kept.look()

    assert kinds(kept.examples()) == [("normal", "deploy", "person", "ann")]


# --- people ---


async def test_a_label_becomes_an_example_and_the_person_sees_that_it_did(kept: Kept) -> None:
    kept.annotate(label=kept.label("anomaly:lock-contention"), by="ann")

    await kept.look()

    (example,) = kept.examples()
    assert (example.kind, example.source, example.who) == (LabelKind.ANOMALY, Source.PERSON, "ann")
    assert len(example.window) == 60
    assert kept.condition(UNDERSTOOD)[0] is True
    assert [note for _, reason, note in kept.memory.notes.told if reason == "Labelled"] == [
        f"kept as an example of anomaly:lock-contention: 60 s from "
        f"{datetime.fromtimestamp(example.start, UTC):%Y-%m-%d %H:%M:%S} UTC, by ann"
    ]


async def test_what_is_still_in_the_buffer_is_not_asked_for_again(kept: Kept) -> None:
    times = np.arange(int(kept.now) - 900, int(kept.now) + 1, dtype=np.float64)
    kept.watch.buffer.clear()
    kept.watch.buffer.append(Samples(times, {"commits": np.full(len(times), 100.0)}))
    kept.annotate(label=kept.label("anomaly", ago=300), by="ann")

    await kept.look()

    assert kept.prometheus.asked == []
    assert [len(example.window) for example in kept.examples()] == [60]


async def test_a_label_is_taken_in_once_also_after_a_restart(kept: Kept) -> None:
    kept.annotate(label=kept.label("anomaly"), by="ann")
    await kept.look()
    annotations = kept.services.fleet.databases[KEY].metadata.annotations

    kept.restart()
    kept.annotate(label=annotations[LABEL], by="ann")
    await kept.look()

    assert len(kept.examples()) == 1
    assert len(kept.prometheus.asked) == 1
    assert kept.memory.notes.reasons("MonitoredDatabase") == ["Labelled"]


async def test_a_kept_label_may_become_older_than_a_new_one_could_be(kept: Kept) -> None:
    kept.annotate(label=kept.label("anomaly"), by="ann")
    await kept.look()
    kept.restart()
    kept.annotate(label=kept.label("anomaly"), by="ann")

    await kept.look(after=8 * 86400)

    assert kept.condition(UNDERSTOOD)[0] is True


async def test_a_label_added_to_others_is_the_only_one_that_is_read(kept: Kept) -> None:
    first, second = kept.label("anomaly"), kept.label("normal", ago=900)
    kept.annotate(label=first, by="ann")
    await kept.look()

    kept.annotate(label=f"{first};{second}", by="ben")
    await kept.look()

    assert sorted(kinds(kept.examples())) == [("anomaly", "", "person", "ann"), ("normal", "", "person", "ben")]
    assert len(kept.prometheus.asked) == 2


async def test_a_label_that_is_wrong_is_said_and_the_others_are_kept(kept: Kept) -> None:
    kept.annotate(label=f"nonsense;{kept.label('normal')}", by="ann")

    await kept.look()

    status, reason, message = kept.condition(UNDERSTOOD)
    assert (status, reason) == (False, "NotKept")
    assert message.startswith("label 'nonsense' names no interval; write it like")
    assert kinds(kept.examples()) == [("normal", "", "person", "ann")]


async def test_a_label_without_a_stamp_poisons_nothing(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal"))

    await kept.look()

    assert kept.examples() == ()
    assert "carries no name" in kept.condition(UNDERSTOOD)[2]


async def test_a_label_about_the_future_is_kept_when_that_is_past(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal", ago=0, seconds=30), by="ann")

    await kept.look(10)
    assert "from now; label what has happened" in kept.condition(UNDERSTOOD)[2]

    await kept.look(80)
    assert len(kept.examples()) == 1
    assert kept.condition(UNDERSTOOD)[0] is True


async def test_a_label_of_what_prometheus_does_not_have_is_said_and_not_asked_again(kept: Kept) -> None:
    kept.prometheus.empty = True
    kept.annotate(label=kept.label("normal"), by="ann")

    await kept.look(1)
    await kept.look(200)

    assert "Prometheus has too few samples of it" in kept.condition(UNDERSTOOD)[2]
    assert len(kept.prometheus.asked) == 1


async def test_while_prometheus_is_away_a_label_waits_and_says_why(kept: Kept) -> None:
    kept.prometheus.away = True
    kept.annotate(label=kept.label("normal"), by="ann")
    await kept.look(1)
    assert "can't be reached" in kept.condition(UNDERSTOOD)[2]

    kept.prometheus.away = False
    await kept.look(2)
    assert len(kept.prometheus.asked) == 1
    await kept.look(62)

    assert len(kept.examples()) == 1


async def test_a_person_takes_back_what_was_kept(kept: Kept) -> None:
    kept.ended()
    await kept.look()
    assert len(kept.examples()) == 1

    kept.annotate(label=kept.label("forget", ago=120, seconds=120), by="ann")
    await kept.look()

    assert kept.examples() == ()
    assert any(note.startswith("1 examples forgotten: forget@") for _, _, note in kept.memory.notes.told)


async def test_a_label_that_was_forgotten_is_kept_when_it_is_said_again(kept: Kept) -> None:
    lock, forget = kept.label("anomaly:lock-contention"), kept.label("forget")
    counts = []

    for said in (lock, forget, lock, forget):
        kept.annotate(label=said, by="ann")
        await kept.look()
        counts.append(len(kept.examples()))

    assert counts == [1, 0, 1, 0]


async def test_a_label_that_was_replaced_is_kept_when_it_is_said_again(kept: Kept) -> None:
    lock, disk = kept.label("anomaly:lock-contention"), kept.label("anomaly:disk")

    for said in (lock, disk, lock):
        kept.annotate(label=said, by="ann")
        await kept.look()

    assert kinds(kept.examples()) == [("anomaly", "lock-contention", "person", "ann")]
    assert kept.heard[-1][1][0].fault_class == "lock-contention"


async def test_a_forget_that_stands_beside_a_later_label_is_obeyed_once(kept: Kept) -> None:
    both = f"{kept.label('forget', ago=620, seconds=100)};{kept.label('anomaly')}"
    for said in (kept.label("anomaly:disk", ago=610), both, f"{both};{kept.label('normal', ago=900)}"):
        kept.annotate(label=said, by="ann")
        await kept.look()

    assert [one.kind.value for one in kept.examples()] == ["normal", "anomaly"]
    (note,) = [note for _, _, note in kept.memory.notes.told if "forgotten" in note]
    assert note.startswith("1 examples forgotten")


async def test_a_refused_label_is_asked_for_again_only_when_it_is_said_again(kept: Kept) -> None:
    kept.prometheus.empty = True
    refused = kept.label("normal")
    for said in (refused, f"{refused};nonsense", None, refused):
        kept.annotate(label=said, by="ann")
        await kept.look()

    assert len(kept.prometheus.asked) == 2


async def test_an_outcome_is_silent_also_when_the_label_no_longer_stands_in_the_annotation(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal:deploy", ago=100, seconds=70), by="ann")
    await kept.look()
    kept.annotate(label=None, by=None)
    kept.ended()

    await kept.look()

    assert kinds(kept.examples()) == [("normal", "deploy", "person", "ann")]
    assert len(ExperienceStore(kept.url).trials_of(ORDERS)) == 1


async def test_removing_the_annotation_keeps_what_was_said(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal"), by="ann")
    await kept.look()

    kept.annotate(label=None, by=None)
    await kept.look()

    assert len(kept.examples()) == 1


async def test_an_acknowledged_incident_is_an_example_of_normal_once_a_minute_of_it_is_there(kept: Kept) -> None:
    since = kept.memory.now - timedelta(seconds=50)
    status = {"acknowledged": "1402", "reference_since": since}
    kept.annotate(status=status, acknowledge="1402", acknowledged_by="ann")

    await kept.look(1)
    assert kept.examples() == ()

    await kept.look(70)
    assert kinds(kept.examples()) == [("normal", "false-alarm", "person", "ann")]


# --- what people took back stays taken back ---


@pytest.mark.parametrize("between", ["as it stands", "annotation removed", "annotation overwritten"])
async def test_an_acknowledgement_that_a_person_took_back_stays_so_after_a_restart(kept: Kept, between: str) -> None:
    since = kept.acknowledge()
    await kept.look(1)
    assert kinds(kept.examples()) == [("normal", "false-alarm", "person", "ann")]

    kept.annotate(label=f"forget@{since}/PT2M", by="ben")
    await kept.look(11)
    if between != "as it stands":
        label = kept.label("nonsense") if between == "annotation overwritten" else None
        kept.annotate(label=label, by="ben")
    for after in (21, 31, 41):
        kept.restart_as_it_was()
        await kept.look(after)
        assert kept.examples() == ()


@pytest.mark.parametrize("stays", [True, False])
async def test_a_label_of_the_acknowledged_time_is_the_last_word_also_after_restarts(kept: Kept, stays: bool) -> None:
    since = kept.acknowledge()
    await kept.look(1)

    kept.annotate(label=f"anomaly:lock-contention@{since}/PT1M", by="ben")
    await kept.look(11)
    if not stays:
        kept.annotate(label=None, by=None)

    for after in (21, 31, 41):
        kept.restart_as_it_was()
        await kept.look(after)
        assert kinds(kept.examples()) == [("anomaly", "lock-contention", "person", "ben")]


@pytest.mark.parametrize("what", ["forget", "anomaly:lock-contention"])
async def test_an_acknowledgement_of_a_time_that_is_labelled_is_passed_over_for_good(kept: Kept, what: str) -> None:
    since = kept.acknowledge()
    kept.annotate(label=f"{what}@{since}/PT2M", by="ben")
    await kept.look(1)
    kept.annotate(label=None, by=None)
    await kept.look(11)

    kept.restart_as_it_was()
    await kept.look(21)

    assert [kind for kind, *_ in kinds(kept.examples())] == ["anomaly"] * (what != "forget")


async def test_an_acknowledgement_of_long_ago_is_not_complained_of_when_the_store_is_a_new_one(kept: Kept) -> None:
    kept.prometheus.empty = True
    kept.acknowledge(ago=8 * 86400)

    await kept.look()

    assert UNDERSTOOD not in kept.watch.beside
    assert kept.prometheus.asked == []


# --- what gives way ---


def several(kept: Kept, number: int) -> str:
    return ";".join(kept.label("anomaly:lock-contention", ago=7200 - 100 * index) for index in range(number))


async def test_labels_that_gave_way_are_counted_and_neither_read_again_nor_complained_of(kept: Kept) -> None:
    kept.annotate(label=several(kept, 14), by="ann")
    await kept.look(1)
    assert kept.condition(UNDERSTOOD) == (False, "Reading", "8 kept as examples; 6 are yet to be read")
    await kept.look(11)

    ten = (True, "Kept", "10 kept as examples; 4 older ones gave way to newer ones")
    assert (len(kept.examples()), kept.condition(UNDERSTOOD)) == (10, ten)

    kept.prometheus.asked.clear()
    kept.restart_as_it_was()
    await kept.look(8 * 86400)

    assert (len(kept.examples()), kept.condition(UNDERSTOOD)) == (10, ten)
    assert kept.prometheus.asked == []


async def test_a_label_that_is_older_than_all_that_are_kept_is_said_not_to_be_kept(kept: Kept) -> None:
    kept.annotate(label=several(kept, 10), by="ann")
    await kept.look(1)
    await kept.look(11)

    kept.annotate(label=kept.label("anomaly:lock-contention", ago=9000), by="ann")
    await kept.look(21)

    assert kept.memory.notes.told[-1][2].startswith("not kept, as there are newer examples of anomaly:lock-contention")
    assert kept.condition(UNDERSTOOD)[2] == "0 kept as examples; 1 older one gave way to newer ones"


async def test_that_a_label_gave_way_to_an_outcome_is_said(kept: Kept) -> None:
    kept.annotate(label=several(kept, 10), by="ann")
    await kept.look(1)
    await kept.look(11)
    assert kept.condition(UNDERSTOOD) == (True, "Kept", "every label is kept as an example")

    kept.ended()
    await kept.look(21)

    assert kept.condition(UNDERSTOOD)[2] == "9 kept as examples; 1 older one gave way to newer ones"


async def test_a_refusal_is_said_for_as_long_as_the_label_stands(kept: Kept) -> None:
    kept.prometheus.empty = True
    refused = kept.label("normal")
    kept.annotate(label=refused, by="ann")
    await kept.look(1)

    kept.prometheus.empty = False
    kept.annotate(label=f"{refused};{kept.label('anomaly', ago=900)}", by="ann")
    await kept.look(11)

    assert [kind for kind, *_ in kinds(kept.examples())] == ["anomaly"]
    assert "Prometheus has too few samples" in kept.condition(UNDERSTOOD)[2]


# --- nobody keeps others waiting ---


@pytest.mark.parametrize("error", [ValueError("not enough values to unpack"), RuntimeError("never seen before")])
async def test_a_database_whose_past_is_nonsense_keeps_no_other_waiting(
    kept: Kept, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    kept.another()
    kept.prometheus.broken[KEY] = error
    for key in (KEY, OTHER):
        kept.annotate(key=key, label=kept.label("anomaly:bloat"), by="ann")

    assert await kept.look(1)

    assert [len(kept.examples(uid)) for uid in (ORDERS, CUSTOMERS)] == [0, 1]
    assert kept.condition(UNDERSTOOD, OTHER)[0] is True
    status, reason, message = kept.condition(UNDERSTOOD)
    assert (status, reason) == (False, "NotKept")
    assert str(error) in message
    assert "Traceback" in caplog.text

    kept.prometheus.broken.clear()
    await kept.look(62)
    assert len(kept.examples()) == 1
    assert kept.condition(UNDERSTOOD) == (True, "Kept", "every label is kept as an example")


@pytest.mark.parametrize("error", [ValueError("not enough values to unpack"), RuntimeError("never seen before")])
async def test_an_outcome_that_cannot_be_judged_keeps_no_other_waiting(
    kept: Kept, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    kept.another()
    kept.ended()
    kept.ended_of_another()
    kept.annotate(label=kept.label("normal"), by="ann")
    kept.prometheus.broken[OTHER] = error

    assert await kept.look(1)

    assert [len(kept.examples(uid)) for uid in (ORDERS, CUSTOMERS)] == [2, 0]
    assert kept.condition(KEPT)[0] is True
    assert "Traceback" in caplog.text
    if isinstance(error, RuntimeError):
        status, reason, message = kept.condition(KEPT, OTHER)
        assert (status, reason) == (False, "Unforeseen")
        assert message.startswith("what came of shop/customers-1 can't be taken in (RuntimeError: never seen before)")

    kept.prometheus.broken.clear()
    await kept.look(62)
    assert len(kept.examples(CUSTOMERS)) == 1
    assert kept.condition(KEPT, OTHER)[0] is True


async def test_a_database_with_many_labels_does_not_keep_another_waiting(kept: Kept) -> None:
    kept.another()
    kept.annotate(label=several(kept, 64), by="ann")
    kept.annotate(key=OTHER, label=kept.label("normal"), by="ann")

    await kept.look()

    assert len(kept.prometheus.asked) == 8
    assert [len(kept.examples(uid)) for uid in (ORDERS, CUSTOMERS)] == [7, 1]


async def test_a_prometheus_that_is_away_is_asked_for_one_interval_of_a_database(kept: Kept) -> None:
    kept.prometheus.away = True
    kept.annotate(label=several(kept, 64), by="ann")

    await kept.look(1)
    await kept.look(11)
    assert len(kept.prometheus.asked) == 1

    await kept.look(62)
    first, second = kept.prometheus.asked
    assert first != second


# --- the buffer is not enough ---


@pytest.mark.parametrize("ago", [1600, 1200])
async def test_a_label_after_a_long_incident_is_read_from_prometheus_before_it_is_refused(
    kept: Kept, ago: float
) -> None:
    kept.remember(2100, (2095, ago + 12))
    kept.annotate(label=kept.label("anomaly:lock-contention", ago=ago), by="ann")

    await kept.look()

    assert len(kept.prometheus.asked) == 1
    assert [len(example.window) for example in kept.examples()] == [60]
    assert kept.condition(UNDERSTOOD)[0] is True


async def test_while_prometheus_is_away_a_label_that_the_buffer_cannot_serve_waits(kept: Kept) -> None:
    kept.remember(2100, (2095, 1612))
    kept.prometheus.away = True
    kept.annotate(label=kept.label("anomaly", ago=1600), by="ann")
    await kept.look(1)
    assert "can't be reached" in kept.condition(UNDERSTOOD)[2]

    kept.prometheus.away = False
    await kept.look(62)

    assert len(kept.examples()) == 1


async def test_an_outcome_after_a_long_incident_is_an_example_read_from_prometheus(kept: Kept) -> None:
    kept.remember(600, (599, 50))
    kept.ended()

    await kept.look()

    assert len(kept.prometheus.asked) == 1
    assert kinds(kept.examples()) == [("anomaly", "lock-contention", "outcome", "")]


# --- the store ---


async def test_after_a_restart_the_examples_are_read_back_and_handed_on(kept: Kept) -> None:
    kept.annotate(label=kept.label("anomaly:bloat"), by="ann")
    await kept.look()
    assert [(uid, len(examples)) for uid, examples in kept.heard] == [(ORDERS, 1)]

    kept.heard.clear()
    kept.restart()
    await kept.look()

    ((uid, (example,)),) = kept.heard
    assert (uid, example.fault_class) == (ORDERS, "bloat")


async def test_without_news_nobody_is_told_anything(kept: Kept) -> None:
    await kept.look()
    await kept.look()

    assert kept.heard == []
    assert kept.condition(KEPT) == (True, "Kept", "no examples yet; label what you know (docs/experience.md)")
    assert UNDERSTOOD not in kept.watch.beside


async def test_a_damaged_store_is_said_and_used_again_when_it_was_moved_away(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.path.write_bytes(b"no database" * 1000)
    kept.ended()

    assert not await kept.look(1)
    assert not await kept.look(61)

    status, reason, message = kept.condition(KEPT)
    assert (status, reason) == (False, "Corrupt")
    assert "move the file away" in message
    assert caplog.text.count("is damaged") == 1  # said once

    kept.path.unlink()
    assert await kept.look(121)
    assert kept.condition(KEPT)[0] is True
    assert len(kept.examples()) == 1  # from what Kubernetes still has


async def test_a_store_that_was_replaced_is_filled_again_from_labels_and_ended_actions(kept: Kept) -> None:
    first, second = kept.label("normal:backup"), kept.label("anomaly:disk", ago=900)
    kept.annotate(label=first, by="ann")
    kept.ended()
    await kept.look(1)
    before = kinds(kept.examples())
    kept.path.write_bytes(b"no database" * 1000)
    kept.annotate(label=f"{first};{second}", by="ann")
    assert not await kept.look(20)

    kept.path.unlink()
    assert await kept.look(80)
    assert await kept.look(90)

    assert kinds(kept.examples()) == [("anomaly", "disk", "person", "ann"), *before]
    assert len(ExperienceStore(kept.url).trials_of(ORDERS)) == 1
    assert len(kept.heard[-1][1]) == 3
    assert kept.condition(UNDERSTOOD)[0] is True


async def test_a_store_that_failed_for_a_moment_is_asked_what_it_holds_and_keeps_nothing_twice(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal:backup"), by="ann")
    kept.ended()
    await kept.look(1)
    asked = len(kept.prometheus.asked)

    await kept.loop.close()
    await kept.look(61)

    assert len(kept.examples()) == 2
    assert len(kept.prometheus.asked) == asked


async def test_whoever_heard_examples_hears_that_a_new_store_has_none(kept: Kept) -> None:
    kept.annotate(label=kept.label("normal:backup"), by="ann")
    await kept.look(1)
    kept.annotate(label=None, by=None)

    await kept.loop.close()
    kept.path.unlink()
    await kept.look(61)

    assert kept.heard[-1] == (ORDERS, ())


async def test_an_unforeseen_failure_after_an_outcome_was_kept_loses_no_news(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.ended()
    with monkeypatch.context() as broken:
        broken.setattr(People, "take_in", lambda *_: 1 / 0)
        assert not await kept.look(1)
    assert kept.heard == []

    assert await kept.look(61)

    assert [(uid, len(examples)) for uid, examples in kept.heard] == [(ORDERS, 1)]
    assert kept.condition(KEPT)[2] == "examples: 1 of anomalies, 0 of normal times"


async def test_who_could_not_hear_is_told_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.ended()
    with monkeypatch.context() as deaf:
        deaf.setattr(kept, "heard", None)
        assert not await kept.look(1)

    assert await kept.look(61)

    assert [uid for uid, _ in kept.heard] == [ORDERS]


async def test_a_url_that_is_none_is_said_and_stops_nothing(kept: Kept) -> None:
    kept.url = "not a url"

    assert not await kept.look()

    assert kept.condition(KEPT)[1] == "WrongUrl"


async def test_before_everything_is_listed_nothing_is_looked_at(kept: Kept) -> None:
    kept.services.fleet.complete = False

    assert await kept.look()

    assert not kept.path.exists()


async def test_what_the_loop_says_stands_in_the_databases_conditions(kept: Kept) -> None:
    kept.path.write_bytes(b"no database" * 1000)
    await kept.look()
    database = kept.services.fleet.databases[KEY]
    cycle = Cycle(
        database=database,
        watch=kept.watch,
        policy=kept.services.policy_for(database),
        anomaly=NORMAL,
        actions=(),
        incident=None,
        now=kept.memory.now,
    )

    found = {one.type: one for one in conditions_of(cycle, Outcome(), (), None)}

    assert (found[KEPT].status, found[KEPT].reason) == ("False", "Corrupt")
    assert found["Healthy"].status == "True"
