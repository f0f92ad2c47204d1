"""The experience store and what goes into it: bounded, kept once, readable after a restart, and never in the way."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, inspect, text

from kintsugi.domain.actions import Objectives
from kintsugi.domain.experience import Example, Fate, LabelKind, Source, Trial
from kintsugi.domain.frame import Frame
from kintsugi.shell.experience import (
    BusyExperienceError,
    CorruptExperienceError,
    ExperienceError,
    ExperienceStore,
    ExperienceUrlError,
    FullExperienceError,
    Held,
    NewerExperienceError,
    ReadOnlyExperienceError,
    UnavailableExperienceError,
    gone,
    schema,
)
from kintsugi.shell.experience import engine as engine_module
from kintsugi.shell.experience import store as store_module
from kintsugi.shell.experience.frames import BadFrameError, pack, unpack

NOW = 1_800_000_000.0


def a_frame(
    samples: int = 60, start: float = NOW - 60, signals: tuple[str, ...] = ("commits", "lock_waiters")
) -> Frame:
    random = np.random.default_rng(5)
    values = random.normal(100, 10, (samples, len(signals)))
    values[::7, 0] = np.nan
    return Frame(signals, start + np.arange(samples, dtype=np.float64), values, np.isfinite(values), 1.0)


def an_example(id_: str = "e1", **changes: Any) -> Example:
    example = Example(
        id=id_,
        database="uid-orders",
        start=NOW - 60,
        end=NOW,
        kind=LabelKind.ANOMALY,
        fault_class="lock-contention",
        source=Source.OUTCOME,
        who="",
        action="uid-action",
        window=a_frame(),
        reference=a_frame(120, NOW - 300),
    )
    return replace(example, **changes)


def at(end: float, id_: str, **changes: Any) -> Example:
    return an_example(id_, start=end - 10, end=end, **changes)


def a_trial(action: str = "uid-action", **changes: Any) -> Trial:
    trial = Trial(
        action=action,
        database="uid-orders",
        name="shop/orders-7c1f",
        kind="terminate-blocker",
        incident="1402",
        evidence={"summary": "one session blocks 14 – others"},
        forecast={"root": "lock-manager"},
        propensity=0.75,
        predicted=Objectives(latency=0.9, consistency=-0.1),
        measured={"latency": 0.8, "throughput": None},
        verdict="Healed",
        phase="Succeeded",
        ended=NOW,
    )
    return replace(trial, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "experience.db"


def opened(path: Path, **options: Any) -> ExperienceStore:
    store = ExperienceStore(f"sqlite:///{path}", **options)
    store.open(NOW)
    return store


@pytest.fixture
def store(path: Path) -> Iterator[ExperienceStore]:
    store = opened(path)
    yield store
    store.close()


def fill(store: ExperienceStore) -> None:
    for number in range(20):
        store.add_trial(a_trial(f"a{number}"), at(NOW + number, f"new-{number}"), NOW)


def ids(store: ExperienceStore, database: str = "uid-orders") -> list[str]:
    return [example.id for example in store.examples_of(database)]


# --- what is kept ---


def test_an_example_is_read_back_after_a_restart_as_it_was(store: ExperienceStore, path: Path) -> None:
    example = an_example(who="ann", source=Source.PERSON)
    store.add_example(example, NOW)
    store.close()

    (read,) = opened(path).examples_of("uid-orders")

    assert replace(read, window=example.window, reference=example.reference) == example
    for name in ("window", "reference"):
        mine, theirs = getattr(example, name), getattr(read, name)
        assert theirs.signals == mine.signals
        assert theirs.interval == mine.interval
        np.testing.assert_array_equal(theirs.times, mine.times)
        np.testing.assert_array_equal(theirs.mask, mine.mask)
        np.testing.assert_allclose(theirs.values, mine.values, rtol=1e-6)


def test_an_outcome_is_read_back_as_it_was(store: ExperienceStore, path: Path) -> None:
    store.add_trial(a_trial(), None, NOW)

    assert opened(path).trials_of("uid-orders") == (a_trial(),)


def test_an_outcome_and_its_example_are_kept_together_and_once(store: ExperienceStore) -> None:
    assert store.add_trial(a_trial(), an_example(), NOW)
    assert not store.add_trial(a_trial(verdict="Harmed"), an_example("e2"), NOW)

    assert ids(store) == ["e1"]
    assert [trial.verdict for trial in store.trials_of("uid-orders")] == ["Healed"]
    assert store.known_trials(["uid-action", "uid-other"]) == {"uid-action"}


def test_the_same_example_is_kept_once_and_databases_apart(store: ExperienceStore) -> None:
    assert store.add_example(an_example(), NOW)
    assert not store.add_example(an_example(), NOW)
    assert store.add_example(an_example(database="uid-customers", kind=LabelKind.NORMAL), NOW)

    assert ids(store) == ["e1"]
    assert store.fates("uid-orders") == {"e1": Fate.KEPT}
    assert store.held() == {"uid-orders": Held(1, 0), "uid-customers": Held(0, 1)}


def test_of_each_class_the_newest_stay(path: Path) -> None:
    store = opened(path, per_class=3)

    for number in (4, 1, 3, 0, 2):
        store.add_example(at(NOW + 100 * number, f"lock-{number}"), NOW)
    store.add_example(at(NOW - 5000, "bloat", fault_class="bloat"), NOW)
    store.add_example(at(NOW - 4000, "normal", kind=LabelKind.NORMAL), NOW)

    assert ids(store) == ["bloat", "normal", "lock-2", "lock-3", "lock-4"]


def test_of_all_classes_together_the_newest_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CLASSES", 4)
    store = opened(path, per_class=1)

    for number in range(9):
        store.add_example(at(NOW + 100 * number, f"e{number}", fault_class=f"class-{number}"), NOW)

    assert ids(store) == ["e5", "e6", "e7", "e8"]


def test_of_the_outcomes_the_newest_stay(store: ExperienceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "OUTCOMES_KEPT", 2)

    for number in range(4):
        store.add_trial(a_trial(f"a{number}", ended=NOW + number), None, NOW)

    assert [trial.action for trial in store.trials_of("uid-orders")] == ["a2", "a3"]


def test_what_is_older_than_a_year_goes_when_the_store_is_opened(store: ExperienceStore) -> None:
    store.add_trial(a_trial(), an_example(), NOW)

    store.open(NOW + 365 * 86400)
    assert ids(store) == ["e1"]

    store.open(NOW + 367 * 86400)
    assert ids(store) == []
    assert store.trials_of("uid-orders") == ()


# --- what people say ---


def test_a_person_replaces_what_outcomes_say_about_a_part_of_the_same_time(store: ExperienceStore) -> None:
    store.add_example(an_example("outcome"), NOW)
    store.add_example(an_example("before", start=NOW - 100, end=NOW - 60), NOW)
    store.add_example(an_example("other", database="uid-customers"), NOW)

    store.add_example(at(NOW - 20, "person", kind=LabelKind.NORMAL, source=Source.PERSON), NOW)

    assert ids(store) == ["before", "person"]
    assert ids(store, "uid-customers") == ["other"]


def test_where_a_person_has_spoken_an_outcome_is_kept_without_its_example(store: ExperienceStore) -> None:
    store.add_example(at(NOW - 20, "person", kind=LabelKind.NORMAL, source=Source.PERSON), NOW)

    assert not store.add_example(an_example("outcome"), NOW)
    assert store.add_trial(a_trial(), an_example("healed"), NOW)
    assert store.add_example(an_example("before", start=NOW - 60, end=NOW - 30), NOW)
    assert store.add_example(an_example("other", database="uid-customers"), NOW)

    assert ids(store) == ["before", "person"]
    assert [trial.action for trial in store.trials_of("uid-orders")] == ["uid-action"]


def test_a_person_who_says_something_else_about_the_same_interval_is_believed_last(store: ExperienceStore) -> None:
    store.add_example(an_example("first", source=Source.PERSON), NOW)
    store.add_example(an_example("part", source=Source.PERSON, start=NOW - 30), NOW)

    store.add_example(an_example("second", source=Source.PERSON, kind=LabelKind.NORMAL), NOW)

    assert sorted(ids(store)) == ["part", "second"]


def test_forgetting_drops_whatever_touches_the_time_and_nothing_else(store: ExperienceStore) -> None:
    for number in range(3):
        store.add_example(at(NOW + 10 * number, f"e{number}", source=Source.PERSON), NOW)

    assert store.forget("uid-orders", NOW, NOW + 10, NOW, keep=["e1"]) == 0
    assert store.forget("uid-orders", NOW, NOW + 10, NOW) == 1
    assert store.forget("uid-customers", 0, 2 * NOW, NOW) == 0

    assert ids(store) == ["e0", "e2"]


# --- what people said that is no longer kept ---


def a_word(number: int, **changes: Any) -> Example:
    return at(NOW + 100 * number, f"word-{number}", source=Source.PERSON, who="ann", action="", **changes)


def test_what_gives_way_at_once_is_said_to_and_remembered_after_a_restart(path: Path) -> None:
    store = opened(path, per_class=2)

    became = [store.add_example(a_word(number), NOW) for number in (2, 3, 1, 4)]

    assert became == [Fate.KEPT, Fate.KEPT, Fate.GAVE_WAY, Fate.KEPT]
    gone = {"word-1": Fate.GAVE_WAY, "word-2": Fate.GAVE_WAY}
    assert opened(path).fates("uid-orders") == {**gone, "word-3": Fate.KEPT, "word-4": Fate.KEPT}
    assert opened(path).fates("uid-customers") == {}


def test_an_outcomes_example_that_gives_way_needs_no_memory(path: Path) -> None:
    store = opened(path, per_class=1)

    for number in range(3):
        store.add_trial(a_trial(f"a{number}"), at(NOW + number, f"e{number}"), NOW)

    assert store.fates("uid-orders") == {"e2": Fate.KEPT}


def test_what_a_person_took_back_is_remembered_until_it_is_kept_again(store: ExperienceStore) -> None:
    store.add_example(a_word(1), NOW)
    store.add_example(replace(a_word(1), id="other", kind=LabelKind.NORMAL), NOW)
    assert store.fates("uid-orders") == {"word-1": Fate.TAKEN_BACK, "other": Fate.KEPT}

    store.forget("uid-orders", NOW, NOW + 200, NOW)
    assert store.fates("uid-orders") == {"word-1": Fate.TAKEN_BACK, "other": Fate.TAKEN_BACK}

    assert store.add_example(a_word(1), NOW) is Fate.KEPT
    assert store.fates("uid-orders") == {"word-1": Fate.KEPT, "other": Fate.TAKEN_BACK}


@pytest.mark.parametrize("how", ["forget", "replace"])
def test_what_gave_way_can_be_taken_back_and_so_be_said_again(path: Path, how: str) -> None:
    store = opened(path, per_class=1)
    store.add_example(a_word(2), NOW)
    store.add_example(a_word(1), NOW)

    if how == "forget":
        store.forget("uid-orders", NOW, NOW + 100, NOW)
    else:
        store.add_example(replace(a_word(1), id="other", kind=LabelKind.NORMAL), NOW)

    assert store.fates("uid-orders")["word-1"] is Fate.TAKEN_BACK
    assert store.fates("uid-orders")["word-2"] is Fate.KEPT


def test_an_outcome_is_silent_also_where_a_persons_word_gave_way(path: Path) -> None:
    store = opened(path, per_class=1)
    store.add_example(a_word(2, fault_class="bloat"), NOW)
    store.add_example(a_word(1, fault_class="bloat"), NOW)

    assert store.add_example(at(NOW + 105, "outcome"), NOW) is None
    assert store.add_example(at(NOW + 150, "later"), NOW) is Fate.KEPT


def test_what_is_passed_over_is_remembered_without_having_been_kept(store: ExperienceStore, path: Path) -> None:
    for _ in range(2):
        store.pass_over("uid-orders", "acknowledged", NOW, NOW + 60, NOW)

    assert opened(path).fates("uid-orders") == {"acknowledged": Fate.TAKEN_BACK}
    assert store.held() == {}


def test_of_what_is_no_longer_kept_the_newest_words_are_remembered_for_a_year(
    store: ExperienceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gone, "GONE_KEPT", 2)
    store.pass_over("uid-customers", "word-0", NOW, NOW + 60, NOW)
    for number in range(4):
        store.pass_over("uid-orders", f"word-{number}", NOW, NOW + 60, NOW + number)

    assert sorted(store.fates("uid-orders")) == ["word-2", "word-3"]
    assert sorted(store.fates("uid-customers")) == ["word-0"]

    store.open(NOW + 367 * 86400)
    assert store.fates("uid-orders") == {}


# --- several processes ---


def test_two_that_write_at_once_both_succeed_and_nothing_is_kept_twice(path: Path) -> None:
    opened(path).close()
    failed: list[BaseException] = []
    began = threading.Barrier(4)

    def write(mine: str) -> None:
        store = opened(path, per_class=100)
        began.wait()
        try:
            for number in range(8):
                store.add_example(at(NOW + number, f"{mine}-{number}"), NOW)
                store.add_trial(a_trial("shared"), an_example("shared"), NOW)
        except ExperienceError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert failed == []
    assert len(ids(opened(path))) == 4 * 8 + 1


def test_what_another_process_has_just_written_is_known(
    store: ExperienceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server that lets both look before either writes."""
    store.add_trial(a_trial(), an_example(), NOW)

    class Blind:
        def where(self, *_: Any) -> Any:
            return text("SELECT 1 WHERE 1 = 0")

    monkeypatch.setattr(store_module, "select", lambda *_: Blind())

    assert not store.add_trial(a_trial(), None, NOW)
    assert not store.add_example(an_example(), NOW)


