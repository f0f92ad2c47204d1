"""Tables as files: CSV or Parquet by the file's name, CSV also compressed, from a pipe and into one."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from kintsugi_ml.detection.cells import MISSING
from kintsugi_ml.detection.errors import TableError

_ROW: Final = re.compile(r"Row #(\d+)")
_SEPARATORS: Final = {b";": "semicolons", b"\t": "tabs", b"|": "bars (|)"}
_WRITTEN: Final = csv.WriteOptions(quoting_style="needed")
_COMPRESSED: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


def content(file: Path) -> Any:
    """A file's columns as an Arrow table; those of a CSV file are text, their names without the spaces around them.

    Raises:
        TableError: there is no such file, or it is no table.
    """
    try:
        data = file.read_bytes()
        return pq.ParquetFile(io.BytesIO(data)).read() if _is_parquet(file) else _text(file, _expanded(file, data))
    except FileNotFoundError:
        raise TableError(f"there is no file {file}: check the path") from None
    except IsADirectoryError:
        raise TableError(f"{file} is a folder: name a file in it") from None
    except PermissionError:
        raise TableError(f"{file} may not be read by you: ask whoever owns it") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        detail = _ROW.sub(lambda found: f"row {int(found[1]) - 1}", detail)  # Arrow counts the header, too
        kind = "a Parquet file" if _is_parquet(file) else "a comma-separated table with a header, in UTF-8"
        raise TableError(f"{file} can't be read as {kind}: {detail}") from None


def write(file: Path, columns: dict[str, Any]) -> None:
    """Write columns as Parquet when the name ends so, else as CSV, compressed when the name says so.

    A file that is there is replaced only when all is written: it is never lost, nor left with half of it.

    Raises:
        TableError: the file can't be written.
    """
    table, out = pa.table(columns), pa.BufferOutputStream()
    if _is_parquet(file):
        pq.write_table(table, out)
    elif kind := _compression(file):
        with pa.CompressedOutputStream(out, kind) as stream:
            csv.write_csv(table, stream, _WRITTEN)
    else:
        csv.write_csv(table, out, _WRITTEN)
    try:
        _put(file, out.getvalue())
    except FileNotFoundError:
        raise TableError(f"{file} can't be written: there is no folder {file.parent}, make it first") from None
    except IsADirectoryError:
        raise TableError(f"{file} can't be written: it is a folder, name a file in it") from None
    except OSError as error:
        why = error.strerror or error
        raise TableError(f"{file} can't be written ({why}) and is as it was: mend that, or name another file") from None


def refuse_to_overwrite(file: Path, read: Sequence[Path]) -> None:
    """Refuse an output that is one of the files that are read.

    Raises:
        TableError: it is one of them, by whatever name.
    """
    for one in read:
        if file.is_file() and one.exists() and file.samefile(one):
            raise TableError(f"the output {file} is also read ({one}), and would be lost: name another file")


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in {".parquet", ".pq"}


def _compression(file: Path) -> str | None:
    return _COMPRESSED.get(file.suffix.lower())


def _expanded(file: Path, data: bytes) -> bytes:
    if kind := _compression(file):
        with pa.CompressedInputStream(pa.BufferReader(data), kind) as stream:
            return bytes(stream.read())
    return data


def _text(file: Path, data: bytes) -> Any:
    """The columns of a CSV file as text."""
    _separated_by_commas(file, data)
    alone = csv.ReadOptions(use_threads=False)
    names = csv.open_csv(pa.BufferReader(data), read_options=alone).schema.names
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=MISSING,
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        check_utf8=False,
    )
    table = csv.read_csv(pa.BufferReader(data), convert_options=convert, read_options=alone)
    return table.rename_columns([name.strip() for name in table.column_names])


def _separated_by_commas(file: Path, data: bytes) -> None:
    header = data.partition(b"\n")[0]
    for separator, name in () if b"," in header else _SEPARATORS.items():
        if separator in header:
            raise TableError(
                f"{file} seems to be separated by {name}: separate the columns by commas (and write 1.5, not 1,5)"
            )


def _put(file: Path, data: Any) -> None:
    """Write at once: beside the file and then in its place, or straight into what is no file (a pipe, a terminal)."""
    if file.is_dir():
        raise IsADirectoryError
    if str(file).startswith(("/dev/", "/proc/")) or (file.exists() and not file.is_file()):
        file.write_bytes(data)
        return
    file = file.resolve()
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        if file.exists():
            shutil.copymode(file, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
