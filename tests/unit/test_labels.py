"""Labels: what a person may say about a database's past, and in what words a mistake is answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.api.meta import LABEL, LABELLED_BY
from kintsugi.domain.experience import LabelKind
from kintsugi.stages.labels import MOST, Label, LabelError, Labels, check_time, parse_label, read_labels

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
TWO_MINUTES = timedelta(minutes=2)
INTERVAL = "2026-01-02T03:04:00Z/PT2M"


def read(text: str, who: str = "ann") -> Labels:
    return read_labels({LABEL: text, LABELLED_BY: who})


def one(text: str) -> Label:
    return parse_label(text, "ann")


@pytest.mark.parametrize(
    ("text", "kind", "fault_class"),
    [
        ("anomaly:lock-contention", LabelKind.ANOMALY, "lock-contention"),
        ("anomaly", LabelKind.ANOMALY, ""),
        ("normal:backup", LabelKind.NORMAL, "backup"),
        ("normal", LabelKind.NORMAL, ""),
        ("forget", None, ""),
    ],
)
def test_a_label_says_what_an_interval_was_and_who_says_so(text: str, kind: LabelKind, fault_class: str) -> None:
    assert one(f"{text}@{INTERVAL}") == Label(kind, fault_class, AT, AT + TWO_MINUTES, "ann")


@pytest.mark.parametrize(
    "interval",
    [
        "2026-01-02T03:04:00Z/2026-01-02T03:06:00Z",
        "2026-01-02T04:04:00+01:00/PT2M",
        "20260102T030400Z/PT120S",
        " 2026-01-02T03:04:00.000Z/PT1M60.0S",
        "2026-01-02T03:04Z/PT2M",
    ],
)
def test_the_same_interval_in_other_words_is_the_same_label(interval: str) -> None:
    assert one(f"normal@{interval}").id == one(f"normal@{INTERVAL}").id


def test_an_id_comes_from_the_content_and_not_from_who_says_it() -> None:
    assert parse_label(f"normal@{INTERVAL}", "ann").id == parse_label(f"normal@{INTERVAL}", "ben").id
    different = [f"normal:a@{INTERVAL}", f"normal@{INTERVAL}", f"anomaly@{INTERVAL}", f"forget@{INTERVAL}"]
    assert len({one(text).id for text in different}) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("disk", "'disk' names no interval; write it like anomaly:"),
        (f"disk@{INTERVAL}", "must begin with anomaly, normal or forget"),
        (f"forget:x@{INTERVAL}", "must begin with anomaly, normal or forget"),
        (f"anomaly:Lock Contention@{INTERVAL}", "'Lock Contention' is no class; use small letters"),
        (f"anomaly:@{INTERVAL}", "'' is no class"),
        (f"anomaly:{'x' * 64}@{INTERVAL}", "is no class"),
        ("anomaly@2026-01-02T03:04:00Z", "has no end; write start/duration"),
        ("anomaly@2026-01-02T03:04:00/PT2M", "names no time zone; end it with Z"),
        ("anomaly@yesterday/PT2M", "'yesterday' is no time"),
        ("anomaly@2026-13-02T03:04:00Z/PT2M", "is no time"),
        ("anomaly@2026-01-02T03:04:00Z/P", "'P' is no duration"),
        ("anomaly@2026-01-02T03:04:00Z/P2M", "'P2M' is no duration"),
        ("anomaly@2026-01-02T03:04:00Z/PT", "is no duration"),
        ("anomaly@2026-01-02T03:04:00Z/2m", "'2m' is no time"),
        ("anomaly@2026-01-02T03:04:00Z/PT0S", "ends before it begins"),
        ("anomaly@2026-01-02T03:04:00Z/2026-01-02T03:03:00Z", "ends before it begins"),
        ("anomaly@2026-01-02T03:04:00Z/PT61M", "lasts 1 h 1 m, 1 h is the most"),
        ("anomaly@9999-12-31T23:00:00Z/P99999D", "ends beyond all calendars"),
    ],
)
def test_a_mistake_is_answered_with_what_is_wrong_and_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(LabelError) as refused:
        one(text)

    assert says in str(refused.value)


@given(st.text(alphabet="anomlyrget:@/;PT0123456789-.+ZHMSD \x00é", max_size=60))
def test_whatever_is_written_is_a_label_or_a_sentence(text: str) -> None:
    found = read(text)

    assert all(label.start < label.end for label in found.labels)
    assert all(len(problem) < 300 for problem in found.problems)
    assert bool(found.labels or found.problems) == bool(text.replace(";", "").strip())


def test_several_labels_are_read_in_order_and_a_wrong_one_costs_only_itself() -> None:
    found = read(f"normal@{INTERVAL}; nonsense ;anomaly:bloat@2026-01-02T04:00:00Z/PT1M;")

    assert [str(label) for label in found.labels] == [
        "normal@2026-01-02T03:04:00Z/2026-01-02T03:06:00Z",
        "anomaly:bloat@2026-01-02T04:00:00Z/2026-01-02T04:01:00Z",
    ]
    assert len(found.problems) == 1
    assert "'nonsense' names no interval" in found.problems[0]


def test_the_last_word_about_an_interval_counts() -> None:
    assert [label.kind for label in read(f"anomaly@{INTERVAL};normal:deploy@{INTERVAL}").labels] == [LabelKind.NORMAL]


def test_forgetting_takes_back_what_was_said_before_it_about_a_part_of_the_time() -> None:
    found = read("anomaly@2026-01-02T03:05:00Z/PT2M;normal@2026-01-02T03:10:00Z/PT1M;forget@" + INTERVAL)

    assert [label.kind for label in found.labels] == [LabelKind.NORMAL, None]


def test_a_label_without_a_name_is_not_believed() -> None:
    found = read(f"normal@{INTERVAL}", who="")

    assert found.labels == ()
    assert "carries no name: it was set without the admission policies" in found.problems[0]


def test_no_label_is_no_problem() -> None:
    assert read_labels({}) == read_labels({LABEL: " ", LABELLED_BY: "ann"}) == Labels()


def test_too_many_labels_are_refused_as_a_whole() -> None:
    found = read(";".join(f"normal@{INTERVAL}" for _ in range(MOST + 1)))

    assert found.labels == ()
    assert f"holds {MOST + 1} labels; keep the newest {MOST}" in found.problems[0]


def test_a_long_text_is_not_repeated_as_a_whole() -> None:
    assert len(read("x" * 10_000).problems[0]) < 200


@pytest.mark.parametrize(
    ("after", "says"),
    [(timedelta(seconds=90), "ends 30 s from now; label what has happened"), (timedelta(days=8), "7 d is the most")],
)
def test_the_future_and_what_is_long_past_are_refused(after: timedelta, says: str) -> None:
    with pytest.raises(LabelError) as refused:
        check_time(one(f"normal@{INTERVAL}"), AT + after)

    assert says in str(refused.value)


@pytest.mark.parametrize("after", [TWO_MINUTES, timedelta(days=7)])
def test_a_label_is_taken_in_from_its_end_until_it_is_a_week_old(after: timedelta) -> None:
    check_time(one(f"normal@{INTERVAL}"), AT + after)
