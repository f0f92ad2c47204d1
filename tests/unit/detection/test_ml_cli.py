from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pytest

from kintsugi.domain.frame import Floats
from kintsugi_ml.cli import main
from kintsugi_ml.detection.files import write
from kintsugi_ml.detection.model import SHIPPED, Model

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
    assert "reference.csv doesn't have it: 'new'" in said
    assert "input.csv doesn't measure it: 'm5'" in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"input": {"m2": ["high", *["1"] * 39]}}, "column 'm2' has 'high' in row 1"),
        ({"input": {"time": np.arange(40)[::-1].copy()}}, "in row 2 is earlier"),
        ({"input": {"time": np.arange(40) * 5.0}}, "every 5 s and the reference one every 1 s"),
        (
            {"input": {"time": np.arange(40) * 60.0, "label": np.arange(40) % 2}},
            "every 60 s and the reference one every",
        ),
        ({"support": {"time": np.arange(20) * 60.0}}, "support.csv has rows 60 s apart at the closest"),
        ({"support": {"time": np.arange(20) * 0.5}}, "support.csv has rows 0.5 s apart at the closest"),
        ({"support": {"label": None}}, "no column `label`"),
        ({"support": {"label": np.arange(20)}}, "label in row 3 is 2"),
        (
            {"reference": {"label": np.arange(40) % 2}},
            "20 rows labelled 1 (anomalous), and without them a row only every 2 s",
        ),
        (
            {"reference": {"label": np.arange(40) > 2}},
            "reference.csv has 3 rows that are not labelled 1 (anomalous): give at",
        ),
        (
            {"reference": {"label": np.arange(40) > 0}},
            "reference.csv has 1 row that is not labelled 1 (anomalous): give at",
        ),
        ({"reference": {f"m{index}": [None] * 40 for index in range(6)}}, "every column of"),
        (
            {"reference": {f"m{index}": [1, 2, 3, 4] + [None] * 36 for index in range(6)}},
            "reference.csv is measured in fewer than 5 rows: give",
        ),
        (
            {"support": {f"m{index}": [None] * 20 for index in range(6)}},
            "support.csv: none of the examples has a measured value",
        ),
        (
            {"input": {f"m{index}": None for index in range(6)} | {"x": np.ones(40)}},
            "input.csv has no column of the reference: it has 'x', the reference 'm0', 'm1', 'm2' and 3 more",
        ),
        (
            {"support": {f"m{index}": None for index in range(6)} | {"x": np.ones(20)}},
            "support.csv has no column that is judged: it has 'x', the reference 'm0'",
        ),
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
    assert "reference.csv doesn't measure it: 'm3'" in capsys.readouterr().err


