"""Reading anybody's metrics: CSV or Parquet, time in the first column, numbers in the others.

Safe behaviour, documented in docs/detect.md: an empty cell, `NaN`, `null` and an infinity are missing. Everything else
that isn't a number is refused, naming the column and the row (rows count from 1, without the header and empty lines).
What a cell says never depends on the cells beside it, nor on whether it is text in a CSV or in a Parquet file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
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

_NEVER: Final = 1e30  # seconds
_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

_MISSING: Final = ("", "NaN", "nan", "NAN", "null", "NULL", "NA", "N/A", "None", "-")
_TRUTH: Final = {"true": 1.0, "false": 0.0}
_ROW: Final = re.compile(r"Row #(\d+)")
_SEPARATORS: Final = {b";": "semicolons", b"\t": "tabs", b"|": "bars (|)"}

_NUMBER: Final = "a number"
_TIME: Final = "a number of seconds or a time like 2026-01-31T12:00:00Z"
_TIMES: Final = {
    pa.float64(): "a number of seconds",
    pa.timestamp("us"): "a time without a time zone",
    pa.timestamp("us", "UTC"): "a time with a time zone",
    pa.timestamp("ns"): "a time without a time zone",
    pa.timestamp("ns", "UTC"): "a time with a time zone",
}
"""What text may be as a time, and how that is called; microseconds before nanoseconds, as they reach further."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's numbers: `times` `[T]` in seconds, strictly increasing; `values` `[T, S]`, NaN missing.

    `labels` `[T]` is there when the file has a `label` column. `ignored` are the names to be ignored that it has.
    """

    file: Path
    times: Floats
    columns: tuple[str, ...]
    values: Floats
    labels: Bools | None
    ignored: tuple[str, ...] = ()

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
    """Read a table; `ignore` names columns that are left out (`label` as well), whatever is in them.

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
        raise TableError(f"{file} has no numeric column besides time, label and what is ignored: give at least one")
    values = np.stack([_numbers(file, name, content.column(name)) for name in kept], axis=1)
    labels = _labels(file, content.column(LABEL)) if LABEL in names[1:] and LABEL not in ignore else None
    return Table(file, times, tuple(kept), finite(values), labels, tuple(set(names[1:]) & set(ignore)))


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
        with pa.input_stream(str(file)) as stream:
            data = stream.read()
        _separated_by_commas(file, data)
        alone = csv.ReadOptions(use_threads=False)
        names = csv.open_csv(pa.BufferReader(data), read_options=alone).schema.names
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=_MISSING,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            check_utf8=False,
        )
        return csv.read_csv(pa.BufferReader(data), convert_options=convert, read_options=alone)
    except FileNotFoundError:
        raise TableError(f"there is no file {file}: check the path") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        detail = _ROW.sub(lambda found: f"row {int(found[1]) - 1}", detail)  # Arrow counts the header, too
        kind = "a Parquet file" if _is_parquet(file) else "a comma-separated table with a header, in UTF-8"
        raise TableError(f"{file} can't be read as {kind}: {detail}") from None


def _separated_by_commas(file: Path, data: bytes) -> None:
    header = data.partition(b"\n")[0]
    for separator, name in () if b"," in header else _SEPARATORS.items():
        if separator in header:
            raise TableError(
                f"{file} seems to be separated by {name}: separate the columns by commas (and write 1.5, not 1,5)"
            )


