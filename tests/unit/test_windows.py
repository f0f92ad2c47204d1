"""Risk windows: when they are open, and what a change of the clocks does to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.api.policy import Window
from kintsugi.stages.windows import InvalidWindowError, check, inside, never_overlap, next_open, openings


def a_window(schedule: str = "0 1 * * *", duration: str = "4h", time_zone: str = "UTC") -> Window:
    return Window.model_validate(
        {
            "name": "nights",
            "schedule": schedule,
            "duration": duration,
            "timeZone": time_zone,
            "actions": ["create-index"],
        }
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        ("2026-11-21 00:59:59", False),
        ("2026-11-21 01:00:00", True),
        ("2026-11-21 04:59:59", True),
        ("2026-11-21 05:00:00", False),
    ],
)
def test_the_first_instant_belongs_to_a_window_and_the_last_does_not(now: str, is_open: bool) -> None:
    assert inside(a_window(), utc(now)) is is_open


def test_a_window_may_reach_past_midnight() -> None:
    assert inside(a_window("0 22 * * *", "4h"), utc("2026-11-22 01:30"))


def test_a_window_keeps_its_own_time_zone() -> None:
    berlin = a_window(time_zone="Europe/Berlin")

    assert inside(berlin, utc("2026-11-21 00:30"))
    assert not inside(berlin, utc("2026-11-21 04:30"))


@pytest.mark.parametrize(
    ("now", "opens"), [("2026-11-21 00:30", "2026-11-21 01:00"), ("2026-11-21 01:00", "2026-11-22 01:00")]
)
def test_the_next_opening_lies_after_now(now: str, opens: str) -> None:
    assert next_open(a_window(), utc(now)) == utc(opens)


def test_a_window_that_opens_on_no_day_of_any_year_never_opens() -> None:
    window = a_window("0 0 30 2 1")  # Debian's cron: neither field starts with a star, so "or Monday" opens it

    assert next_open(window, utc("2026-11-21 00:00")) is not None
    with pytest.raises(InvalidWindowError, match="30 2"):
        check(a_window("0 0 30 2 *"))


# Berlin, 2026: 29 March 02:00 → 03:00, 25 October 03:00 → 02:00.


def test_an_opening_in_the_hour_that_is_skipped_comes_when_the_clocks_have_been_set() -> None:
    window = a_window("30 2 * * *", "1h", "Europe/Berlin")

    assert next_open(window, utc("2026-03-28 12:00")) == utc("2026-03-29 01:00")
    assert inside(window, utc("2026-03-29 01:59"))
    assert not inside(window, utc("2026-03-29 02:00"))


def test_an_opening_in_the_hour_that_comes_twice_happens_once() -> None:
    window = a_window("45 2 * * *", "30m", "Europe/Berlin")

    times = openings(window, utc("2026-10-24 12:00"))

    assert next(times) == utc("2026-10-25 00:45")
    assert next(times) == utc("2026-10-26 01:45")


def test_a_window_stays_open_for_its_whole_duration_while_the_clocks_are_set_back() -> None:
    window = a_window("45 2 * * *", "30m", "Europe/Berlin")

    assert inside(window, utc("2026-10-25 01:05"))  # 02:05 for the second time
    assert not inside(window, utc("2026-10-25 01:15"))


@pytest.mark.parametrize("noon", ["2026-03-28 12:00", "2026-10-24 12:00"])
def test_four_hours_are_four_hours_over_a_change_of_the_clocks(noon: str) -> None:
    window = a_window("0 0 * * *", "4h", "Europe/Berlin")
    minutes = [utc(noon) + timedelta(minutes=m) for m in range(48 * 60)]

    opened = [minute for minute in minutes if inside(window, minute)]

    assert len(opened) == 2 * 4 * 60


@pytest.mark.parametrize(
    ("window", "says"),
    [
        (a_window("61 1 * * *"), "minute, hour"),
        (a_window("x 1 * * *"), "cron schedule"),
        (a_window(time_zone="Europe/Berlln"), "IANA"),
        (a_window(time_zone="../etc/passwd"), "IANA"),
        (a_window(time_zone=""), "IANA"),
        (a_window(duration="0s"), "0s"),
    ],
)
def test_an_invalid_window_says_what_to_write_instead(window: Window, says: str) -> None:
    for use in (
        lambda: check(window),
        lambda: inside(window, utc("2026-11-21")),
        lambda: next_open(window, utc("2026-11-21")),
    ):
        with pytest.raises(InvalidWindowError, match=says):
            use()


SCHEDULES = st.sampled_from(
    [
        "0 1 * * *",
        "30 2 * * *",
        "*/20 * * * *",
        "0 */3 * * *",
        "15 2,3 * * *",
        "0 2 * * SUN",
        "30 1-3 * * 6,0",
        "0 0 1 * *",
    ]
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
MOMENTS = st.sampled_from(["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"]).flatmap(
    lambda day: st.integers(-36 * 60, 36 * 60).map(lambda minutes: utc(day) + timedelta(minutes=minutes))
)


def test_an_opening_after_a_half_hour_change_is_not_missed() -> None:
    window = a_window("0 */3 * * *", "3h", "Australia/Lord_Howe")

    assert next_open(window, utc("2026-04-04 15:00")) == utc("2026-04-04 16:30")
    assert inside(window, utc("2026-04-04 19:10"))


@settings(deadline=None)
@given(SCHEDULES, ZONES, st.sampled_from(["15m", "1h", "3h", "26h"]), MOMENTS)
def test_a_window_is_open_exactly_for_its_duration_after_each_opening(
    schedule: str, zone: str, duration: str, now: datetime
) -> None:
    window = a_window(schedule, duration, zone)
    starts = openings(window, now - window.duration - timedelta(days=32))

    expected = False
    for start in starts:
        if start > now:
            break
        expected = expected or now < start + window.duration

    assert inside(window, now) is expected


def test_windows_that_share_no_instant_never_overlap() -> None:
    nights, days = [a_window("0 1 * * *", "4h")], [a_window("0 9 * * *", "8h")]

    assert never_overlap(nights, days, utc("2026-11-21"))
    assert not never_overlap(nights, [*days, a_window("30 4 * * SUN", "1h")], utc("2026-11-21"))


def test_an_invalid_window_overlaps_with_nothing() -> None:
    assert never_overlap([a_window()], [a_window(time_zone="Nowhere")], utc("2026-11-21"))
