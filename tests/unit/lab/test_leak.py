"""A signal that gives a class away is found; an uneven plan is not mistaken for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kintsugi.domain.signals import Catalogue
from kintsugi_ml.lab.leak import Summary, auc, check, rows, summary
from kintsugi_ml.lab.manifest import NULL
from kintsugi_ml.lab.signals import recorded

Build = Callable[..., Any]
FAULTS = ("deadlocks", "bulk-insert", "cpu-hog", NULL)
WORKLOADS = ("tpcc", "ingest")


@pytest.fixture
def data_set(entry: Build, recording: Build) -> Callable[..., tuple[list[Summary], Catalogue]]:
    """Six runs of each class over two workloads; `spoil(recording)` changes what was recorded."""

    def build(spoil: Callable[[Any], None] = lambda _: None) -> tuple[list[Summary], Catalogue]:
        made = []
        for fault in FAULTS:
            for number in range(6):
                known = entry(f"p{number}-{fault}", fault, workload=WORKLOADS[number % 2])
                made.append(recording(known, seed=10 * FAULTS.index(fault) + number))
                spoil(made[-1])
        return [summary(one.entry, one.frame) for one in made], recorded()

    return build


def test_the_area_under_the_curve_counts_pairs_and_halves_ties() -> None:
    wins, pairs = auc(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0], [np.nan]]), np.array([0.0]))

    assert (wins[0], pairs[0]) == (2.5, 4.0)


def test_what_differs_by_no_more_than_the_floor_is_a_tie() -> None:
    wins, pairs = auc(np.array([[1.0], [3.0]]), np.array([[1.5], [2.0]]), np.array([0.5]))

    assert (wins[0], pairs[0]) == (2.5, 4.0)


def test_noise_below_the_signal_s_floor_is_no_leak_and_above_it_is_one(data_set: Build) -> None:
    signal = recorded().get("longest_query_age")
    assert signal is not None
    floor = signal.floor

    def leaks(level: float) -> set[str]:
        def spoil(made: Any) -> None:
            made.signal("longest_query_age", -30, 0, level if made.entry.fault == "cpu-hog" else 0.0)

        return {leak.signal for leak in check(*data_set(spoil)).leaks if leak.fault == "cpu-hog"}

    assert leaks(0.9 * floor) == set()
    assert leaks(1.1 * floor) == {"longest_query_age"}


def test_noise_gives_nothing_away(data_set: Build) -> None:
    report = check(*data_set())

    assert report.leaks == ()
    assert len(report.giveaways) <= 1
    assert report.unjudged == ()


def test_a_trace_of_the_preparation_is_a_leak(data_set: Build) -> None:
    def spoil(made: Any) -> None:
        if made.entry.fault == "cpu-hog":
            made.signal("buffers_allocated", -30, -25, 900.0)

    found = [(leak.fault, leak.signal) for leak in check(*data_set(spoil)).leaks]

    assert found == [("cpu-hog", "buffers_allocated")]


def test_every_signal_of_every_class_is_reported(data_set: Build) -> None:
    def spoil(made: Any) -> None:
        if made.entry.fault == "cpu-hog":
            made.signal("buffers_allocated", -30, 35, 900.0)

    runs, signals = data_set(spoil)
    head, *lines = rows(check(runs, signals), signals.names())

    assert head.split(",") == [
        *("class", "signal", "normal_mean", "normal_peak", "normal_missing"),
        *("fault_mean", "fault_peak", "fault_missing"),
    ]
    assert len(lines) == len(FAULTS) * len(signals)
    told = next(line for line in lines if line.startswith("cpu-hog,buffers_allocated,")).split(",")
    assert [told[2], told[3], told[5], told[6]] == ["1.000"] * 4


def test_a_signal_that_is_missing_for_one_class_only_is_a_leak(data_set: Build) -> None:
    def spoil(made: Any) -> None:
        if made.entry.fault == "cpu-hog":
            made.frame.mask[:20, made.frame.signals.index("wal_bytes")] = False

    found = [(leak.signal, leak.way) for leak in check(*data_set(spoil)).leaks]

    assert found == [("wal_bytes", "missing")]


def test_what_the_fault_does_is_listed_with_the_reason_and_what_it_should_not_do_without(data_set: Build) -> None:
    def spoil(made: Any) -> None:
        if made.entry.fault == "deadlocks":
            made.signal("deadlocks", 0, 35, 500.0)
            made.signal("archive_failures", 0, 35, 500.0)

    report = check(*data_set(spoil))

    expected = {finding.signal: finding.expected for finding in report.giveaways if finding.fault == "deadlocks"}
    assert expected["deadlocks"] == "the server counts them; no other class makes them without end"
    assert expected["archive_failures"] is None
    assert report.leaks == (), "nothing of it shows before the injection"
    assert report.seen["deadlocks"].signal in {"deadlocks", "archive_failures"}


def test_a_workload_of_its_own_is_no_leak(data_set: Build) -> None:
    def spoil(made: Any) -> None:
        if made.entry.workload == "ingest":
            made.signal("rows_written", -30, 60, 9000.0)

    summaries, signals = data_set(spoil)
    uneven = [one for one in summaries if one.entry.fault != "bulk-insert" or one.entry.workload == "ingest"]
    uneven += [one for one in summaries if one.entry.fault == "bulk-insert" and one.entry.workload == "ingest"]

    assert not [leak for leak in check(uneven, signals).leaks if leak.signal == "rows_written"]


def test_a_class_with_too_few_runs_is_named_instead_of_judged(data_set: Build) -> None:
    summaries, signals = data_set()
    few = [one for one in summaries if one.entry.fault != "cpu-hog"] + [
        one for one in summaries if one.entry.fault == "cpu-hog"
    ][:3]

    assert check(few, signals).unjudged == ("cpu-hog",)


def test_a_run_without_any_sample_in_a_part_is_missing_there_and_breaks_nothing(entry: Build, recording: Build) -> None:
    made = recording(entry())
    late = made.frame.between(made.entry.parts.injected, made.entry.parts.ended)

    assert np.isnan(summary(made.entry, late).normal).all()
