import errno
import os
import re
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi_ml.detection.errors import TableError
from kintsugi_ml.detection.files import write
from kintsugi_ml.detection.table import Table, on_grid, read


def reading(folder: Path, text: str | bytes, *ignore: str) -> Table:
    file = folder / "metrics.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(file, ignore)


def test_numbers_missing_cells_and_infinities_are_read(tmp_path: Path) -> None:
    table = reading(tmp_path, "time,a,b\n1,2,\n2,NaN,inf\n3,-inf,1e3\n")
    np.testing.assert_array_equal(table.values, [[2, np.nan], [np.nan, np.nan], [np.nan, 1000]])
    assert table.columns == ("a", "b")
    assert table.interval() == 1.0


def test_times_may_be_dates(tmp_path: Path) -> None:
    table = reading(tmp_path, "at,a\n2026-01-31T12:00:00Z,1\n2026-01-31T12:00:05Z,2\n")
    assert np.diff(table.times).tolist() == [5.0]
    assert table.times[0] == 1769860800.0


def test_times_may_be_finer_than_microseconds(tmp_path: Path) -> None:
    text = "at,a\n2026-01-31T12:00:00.123456789Z,1\n2026-01-31T12:00:05.123456789Z,2\n"
    np.testing.assert_allclose(reading(tmp_path, text).times, [1769860800.123456, 1769860805.123456], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "second"),
    [(pa.timestamp("s"), 1), (pa.timestamp("ms"), 10**3), (pa.timestamp("us"), 10**6), (pa.timestamp("ns"), 10**9)],
)
def test_times_of_a_parquet_file_may_have_any_unit(tmp_path: Path, kind: pa.DataType, second: int) -> None:
    file = tmp_path / "m.parquet"
    times = pa.array([1769860800 * second, 1769860805 * second + (1 if second > 10**6 else 0)], kind)
    pq.write_table(pa.table({"time": times, "a": [1.0, 2.0]}), file)
    np.testing.assert_allclose(read(file).times, [1769860800, 1769860805], rtol=0, atol=2e-6)


def test_times_that_microseconds_can_not_hold_are_read(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    times = pa.array([2**53, 2**53 + 2], pa.int64()).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"time": times, "a": [1.0, 2.0]}), file)
    assert read(file).times.tolist() == [2**53 / 1e3, (2**53 + 2) / 1e3]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_times_may_be_days(tmp_path: Path, kind: pa.DataType) -> None:
    file = tmp_path / "m.parquet"
    days = pa.array([date(2026, 1, 31), date(2026, 2, 1)], kind)
    pq.write_table(pa.table({"time": days, "a": [1.0, 2.0]}), file)
    assert read(file).times.tolist() == [1769817600.0, 1769904000.0]


def test_a_column_of_fine_times_that_is_not_the_first_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="column 'seen' has '2026-01-31"):
        reading(tmp_path, "time,seen\n1,2026-01-31T12:00:00.123456789Z\n")


@pytest.mark.parametrize("kind", [pa.duration("ns"), pa.duration("s"), pa.timestamp("s", "Nowhere/Land")])
def test_a_column_of_durations_or_in_an_unknown_zone_is_refused_by_name(tmp_path: Path, kind: pa.DataType) -> None:
    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({"time": [1, 2], "took": pa.array([None, 123456789], pa.int64()).cast(kind)}), file)
    with pytest.raises(TableError, match=r"column 'took' has 'a .*' in row 2, which is not a number"):
        read(file)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("zone", ["", "Z", "+00:00"])
def test_text_in_a_parquet_file_is_read_as_in_a_csv_file(tmp_path: Path, kind: pa.DataType, zone: str) -> None:
    file = tmp_path / "m.parquet"
    times = [f"2026-01-31T12:00:00{zone}", f"2026-01-31 12:00:05.5{zone}"]
    pq.write_table(pa.table({"at": _text(times, kind), "a": _text(["1.5", "NA"], kind)}), file)
    table = read(file)
    assert table.times.tolist() == [1769860800.0, 1769860805.5]
    np.testing.assert_array_equal(table.values, [[1.5], [np.nan]])


def _text(cells: list[str], kind: pa.DataType) -> pa.Array:
    text = pa.array(cells, pa.string())
    return text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)


@pytest.mark.parametrize("beside", ["1.5", "7", "", "true"])
@pytest.mark.parametrize(
    ("cell", "number"),
    [("+5", 5), ("5.", 5), (" 5 ", 5), ("007", 7), ("1E3", 1000), ("true", 1), ("False", 0)]
    + [(cell, np.nan) for cell in ("", " ", "-", "NA", "N/A", "null", "None", "nan", "-nan", "-Infinity", "1e400")],
)
def test_what_a_cell_says_does_not_depend_on_the_cells_beside_it(
    tmp_path: Path, cell: str, number: float, beside: str
) -> None:
    table = reading(tmp_path, f"time,a\n1,{cell}\n2,{beside}\n")
    np.testing.assert_array_equal(table.values[0, 0], number)