def test_a_store_held_by_another_process_for_too_long_is_said_to_be_busy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PATIENCE", 0.05)
    store = opened(path)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(BusyExperienceError, match="another process holds"):
            store.add_example(an_example(), NOW)

        assert store.examples_of("uid-orders") == ()  # reading goes on
        other.execute("ROLLBACK")
    assert store.add_example(an_example(), NOW)


# --- what is broken ---


def test_an_older_store_is_migrated_and_keeps_what_it_holds(
    store: ExperienceStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_example(an_example(), NOW)
    ran: list[str] = []
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, lambda _: ran.append("second")))

    for _ in range(2):
        store.open(NOW)

    assert ran == ["second"]
    assert ids(store) == ["e1"]


def test_a_store_of_the_first_schema_becomes_one_that_remembers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExperienceStore(f"sqlite:///{path}")
    row = store_module._example_row(a_word(1)) | {"created": NOW}
    with monkeypatch.context() as older, store._database.writing() as connection:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        schema.migrate(connection, store.where)
        connection.execute(schema.EXAMPLES.insert().values(**row))
        assert "kintsugi_gone" not in inspect(connection).get_table_names()

    store.open(NOW)
    store.forget("uid-orders", NOW, NOW + 200, NOW)

    assert opened(path).fates("uid-orders") == {"word-1": Fate.TAKEN_BACK}


