from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pytest

from kintsugi.domain.frame import Floats
from kintsugi_ml.cli import main
from kintsugi_ml.detection.model import Model
from kintsugi_ml.detection.table import write

Build = Callable[..., Floats]
Files = Callable[..., dict[str, Path]]


@pytest.fixture
def files(tmp_path: Path, calm: Build, spiked: Build, toy_model: Model) -> Files:
    """Writes reference, support and input; `changed` replaces columns of one of them."""
    toy_model.save(tmp_path / "model.npz")

    def make(suffix: str = ".csv", **changed: dict[str, object]) -> dict[str, Path]:
        values = spiked(calm(80, 6, seed=2), 60, 80, [1, 2])
        parts = {"reference": values[:40], "support": values[50:70], "input": values[40:]}
        out = {}
        for name, part in parts.items():
            columns: dict[str, object] = {"time": 1e9 + np.arange(len(part), dtype=np.float64)}
            columns |= {f"m{index}": part[:, index] for index in range(6)}
            if name == "support":
                columns["label"] = (np.arange(50, 70) >= 60).astype(int)
            columns |= changed.get(name, {})
            out[name] = tmp_path / f"{name}{suffix}"
            write(out[name], {key: value for key, value in columns.items() if value is not None})
        return out

    return make


def detect(found: dict[str, Path], *more: str, support: bool = True) -> tuple[int, Path]:
    output = found["input"].with_name("scores.csv")
    given: Sequence[str] = ["--support", str(found["support"])] if support else []
    paths = ["--reference", str(found["reference"]), "--input", str(found["input"]), "--output", str(output)]
    return main(["detect", *paths, *given, "--model", str(output.with_name("model.npz")), *more]), output


@pytest.mark.parametrize("support", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_row_gets_a_score_and_its_columns(files: Files, suffix: str, support: bool) -> None:
    status, output = detect(files(suffix), support=support)
    scores = csv.read_csv(output).to_pydict()
    assert status == 0
    assert len(scores["time"]) == 40
    assert min(scores["probability"][25:]) > max(scores["probability"][5:20])
    assert {scores["top_1"][30], scores["top_2"][30]} == {"m1", "m2"}


def test_columns_may_come_in_another_order_or_be_missing(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = detect(files(input={"m5": None, "new": np.arange(40)}))
    said = capsys.readouterr().err
    assert status == 0
    assert "column 'new' of" in said
    assert "but in the reference: 'm5'" in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"input": {"m2": ["high", *["1"] * 39]}}, "column 'm2' has 'high' in row 1"),
        ({"input": {"time": np.arange(40)[::-1].copy()}}, "in row 2 is earlier"),
        ({"input": {"time": np.arange(40) * 5.0}}, "every 5 s and the reference one every 1 s"),
        ({"support": {"label": None}}, "no column `label`"),
        ({"support": {"label": np.arange(20)}}, "label in row 3 is 2"),
        ({"reference": {f"m{index}": [None] * 40 for index in range(6)}}, "every column of"),
        ({"input": {f"m{index}": None for index in range(6)} | {"x": np.ones(40)}}, "no column of the reference"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_a_status(
    files: Files, capsys: pytest.CaptureFixture[str], changed: dict[str, dict[str, object]], said: str
) -> None:
    status, output = detect(files(**changed))
    assert status == 1
    assert said in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(("label", "said"), [(0, "no anomalous row"), (1, "no normal row")])
def test_support_of_one_class_works_and_says_so(
    files: Files, capsys: pytest.CaptureFixture[str], label: int, said: str
) -> None:
    status, output = detect(files(support={"label": np.full(20, label)}))
    assert status == 0
    assert said in capsys.readouterr().err
    assert np.isfinite(csv.read_csv(output).column("score").to_numpy()).all()


def test_an_empty_column_is_left_out_with_a_note(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = detect(files(reference={"m3": [None] * 40}))
    assert status == 0
    assert "column 'm3' is empty" in capsys.readouterr().err
