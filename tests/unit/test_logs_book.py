"""Counts become columns on the frame's grid, missing is not zero, and the newest templates are evidence."""

from __future__ import annotations

import numpy as np
import pytest

from kintsugi.engines.catalogue import load
from kintsugi.engines.postgresql.logs.book import AHEAD, MOST, TEMPLATES, Book, classes_of
from kintsugi.engines.postgresql.logs.line import CLASSES, Line

START = 1_800_000_000.0
WORDS = {"deadlocks": "deadlock", "errors": "error error_* deadlock"}


def a_line(second: float, kind: str = "deadlock", template: str = "deadlock detected", severity: str = "ERROR") -> Line:
    return Line(START + second, severity, "40P01" if kind == "deadlock" else "00000", kind, template)


def a_book(span: float = 600) -> Book:
    book = Book(span)
    book.begin(START)
    return book


def column(book: Book, *seconds: float, interval: float = 1.0, name: str = "deadlocks") -> list[float]:
    times = START + np.array(seconds, dtype=np.float64)
    return [float(value) for value in book.columns(WORDS, times, interval)[name]]


def test_a_rate_is_what_was_logged_in_the_four_intervals_before() -> None:
    book = a_book()
    book.add([a_line(4.5), a_line(5.0), a_line(5.9)], START + 20)
    assert column(book, 4, 5, 6, 8, 9, 10) == [0, 0.25, 0.75, 0.75, 0.5, 0]


def test_with_a_longer_interval_the_window_is_longer() -> None:
    book = a_book()
    book.add([a_line(31), a_line(59)], START + 120)
    assert column(book, 60, 75, 90, 120, interval=15) == pytest.approx([2 / 60, 2 / 60, 2 / 60, 0])


def test_what_was_not_read_is_missing_and_not_zero() -> None:
    book = a_book()
    assert np.isnan(column(book, 1, 5)).all()
    book.add([], START + 10)
    assert np.isnan(column(book, 3, 4, 10, 11)).tolist() == [True, False, False, True]


def test_a_part_that_was_left_out_is_missing_and_what_follows_is_not() -> None:
    book = a_book()
    book.add([a_line(5)], START + 10)
    book.begin(START + 100)
    book.add([a_line(103)], START + 110)
    assert np.isnan(column(book, 60, 102, 103)).all()
    assert column(book, 104, 110) == [0.25, 0.0]


def test_a_line_that_comes_late_still_counts() -> None:
    book = a_book()
    book.add([], START + 10)
    book.add([a_line(8.5)], START + 11)
    assert column(book, 9, 11) == [0.25, 0.25]


def test_lines_of_a_clock_that_is_ahead_count_when_their_time_comes() -> None:
    book = a_book()
    book.add([a_line(24), a_line(24.5)], START + 20)
    assert np.isnan(column(book, 25)).all()
    book.add([], START + 30)
    assert column(book, 23, 24, 25, 29) == [0, 0, 0.5, 0]
    assert book.evidence(START, START + 30) == ("the log says 2 × ERROR 40P01 deadlock detected (last 5.5 s ago)",)


def test_lines_of_the_far_future_and_of_long_ago_are_left_out() -> None:
    book = a_book(span=60)
    book.add([a_line(5), a_line(300 + AHEAD + 2), a_line(1e9), a_line(-1e9)], START + 300)
    book.add([a_line(5), a_line(299)], START + 301)
    assert column(book, 300) == [0.25]
    assert book.evidence(0, START + 301) == ("the log says 1 × ERROR 40P01 deadlock detected (last 2 s ago)",)


def test_memory_does_not_grow_with_time_lines_or_templates() -> None:
    book = a_book(span=60)
    for minute in range(50):
        lines = [a_line(minute * 60 + n % 60, template=f"t{minute}-{n}") for n in range(200)]
        book.add(sorted(lines), START + minute * 60 + 60)
    assert book._counts.shape == (60 + AHEAD, len(CLASSES))
    assert len(book._seen) == TEMPLATES


def test_more_lines_than_can_be_counted_are_the_most_that_can() -> None:
    book = a_book()
    for _ in range(3):
        book.add([a_line(5.0)] * 30_000, START + 10)
    assert column(book, 6) == [MOST / 4]


def test_a_signal_counts_all_classes_that_its_words_name() -> None:
    book = a_book()
    book.add([a_line(5), a_line(5, "error_40"), a_line(5, "error"), a_line(5, "fatal")], START + 10)
    assert column(book, 6, name="errors") == [0.75]
    assert classes_of("error_* deadlock")[-1] == "deadlock"


def test_evidence_is_the_newest_templates_with_their_counts_routine_last() -> None:
    book = a_book()
    lines = [a_line(1), a_line(2), a_line(3, "lock_wait", "process # still waiting", "LOG")]
    routine = [a_line(n, "connection", "connection received", "LOG") for n in range(4, 9)]
    book.add([*lines, *routine], START + 10)
    assert book.evidence(START, START + 10, most=3) == (
        "the log says 1 × LOG process # still waiting (last 7 s ago)",
        "the log says 2 × ERROR 40P01 deadlock detected (last 8 s ago)",
        "the log says 5 × LOG connection received (last 2 s ago)",
    )


def test_at_most_five_templates_are_evidence_and_none_from_before() -> None:
    book = a_book()
    book.add([a_line(n * 20, template=f"t{n}") for n in range(10)], START + 200)
    assert len(book.evidence(START, START + 200)) == 5
    assert len(book.evidence(START + 155, START + 200)) == 2


def test_every_signal_of_the_log_names_classes_that_there_are() -> None:
    signals = [signal for signal in load("postgresql") if "logs" in signal.sources]
    assert len(signals) >= 8
    for signal in signals:
        words = signal.sources["logs"].split()
        assert words
        assert all(classes_of(word) for word in words), signal.name
