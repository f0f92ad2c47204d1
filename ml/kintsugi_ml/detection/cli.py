"""`kintsugi-ml detect`: scores for anybody's metrics, from a normal reference and, if there are any, labelled rows."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.cells import LABEL
from kintsugi_ml.detection.detector import LEAST_REFERENCE, Detector, Scores, Watch
from kintsugi_ml.detection.errors import ReferenceDataError, SupportError, TableError
from kintsugi_ml.detection.files import refuse_to_overwrite, write
from kintsugi_ml.detection.model import SHIPPED, load
from kintsugi_ml.detection.table import Table, on_grid, read
from kintsugi_ml.detection.tokens import context

TOP: Final = 3
"""Contributing columns that are named for each row."""

VISIBLE: Final = 1.0
"""A column that deviates by less than this many scales is not named, but for the furthest where there is an alarm."""

LISTED: Final = 20
"""Columns that a message lists at most."""

DIFFERENT: Final = 0.2
"""Intervals of two files may differ by this share."""

MEASURED: Final = (1.0, 15.0)
"""Intervals in seconds, from and to, for which the detector was measured."""


def add_detect(commands: Any) -> None:
    """Add `detect` to the subcommands of an argument parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "detect",
        help="score every row of a table of metrics",
        description="Score every row of a table of metrics (CSV or Parquet; the first column is the time).",
    )
    parser.add_argument("--reference", type=Path, required=True, help="rows in which everything was normal")
    parser.add_argument("--support", type=Path, help="rows with a column `label`: 1 anomalous, 0 normal")
    parser.add_argument("--input", type=Path, required=True, help="rows to be scored")
    parser.add_argument("--output", type=Path, required=True, help="where the scores go (.csv or .parquet)")
    parser.add_argument("--ignore", action="append", default=[], metavar="COLUMN", help="leave a column out")
    parser.add_argument("--interval", type=_seconds, help="seconds between two rows (else the reference's median)")
    parser.add_argument("--model", type=Path, default=SHIPPED, help=argparse.SUPPRESS)
    parser.set_defaults(run=detect)


def detect(arguments: argparse.Namespace) -> int:
    """Run the command; what was left out is said on standard error.

    Raises:
        DetectionError: whatever is wrong with the files.
    """
    ignore = [name.strip() for name in arguments.ignore]
    support = [arguments.support] if arguments.support else []
    refuse_to_overwrite(arguments.output, [arguments.reference, arguments.input, *support])
    reference, *labelled = (read(file, ignore) for file in (arguments.reference, *support))
    new = read(arguments.input, ignore, labels=False)
    _refuse_unknown(ignore, (reference, new, *labelled))
    watch, known = learn(_shared(reference, new), Detector(load(arguments.model)), arguments.interval)
    _sampled_alike(watch.reference.interval, new, support=False)
    for table in labelled:
        watch = remember(watch, known, table)
    scores = score(watch, known, new)
    write(arguments.output, columns(new, known, scores))
    print(f"{_summary(scores)}, in {arguments.output}", file=sys.stderr)
    return 0


def learn(reference: Table, detector: Detector, interval: float | None = None) -> tuple[Watch, tuple[str, ...]]:
    """What is normal in a table, and the columns that it can be said of."""
    reference = _normal(reference)
    step = _usable(reference, interval)
    measured = dict(zip(reference.columns, (~np.isnan(reference.values)).sum(axis=0).tolist(), strict=True))
    known = tuple(name for name, rows in measured.items() if rows >= LEAST_REFERENCE)
    if not known:
        what = f"measured in fewer than {LEAST_REFERENCE} rows" if any(measured.values()) else "empty"
        raise ReferenceDataError(
            f"every column of {reference.file} is {what}: give rows in which something is measured"
        )
    never = [repr(name) for name, rows in measured.items() if not rows]
    rarely = [f"{name!r} ({rows} rows)" for name, rows in measured.items() if 0 < rows < LEAST_REFERENCE]
    _note_columns(f"left out, as {reference.file} doesn't measure", never)
    _note_columns(f"left out, as fewer than {LEAST_REFERENCE} rows of {reference.file} measure", rarely)
    values, _ = on_grid(reference.times, reference.aligned(known), step, context(step))
    return detector.learn(values, step), known


