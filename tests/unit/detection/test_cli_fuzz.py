"""Any small tables give either a probability for every row or one clear line; never a traceback, never a warning."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi_ml.cli import main
from kintsugi_ml.detection.model import Model

NUMBERS = st.one_of(
    st.integers(-5, 100).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.sampled_from(["", "NaN", "-", "1e308", "-1e308", "inf", "1e400", "0", "1e-320"]),
)
WORDS = st.sampled_from(["db-1", "0x10", "1_000", "true", "2026-01-31", "1,5", "é", " "])
LABELS = st.sampled_from(["0", "1", "true", "2", "-"])
NAMES = ("a", "b", "c", "d")


def often(usual: object, *odd: object) -> st.SearchStrategy[Any]:
    """The usual nine times out of ten: with an oddity in each table, no table would be scored."""
    return st.sampled_from([usual] * 9 * len(odd) + list(odd))


@st.composite
def times(draw: st.DrawFn, rows: int, step: float) -> list[str]:
    at = [step * row for row in range(rows)]
    kind = draw(often("regular", "holes", "shuffled", "twice", "zones", "text"))
    if kind == "holes":
        at = [step * row for row in sorted(draw(st.sets(st.integers(0, 40), min_size=rows, max_size=rows)))]
    elif kind == "shuffled":
        at = draw(st.permutations(at))
    elif kind == "twice" and rows:
        at[-1] = at[0]
    elif kind == "zones":
        return [f"2026-01-31T12:00:{row:02}{'Z' * draw(st.integers(0, 1))}" for row in range(rows)]
    elif kind == "text":
        return draw(st.lists(WORDS, min_size=rows, max_size=rows))
    return [str(one) for one in at]


@st.composite
def columns(draw: st.DrawFn, step: float, *, labelled: bool) -> dict[str, list[str]]:
    """A table as text: columns of numbers, constants, counters, empty ones, and now and then one with words."""
    rows = draw(st.one_of(st.integers(5, 14), st.integers(0, 14)))
    out = {"time": draw(times(rows, draw(often(step, 60.0, 1e-9, 1e200))))}
    for name in NAMES if draw(often(True, False)) else draw(st.lists(st.sampled_from(NAMES), unique=True)):
        kind = draw(often(draw(st.sampled_from(["numbers", "constant", "counter", "empty"])), "words"))
        if kind == "counter":
            out[name] = [str(3 * row) for row in range(rows)]
        elif kind in {"constant", "empty"}:
            out[name] = [draw(NUMBERS) if kind == "constant" else ""] * rows
        else:
            cell = st.one_of(NUMBERS, WORDS) if kind == "words" else NUMBERS
            out[name] = draw(st.lists(cell, min_size=rows, max_size=rows))
    if draw(often(labelled, not labelled)):
        cell = st.sampled_from(["0", "1"]) if draw(often(True, False)) else LABELS
        out["label"] = draw(st.lists(cell, min_size=rows, max_size=rows))
    return out


def written(folder: Path, name: str, table: dict[str, list[str]], parquet: bool) -> str:
    file = folder / f"{name}.{'parquet' if parquet else 'csv'}"
    if parquet:
        pq.write_table(pa.table(table), file)
    else:
        csv.write_csv(pa.table(table), file, csv.WriteOptions(quoting_style="needed"))
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, toy_model: Model) -> Path:
    out: Path = tmp_path_factory.mktemp("fuzz")
    toy_model.save(out / "model.npz")
    return out


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_tables_give_finite_probabilities_or_one_clear_line(folder: Path, data: st.DataObject) -> None:
    parquet = data.draw(st.booleans())
    step = data.draw(st.sampled_from([1.0, 5.0, 0.5, 0.1]))
    given_new = data.draw(columns(step, labelled=False))
    output = folder / "scores.csv"
    output.unlink(missing_ok=True)
    arguments = ["detect", "--model", str(folder / "model.npz"), "--output", str(output)]
    arguments += ["--reference", written(folder, "reference", data.draw(columns(step, labelled=False)), parquet)]
    arguments += ["--input", written(folder, "input", given_new, parquet)]
    if data.draw(st.booleans()):
        arguments += ["--support", written(folder, "support", data.draw(columns(step, labelled=True)), parquet)]
    for name in data.draw(often([], ["a"], ["label"], ["e"])):
        arguments += ["--ignore", name]

    said = io.StringIO()
    with contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("error")
        status = main(arguments)

    lines = said.getvalue().splitlines()
    if status == 0:
        probability = csv.read_csv(output).column("probability").to_numpy()
        assert len(probability) == len(given_new["time"])
        assert np.isfinite(probability).all()
        assert ((probability >= 0) & (probability <= 1)).all()
        assert lines[-1].startswith(f"{len(probability)} row")
    else:
        assert status == 1
        assert not output.exists()
        assert lines[-1].startswith("kintsugi-ml: ")
        assert ":" in lines[-1].removeprefix("kintsugi-ml: ")
        assert not any("Traceback" in line for line in lines)
