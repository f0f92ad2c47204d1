"""What is recorded: what is judged by the stored tracks can be judged again from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi_ml.lab import dataset
from kintsugi_ml.lab.classes import FAULTS
from kintsugi_ml.lab.manifest import Entry
from kintsugi_ml.lab.outcome import own_signal
from kintsugi_ml.lab.signals import recorded
from kintsugi_ml.lab.truth.measures import MEASURES
from kintsugi_ml.lab.truth.onset import onsets, returned

LAB_V1 = Path(__file__).parents[3] / "data" / "lab-v1"
RECORDED = [run for run in dataset.entries(LAB_V1) if run.truth_file is not None]


@pytest.mark.parametrize("entry", RECORDED, ids=[run.id for run in RECORDED])
def test_onsets_and_the_own_signals_outcome_follow_from_the_stored_tracks(entry: Entry) -> None:
    run, parts = dataset.read_run(LAB_V1, entry), entry.parts
    assert parts is not None
    assert run.truth.names == tuple(measure.name for measure in MEASURES)
    assert onsets(run.truth, parts, MEASURES) == pytest.approx(entry.onsets, abs=0.006)
    assert returned(run.truth, parts, MEASURES) == pytest.approx(entry.returned, abs=0.006)
    if not entry.negative:
        own = own_signal(FAULTS[entry.fault].effect, parts, run.frame, recorded())
        noted = entry.outcome.own_signal if entry.outcome else None
        assert (own is None) == (noted is None) == (FAULTS[entry.fault].effect.signal is None)
    if not entry.negative and own is not None and noted is not None:
        assert (own.name, own.felt, own.restored_after) == (noted.name, noted.felt, noted.restored_after)
        assert (own.before, own.during) == pytest.approx((noted.before, noted.during), rel=1e-3)
