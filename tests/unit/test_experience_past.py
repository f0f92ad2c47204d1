"""Looking back: the buffer where it is enough, else Prometheus; and nobody keeps others from having their turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kintsugi.domain.frame import Frame
from kintsugi.loops.past import AT_ONCE, RETRY, NonsensePastError, Past, PastError, Turn, Turns, sentence
from kintsugi.loops.watch import MOST_SAMPLES, Watch, new_watch
from kintsugi.shell.experience import ExperienceError
from kintsugi.shell.prometheus import Samples
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import METRICS, POSTGRESQL

NOW = 1_800_000_000.0
DATABASE = a_database(metrics=METRICS)
WINDOW = DATABASE.spec.reference.window.total_seconds()


class Asked:
    """A Prometheus that has every second of every time, and remembers what it was asked for; or fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.spans: list[tuple[float, float]] = []

    async def read(self, _: object, watch: Watch, start: float, end: float) -> Frame:
        self.spans.append((start, end))
        if self.error:
            raise self.error
        return a_frame(start, end, watch)


def a_frame(start: float, end: float, watch: Watch) -> Frame:
    times = np.arange(start, end + 1)
    values = np.ones((len(times), len(watch.engine.catalogue.names())))
    return Frame(watch.engine.catalogue.names(), times, values, np.isfinite(values), 1.0)


def a_watch(*incidents: tuple[float, float | None]) -> Watch:
    """With half an hour and more in its buffer."""
    watch = new_watch(DATABASE, POSTGRESQL, NOW)
    times = np.arange(NOW - 2100, NOW + 1)
    watch.buffer.append(Samples(times, {"commits": np.full(len(times), 100.0)}))
    watch.offers = {"commits": ("kintsugi",)}
    watch.incidents = list(incidents)
    return watch


async def looked(asked: Asked, watch: Watch, start: float, enough: Callable[[Frame], bool]) -> Frame:
    return await Past(asked.read).frame(DATABASE, watch, start, start + 60, enough)


async def test_a_buffer_that_is_enough_spares_prometheus() -> None:
    asked, watch = Asked(), a_watch()

    assert await looked(asked, watch, NOW - 600, lambda _: True) is watch.buffer.frame
    assert asked.spans == []


async def test_a_buffer_that_is_not_enough_makes_prometheus_be_asked() -> None:
    asked, watch = Asked(), a_watch()

    await looked(asked, watch, NOW - 600, lambda _: False)

    assert asked.spans == [(NOW - 600 - 10 - WINDOW, NOW - 540)]


async def test_how_far_prometheus_is_asked_does_not_count_what_incidents_took() -> None:
    asked, start = Asked(), NOW - 600
    before, at_once, later = (start - 5000, start - 4000), (start - 700, start - 100), (NOW - 100, None)

    await looked(asked, a_watch(before, at_once, later), start, lambda _: False)

    assert asked.spans[0][0] == start - 10 - WINDOW - (600 + 10)


async def test_of_an_incident_that_lasts_for_a_day_no_more_is_asked_than_prometheus_gives() -> None:
    asked = Asked()

    await looked(asked, a_watch((NOW - 86400, None)), NOW - 600, lambda _: False)

    ((first, last),) = asked.spans
    assert last - first == MOST_SAMPLES


@pytest.mark.parametrize("error", [ValueError("not enough values to unpack"), KeyError("metric"), TypeError("no list")])
async def test_an_answer_that_is_nonsense_is_said_to_be(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NonsensePastError, match=r"the past of shop/orders makes no sense \(\w+Error: .*metrics\.pro"):
        await looked(Asked(error), a_watch(), NOW - 600, lambda _: False)

    assert "Traceback" in caplog.text


# --- turns ---


class Table:
    """Databases that each have some intervals to read; what is read, in order."""

    def __init__(self, **intervals: int) -> None:
        self.left = intervals
        self.broken: dict[str, Exception] = {}
        self.read: list[str] = []
        self.turns = Turns()

    async def look(self, now: float = NOW) -> dict[str, Exception]:
        self.read.clear()
        return await self.turns.take({uid: self._turn(uid) for uid in self.left}, now)

    def _turn(self, uid: str) -> Turn:
        async def turn() -> bool:
            if uid in self.broken:
                self.read.append(uid.upper())
                raise self.broken[uid]
            if self.left[uid] == 0:
                return False
            self.read.append(uid)
            self.left[uid] -= 1
            return True

        return turn


async def test_the_limit_counts_intervals_over_all_databases_one_in_turn() -> None:
    table = Table(a=64, b=2, c=1)

    await table.look()
    assert "".join(table.read) == "abcabaaa"

    await table.look()
    assert "".join(table.read) == "a" * AT_ONCE


async def test_who_had_no_turn_is_first_in_the_next_look() -> None:
    table = Table(**dict.fromkeys("abcdefghijk", 9))

    await table.look()
    await table.look()

    assert "".join(table.read) == "ijkabcde"


async def test_whose_past_cannot_be_read_waits_with_all_that_it_has_and_comes_last_again() -> None:
    table = Table(a=64, b=9)
    table.broken["a"] = PastError("Prometheus is away")

    failed = await table.look()
    assert {uid: str(error) for uid, error in failed.items()} == {"a": "Prometheus is away"}
    assert "".join(table.read) == "Abbbbbbb"

    await table.look(NOW + RETRY - 1)
    assert "".join(table.read) == "bb"

    table.left["b"], table.left["c"] = 1, 1
    await table.look(NOW + RETRY)
    assert "".join(table.read) == "cbA"


async def test_a_clock_that_was_put_back_makes_nobody_wait() -> None:
    table = Table(a=1)
    table.turns.put_off("a", NOW)

    await table.look(NOW - 3600)

    assert table.read == ["a"]


async def test_what_nobody_foresaw_costs_only_its_database_and_stands_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table(a=1, b=1)
    table.broken["a"] = AttributeError("it has none")

    failed = await table.look()

    assert table.read == ["A", "b"]
    assert "Traceback" in caplog.text
    assert sentence(failed["a"], "what is said").startswith("what is said can't be taken in (AttributeError: it has")


async def test_a_store_that_fails_ends_the_look() -> None:
    table = Table(a=1, b=1)
    table.broken["a"] = ExperienceError("it is full")

    with pytest.raises(ExperienceError, match="it is full"):
        await table.look()
