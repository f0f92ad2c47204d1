"""A label silences 1.5 times as long as it lasted, whatever happens meanwhile to the reference and to the operator."""

from __future__ import annotations

import pytest

from kintsugi.domain.experience import LabelKind
from kintsugi.engines.registry import ENGINES
from kintsugi.loops.buffer import RingBuffer
from kintsugi.loops.watch import Watch
from kintsugi.shell.prometheus import Samples
from kintsugi.stages.learned import LearnedDetector
from kintsugi.stages.ports import DetectorState, Observed
from kintsugi_dev.builders import a_database
from kintsugi_dev.judged import CATALOGUE, NAMES, START, a_frame, an_example, joined

LASTING = {"wait_age": 40.0, "waiters": 40.0}
UID = "uid-orders"


class Replayed:
    """A database that is quiet for some time, and then has a fault that never ends, cycle by cycle."""

    def __init__(self, quiet: int, labelled: int, reach: float = 50.0) -> None:
        fault = a_frame(600, 2, START + quiet, spoilt=LASTING)
        self.frame, self.quiet = joined(a_frame(quiet, 1, START), fault), quiet
        self.database = a_database()
        self.watch = Watch("shop/orders", UID, ENGINES["postgresql"], 1, RingBuffer(NAMES, 1.0, len(self.frame)))
        self.example = an_example(LabelKind.NORMAL, dict.fromkeys(LASTING, reach), samples=labelled)
        self.restart(None)

    def restart(self, silent_since: float | None) -> None:
        self.detector = LearnedDetector(None)
        self.detector.hear(UID, [self.example])
        self.watch.state = DetectorState(silent_since=silent_since)

    def flagged_after(self, restarted: int | None = None) -> int | None:
        """Seconds from the fault's beginning; None when never."""
        for place in range(len(self.frame)):
            row, now = self.frame.values[place], float(self.frame.times[place])
            samples = {name: row[[column]] for column, name in enumerate(NAMES)}
            self.watch.buffer.append(Samples(self.frame.times[[place]], samples))
            if place == self.quiet + (restarted or -self.quiet - 1):
                assert self.watch.anomaly is not None
                assert self.watch.anomaly.opinion is not None
                self.restart(self.watch.anomaly.opinion.silent_since)
            if place < self.quiet - 3:
                continue
            recent = self.watch.buffer.frame.between(now - 60, now + 1)
            reference = self.watch.reference(self.database, now)
            observed = Observed("shop/orders", CATALOGUE, reference, recent, self.watch.state, 60.0, UID)
            [(anomaly, state)] = self.detector.detect([observed], now)
            self.watch.judged(anomaly, state, now)
            if anomaly.flagged:
                return place - self.quiet
        return None


@pytest.mark.parametrize(("quiet", "labelled"), [(300, 20), (300, 60), (300, 120), (1800, 60)])
def test_a_fault_that_never_ends_alarms_when_its_label_is_used_up(quiet: int, labelled: int) -> None:
    after = Replayed(quiet, labelled).flagged_after()

    assert after is not None
    assert 1.5 * labelled <= after <= 1.5 * labelled + 5


def test_a_restart_in_between_does_not_begin_the_silence_anew() -> None:
    after = Replayed(300, 100).flagged_after(restarted=120)

    assert after is not None
    assert 150 <= after <= 155


def test_the_same_again_is_silent_beside_a_longer_reference_than_it_was_labelled_with() -> None:
    replayed = Replayed(1800, 30, reach=LASTING["wait_age"])

    assert len(replayed.example.reference) < 100
    after = replayed.flagged_after()
    assert after is not None
    assert after >= 45
