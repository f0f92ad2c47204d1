"""When the client hurts and when it is healed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kintsugi_dev.demo import measures
from kintsugi_dev.demo.record import Second

START = 1000


def a_second(number: int, p99: float | None = 10.0, *, failed: int = 0) -> Second:
    return Second(START + number, 100, p99, p99, p99, failed)


def seconds(*p99: float) -> list[Second]:
    return [a_second(number, value) for number, value in enumerate(p99)]


def around(p99: Sequence[float], injected: float = 5.5) -> tuple[float | None, float | None]:
    _, hurt, healed = measures.p99_of(seconds(*p99), START, START + injected, START + len(p99))
    return (hurt and hurt - START, healed and healed - START)


def test_the_limit_is_twice_the_normal_or_twenty_ms_above_whichever_is_more() -> None:
    assert measures.limit_ms(5.0) == 25.0
    assert measures.limit_ms(40.0) == 80.0


def test_it_is_healed_where_the_first_five_calm_seconds_in_a_row_begin() -> None:
    hurt, healed = around([10] * 5 + [500, 500, 500, 20, 20, 500, 20, 20, 20, 20, 20, 20])
    assert hurt == 5.5
    assert healed == 11


def test_four_calm_seconds_do_not_heal() -> None:
    assert around([10] * 5 + [500, 500, 20, 20, 20, 20]) == (5.5, None)


def test_a_missing_second_breaks_the_row() -> None:
    found = [s for s in seconds(*[10] * 5, 500, *[10] * 8) if s.second != START + 9]
    assert measures.healed_at(found, START + 5, 30.0) is None


def test_seconds_before_the_injection_never_count_as_hurt() -> None:
    assert around([10, 10, 500, 10, 10, 10, 10, 10, 10, 10, 10, 10]) == (None, None)


def test_a_fault_that_is_felt_late_is_not_healed_by_the_calm_before() -> None:
    assert around([10] * 12 + [500] + [10] * 5) == (12, 13)


@pytest.mark.parametrize(("failed", "felt"), [(1, 10.0), (2, measures.TIMEOUT_MS), (100, measures.TIMEOUT_MS)])
def test_more_than_one_failure_in_a_hundred_counts_as_the_timeout(failed: int, felt: float) -> None:
    assert measures.felt_ms(a_second(0, 10.0, failed=failed)) == felt


def test_a_second_without_any_answer_counts_as_the_timeout() -> None:
    assert measures.felt_ms(a_second(0, None)) == measures.TIMEOUT_MS


def test_quick_failures_are_not_a_healed_client() -> None:
    refused = [a_second(number, 1.0, failed=100) for number in range(6, 16)]
    found = [*seconds(*[10] * 6), *refused]
    _, hurt, healed = measures.p99_of(found, START, START + 5.5, START + 16)
    assert hurt == START + 6
    assert healed is None


def test_before_during_and_after_are_medians_of_the_calm_slow_and_first_calm_seconds() -> None:
    found = seconds(8, 10, 12, 10, 10, 10, 900, 20, 700, 11, 12, 13, 14, 15, 99)
    p99, _, _ = measures.p99_of(found, START, START + 5.5, START + 15)
    assert (p99.before, p99.during, p99.after, p99.worst) == (10, 800, 13, 900)


def test_without_a_second_before_nothing_can_be_said() -> None:
    assert measures.p99_of(seconds(10, 10), START + 5, START + 6, START + 9)[1:] == (None, None)


def test_a_line_of_the_load_becomes_a_second_with_all_its_failures() -> None:
    line = {
        "second": 7,
        "count": 9,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "p99_ms": 3.0,
        "errors": {"timeout": 1, "rejected": 2},
    }
    assert measures.second_of(line) == Second(7, 9, 1.0, 2.0, 3.0, 3)
