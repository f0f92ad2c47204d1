"""Numbers as people read them."""

from __future__ import annotations

import pytest

from kintsugi.domain.text import human, quantity


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.012, "12 ms"),
        (0.3, "0.3 s"),
        (9.96, "10 s"),
        (40, "40 s"),
        (190, "3 m 10 s"),
        (3600, "1 h"),
        (7500, "2 h 5 m"),
        (90000, "1 d 1 h"),
        (-40, "-40 s"),
    ],
)
def test_a_duration_is_said_in_at_most_two_units(seconds: float, text: str) -> None:
    assert human(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.3, "s", "0.3 s"),
        (0.31, "ratio", "31 %"),
        (16 * 2**20, "B", "16 MiB"),
        (2048, "B/s", "2 KiB/s"),
        (8, "sessions", "8 sessions"),
        (12_345, "rows/s", "12,345 rows/s"),
        (3_184_000, "rows/s", "3.18 million rows/s"),
        (4.2e9, "rows", "4.2 billion rows"),
    ],
)
def test_a_quantity_needs_no_counting_of_digits(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
