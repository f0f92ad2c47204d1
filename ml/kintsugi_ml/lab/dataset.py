"""The data set on disk: one run is four Parquet files and a JSON file, which is written last.

    manifest.json            all runs, see manifest.py
    runs/<id>.parquet        metrics, one row a second: `time` and one column per catalogue signal, in its order
    runs/<id>.json           everything known about the run: its entry in the manifest
    truth/<id>.parquet       8 rows a second: `time` and one column per truth measure
    logs/<id>.parquet        one row a second: `time` and how many lines of each class
    logs/<id>.lines.parquet  one row per line: `time`, `class`, `template`

`time` is seconds since the injection; in memory times are Unix seconds. All numbers are float32, NaN is missing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kintsugi.domain.frame import Floats, Frame
from kintsugi_ml.lab import splits
from kintsugi_ml.lab.logs import Line, LogTrack
from kintsugi_ml.lab.manifest import (
    FILE,
    VERSION,
    DamagedFileError,
    DatasetError,
    Entry,
    Manifest,
    MeasureEntry,
    Skipped,
    digest,
    parse_entry,
)
from kintsugi_ml.lab.truth.measures import MEASURES, Measure, Track

INTERVAL: Final = 1.0
"""Seconds between two rows of metrics."""

MANTISSA_BITS: Final = 13
"""Of 23 that a float32 has: values are rounded to 1 part in 16,000, finer than any scrape's own jitter; whole numbers
up to 16,384 stay exact. 250 runs of nothing but noise take 33 MB so, and 50 MB unrounded."""

TIME_DIGITS: Final = 3
"""Times come back rounded to milliseconds; a float32 of a few hundred seconds is good to 30 µs."""


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded run, read back."""

    entry: Entry
    frame: Frame
    truth: Track
    logs: LogTrack


def write_run(directory: Path, run: Entry, frame: Frame, truth: Track, logs: LogTrack) -> Entry:
    """Write a run; returns its entry with the files' names and SHA-256. A run is there when its JSON file is."""
    if run.injected_at is None:
        raise ValueError(f"run {run.id} has no injected_at, which its times are counted from; use write_entry")
    zero = run.injected_at
    lines = pa.table(
        {
            "time": pa.array([when - zero for when, _, _ in logs.lines], pa.float32()),
            "class": pa.array([name for _, name, _ in logs.lines], pa.string()),
            "template": pa.array([template for _, _, template in logs.lines], pa.string()),
        }
    )
    files = {
        "file": (f"runs/{run.id}.parquet", _numbers(frame.times - zero, frame.signals, _marked(frame))),
        "truth_file": (f"truth/{run.id}.parquet", _numbers(truth.times - zero, truth.names, truth.values)),
        "log_file": (f"logs/{run.id}.parquet", _counts(logs, zero)),
        "lines_file": (
            f"logs/{run.id}.lines.parquet",
            _parquet(lines, split=["time"], dictionary=["class", "template"]),
        ),
    }
    known: dict[str, str] = {}
    for field, (name, content) in files.items():
        _replace(directory / name, content)
        known[field] = name
        known[field.removesuffix("file") + "sha256"] = digest(content)
    return write_entry(directory, run.model_copy(update=known))


def as_stored(truth: Track, zero: float) -> Track:
    """The track as it is read back: what is judged by it can be judged again from the files alone."""
    times = _times((truth.times - zero).astype(np.float32), zero)
    return Track(times, truth.names, _rounded(truth.values).astype(np.float64))


def write_entry(directory: Path, run: Entry) -> Entry:
    """Write only what is known about a run: one that crashed or was skipped, or whose judgement has changed."""
    _replace(directory / "runs" / f"{run.id}.json", run.model_dump_json(indent=1).encode() + b"\n")
    return run


def entries(directory: Path) -> list[Entry]:
    """The entries of all runs there are, ordered by id."""
    return [parse_entry(path) for path in sorted((directory / "runs").glob("*.json"), key=lambda path: path.stem)]


def read_run(directory: Path, run: Entry) -> Run:
    """Read a run back.

    Raises:
        DamagedFileError: a file is missing or damaged; the message names it.
        DatasetError: nothing was recorded (the run crashed).
    """
    if run.injected_at is None or None in (run.file, run.truth_file, run.log_file, run.lines_file):
        raise DatasetError(f"run {run.id} recorded nothing ({run.status}: {run.reason}); choose one that counts")
    times, signals, values = _matrix(directory / str(run.file), run.injected_at)
    truth_times, measures, truth = _matrix(directory / str(run.truth_file), run.injected_at)
    log_times, classes, counts = _matrix(directory / str(run.log_file), run.injected_at)
    return Run(
        run,
        Frame(signals, times, values, ~np.isnan(values), INTERVAL),
        Track(truth_times, measures, truth),
        LogTrack(log_times, classes, counts.astype(np.int64), _lines(directory / str(run.lines_file), run.injected_at)),
    )


