"""Anybody's metrics: time in the first column, numbers in the others. What happens to odd data: docs/detect.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import cells
from kintsugi_ml.detection.cells import LABEL
from kintsugi_ml.detection.errors import TableError
from kintsugi_ml.detection.files import content
from kintsugi_ml.detection.normal import finite


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

    def measured(self) -> tuple[str, ...]:
        """The columns in which any cell is a number."""
        measured: NDArray[np.int64] = (~np.isnan(self.values)).sum(axis=0)
        return tuple(name for name, many in zip(self.columns, measured.tolist(), strict=True) if many)

    def only(self, columns: Sequence[str]) -> Table:
        """The same with those of its columns only."""
        return replace(self, columns=tuple(columns), values=self.aligned(columns))

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


def read(file: Path, ignore: Sequence[str] = (), *, labels: bool = True) -> Table:
    """Read a table; `ignore` names columns that are left out (`label` as well), whatever is in them.

    Args:
        file: CSV or Parquet, by its name.
        ignore: names of columns that are left out.
        labels: whether the column `label` is read; it is no metric anyway.

    Raises:
        TableError: it can't be read, or is no table of numbers; names the column and the row.
    """
    table = content(file)
    names = table.column_names
    _refuse_names(file, names, ignore)
    if len(names) < 2:
        raise TableError(f"{file} has {len(names)} column: the first is the time, and at least one more is needed")
    if not table.num_rows:
        raise TableError(f"{file} has a header and no rows: give at least one")
    times = cells.times(file, names[0], table.column(0))
    kept = [name for name in names[1:] if name != LABEL and name not in ignore]
    if not kept:
        raise TableError(f"{file} has no numeric column besides time, label and what is ignored: give at least one")
    values = np.stack([cells.numbers(file, name, table.column(name)) for name in kept], axis=1)
    labelled = labels and LABEL in names[1:] and LABEL not in ignore
    known = cells.labels(file, table.column(LABEL)) if labelled else None
    return Table(file, times, tuple(kept), finite(values), known, tuple(set(names[1:]) & set(ignore)))


def _refuse_names(file: Path, names: Sequence[str], ignore: Sequence[str]) -> None:
    """Refuse a name that is there twice, or that only looks like `label`, unless the column is ignored."""
    for place, name in enumerate(names):
        if place and name in ignore:
            continue
        if names.count(name) > 1:
            raise TableError(
                f"{file}: the column {name!r} is there {names.count(name)} times: rename one of them, or ignore it"
            )
        if place and name != LABEL and name.strip().lower() == LABEL:
            raise TableError(f"{file}: the column {name!r} looks like labels: call it {LABEL!r}, or ignore it")


def on_grid(times: Floats, values: Floats, interval: float, context: int) -> tuple[Floats, NDArray[np.int64]]:
    """Values with rows of NaN where samples are missing, so that no window and no counter's step reaches over a hole.

    At most `context` rows are put into one hole, and at least one: more would say nothing else.

    Returns:
        The values `[T', S]`, and where each given row `[T]` stands in them.
    """
    with np.errstate(over="ignore"):
        holes = np.clip(np.round(np.diff(times) / interval) - 1, 0, max(context, 1)).astype(np.int64)
    place = np.arange(len(times)) + np.concatenate([[0], np.cumsum(holes)]).astype(np.int64)
    out = np.full((int(place[-1]) + 1, values.shape[1]), np.nan)
    out[place] = values
    return out, place