def remember(watch: Watch, known: tuple[str, ...], support: Table) -> Watch:
    """Take the labelled rows of a table as examples."""
    if LABEL in support.ignored:
        raise SupportError(f"the column `label` of {support.file} is ignored: leave out --ignore label, or the support")
    if support.labels is None:
        raise SupportError(f"{support.file} has no column `label`: add one with 1 (anomalous) or 0 (normal)")
    common = set(known) & set(support.columns)
    if not common:
        raise SupportError(f"{support.file} has no column that is judged: {_unlike(support.columns, known)}")
    absent = [repr(name) for name in known if name not in support.measured()]
    _note_columns(f"taken as normal in {support.file}, which doesn't measure", absent)
    _sampled_alike(watch.reference.interval, support, support=True)
    if not support.labels.any():
        _note(f"{support.file} has no anomalous row (label 1): only what is normal is learned from it")
    elif support.labels.all():
        _note(f"{support.file} has no normal row (label 0): the reference alone says what is normal")
    step = watch.reference.interval
    values, place = on_grid(support.times, support.aligned(known), step, context(step))
    labels, labelled = np.zeros(len(values), dtype=np.bool_), np.zeros(len(values), dtype=np.bool_)
    labels[place], labelled[place] = support.labels, True
    try:
        return watch.remember(0, values, labels, labelled)
    except SupportError as error:
        raise SupportError(f"{support.file}: {error}") from None


def score(watch: Watch, known: tuple[str, ...], new: Table) -> Scores:
    """Scores of a table's rows, `[1, T]`."""
    step = watch.reference.interval
    values, place = on_grid(new.times, new.aligned(known), step, context(step))
    found = watch.score(values)
    return Scores(*(getattr(found, name)[:, place] for name in Scores.__slots__))


def columns(new: Table, known: tuple[str, ...], scores: Scores) -> dict[str, Any]:
    """The columns of the output: time, score (log odds), probability, alarm, judged, and the top contributions."""
    probability = scores.probability[0]
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    out: dict[str, Any] = {
        "time": new.times,
        "score": np.round(np.log(clipped / (1 - clipped)), 4),
        "probability": np.round(probability, 6),
        "alarm": scores.alarm[0].astype(np.int8),
        "judged": scores.judged[0].astype(np.int8),
    }
    top = scores.contributions(TOP)[0]
    size: Floats = np.take_along_axis(scores.deviation[0], top, axis=1)
    names = np.array(known, dtype=object)
    for place in range(TOP):
        if place >= top.shape[1]:
            out[f"top_{place + 1}"], out[f"deviation_{place + 1}"] = [""] * len(top), np.zeros(len(top))
            continue
        far = np.abs(size[:, place])
        shown = (far >= VISIBLE) | ((place == 0) & scores.alarm[0] & (far > 0))
        out[f"top_{place + 1}"] = np.where(shown, names[top[:, place]], "").tolist()
        out[f"deviation_{place + 1}"] = np.round(size[:, place].astype(np.float64), 2)
    return out


def _refuse_unknown(ignored: Sequence[str], tables: Sequence[Table]) -> None:
    """Refuse the name of a column to be ignored that no table has: it is misspelt."""
    there = dict.fromkeys(name for table in tables for name in (*table.columns, *table.ignored))
    for name in ignored:
        if not any(name in table.ignored for table in tables):
            raise TableError(
                f"--ignore {name}: no file has such a column after its first, the time:"
                f" there are {_listed([repr(one) for one in there])}"
            )


def _summary(scores: Scores) -> str:
    """What the user is told in the end; above all how many rows nothing can be said of."""
    rows, silent = scores.judged.size, int((~scores.judged).sum())
    said = f"{rows} rows, {int(scores.alarm.sum())} of them anomalous"
    if not silent:
        return said
    why = "no column of the reference is measured there, or only counters without a row before"
    if silent == rows:
        return f"{rows} rows, none of which could be judged ({why})"
    return f"{said} and {silent} not judged ({why})"


def _seconds(text: str) -> float:
    """An interval on the command line.

    Raises:
        argparse.ArgumentTypeError: it isn't a number above 0.
    """
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0: give one such as 1 or 5")