def test_a_newer_store_is_refused_and_left_alone(store: ExperienceStore, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE kintsugi_meta SET value = '7' WHERE key = 'schema'")

    with pytest.raises(NewerExperienceError, match=r"schema 7, this one knows 2\); upgrade the operator"):
        store.open(NOW)


def test_a_store_without_a_version_is_refused(store: ExperienceStore, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE kintsugi_meta SET value = 'x'")

    with pytest.raises(CorruptExperienceError, match="has no version"):
        store.open(NOW)


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\x07" * 5000])
def test_a_file_that_is_something_else_is_said_to_be_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(CorruptExperienceError, match="move the file away"):
        opened(path)

    assert path.read_bytes() == content


def test_a_file_damaged_while_in_use_is_said_to_be_damaged(store: ExperienceStore, path: Path) -> None:
    for number in range(10):
        store.add_example(at(NOW + number, f"e{number}"), NOW)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\x5a" * (len(whole) - 4096))

    with pytest.raises(CorruptExperienceError):
        store.examples_of("uid-orders")


def test_an_example_that_is_damaged_costs_only_itself(
    store: ExperienceStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.add_example(an_example("good"), NOW)
    store.add_example(at(NOW + 5, "bad"), NOW)
    store.add_trial(a_trial("good"), None, NOW)
    store.add_trial(a_trial("bad"), None, NOW)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE kintsugi_examples SET window = x'00ff' WHERE id = 'bad'")
        other.execute("UPDATE kintsugi_outcomes SET measured = '{' WHERE action = 'bad'")

    assert ids(store) == ["good"]
    assert [trial.action for trial in store.trials_of("uid-orders")] == ["good"]
    assert "example bad" in caplog.text


def test_a_store_that_may_only_be_read_says_so_and_is_still_read(store: ExperienceStore, path: Path) -> None:
    store.add_example(an_example(), NOW)
    reader = ExperienceStore(f"sqlite:///file:{path}?mode=ro&uri=true")

    with pytest.raises(ReadOnlyExperienceError, match="let the operator's user write it"):
        reader.add_example(an_example("e2"), NOW)

    assert ids(reader) == ["e1"]


def test_a_full_disk_is_said_and_nothing_is_half_kept(store: ExperienceStore) -> None:
    store.add_example(an_example(), NOW)
    event.listen(store._database._engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count = 16"))

    with pytest.raises(FullExperienceError, match="no space is left"):
        fill(store)

    assert len(ids(store)) == 1 + len(store.trials_of("uid-orders"))


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableExperienceError, match=r"nowhere/experience\.db can't be used .*its directory"):
        opened(tmp_path / "nowhere" / "experience.db")


@pytest.mark.parametrize(
    ("url", "says"),
    [("experience.db", "is no URL; write it like sqlite:"), ("oracle+nothing://host/x", "install its driver")],
)
def test_a_url_that_is_none_is_refused_at_once(url: str, says: str) -> None:
    with pytest.raises(ExperienceUrlError, match=says):
        ExperienceStore(url)


def test_a_password_is_in_no_message() -> None:
    store = ExperienceStore("postgresql://kintsugi:hush@127.0.0.1:1/experience")

    with pytest.raises(UnavailableExperienceError) as refused:
        store.open(NOW)

    assert "postgresql+psycopg://kintsugi:***@127.0.0.1:1/experience" in str(refused.value)
    assert "hush" not in str(refused.value)


def test_an_error_does_not_repeat_what_was_written(store: ExperienceStore) -> None:
    with store._database.writing() as connection:
        connection.execute(text("DROP TABLE kintsugi_examples"))

    with pytest.raises(UnavailableExperienceError, match="no such table") as refused:
        store.add_example(an_example(who="secret-person"), NOW)

    assert "secret-person" not in f"{refused.value} {refused.value.__cause__}"


# --- frames as bytes ---


def test_a_minute_of_eighty_signals_takes_few_bytes() -> None:
    assert len(pack(a_frame(60, signals=tuple(f"signal_{n}" for n in range(80))))) < 25_000


@pytest.mark.parametrize("data", [b"", b"junk", pack(a_frame())[:-30], pack(a_frame()).replace(b"times", b"tames")])
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(BadFrameError):
        unpack(data)


def test_an_empty_frame_comes_back_empty() -> None:
    back = unpack(pack(a_frame(0)))

    assert (len(back), back.signals, back.values.shape) == (0, ("commits", "lock_waiters"), (0, 2))
