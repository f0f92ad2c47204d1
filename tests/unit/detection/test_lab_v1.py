import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kintsugi_ml.detection import lab_v1
from kintsugi_ml.detection.errors import TableError

TIMES = np.arange(-30.0, 60.0)


def an_entry(**known: Any) -> dict[str, Any]:
    """A fault that clients felt from 2 to 35 s, whose root moved before and was back after them."""
    entry = {
        "id": "p0-000-lock-contention",
        "fault": "lock-contention",
        "second": None,
        "workload": "tpcc",
        "status": "counts",
        "negative": False,
        "root": "lock-manager",
        "gate": {"client_factor": 9.0},
        "parts": {"injected": 1000.0, "remedied": 1030.0, "lifted": 1032.0},
        "onsets": {"lock-manager": 0.5, "client": 2.0, "wal": None},
        "returned": {"lock-manager": 40.0, "client": 35.0, "wal": None},
        "file": "runs/p0-000-lock-contention.parquet",
    }
    return entry | known


def spans(**known: Any) -> tuple[list[float], list[float]]:
    """First and last second of what is anomalous, and all that is left out."""
    wrong, out = lab_v1.label(TIMES, an_entry(**known))
    assert not (wrong & out).any()
    return [float(TIMES[wrong][0]), float(TIMES[wrong][-1])] if wrong.any() else [], TIMES[out].tolist()


def test_it_is_anomalous_from_when_clients_feel_it_until_they_are_well_again() -> None:
    wrong, _ = spans()
    assert wrong == [2.0, 34.0]


def test_what_is_between_injection_and_effect_and_until_all_is_back_is_left_out() -> None:
    _, out = spans()
    assert out == [0.0, 1.0, *np.arange(35.0, 45.0)]


def test_a_fault_that_clients_do_not_feel_counts_by_where_it_starts() -> None:
    wrong, _ = spans(gate={"client_factor": 1.0})
    assert wrong == [1.0, 39.0]


def test_without_its_root_the_first_that_moved_counts() -> None:
    wrong, _ = spans(gate={"client_factor": None}, root="wal", onsets={"wal": None, "storage": 3.0, "client": 5.0})
    assert wrong == [3.0, 31.0]


def test_what_never_came_back_is_anomalous_until_the_cause_was_lifted_and_then_left_out() -> None:
    wrong, out = spans(returned={"lock-manager": None, "client": None})
    assert wrong == [2.0, 31.0]
    assert out == [0.0, 1.0, *np.arange(32.0, 60.0)]


def test_all_of_a_harmless_run_is_normal_and_counts() -> None:
    assert spans(negative=True) == ([], [])
    assert spans(negative=True, remedy={"action": "nothing"}) == ([], [])


def test_what_a_needless_remedy_does_to_a_harmless_run_is_left_out() -> None:
    assert spans(negative=True, remedy={"action": "checkpoint"}) == ([], TIMES[TIMES >= 30].tolist())


def written(folder: Path, entry: dict[str, Any], rows: int = 90) -> None:
    (folder / "runs").mkdir(exist_ok=True)
    columns = {"time": TIMES[:rows], "client_latency_p95": np.ones(rows), "wal_bytes": np.full(rows, np.nan)}
    pq.write_table(pa.table(columns), folder / "runs" / f"{entry['id']}.parquet")
    (folder / "runs" / f"{entry['id']}.json").write_text(json.dumps(entry))


def test_runs_that_count_are_read_with_their_class_and_workload(tmp_path: Path) -> None:
    written(tmp_path, an_entry())
    written(tmp_path, an_entry(id="b", second="bloat", file="runs/b.parquet"))
    written(tmp_path, an_entry(id="c", status="gate-failed", file="runs/c.parquet"))
    both, single = lab_v1.load(tmp_path)
    assert (single.group, both.group) == ("lock-contention", "lock-contention+bloat")
    assert (single.system, single.signals) == ("tpcc", ("client_latency_p95", "wal_bytes"))
    assert single.reference == 25
    assert single.labels.sum() == 33


def test_only_the_training_split_is_learned_from(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path, an_entry(id=name, file=f"runs/{name}.parquet"))
    with pytest.raises(TableError, match="make lab-card"):
        lab_v1.training(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"splits": {"train": ["b"], "test-class": ["a"]}}))
    assert [run.name for run in lab_v1.training(tmp_path)] == ["b"]


@pytest.mark.parametrize("spoil", ["json", "parquet", "gone", "entry"])
def test_a_damaged_run_is_named(tmp_path: Path, spoil: str) -> None:
    written(tmp_path, an_entry(id="a", file="runs/a.parquet"))
    if spoil == "json":
        (tmp_path / "runs/a.json").write_text("{")
    elif spoil == "parquet":
        (tmp_path / "runs/a.parquet").write_bytes(b"PAR1")
    elif spoil == "gone":
        (tmp_path / "runs/a.parquet").unlink()
    else:
        written(tmp_path, an_entry(id="a", file="runs/a.parquet", onsets={"client": "soon"}))
    with pytest.raises(TableError, match=r"run a|a\.json|a\.parquet"):
        lab_v1.load(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no run that counts"):
        lab_v1.load(tmp_path)