def assemble(
    directory: Path, *, components: Sequence[str], signals: Sequence[str], measures: Iterable[Measure] = MEASURES
) -> Manifest:
    """Write what `assembled` makes."""
    manifest = assembled(directory, components=components, signals=signals, measures=measures)
    _replace(directory / FILE, _text(manifest))
    return manifest


def is_stale(directory: Path, known: Manifest) -> bool:
    """Whether `known`, as it was read, is no longer what the runs' files say."""
    return _text(assembled(directory, components=known.components, signals=known.signals)) != _text(known)


def assembled(
    directory: Path, *, components: Sequence[str], signals: Sequence[str], measures: Iterable[Measure] = MEASURES
) -> Manifest:
    """The manifest of the runs' JSON files: of the same runs always the same."""
    runs = entries(directory)
    recorded = [run for run in runs if run.status != "skipped"]
    skipped = {run.fault: run.reason or "" for run in runs if run.status == "skipped"}
    newest = max((run.parts.ended for run in recorded if run.parts is not None), default=0.0)
    return Manifest(
        version=VERSION,
        created=datetime.fromtimestamp(int(newest), UTC).isoformat(),
        splits=splits.assign(recorded),
        components=list(components),
        signals=list(signals),
        measures=[_described(measure) for measure in measures],
        skipped=[Skipped(fault=fault, reason=reason) for fault, reason in sorted(skipped.items())],
        runs=recorded,
    )


def _text(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode() + b"\n"


def _described(measure: Measure) -> MeasureEntry:
    return MeasureEntry(
        name=measure.name,
        component=measure.component,
        unit=measure.unit,
        hurts=measure.hurts,
        floor=measure.floor,
        origin=measure.origin,
        decides=measure.decides,
    )


def _marked(frame: Frame) -> Floats:
    return np.where(frame.mask, frame.values, np.nan)


def _rounded(values: Floats) -> NDArray[np.float32]:
    """Float32 with the last bits of the mantissa rounded away; NaN and infinity stay."""
    mantissa, exponent = np.frexp(values)
    scale = 2.0 ** (MANTISSA_BITS + 1)
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(np.float32)


def _numbers(times: Floats, names: Sequence[str], values: Floats) -> bytes:
    rounded = _rounded(values)
    columns = {"time": times.astype(np.float32), **{name: rounded[:, i] for i, name in enumerate(names)}}
    return _parquet(pa.table(columns), split=list(columns))


def _counts(logs: LogTrack, zero: float) -> bytes:
    columns = {name: logs.counts[:, i].astype(np.int32) for i, name in enumerate(logs.classes)}
    return _parquet(pa.table({"time": (logs.times - zero).astype(np.float32), **columns}), split=["time"])


def _parquet(table: Any, *, split: list[str], dictionary: list[str] | bool = False) -> bytes:
    """The file's bytes: bytes of equal weight stand together (`split`), which zstd likes; no statistics per column."""
    target = io.BytesIO()
    pq.write_table(
        table,
        target,
        compression="zstd",
        compression_level=12,
        use_dictionary=dictionary,
        use_byte_stream_split=split,
        write_statistics=False,
        store_schema=False,
    )
    return target.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """All or nothing: whoever reads sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(content)
    partial.replace(path)


def _table(path: Path) -> Any:
    try:
        return pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise DamagedFileError(f"{path} is missing; get it again with git checkout, or record the run again") from None
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}); get it again with git checkout") from None


def _matrix(path: Path, zero: float) -> tuple[Floats, tuple[str, ...], Floats]:
    table = _table(path)
    names = tuple(str(name) for name in table.column_names[1:])
    columns = [table.column(name).to_numpy().astype(np.float64) for name in table.column_names]
    times = _times(columns[0], zero)
    return times, names, np.column_stack(columns[1:]) if names else np.empty((len(times), 0))


def _times(seconds: NDArray[np.floating[Any]], zero: float) -> Floats:
    return np.round(zero + seconds.astype(np.float64), TIME_DIGITS)


def _lines(path: Path, zero: float) -> tuple[Line, ...]:
    columns = _table(path).to_pydict()
    rows = zip(columns["time"], columns["class"], columns["template"], strict=True)
    return tuple(Line(round(zero + time, TIME_DIGITS), name, template) for time, name, template in rows)
