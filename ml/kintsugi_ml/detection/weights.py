"""Files of weights: arrays and a few words about them, read without pickle: a foreign one can't run anything."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kintsugi_ml.detection.errors import ModelError


def write(path: Path, about: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write an `.npz`; `about` is JSON and has a `format`."""
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


@contextmanager
def read(path: Path, expected: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What stands in the file, `about` and the arrays, for a block that makes a model of it.

    Raises:
        ModelError: the file is missing, damaged (also when the block finds it so) or not of the `expected` format.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about = json.loads(str(arrays.pop("about")))
        if about["format"] != expected:
            raise ModelError(
                f"{path} has format {about['format']}, this version reads {expected}: install its own model"
            )
        yield about, arrays
    except FileNotFoundError:
        raise ModelError(f"there is no model at {path}: install the package again, or name another file") from None
    except (OSError, KeyError, ValueError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}: {error}): install it again") from None
