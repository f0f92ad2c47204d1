"""Reading anybody's metrics: CSV or Parquet, time in the first column, numbers in the others.

Safe behaviour, documented in docs/detect.md: an empty cell, `NaN`, `null` and an infinity are missing. Everything else
that isn't a number is refused, naming the column and the row (rows count from 1, without the header).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.errors import TableError
from kintsugi_ml.detection.normal import finite

LABEL: Final = "label"

_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

_MISSING: Final = ["", "NaN", "nan", "NAN", "null", "NULL", "NA", "N/A", "None", "-"]


@dataclass(frozen=True, slots=True)
class Table:
    """A file's numbers: `times` `[T]` in seconds, strictly increasing; `values` `[T, S]`, NaN missing.

    `labels` `[T]` is there when the file has a `label` column.
    """

    file: Path
    times: Floats
    columns: tuple[str, ...]
    values: Floats
    labels: Bools | None

    def closest(self) -> float:
        """Seconds between the two samples that follow each other fastest; NaN with fewer than two."""
        return float(np.diff(self.times).min()) if len(self.times) > 1 else float("nan")

    def interval(self) -> float:
        """Seconds between two samples: the median; NaN with fewer than two."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else float("nan")

    def rows(self, kept: Bools) -> Table:
        """The same with those rows `[T]` only."""
        labels = None if self.labels is None else self.labels[kept]
        return replace(self, times=self.times[kept], values=self.values[kept], labels=labels)

    def aligned(self, columns: Sequence[str]) -> Floats:
        """The values `[T, S]` of the named columns in their order; those that aren't here are missing."""
        place = {name: index for index, name in enumerate(self.columns)}
        out = np.full((len(self.times), len(columns)), np.nan)
        for index, name in enumerate(columns):
            if name in place:
                out[:, index] = self.values[:, place[name]]
        return out


def read(file: Path, ignore: Sequence[str] = ()) -> Table:
    """Read a table; `ignore` names columns that are left out.

    Raises:
        TableError: see the module's docstring.
    """
    content = _content(file)
    names = content.column_names
    for name in names:
        if names.count(name) > 1:
            raise TableError(f"{file}: the column {name!r} is there {names.count(name)} times: rename one of them")
    if len(names) < 2:
        raise TableError(f"{file} has {len(names)} column: the first is the time, and at least one more is needed")
    if not content.num_rows:
        raise TableError(f"{file} has a header and no rows: give at least one")
    times = _times(file, names[0], content.column(0))
    kept = [name for name in names[1:] if name != LABEL and name not in ignore]
    if not kept:
        raise TableError(f"{file} has no numeric column besides time, label and what is ignored")
    values = np.stack([_numbers(file, name, content.column(name)) for name in kept], axis=1)
    labels = _labels(file, content.column(LABEL)) if LABEL in names[1:] else None
    return Table(file, times, tuple(kept), finite(values), labels)


def on_grid(times: Floats, values: Floats, interval: float, context: int) -> tuple[Floats, NDArray[np.int64]]:
    """Values with rows of NaN where samples are missing, so that no window reaches over a hole.

    At most `context` rows are put into one hole: more would say nothing else.

    Returns:
        The values `[T', S]`, and where each given row `[T]` stands in them.
    """
    with np.errstate(over="ignore"):
        holes = np.clip(np.round(np.diff(times) / interval) - 1, 0, context).astype(np.int64)
    place = np.arange(len(times)) + np.concatenate([[0], np.cumsum(holes)]).astype(np.int64)
    out = np.full((int(place[-1]) + 1, values.shape[1]), np.nan)
    out[place] = values
    return out, place


def write(file: Path, columns: dict[str, Any]) -> None:
    """Write columns as Parquet when the name ends so, else as CSV.

    Raises:
        TableError: the file can't be written.
    """
    table = pa.table(columns)
    try:
        if _is_parquet(file):
            pq.write_table(table, file)
        else:
            csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{file} can't be written ({error}): name a file in a folder that exists") from None


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in {".parquet", ".pq"}


def _content(file: Path) -> Any:
    try:
        if _is_parquet(file):
            return pq.read_table(file)
        convert = csv.ConvertOptions(null_values=_MISSING, strings_can_be_null=True, quoted_strings_can_be_null=True)
        return csv.read_csv(file, convert_options=convert, read_options=csv.ReadOptions(use_threads=False))
    except FileNotFoundError:
        raise TableError(f"there is no file {file}: check the path") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = "a Parquet file" if _is_parquet(file) else "a comma-separated table with a header, in UTF-8"
        raise TableError(f"{file} can't be read as {kind}: {detail}") from None


def _times(file: Path, name: str, column: Any) -> Floats:
    """The times in seconds; numbers are seconds, dates and times are taken as UTC when they name no zone."""
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        times = _plain(pc.cast(column, pa.int64())) / _PER_SECOND[column.type.unit]
    else:
        times = _numbers(file, name, column, "a number of seconds or a time like 2026-01-31T12:00:00Z")
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        raise TableError(f"{file}: the time ({name!r}) in row {wrong[0] + 1} is missing: give every row its time")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        row = int(back[0]) + 2
        what = "is the same as the row before" if times[row - 1] == times[row - 2] else "is earlier than the row before"
        raise TableError(f"{file}: the time ({name!r}) in row {row} {what}: sort the rows by time and keep one of each")
    return times


def _numbers(file: Path, name: str, column: Any, wanted: str = "a number") -> Floats:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
        kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or _is_decimal(kind):
        return _plain(pc.cast(column, pa.float64(), safe=False))
    cells = _texts(column) if pa.types.is_temporal(kind) else column.to_pylist()
    out = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        with contextlib.suppress(TypeError, ValueError):
            out[row] = float(cell)
            continue
        raise TableError(
            f"{file}: column {name!r} has {str(cell)[:40]!r} in row {row + 1}, which is not {wanted}:"
            " correct it, leave the cell empty, or ignore the column"
        )
    return out


def _is_decimal(kind: Any) -> bool:
    return bool(pa.types.is_decimal(kind))


def _texts(column: Any) -> list[str | None]:
    """Times as text to be shown, never a number: not all fit into Python's own types, and not every zone is known."""
    if not pa.types.is_duration(column.type):
        with contextlib.suppress(pa.ArrowException):
            return list(pc.cast(column, pa.string()).to_pylist())
    return [f"a {column.type}" if cell.is_valid else None for cell in column]


def _plain(column: Any) -> Floats:
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _labels(file: Path, column: Any) -> Bools:
    numbers = _numbers(file, LABEL, column, "0 or 1")
    wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
    if len(wrong):
        said = "missing" if np.isnan(numbers[wrong[0]]) else f"{numbers[wrong[0]]:g}"
        raise TableError(f"{file}: the label in row {wrong[0] + 1} is {said}: it is 1 (anomalous) or 0 (normal)")
    return np.asarray(numbers == 1)
