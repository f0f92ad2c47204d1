"""Every signal that our collector or the clients serve moves when its stimulus acts, on PostgreSQL 13, 15 and 18."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest

from kintsugi.domain.signals import Signal
from kintsugi.engines.catalogue import load
from kintsugi_dev.servers import server_directory
from kintsugi_dev.stimuli import STIMULI, Recording, record

VERSIONS = (13, 15, 18)
CATALOGUE = load("postgresql")
MEASURED = [signal for signal in CATALOGUE if {"kintsugi", "client"} & set(signal.sources)]


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    """One minute in which everything happens to three servers at once."""
    with server_directory("kintsugi-signals-") as directory:
        yield record(directory, VERSIONS, CATALOGUE)


def test_every_signal_has_a_stimulus_and_no_stimulus_lacks_its_signal() -> None:
    assert set(STIMULI) == {signal.name for signal in MEASURED}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("signal", MEASURED, ids=lambda signal: signal.name)
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"postgres{version}")
def test_the_signal_moves(recording: Recording, version: int, signal: Signal) -> None:
    stimulus = STIMULI[signal.name]
    before = recording.before(version, signal.name)
    during = recording.during(version, signal.name, stimulus.act)

    if version < stimulus.since:
        assert not before, f"{signal.name} exists on {version}; correct `since` in the table of stimuli"
        return
    assert before, f"{signal.name} has no samples while nothing happens"
    # The usual value, not the extreme: a client of the quiet shop may be met between two statements of a transaction.
    usual = median(before)
    moved = max(during) - usual if stimulus.direction == "up" else usual - min(during)
    wanted = stimulus.at_least or signal.floor
    troubles = [trouble for trouble in recording.trouble if f" on {version}:" in trouble]
    assert moved >= wanted, f"{stimulus.act.__name__}: from {before} to {during}; went wrong: {troubles}"
