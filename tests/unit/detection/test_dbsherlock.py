from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from kintsugi_ml.detection.dbsherlock import FLAWED, load
from kintsugi_ml.detection.errors import TableError


def cells(rows: int, columns: int) -> Any:
    return np.empty((rows, columns), dtype=object)


def a_file(folder: Path) -> Path:
    """Two classes of two runs with 100 samples; samples 61–80 (counted from 1) are anomalous."""
    causes, datasets, regions = cells(1, 2), cells(2, 2), cells(2, 2)
    names = cells(1, 3)
    names[0, :] = ["Epoch", "latency", "cpu"]
    for row, cause in enumerate(["Lock Contention", FLAWED]):
        causes[0, row] = cause
        for number in range(2):
            data = np.column_stack([np.arange(1.0, 101), np.full(100, row), np.full(100, number)])
            datasets[row, number] = {"data": data, "field_names": names}
            regions[row, number] = np.arange(61, 81)[None]
    file = folder / "dbsherlock_dataset_tpcc_16w.mat"
    savemat(file, {"causes": causes, "test_datasets": datasets, "abnormal_regions": regions})
    return file


def test_regions_count_from_one_and_the_time_is_no_signal(tmp_path: Path) -> None:
    runs = load(a_file(tmp_path).parent)
    assert [run.name for run in runs] == ["Lock Contention/0", "Lock Contention/1", f"{FLAWED}/0", f"{FLAWED}/1"]
    assert np.flatnonzero(runs[0].labels).tolist() == list(range(60, 80))
    assert runs[0].signals == ("latency", "cpu")
    assert runs[3].values[0].tolist() == [1.0, 1.0]


def test_the_known_flaw_is_doubtful_before_its_region_only(tmp_path: Path) -> None:
    runs = load(a_file(tmp_path))
    assert not runs[0].doubtful.any()
    assert np.flatnonzero(runs[2].doubtful).tolist() == list(range(20, 60))


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="can't be read"):
        load(tmp_path)
    savemat(tmp_path / "other.mat", {"a": 1})
    with pytest.raises(TableError, match="is not DBSherlock"):
        load(tmp_path / "other.mat")
    (tmp_path / "junk.mat").write_bytes(b"x" * 300)
    with pytest.raises(TableError, match="is not DBSherlock"):
        load(tmp_path / "junk.mat")