def _normal(reference: Table) -> Table:
    """The reference without the rows that are labelled anomalous, which is said; refused when too little is left."""
    labels = reference.labels
    kept = reference if labels is None else reference.rows(~labels)
    left, out = len(kept.times), len(reference.times) - len(kept.times)
    if left < LEAST_REFERENCE:
        count = f"{left} row" if left == 1 else f"{left} rows"
        which = f" that {'is' if left == 1 else 'are'} not labelled 1 (anomalous)" if out else ""
        raise ReferenceDataError(
            f"{reference.file} has {count}{which}: give at least {LEAST_REFERENCE}, better 25 or more"
        )
    if out and _differ(kept.interval(), reference.interval()):
        raise ReferenceDataError(
            f"{reference.file} has {out} rows labelled 1 (anomalous), and without them a row only every"
            f" {kept.interval():g} s in place of {reference.interval():g} s: give a stretch in which all was well"
        )
    if out:
        _note(f"{out} of {len(reference.times)} rows of {reference.file} are labelled 1 (anomalous) and left out")
    return kept


def _usable(reference: Table, given: float | None) -> float:
    """The interval, with a note when the detector was never measured for such a one; refused when it is none.

    Args:
        reference: rows in which all was well.
        given: what the user says that it is; it must be the median of the rows' distances or the smallest.
    """
    usual = reference.interval()
    step = usual if given is None else given
    if not np.isfinite(step) or step <= 0:
        raise ReferenceDataError(f"the interval of {reference.file} is {step:g} s: give the seconds between two rows")
    if _differ(usual, step) and _differ(reference.closest(), step):
        raise ReferenceDataError(
            f"--interval {step:g}: {reference.file} has a row every {usual:g} s, {reference.closest():g} s apart at the"
            " closest: leave the option out, or give files with such an interval"
        )
    least, most = MEASURED
    if not least <= round(step, 1) <= most:
        _note(
            f"{reference.file} has a row every {step:g} s: the detector was measured for {least:g} to {most:g} s only"
            " (times that are numbers are taken as seconds)"
        )
    return step


def _shared(reference: Table, new: Table) -> Table:
    """The reference with the columns that the input measures, too: any other would count as normal in every row.

    What is left out is said. Where the input measures nothing at all, all common columns are kept.

    Raises:
        TableError: there is no common one.
    """
    there = set(new.columns)
    common = [name for name in reference.columns if name in there]
    if not common:
        names = _unlike(new.columns, reference.columns)
        raise TableError(f"{new.file} has no column of the reference: {names}")
    measured = set(new.measured())
    kept = [name for name in common if name in measured] or common
    unknown = there.difference(reference.columns)
    new_ones = [repr(name) for name in new.columns if name in unknown]
    _note_columns(f"left out of {new.file}, as {reference.file} doesn't have", new_ones)
    absent = [repr(name) for name in reference.columns if name not in kept]
    _note_columns(f"left out, as {new.file} doesn't measure", absent)
    return reference.only(kept)


def _unlike(given: Sequence[str], wanted: Sequence[str]) -> str:
    has, needs = (_listed([repr(name) for name in names], 3) for names in (given, wanted))
    return f"it has {has}, the reference {needs}"


def _sampled_alike(usual: float, table: Table, *, support: bool) -> None:
    """Refuse another interval than the reference's; a support's rows may be picked, so its closest two will do."""
    if len(table.times) < 2 or not _differ(table.interval(), usual):
        return
    if not support:
        raise TableError(
            f"{table.file} has a row every {table.interval():g} s and the reference one every {usual:g} s:"
            " sample both alike"
        )
    if _differ(table.closest(), usual):
        raise SupportError(
            f"{table.file} has rows {table.closest():g} s apart at the closest and the reference has one every"
            f" {usual:g} s: sample both alike, and give at least two rows that follow each other"
        )


def _differ(step: float, usual: float) -> bool:
    return abs(step - usual) > DIFFERENT * usual


def _note_columns(what: str, columns: Sequence[str]) -> None:
    """A note that this was done to these columns; none if there are none."""
    if columns:
        _note(f"{what} {'it' if len(columns) == 1 else 'them'}: {_listed(columns)}")


def _listed(names: Sequence[str], most: int = LISTED) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _note(text: str) -> None:
    print(f"kintsugi-ml: {text}", file=sys.stderr)
