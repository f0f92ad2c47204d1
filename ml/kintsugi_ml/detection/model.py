"""The shipped detector's weights: three steps, in one file that holds nothing but numbers.

`first` needs no examples, `labelled` weighs a database's anomalous examples, `familiar` its normal ones. The file is an
`.npz` read without pickle, so a foreign one can be wrong but can't run anything.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.errors import ModelError
from kintsugi_ml.detection.features import LEAN
from kintsugi_ml.detection.stack import FAMILIAR, LABELLED, Step
from kintsugi_ml.detection.trees import Forest

FORMAT: Final = 1
SHIPPED: Final = Path(__file__).with_name("weights.npz")

_STEPS: Final = {"first": LEAN, "labelled": LABELLED, "familiar": FAMILIAR}
_ARRAYS: Final = ("feature", "threshold", "cleared", "first", "leaves")


@dataclass(frozen=True, slots=True)
class Model:
    """The three steps, and where they were learned, in a sentence."""

    first: Step
    labelled: Step
    familiar: Step
    trained_on: str

    def save(self, path: Path) -> None:
        """Write the file."""
        arrays: dict[str, Any] = {}
        for name, inputs in _STEPS.items():
            step: Step = getattr(self, name)
            arrays |= {f"{name}.{part}": getattr(step.forest, part) for part in _ARRAYS}
            numbers = [step.forest.base, step.calibration.slope, step.calibration.offset, step.threshold]
            arrays[f"{name}.numbers"] = np.array(numbers)
            arrays[f"{name}.inputs"] = np.array(inputs)
        about = {"format": FORMAT, "trained_on": self.trained_on}
        np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


def load(path: Path = SHIPPED) -> Model:
    """Read a model.

    Raises:
        ModelError: the file is missing, damaged, of another version, or for other features.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about = json.loads(str(arrays["about"]))
        if about["format"] != FORMAT:
            raise ModelError(f"{path} has format {about['format']}, this version reads {FORMAT}: install its own model")
        steps = {name: _step(path, name, inputs, arrays) for name, inputs in _STEPS.items()}
        return Model(**steps, trained_on=str(about["trained_on"]))
    except FileNotFoundError:
        raise ModelError(f"there is no model at {path}: install the package again, or name another file") from None
    except (OSError, KeyError, ValueError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}: {error}): install it again") from None


@lru_cache(maxsize=1)
def shipped() -> Model:
    """The model that comes with the package, read once."""
    return load(SHIPPED)


def _step(path: Path, name: str, inputs: tuple[str, ...], arrays: dict[str, Any]) -> Step:
    if tuple(arrays[f"{name}.inputs"].tolist()) != inputs:
        raise ModelError(f"{path} was trained on other features than this version computes: install its own model")
    base, slope, offset, threshold = (float(number) for number in arrays[f"{name}.numbers"])
    if not np.isfinite([base, slope, offset, threshold]).all():
        raise ModelError(f"{path} is damaged ({name} has a number that isn't finite): install it again")
    parts = {part: arrays[f"{name}.{part}"] for part in _ARRAYS}
    return Step(Forest(**parts, base=base, width=len(inputs)), Calibration(slope, offset), threshold)
