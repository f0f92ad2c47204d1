"""The experience store in a real PostgreSQL: what a fleet shares, and what it says when the server says no."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from kintsugi.domain.actions import Objectives
from kintsugi.domain.experience import Example, Fate, LabelKind, Source, Trial
from kintsugi.domain.frame import Frame
from kintsugi.shell.experience import (
    ExperienceError,
    ExperienceStore,
    Held,
    NewerExperienceError,
    ReadOnlyExperienceError,
    UnavailableExperienceError,
)
from kintsugi_dev.servers import Database

NOW = 1_800_000_000.0


def a_frame(samples: int) -> Frame:
    values = np.arange(samples * 2, dtype=np.float64).reshape(samples, 2)
    values[3, 1] = np.nan
    times = NOW - samples + np.arange(samples, dtype=np.float64)
    return Frame(("commits", "lock_waiters"), times, values, np.isfinite(values), 1.0)


EXAMPLE = Example(
    id="e1",
    database="uid-orders",
    start=NOW - 60,
    end=NOW,
    kind=LabelKind.ANOMALY,
    fault_class="lock-contention",
    source=Source.OUTCOME,
    who="Ännchen",
    action="uid-action",
    window=a_frame(60),
    reference=a_frame(120),
)
TRIAL = Trial(
    action="uid-action",
    database="uid-orders",
    name="shop/orders-7c1f",
    kind="terminate-blocker",
    incident="1402",
    evidence={"summary": "one session blocks 14 – others"},
    forecast={"root": "lock-manager"},
    propensity=0.75,
    predicted=Objectives(latency=0.9),
    measured={"latency": 0.8, "throughput": None},
    verdict="Healed",
    phase="Succeeded",
    ended=NOW,
)


@pytest.fixture
def store(database: Database) -> Iterator[ExperienceStore]:
    store = ExperienceStore(database.dsn())
    store.open(NOW)
    yield store
    store.close()


def test_what_was_kept_is_read_back_by_another_process(store: ExperienceStore, database: Database) -> None:
    assert store.add_trial(TRIAL, EXAMPLE, NOW)
    assert not store.add_trial(TRIAL, EXAMPLE, NOW)

    other = ExperienceStore(database.dsn())
    other.open(NOW)
    (example,) = other.examples_of("uid-orders")

    assert replace(example, window=EXAMPLE.window, reference=EXAMPLE.reference) == EXAMPLE
    np.testing.assert_allclose(example.window.values, EXAMPLE.window.values)
    assert other.trials_of("uid-orders") == (TRIAL,)
    assert other.held() == {"uid-orders": Held(1, 0)}
    assert other.known_trials(["uid-action", "x"]) == {"uid-action"}
    assert other.forget("uid-orders", NOW - 1, NOW, NOW) == 1


def test_of_each_class_the_newest_stay(database: Database) -> None:
    store = ExperienceStore(database.dsn(), per_class=2)
    store.open(NOW)

    for number in (3, 1, 2):
        store.add_example(replace(EXAMPLE, id=f"e{number}", end=NOW + number), NOW)

    assert [example.id for example in store.examples_of("uid-orders")] == ["e2", "e3"]


def test_what_people_said_and_is_no_longer_kept_is_remembered(database: Database) -> None:
    store = ExperienceStore(database.dsn(), per_class=1)
    store.open(NOW)
    said = [replace(EXAMPLE, id=f"e{n}", start=NOW + n, end=NOW + n + 1, source=Source.PERSON) for n in range(3)]

    assert [store.add_example(said[n], NOW) for n in (1, 0, 2)] == [Fate.KEPT, Fate.GAVE_WAY, Fate.KEPT]
    assert store.forget("uid-orders", NOW, NOW + 1, NOW) == 0
    store.pass_over("uid-orders", "acknowledged", NOW, NOW + 60, NOW)

    other = ExperienceStore(database.dsn(), per_class=1)
    other.open(NOW)
    gone = {"e0": Fate.TAKEN_BACK, "e1": Fate.GAVE_WAY, "acknowledged": Fate.TAKEN_BACK}
    assert other.fates("uid-orders") == {**gone, "e2": Fate.KEPT}
    assert other.add_example(said[0], NOW) is Fate.GAVE_WAY


def test_a_store_of_the_first_schema_becomes_one_that_remembers(store: ExperienceStore, database: Database) -> None:
    store.add_example(replace(EXAMPLE, source=Source.PERSON), NOW)
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        connection.execute("DROP TABLE kintsugi_gone")
        connection.execute("UPDATE kintsugi_meta SET value = '1' WHERE key = 'schema'")

    store.open(NOW)
    store.forget("uid-orders", NOW - 60, NOW, NOW)

    assert store.fates("uid-orders") == {"e1": Fate.TAKEN_BACK}


def test_several_that_open_and_write_at_once_all_succeed(database: Database) -> None:
    failed: list[ExperienceError] = []
    began = threading.Barrier(4)

    def write(mine: str) -> None:
        store = ExperienceStore(database.dsn(), per_class=100)
        began.wait()
        try:
            store.open(NOW)
            for number in range(5):
                store.add_example(replace(EXAMPLE, id=f"{mine}-{number}"), NOW)
        except ExperienceError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert failed == []
    assert len(ExperienceStore(database.dsn()).examples_of("uid-orders")) == 20


def test_the_same_outcome_from_two_at_once_is_kept_once(store: ExperienceStore, database: Database) -> None:
    added: list[bool] = []
    began = threading.Barrier(4)

    def write() -> None:
        mine = ExperienceStore(database.dsn())
        began.wait()
        added.append(mine.add_trial(TRIAL, EXAMPLE, NOW))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(added) == [False, False, False, True]
    assert len(store.examples_of("uid-orders")) == 1


def test_a_newer_store_is_refused(store: ExperienceStore, database: Database) -> None:
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        connection.execute("UPDATE kintsugi_meta SET value = '7' WHERE key = 'schema'")

    with pytest.raises(NewerExperienceError, match="schema 7"):
        store.open(NOW)


def test_a_server_that_only_reads_says_so(store: ExperienceStore, database: Database) -> None:
    reader = ExperienceStore(database.dsn(options="-c default_transaction_read_only=on"))

    with pytest.raises(ReadOnlyExperienceError, match="can't be written"):
        reader.add_example(EXAMPLE, NOW)

    assert reader.examples_of("uid-orders") == ()


def test_a_database_that_is_not_there_is_named_without_the_password(database: Database) -> None:
    store = ExperienceStore(database.dsn().rsplit("/", 1)[0] + "/nowhere")

    with pytest.raises(UnavailableExperienceError, match=r"nowhere can't be used .*does not exist") as refused:
        store.open(NOW)

    assert ":***@" in str(refused.value)
