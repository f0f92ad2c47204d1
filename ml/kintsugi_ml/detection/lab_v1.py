"""The fault lab's data set (docs/lab.md) as labelled runs: PostgreSQL at 1 Hz, two dozen faults, ten harmless events.

It knows the files only, not the laboratory that wrote them: `runs/<id>.json` says what was done and what was felt,
`runs/<id>.parquet` holds the metrics.

**What is anomalous** follows from what the run itself recorded, at 8 Hz and by a rule fixed before any detector:

    reference and normal ─ injected ─(left out)─ effect ── ANOMALOUS ── recovered ─(left out)─ all back ─ normal

`effect` is the moment the clients left their normal band; of a fault that clients don't feel, the moment the component
it starts at did (or else the first that moved). `recovered` is the moment the same component was back for good; one
that never was counts as anomalous until the cause was lifted. What lies between injection and effect is left out of
every score, and so is what comes after `recovered` until every component that moved is back and `SETTLED_S` more: to
alarm there is neither right nor wrong. In runs with nothing injected, or with a harmless event, all is normal: each
alarm in them is false. Only what follows a remedy that nobody needed is left out, for it may have done harm itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.errors import TableError
from kintsugi_ml.detection.normal import finite
from kintsugi_ml.detection.protocol import Run

DATA: Final = Path("data/lab-v1")
NOTHING: Final = "nothing"
"""The action of a run in which no remedy was tried."""

SETTLED_S: Final = 5.0
"""After everything is back the longest window still holds what was before."""

FELT: Final = 1.5
"""Times its normal that clients' p95 (or its share of lost answers) has to be, for clients to have felt a fault."""


def load(path: Path = DATA) -> list[Run]:
    """The runs that count, ordered by their entries' file names.

    `group` is the fault (of a compound one both, joined by `+`), `system` the workload.

    Raises:
        TableError: the folder has no runs, or a file is missing or damaged.
    """
    entries = [_entry(file) for file in sorted((path / "runs").glob("*.json"))]
    runs = [_run(path, entry) for entry in entries if entry.get("status") == "counts"]
    if not runs:
        raise TableError(f"{path} has no run that counts: name the folder of lab-v1, or record it with `make lab`")
    return runs


def training(path: Path = DATA) -> list[Run]:
    """The runs that a model may learn from: those of the manifest's split `train`.

    Raises:
        TableError: there is no manifest, or a file is missing or damaged.
    """
    file = path / "manifest.json"
    try:
        allowed = set(json.loads(file.read_bytes())["splits"]["train"])
    except OSError as error:
        raise TableError(f"{file} can't be read ({error}): `make lab-card` makes it from the runs") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f"{file} is damaged ({error!r}): `make lab-card` makes it from the runs") from None
    return [run for run in load(path) if run.name in allowed]


def label(times: Floats, entry: Mapping[str, Any]) -> tuple[Bools, Bools]:
    """What is anomalous, and what is left out, `[T]` each.

    Args:
        times: `[T]`, seconds since the injection.
        entry: the run's entry: `negative`, `root`, `gate`, `parts`, `remedy`, `onsets`, `returned`.
    """
    parts, onsets, returned = entry["parts"], entry["onsets"], entry["returned"]
    if entry["negative"]:
        needless = (entry.get("remedy") or {}).get("action", NOTHING) != NOTHING
        return np.zeros(len(times), dtype=np.bool_), needless & (times >= parts["remedied"] - parts["injected"])
    lifted = parts["lifted"] - parts["injected"]
    decisive = _decisive(entry)
    effect = 0.0 if decisive is None else float(onsets[decisive])
    back = None if decisive is None else returned.get(decisive)
    recovered = lifted if back is None else float(back)
    wrong = (times >= effect) & (times < recovered)
    moved = [component for component, onset in onsets.items() if onset is not None]
    ends = [returned.get(component) for component in moved]
    settled = np.inf if None in ends or not ends else max(recovered, *ends) + SETTLED_S
    return wrong, (times >= 0) & ~wrong & (times < settled)


def _decisive(entry: Mapping[str, Any]) -> str | None:
    """The component whose state says whether something is wrong."""
    onsets: Mapping[str, float | None] = entry["onsets"]
    felt = (entry["gate"].get("client_factor") or 0.0) >= FELT
    moved = {component: onset for component, onset in onsets.items() if onset is not None}
    if felt and "client" in moved:
        return "client"
    if entry["root"] in moved:
        return str(entry["root"])
    return min(moved, key=lambda component: moved[component]) if moved else None


def _run(path: Path, entry: Mapping[str, Any]) -> Run:
    times, signals, values = _metrics(path / entry["file"])
    try:
        labels, doubtful = label(times, entry)
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(f"the entry of run {entry['id']} in {path} is damaged ({error!r}): get it again") from None
    return Run(
        name=entry["id"],
        system=entry["workload"],
        group="+".join(filter(None, (entry["fault"], entry.get("second")))),
        signals=signals,
        values=finite(values),
        labels=labels,
        doubtful=doubtful,
    )


def _entry(file: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise TableError(f"{file} is damaged ({error}): get it again") from None
    return found


def _metrics(file: Path) -> tuple[Floats, tuple[str, ...], Floats]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file).read()
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{file} can't be read ({error}): get it again") from None
    names: Sequence[str] = [str(name) for name in table.column_names]
    columns = np.column_stack([table.column(name).to_numpy().astype(np.float64) for name in names])
    return columns[:, 0], tuple(names[1:]), columns[:, 1:]