def _times(file: Path, name: str, column: Any) -> Floats:
    """The times in seconds; numbers are seconds, dates and times are taken as UTC when they name no zone."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        times = _since_1970(column)
    elif _is_text(column.type):
        times = _times_in_text(file, name, list(_cells(column)))
    else:
        times = _numbers(file, name, column, _TIME)
    wrong = np.flatnonzero(~(np.abs(times) < _NEVER))
    if len(wrong):
        what = "missing" if np.isnan(times[wrong[0]]) else f"{times[wrong[0]]:g} s, which is no time"
        raise TableError(f"{file}: the time ({name!r}) in row {wrong[0] + 1} is {what}: give every row its time")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        row = int(back[0]) + 2
        what = "is the same as the row before" if times[row - 1] == times[row - 2] else "is earlier than the row before"
        raise TableError(f"{file}: the time ({name!r}) in row {row} {what}: sort the rows by time and keep one of each")
    return times


def _times_in_text(file: Path, name: str, cells: list[str | None]) -> Floats:
    """The times in seconds of cells that are all of one kind."""
    text = pa.chunked_array([pa.array(cells, pa.string())])
    for kind in _TIMES:
        with contextlib.suppress(pa.ArrowInvalid):
            times = pc.cast(text, kind)
            return _since_1970(times) if pa.types.is_timestamp(kind) else _plain(times)
    first: tuple[int, str] | None = None
    for row, cell in enumerate(cells, start=1):
        if cell is None:
            continue
        called = _kind_of_time(cell)
        if called is None:
            raise _refused(file, name, cell, row, _TIME)
        first = first or (row, called)
        if called != first[1]:
            raise TableError(
                f"{file}: column {name!r} has {first[1]} in row {first[0]} and {called} ({cell[:40]!r}) in row {row}:"
                " write all of them alike"
            )
    raise TableError(f"{file}: the times ({name!r}) are too far apart for nanoseconds: cut them to microseconds")


def _kind_of_time(cell: str) -> str | None:
    for kind, called in _TIMES.items():
        with contextlib.suppress(pa.ArrowInvalid):
            pc.cast(pa.scalar(cell), kind)
            return called
    return None


def _numbers(file: Path, name: str, column: Any, wanted: str = _NUMBER) -> Floats:
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or _is_decimal(kind):
        return _plain(column)
    if _is_text(kind):
        with contextlib.suppress(pa.ArrowException):
            return _plain(column)
        with contextlib.suppress(pa.ArrowException):
            return _plain(pc.ascii_trim_whitespace(column))
    out = np.full(len(column), np.nan)
    for row, cell in enumerate(_cells(column) if _is_text(kind) else _shown(column)):
        if cell is None:
            continue
        number = _number(cell) if _is_text(kind) else None
        if number is None:
            raise _refused(file, name, cell, row + 1, wanted)
        out[row] = number
    return out


def _refused(file: Path, name: str, cell: str, row: int, wanted: str) -> TableError:
    advice = ", leave the cell empty, or ignore the column" if wanted == _NUMBER else ""
    return TableError(
        f"{file}: column {name!r} has {cell[:40]!r} in row {row}, which is not {wanted}: correct it{advice}"
    )


def _number(cell: str) -> float | None:
    """The number that a cell is, `true` and `false` as 1 and 0; none for what only a programmer would write."""
    if cell.lower() in _TRUTH:
        return _TRUTH[cell.lower()]
    if cell.isascii() and "_" not in cell:
        with contextlib.suppress(ValueError):
            return float(cell)
    return None


def _cells(column: Any) -> Iterator[str | None]:
    """Text without the spaces around it, none where it means that something is missing."""
    for cell in pc.cast(column, pa.binary()).to_pylist():
        text = None if cell is None else cell.decode(errors="replace").strip()
        yield None if text in _MISSING else text


def _is_text(kind: Any) -> bool:
    tests = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view
    return any(test(kind) for test in (*tests, pa.types.is_binary, pa.types.is_large_binary))


def _is_decimal(kind: Any) -> bool:
    return bool(pa.types.is_decimal(kind))


def _shown(column: Any) -> list[str | None]:
    """What is no number and no text, to be shown: not all fit into Python's own types, and not every zone is known."""
    if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
        with contextlib.suppress(pa.ArrowException):
            return list(pc.cast(column, pa.string()).to_pylist())
    return [f"a {column.type}" if cell.is_valid else None for cell in column]


def _since_1970(column: Any) -> Floats:
    return _plain(pc.cast(column, pa.int64())) / _PER_SECOND[column.type.unit]


def _plain(column: Any) -> Floats:
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _labels(file: Path, column: Any) -> Bools:
    numbers = _numbers(file, LABEL, column, "0 or 1")
    wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
    if len(wrong):
        said = "missing" if np.isnan(numbers[wrong[0]]) else f"{numbers[wrong[0]]:g}"
        raise TableError(f"{file}: the label in row {wrong[0] + 1} is {said}: it is 1 (anomalous) or 0 (normal)")
    return np.asarray(numbers == 1)