@pytest.mark.parametrize("beside", ["1.5", "7", "", "0x11"])
@pytest.mark.parametrize("cell", ["0x10", "1_000", "1 000", "n/a", "?", "5%", "\u0665", "0b1", "12:00", "2026-01-31"])
def test_text_that_only_looks_like_a_number_is_refused(tmp_path: Path, cell: str, beside: str) -> None:
    with pytest.raises(TableError, match=f"column 'a' has {re.escape(repr(cell))} in row 1, which is not a number"):
        reading(tmp_path, f"time,a\n1,{cell}\n2,{beside}\n")


def test_an_ignored_label_is_not_read(tmp_path: Path) -> None:
    table = reading(tmp_path, "time,a,label\n1,2,bad\n", "label", "nowhere")
    assert table.labels is None
    assert table.ignored == ("label",)


def test_rows_can_be_picked(tmp_path: Path) -> None:
    picked = reading(tmp_path, "time,a,label\n1,2,0\n2,3,1\n3,4,0\n").rows(np.array([True, False, True]))
    assert picked.labels is not None
    assert (picked.times.tolist(), picked.values.tolist(), picked.labels.tolist()) == ([1, 3], [[2], [4]], [False] * 2)


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({"time": [1, 2], "a": [1.5, None], "label": [False, True]}), file)
    table = read(file)
    np.testing.assert_array_equal(table.values, [[1.5], [np.nan]])
    assert table.labels is not None
    assert table.labels.tolist() == [False, True]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    for name in ("out.csv", "out.parquet"):
        write(tmp_path / name, {"time": np.array([1.0, 2.0]), "score": np.array([0.5, -1.0])})
        assert read(tmp_path / name).values[:, 0].tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,load\n1,2\n2,high\n", "column 'load' has 'high' in row 2, which is not a number"),
        ("time,a\n1,2\n3,2\n2,2\n", "the time ('time') in row 3 is earlier than the row before"),
        ("time,a\n1,2\n1,2\n", "the time ('time') in row 2 is the same as the row before"),
        ("time,a\n1,2\n,2\n", "the time ('time') in row 2 is missing"),
        ("time,a\n1,2\nnoon,2\n", "column 'time' has 'noon' in row 2, which is not a number of seconds or a time"),
        ("time,a,a\n1,2,3\n", "the column 'a' is there 2 times"),
        ("time,a,label\n1,2,0\n2,2,3\n", "the label in row 2 is 3: it is 1 (anomalous) or 0 (normal)"),
        ("time,a,label\n1,2,0\n2,2,\n", "the label in row 2 is missing"),
        ("time,a,label\n1,2,bad\n", "column 'label' has 'bad' in row 1"),
        ("time, a,a \n1,2,3\n", "the column 'a' is there 2 times"),
        ("time,a,Label\n1,2,0\n", "the column 'Label' looks like labels: call it 'label', or ignore it"),
        ("time\n1\n", "has 1 column"),
        ("time;a\n1;2\n", "seems to be separated by semicolons: separate the columns by commas"),
        ("time;a\n1;2,5\n", "seems to be separated by semicolons"),
        ("time\ta\n1\t2\n", "seems to be separated by tabs"),
        ("time|a\n1|2\n", "seems to be separated by bars"),
        ("time,a\n1e300,2\n", "the time ('time') in row 1 is 1e+300 s, which is no time"),
        (
            "time,a\n2026-01-31T12:00:00Z,1\n2026-01-31T12:00:05,1\n",
            "column 'time' has a time with a time zone in row 1 and a time without a time zone ('2026-01-31T12:00:05')",
        ),
        ("time,a\n1,1\n2026-01-31,1\n", "a number of seconds in row 1 and a time without a time zone ('2026-01-31')"),
        ("time,a\n2026-01-31T12:00:00.123456789,1\n3000-01-01,1\n", "too far apart for nanoseconds"),
        ("time,label\n1,0\n", "no numeric column"),
        ("time,a\n", "a header and no rows"),
        ("", "can't be read"),
        ("time,a\n1,2\n2,3,4\n", "can't be read"),
        (b"time,a\n1,\xff\xfe\n", "column 'a' has"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(TableError) as caught:
        reading(tmp_path, text)
    assert said in str(caught.value)


def test_a_text_column_can_be_ignored(tmp_path: Path) -> None:
    assert reading(tmp_path, "time,host,a\n1,db,2\n", "host").columns == ("a",)


def test_names_are_read_without_the_spaces_around_them(tmp_path: Path) -> None:
    table = reading(tmp_path, "time, a , label\n1,2, 1\n2,3, 0\n")
    assert table.columns == ("a",)
    assert table.labels is not None
    assert table.labels.tolist() == [True, False]


def test_a_column_that_is_there_twice_can_be_ignored(tmp_path: Path) -> None:
    assert reading(tmp_path, "time,host,a,host\n1,db,2,db\n", "host").columns == ("a",)
    file = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1.0])] * 4, ["time", "host", "a", "host"]), file)
    assert read(file, ["host"]).columns == ("a",)
    with pytest.raises(TableError, match="'host' is there 2 times"):
        read(file)


