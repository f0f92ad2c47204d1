"""The DBSherlock data set (Yoon, Niu, Mozafari, SIGMOD 2016): MySQL under TPC-C, 1 Hz, 10 anomaly classes x 11 runs.

A known flaw: before each region labelled "Poor Physical Design" lies about half a minute of complete outage that is
labelled normal. Those `FLAW_S` seconds are marked doubtful.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Bools
from kintsugi_ml.detection.errors import TableError
from kintsugi_ml.detection.metrics import spans
from kintsugi_ml.detection.normal import finite
from kintsugi_ml.detection.protocol import Run

DATA: Final = Path("../shared/data/dbsherlock")
"""Where our checkouts have it; it is not ours to pass on."""

FILE: Final = "dbsherlock_dataset_tpcc_16w.mat"
FLAWED: Final = "Poor Physical Design"
FLAW_S: Final = 40
TIME: Final = "Epoch"


def load(path: Path) -> list[Run]:
    """All runs, class by class.

    Args:
        path: the `.mat` file, or the folder that holds it.

    Raises:
        TableError: the file is missing, or isn't that data set.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    file = path / FILE if path.is_dir() else path
    try:
        content = loadmat(file)
        causes = [str(cause[0]) for cause in content["causes"].ravel()]
        return [
            _run(cause, number, content["test_datasets"][row, number], content["abnormal_regions"][row, number])
            for row, cause in enumerate(causes)
            for number in range(content["test_datasets"].shape[1])
        ]
    except OSError as error:
        raise TableError(f"{file} can't be read ({error.strerror or error}): get DBSherlock's TPC-C data set") from None
    except (KeyError, ValueError, MatReadError) as error:
        raise TableError(f"{file} is not DBSherlock's TPC-C data set ({error}): get it again") from None


def doubtful(group: str, labels: Bools) -> Bools:
    """Samples `[T]` at 1 Hz whose label can't be trusted."""
    out = np.zeros(len(labels), dtype=np.bool_)
    for first, _ in spans(labels):
        if group == FLAWED:
            out[max(first - FLAW_S, 0) : first] = True
    return out


def _run(cause: str, number: int, dataset: Any, region: Any) -> Run:
    names = tuple(str(name[0]) for name in dataset["field_names"][0, 0].ravel())
    values = finite(dataset["data"][0, 0])
    labels = np.zeros(len(values), dtype=np.bool_)
    labels[region.ravel().astype(np.int64) - 1] = True  # regions count from 1
    kept = [index for index, name in enumerate(names) if name != TIME]
    return Run(
        name=f"{cause}/{number}",
        system="mysql",
        group=cause,
        signals=tuple(names[index] for index in kept),
        values=values[:, kept],
        labels=labels,
        doubtful=doubtful(cause, labels),
    )
