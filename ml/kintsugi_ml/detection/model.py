"""The shipped detector's weights, in one file that holds nothing but numbers.

`first` needs no examples, `labelled` decides with a database's anomalous examples, `familiar` with normal ones only.
The file is an `.npz` read without pickle, so a foreign one can be wrong but can't run anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats
from kintsugi_ml.detection import weights
from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.errors import ModelError
from kintsugi_ml.detection.features import LEAN
from kintsugi_ml.detection.normal import Singles
from kintsugi_ml.detection.stack import FAMILIAR, Decision, Examples, Own, Step, blend, familiar_inputs
from kintsugi_ml.detection.trees import Forest

FORMAT: Final = 2
SHIPPED: Final = Path(__file__).with_name("weights.npz")

_STEPS: Final = {"first": LEAN, "familiar": FAMILIAR}
_ARRAYS: Final = ("feature", "threshold", "cleared", "first", "leaves")


@dataclass(frozen=True, slots=True)
class Model:
    """The steps, and where they were learned, in a sentence."""

    first: Step
    labelled: Decision
    familiar: Step
    trained_on: str

    def weigh(
        self, logits: Floats, points: Singles, own: Own, interval: float, measured: Bools
    ) -> tuple[Floats, Bools]:
        """Probabilities and alarms `[T]` of a database that has examples; the arguments are those of `stack.blend`."""
        if own.examples.labels.any():
            decision = self.labelled
            scores = blend(logits, points, own, interval, measured)
        else:
            decision = self.familiar.decision
            scores = self.familiar.forest.logits(familiar_inputs(logits, points, own))
        probability = decision.calibration.probability(scores)
        return probability, np.asarray(probability >= decision.threshold)

    def threshold(self, examples: Examples | None) -> float:
        """The probability from which on a sample is an alarm, with such examples."""
        if examples is None or not len(examples):
            return self.first.decision.threshold
        return self.labelled.threshold if examples.labels.any() else self.familiar.decision.threshold

    def save(self, path: Path) -> None:
        """Write the file."""
        arrays: dict[str, Any] = {}
        for name, inputs in _STEPS.items():
            step: Step = getattr(self, name)
            arrays |= {f"{name}.{part}": getattr(step.forest, part) for part in _ARRAYS}
            arrays[f"{name}.base"] = np.array(step.forest.base)
            arrays[f"{name}.decision"] = _numbers(step.decision)
            arrays[f"{name}.inputs"] = np.array(inputs)
        arrays["labelled.decision"] = _numbers(self.labelled)
        weights.write(path, {"format": FORMAT, "trained_on": self.trained_on}, arrays)


def load(path: Path = SHIPPED) -> Model:
    """Read a model.

    Raises:
        ModelError: the file is missing, damaged, of another version, or for other features.
    """
    with weights.read(path, FORMAT) as (about, arrays):
        steps = {name: _step(path, name, inputs, arrays) for name, inputs in _STEPS.items()}
        return Model(**steps, labelled=_decision(path, "labelled", arrays), trained_on=str(about["trained_on"]))


@lru_cache(maxsize=1)
def shipped() -> Model:
    """The model that comes with the package, read once."""
    return load(SHIPPED)


def _step(path: Path, name: str, inputs: tuple[str, ...], arrays: dict[str, Any]) -> Step:
    if tuple(arrays[f"{name}.inputs"].tolist()) != inputs:
        raise ModelError(f"{path} was trained on other features than this version computes: install its own model")
    parts = {part: arrays[f"{name}.{part}"] for part in _ARRAYS}
    forest = Forest(**parts, base=float(arrays[f"{name}.base"]), width=len(inputs))
    return Step(forest, _decision(path, name, arrays))


def _numbers(decision: Decision) -> Floats:
    return np.array([decision.calibration.slope, decision.calibration.offset, decision.threshold])


def _decision(path: Path, name: str, arrays: dict[str, Any]) -> Decision:
    slope, offset, threshold = (float(number) for number in arrays[f"{name}.decision"])
    if not np.isfinite([slope, offset, threshold]).all():
        raise ModelError(f"{path} is damaged ({name} has a number that isn't finite): install it again")
    return Decision(Calibration(slope, offset), threshold)