def test_a_column_that_is_hardly_measured_is_left_out_with_a_note(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output = detect(files(reference={"m1": [7.0] * 4 + [None] * 36, "m2": [7.0] * 5 + [None] * 35}))
    said = capsys.readouterr().err
    assert status == 0
    assert f"fewer than 5 rows of {output.with_name('reference.csv')} measure it: 'm1' (4 rows)" in said
    assert "'m2'" not in said


def test_an_ignored_label_is_never_read(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    odd: dict[str, object] = {"label": ["?"] * 40}
    status, _ = detect(files(reference=odd, input=odd), "--ignore", "label", support=False)
    assert status == 0
    assert "labelled" not in capsys.readouterr().err


def test_a_support_whose_label_is_ignored_is_refused(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = detect(files(), "--ignore", "label")
    assert status == 1
    assert "support.csv is ignored: leave out --ignore label, or the support" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["M1", "time"])
def test_a_name_to_be_ignored_that_no_file_has_is_refused_with_those_that_exist(
    files: Files, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    status, output = detect(files(input={"host": ["db"] * 40}), "--ignore=host", f"--ignore={name}")
    assert status == 1
    said = capsys.readouterr().err
    assert f"--ignore {name}: no file has such a column after its first, the time: there are 'm0', 'm1'" in said
    assert "'host'" in said
    assert not output.exists()


def test_rows_that_can_not_be_judged_are_counted(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    holes = {f"m{index}": np.where(np.arange(40) < 30, 1.0, np.nan) for index in range(6)}
    status, _ = detect(files(input=holes))
    assert status == 0
    assert (
        "anomalous and 6 not judged (no column of the reference is measured there, or only" in capsys.readouterr().err
    )


def test_of_counters_alone_the_first_row_says_nothing_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def counting(rows: int) -> str:
        return "time,calls\n" + "".join(f"{row},{10 * row + row % 3}\n" for row in range(rows))

    (tmp_path / "reference.csv").write_text(counting(40))
    (tmp_path / "input.csv").write_text(counting(5))
    files = {name: tmp_path / f"{name}.csv" for name in ("reference", "input")}
    output = tmp_path / "scores.csv"
    options = [f"--{name}={file}" for name, file in files.items()]

    assert main(["detect", *options, f"--output={output}"]) == 0
    assert "1 not judged" in capsys.readouterr().err
    assert csv.read_csv(output)["judged"].to_pylist() == [0, 1, 1, 1, 1]


def test_an_input_that_measures_nothing_is_not_called_normal(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = detect(files(input={f"m{index}": [None] * 40 for index in range(6)}))
    said = capsys.readouterr().err
    assert status == 0
    assert "40 rows, none of which could be judged" in said
    assert "0 of them" not in said


def test_a_column_that_alarms_is_named_even_when_it_moved_by_less_than_a_spread(
    files: Files,
) -> None:
    constant: dict[str, object] = {f"m{index}": np.full(40, 100.0) for index in range(6)}
    moved: dict[str, object] = {name: np.where(np.arange(40) < 20, 100.0, 100.4) for name in constant}
    _, output = detect(files(reference=constant, input=moved), f"--model={SHIPPED}", support=False)
    scores = csv.read_csv(output).to_pydict()
    assert scores["alarm"][30] == 1
    assert 0 < scores["deviation_1"][30] < 1
    assert (scores["top_1"][10], scores["top_1"][30]) == ("", "m0")
    assert not scores["top_2"][30]


@pytest.mark.parametrize("moved", [{1: 1.0}, {1: 100.5, 2: 101.5}])
def test_support_of_picked_rows_needs_only_two_that_are_as_close_as_the_reference(
    files: Files, moved: dict[int, float]
) -> None:
    times = np.arange(20) * 100.0
    for row, at in moved.items():
        times[row] = at
    status, _ = detect(files(support={"time": times}))
    assert status == 0


def test_one_row_that_is_early_does_not_refuse_a_regular_support(files: Files) -> None:
    times = np.arange(20.0)
    times[1] = 0.5
    status, _ = detect(files(support={"time": times}))
    assert status == 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_of_the_reference_that_are_labelled_anomalous_are_left_out_with_a_note(
    files: Files, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    label = (np.arange(40) >= 34).astype(int)
    wild: dict[str, object] = {f"m{index}": np.where(label, 1e6, np.arange(40) % 7) for index in range(6)}
    tame: dict[str, object] = {name: np.arange(40) % 7 for name in wild}

    _, output = detect(files(suffix, reference=tame | {"label": label}), support=False)
    expected = output.read_text()
    status, output = detect(files(suffix, reference=wild | {"label": label}), support=False)

    assert status == 0
    assert output.read_text() == expected
    assert (
        f"6 of 40 rows of {output.with_name('reference')}{suffix} are labelled 1 (anomalous)" in capsys.readouterr().err
    )


def test_a_reference_that_is_labelled_normal_throughout_is_taken_without_a_word(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = detect(files(reference={"label": np.zeros(40, dtype=int)}), support=False)
    assert status == 0
    assert "labelled" not in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["nan", "inf", "0", "-1", "soon"])
def test_an_interval_that_is_not_a_number_of_seconds_is_refused(
    files: Files, capsys: pytest.CaptureFixture[str], interval: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        detect(files(), f"--interval={interval}")
    assert caught.value.code == 2
    assert f"argument --interval: {interval!r} is not a number of seconds above 0" in capsys.readouterr().err


def every(interval: float, files: Files) -> dict[str, Path]:
    """The tables, sampled so many seconds apart."""
    times = np.arange(40) * interval
    return files(reference={"time": times}, input={"time": times})


@pytest.mark.parametrize("interval", [0.5, 60.0, 1000.0])
def test_an_interval_that_the_detector_was_not_measured_for_is_noted(
    files: Files, capsys: pytest.CaptureFixture[str], interval: float
) -> None:
    status, _ = detect(every(interval, files), support=False)
    assert status == 0
    assert f"every {interval:g} s: the detector was measured for 1 to 15 s only" in capsys.readouterr().err


@pytest.mark.parametrize("interval", [0.99, 1.0, 15.0])
def test_an_interval_that_the_detector_was_measured_for_is_not_noted(
    files: Files, capsys: pytest.CaptureFixture[str], interval: float
) -> None:
    detect(every(interval, files), support=False)
    assert "was measured for" not in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["5", "0.5", "1e-300", "1e300"])
def test_an_interval_that_no_two_rows_have_is_refused(
    files: Files, capsys: pytest.CaptureFixture[str], interval: str
) -> None:
    status, _ = detect(files(), "--interval", interval)
    assert status == 1
    assert "reference.csv has a row every 1 s, 1 s apart at the closest" in capsys.readouterr().err


def test_the_interval_of_a_reference_of_picked_rows_can_be_said(files: Files) -> None:
    picked = {"time": np.cumsum(np.where(np.arange(40) % 5 == 1, 1.0, 3.0))}
    status, _ = detect(files(reference=picked), "--interval", "1", support=False)
    assert status == 0


def test_an_output_that_is_also_read_is_refused_and_left_as_it_was(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (found := files()).items():
        before = file.read_bytes()
        other = file.with_name("link.csv")
        other.unlink(missing_ok=True)
        other.symlink_to(file)
        paths = [part for one in ("reference", "input") for part in (f"--{one}", str(found[one]))]
        assert main(["detect", *paths, "--support", str(found["support"]), "--output", str(other)]) == 1
        assert f"link.csv is also read ({file})" in capsys.readouterr().err, name
        assert file.read_bytes() == before


def test_columns_that_the_input_lacks_do_not_count_as_normal(files: Files) -> None:
    few = {f"m{index}": None for index in range(3, 6)}
    blank = {name: [None] * 40 for name in few}
    found = {name: detect(files(input=gone), support=False)[1].read_text() for name, gone in (("a", few), ("b", blank))}
    both = detect(files(input=few, reference=few), support=False)[1].read_text()
    assert found == {"a": both, "b": both}


def test_labels_of_the_input_are_not_read(files: Files) -> None:
    status, _ = detect(files(input={"label": ["ok", *[None] * 39]}))
    assert status == 0


def test_a_long_list_of_columns_is_cut(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    detect(files(input={f"new{index}": np.ones(40) for index in range(30)}))
    assert "'new19' and 10 more" in capsys.readouterr().err


def counting(files: Files, rises: Floats, seconds: float = 1.0) -> dict[str, Path]:
    """Tables with a counter that rises by this much from row to row, NaN where it isn't measured."""
    times = np.arange(80) * seconds
    counter = np.where(np.isnan(rises), np.nan, 1e3 + np.nancumsum(rises))
    parts = {"reference": slice(0, 40), "input": slice(40, 80)}
    return files(**{name: {"time": times[part], "m0": counter[part]} for name, part in parts.items()})


def alarms(output: Path) -> list[int]:
    found: list[int] = csv.read_csv(output).column("alarm").to_pylist()
    return found


def test_a_steady_counter_does_not_alarm_after_a_hole_at_any_interval(files: Files) -> None:
    for seconds in (1.0, 5.0, 15.0):
        found = counting(files, np.full(80, 100.0), seconds)
        rows = found["input"].read_text().splitlines(keepends=True)
        found["input"].write_text("".join([*rows[:6], *rows[16:21]]))  # rows 41 to 45, a hole of ten, and five more
        status, output = detect(found, support=False)
        assert status == 0
        assert alarms(output) == [0] * 10, seconds


def test_a_slow_counter_and_one_with_blank_cells_are_judged_by_their_steps(files: Files) -> None:
    slow = np.where(np.arange(80) % 5 == 0, 1.0, 0.0)
    with_blanks = np.where(np.arange(80) % 2 == 0, 200.0, np.nan)
    for rises in (slow, with_blanks):
        _, output = detect(counting(files, rises), support=False)
        assert sum(alarms(output)[:20]) == 0
        stepped = csv.read_csv(output).column("deviation_1").to_numpy()
        assert np.abs(stepped[:20]).max() < 10


def test_a_reference_of_one_row_is_refused_by_its_number_of_rows(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    found = files()
    rows = found["reference"].read_text().splitlines(keepends=True)
    found["reference"].write_text("".join(rows[:2]))
    status, _ = detect(found)
    assert status == 1
    assert "reference.csv has 1 row: give at least 5" in capsys.readouterr().err
