"""What is recorded: everything that is judged can be judged again from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kintsugi_ml.lab import dataset
from kintsugi_ml.lab.manifest import Entry
from kintsugi_ml.lab.truth.measures import MEASURES
from kintsugi_ml.lab.truth.onset import onsets, returned

LAB_V1 = Path(__file__).parents[3] / "data" / "lab-v1"
RECORDED = [run for run in dataset.entries(LAB_V1) if run.truth_file is not None]


@pytest.mark.parametrize("entry", RECORDED, ids=[run.id for run in RECORDED])
def test_when_components_left_their_band_follows_from_the_stored_track(entry: Entry) -> None:
    truth, parts = dataset.read_run(LAB_V1, entry).truth, entry.parts
    assert parts is not None
    assert truth.names == tuple(measure.name for measure in MEASURES)
    assert onsets(truth, parts, MEASURES) == pytest.approx(entry.onsets, abs=0.006)
    assert returned(truth, parts, MEASURES) == pytest.approx(entry.returned, abs=0.006)
