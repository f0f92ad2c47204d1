"""What is compared with what: the reference of a database that is healthy, ill, or accepted as it is."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from kintsugi.api.database import JudgementStatus
from kintsugi.engines.registry import ENGINES
from kintsugi.loops.watch import Watch, new_watch, reach
from kintsugi.shell.prometheus import Samples
from kintsugi_dev.builders import a_database

START = 1_800_000_000.0


def a_watch(seconds: int) -> Watch:
    """A watch with so many seconds of one signal, at one sample a second."""
    watch = new_watch(a_database(), ENGINES["postgresql"], START)
    _append(watch, START, seconds)
    return watch


def _append(watch: Watch, start: float, seconds: int) -> None:
    interval = watch.buffer.frame.interval
    times = start + interval * np.arange(seconds, dtype=np.float64)
    watch.buffer.append(Samples(times, {"lock_waiters": np.zeros(seconds)}))


def test_an_open_incident_is_compared_with_what_was_before_it_however_long_it_lasts() -> None:
    database, watch = a_database(), a_watch(100)
    interval = watch.buffer.frame.interval
    now = START + 100 * interval
    watch.freeze(database, now)
    watch.opened(now)
    before = watch.reference(database, now)

    _append(watch, now, 5000)

    assert len(before) > 0
    assert watch.reference(database, now + 5000 * interval) is before


def test_after_an_incident_its_samples_stay_out_of_the_reference() -> None:
    database, watch = a_database(), a_watch(100)
    interval = watch.buffer.frame.interval
    opened, closed = START + 60 * interval, START + 80 * interval
    watch.freeze(database, opened)
    watch.opened(opened)
    watch.closed(closed)

    times = watch.reference(database, START + 100 * interval).times

    assert len(times) > 0
    assert not ((times >= opened) & (times <= closed)).any()


def test_what_a_label_silences_stays_out_of_the_reference_for_good() -> None:
    database, watch = a_database(), a_watch(100)
    interval = watch.buffer.frame.interval
    began, ended = START + 60 * interval, START + 80 * interval

    watch.silenced(began, ended)
    during = watch.reference(database, START + 100 * interval).times
    watch.silenced(None, ended)
    after = watch.reference(database, START + 100 * interval).times

    assert during[-1] < began
    assert after[-1] > ended
    assert not ((after >= began) & (after <= ended)).any()


def test_a_restart_knows_since_when_something_is_silenced() -> None:
    since = datetime.fromtimestamp(START - 7200, UTC)
    database = a_database()
    judgement = JudgementStatus(anomalies=0, normals=1, silent_since=since)
    database = database.model_copy(update={"status": database.status.model_copy(update={"judgement": judgement})})

    watch = new_watch(database, ENGINES["postgresql"], START)

    assert watch.state.silent_since == since.timestamp()
    assert watch.silences == [(since.timestamp(), None)]
    assert reach(database, START) > 7200 + database.spec.reference.window.total_seconds()


def test_what_a_person_accepts_as_normal_is_learned_from_its_beginning_on() -> None:
    database, watch = a_database(), a_watch(100)
    interval = watch.buffer.frame.interval
    opened = START + 40 * interval
    watch.freeze(database, opened)
    watch.opened(opened)
    accepted = database.model_copy(
        update={"status": database.status.model_copy(update={"reference_since": datetime.fromtimestamp(opened, UTC)})}
    )

    watch.accept_present()

    times = watch.reference(accepted, START + 100 * interval).times
    assert len(times) > 0
    assert times.min() >= opened
    assert not watch.state.flagged


def test_samples_that_nobody_has_judged_yet_are_not_what_is_normal() -> None:
    """A stalled cycle reads half a minute at once; a fault that began meanwhile must not become its own reference."""
    database, watch = a_database(), a_watch(200)
    interval = watch.buffer.frame.interval
    watch.judged_at = watch.buffer.newest
    assert watch.judged_at is not None
    stalled = START + 200 * interval
    _append(watch, stalled, 60)

    times = watch.reference(database, stalled + 60 * interval).times

    assert len(times) > 0
    assert times.max() < watch.judged_at
