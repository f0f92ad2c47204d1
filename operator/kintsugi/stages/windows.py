"""Risk windows: cron schedule, duration and time zone, to "is it open now, and if not, when".

Schedules are read in local time. When the clocks are set forward, what would have opened in the skipped hour opens when
they have been set; when they are set back, what falls into the repeated hour opens the first time only. An opening
lasts `duration` of real time: over such a change, too, a window of four hours is open for four hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from kintsugi.api.policy import Window

_CLOCK_CHANGE = timedelta(hours=3)
"""No clock is set by more at once (Antarctica/Troll: two hours), so openings are looked for this far around; moves over
the date line apart."""

_COMPARED = 4000
"""Openings of one window looked at when two sets are compared: ten years of daily ones, five months of hourly ones."""


class InvalidWindowError(ValueError):
    """A window whose schedule or time zone means nothing; it counts as closed until it is corrected."""


def check(window: Window) -> None:
    """Nothing for a usable window.

    Raises:
        InvalidWindowError: the schedule, the time zone or the duration is unusable; it says which and what to write.
    """
    _zone(window)
    if window.duration <= timedelta(0):
        raise InvalidWindowError(
            f"window {window.name} is never open: its duration is 0s; write how long it stays open, 4h for example"
        )
    try:
        CronSim(window.schedule, datetime(2026, 1, 1))  # noqa: DTZ001 - local time
    except CronSimError as error:
        raise InvalidWindowError(
            f"window {window.name} is never open: its schedule {window.schedule!r} is not a cron schedule ({error}); "
            "write minute, hour, day of month, month and day of week, '0 1 * * *' for example"
        ) from error


def inside(window: Window, now: datetime) -> bool:
    """Whether the window is open at `now`; the opening's first instant belongs to it, its last does not.

    Raises:
        InvalidWindowError: see `check`.
    """
    opened = _last_opening(window, now)
    return opened is not None and now < opened + window.duration


def next_open(window: Window, now: datetime) -> datetime | None:
    """The next time after `now` at which the window opens (UTC), or None when it never does.

    Raises:
        InvalidWindowError: see `check`.
    """
    return next(openings(window, now), None)


def openings(window: Window, after: datetime) -> Iterator[datetime]:
    """Every opening after `after` (UTC), soonest first, without end unless the schedule has one.

    Raises:
        InvalidWindowError: see `check`.
    """
    check(window)
    last, zone = after, _zone(window)
    for local in CronSim(window.schedule, _local(after - _CLOCK_CHANGE, zone)):
        opening = _instant(local, zone)
        if opening > last:
            last = opening
            yield opening


def never_overlap(
    some: Sequence[Window], others: Sequence[Window], now: datetime, horizon: timedelta = timedelta(days=400)
) -> bool:
    """Whether within `horizon` no instant lies in a window of `some` and in a window of `others`.

    Invalid windows count as closed, as everywhere.
    """
    left, right = _open_times(some, now, horizon), _open_times(others, now, horizon)
    while left and right:
        (left_start, left_end), (right_start, right_end) = left[0], right[0]
        if left_start < right_end and right_start < left_end:
            return False
        (left if left_end <= right_end else right).pop(0)
    return True


def _last_opening(window: Window, now: datetime) -> datetime | None:
    check(window)
    zone = _zone(window)
    locals_ = CronSim(window.schedule, _local(now + _CLOCK_CHANGE, zone), reverse=True)
    return next((opening for local in locals_ if (opening := _instant(local, zone)) <= now), None)


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks there show, without a zone: with one, cronsim misses openings on Lord Howe Island."""
    return moment.astimezone(zone).replace(tzinfo=None)


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks there show `local` for the first time, or, when they skip it, when they do so (UTC)."""
    after = local.replace(tzinfo=zone).astimezone(UTC)
    if _local(after, zone) == local:
        return after
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    shown = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == shown:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


def _open_times(windows: Sequence[Window], now: datetime, horizon: timedelta) -> list[tuple[datetime, datetime]]:
    """Open intervals, merged and in order."""
    times: list[tuple[datetime, datetime]] = []
    for window in windows:
        try:
            starts = takewhile(lambda start: start < now + horizon, openings(window, now - window.duration))
            times += [(start, start + window.duration) for start in islice(starts, _COMPARED)]
        except InvalidWindowError:
            continue
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(times):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _zone(window: Window) -> ZoneInfo:
    try:
        return ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidWindowError(
            f"window {window.name} is never open: there is no time zone {window.time_zone!r}; "
            "write a name of the IANA database, Europe/Berlin for example"
        ) from error
