"""What a column's cells say: times, numbers, labels. Errors name the column and the row.

A cell never depends on the cells beside it, nor on whether it is text in a CSV or in a Parquet file. An empty cell,
`NaN`, `null` and the like are missing (`MISSING`). Rows count from 1, without the header and empty lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection.errors import TableError

LABEL: Final = "label"

MISSING: Final = ("", "NaN", "nan", "NAN", "null", "NULL", "NA", "N/A", "None", "-")
"""Cells that say nothing."""

_NEVER: Final = 1e30  # seconds
_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_TRUTH: Final = {"true": 1.0, "false": 0.0}

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


def times(file: Path, name: str, column: Any) -> Floats:
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
        times = numbers(file, name, column, _TIME)
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


def numbers(file: Path, name: str, column: Any, wanted: str = _NUMBER) -> Floats:
    """A column's numbers `[T]`, `true` and `false` as 1 and 0, NaN for what is missing; `wanted` names what it must be.

    Raises:
        TableError: a cell is something else.
    """
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
        yield None if text in MISSING else text


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


def labels(file: Path, column: Any) -> Bools:
    """What is labelled anomalous `[T]`.

    Raises:
        TableError: a cell is neither 0 nor 1.
    """
    found = numbers(file, LABEL, column, "0 or 1")
    wrong = np.flatnonzero((found != 0) & (found != 1))
    if len(wrong):
        said = "missing" if np.isnan(found[wrong[0]]) else f"{found[wrong[0]]:g}"
        raise TableError(f"{file}: the label in row {wrong[0] + 1} is {said}: it is 1 (anomalous) or 0 (normal)")
    return np.asarray(found == 1)