def test_labels_are_not_read_when_nobody_wants_them(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("time,a,label\n1,2,odd\n")
    table = read(tmp_path / "m.csv", labels=False)
    assert table.columns == ("a",)
    assert table.labels is None


def test_a_table_can_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("time,a\n1,2\n",))
    writer.start()
    assert read(pipe).values.tolist() == [[2.0]]
    writer.join()


def test_a_table_can_go_into_a_pipe(tmp_path: Path) -> None:
    pipe, said = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: said.append(pipe.read_text()))
    reader.start()
    write(pipe, {"a": [1]})
    reader.join()
    assert said == ['"a"\n1\n']


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst", ".GZ"])
def test_compressed_files_are_written_and_read_as_their_names_say(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out.csv{suffix}"
    write(file, {"time": list(range(500)), "a": [7] * 500})
    assert file.stat().st_size < 2500
    assert read(file).values[:, 0].tolist() == [7] * 500


def test_a_plain_file_with_the_name_of_a_compressed_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").write_text("time,a\n1,2\n")
    with pytest.raises(TableError, match="can't be read"):
        read(tmp_path / "m.csv.gz")


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    folder = tmp_path / "m.parquet"
    folder.mkdir()
    with pytest.raises(TableError, match=r"m\.parquet is a folder: name a file in it"):
        read(folder)
    with pytest.raises(TableError, match="it is a folder, name a file in it"):
        write(folder, {"a": [1]})


def test_what_can_not_be_written_whole_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.csv"
    file.write_text("what was there")
    file.chmod(0o640)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as out:
            out.write(data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", full)
        with pytest.raises(TableError, match=r"can't be written \(No space left on device\) and is as it was"):
            write(file, {"a": [1]})
    assert file.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [file]
    write(file, {"a": [1]})
    assert file.read_text() == '"a"\n1\n'
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_one_when_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "out.csv")
    write(tmp_path / "link.csv", {"a": [1]})
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "out.csv").read_text() == '"a"\n1\n'


def test_a_missing_file_and_a_folder_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no file .*nowhere\.csv"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(TableError, match=r"can't be written: there is no folder .*no, make it first"):
        write(tmp_path / "no" / "out.csv", {"a": [1]})


def test_a_row_with_a_cell_too_few_is_named_as_all_rows_are(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"row 3: Expected 3 columns, got 2"):
        reading(tmp_path, "time,a,b\n1,2,3\n2,3,4\n3,4\n")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(TableError, match="can't be read as a Parquet file"):
        read(tmp_path / "m.parquet")


def test_holes_become_missing_rows_but_no_more_than_the_windows_need() -> None:
    values, place = on_grid(np.array([0.0, 1.0, 4.0, 1e9]), np.arange(4.0)[:, None], 1.0, context=4)
    assert place.tolist() == [0, 1, 4, 9]
    np.testing.assert_array_equal(values[:, 0], [0, 1, np.nan, np.nan, 2, *[np.nan] * 4, 3])


def test_there_is_a_missing_row_in_a_hole_even_where_windows_are_one_sample() -> None:
    values, _ = on_grid(np.array([0.0, 5.0, 600.0]), np.arange(3.0)[:, None], 5.0, context=0)
    np.testing.assert_array_equal(values[:, 0], [0, 1, np.nan, 2])


def test_columns_are_found_by_name_and_absent_ones_are_missing(tmp_path: Path) -> None:
    table = reading(tmp_path, "time,a,b\n1,2,3\n")
    np.testing.assert_array_equal(table.aligned(["b", "x", "a"]), [[3, np.nan, 2]])


cell = st.one_of(
    st.text(max_size=5), st.floats().map(str), st.integers().map(str), st.sampled_from(["", "NaN", "true"])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(cell, min_size=1, max_size=4), max_size=6), st.booleans())
def test_any_text_is_either_numbers_or_a_sentence(tmp_path: Path, rows: list[list[str]], header: bool) -> None:
    text = "\n".join([*(["time,a,label"] if header else []), *(",".join(row) for row in rows)])
    try:
        table = reading(tmp_path, text.encode("utf-8", "replace"))
    except TableError:
        return
    assert np.isfinite(table.times).all()
    assert not np.isinf(table.values).any()
    assert table.values.shape == (len(table.times), len(table.columns))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_either_numbers_or_a_sentence(tmp_path: Path, junk: bytes) -> None:
    try:
        table = reading(tmp_path, b"time,a\n" + junk)
    except TableError:
        return
    assert np.isfinite(table.times).all()
