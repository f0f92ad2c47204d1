"""Which fault an anomaly looks like: from how far each signal is from its own normal, by the signals' names.

Unlike the detector it knows the signals it was trained on (the lab's, which are the catalogue's): a signal that it does
not know is left out, one that is missing counts as normal. One regression per class answers "like this class or not",
so that an anomaly like none of them is *unknown*, which a choice among classes could not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection import weights
from kintsugi_ml.detection.errors import ModelError

UNKNOWN: Final = "unknown"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """What C classes look like in S signals: `weights` `[C, S]` and `offset` `[C]` of a log-odds each.

    An anomaly whose likeliest class is less likely than `least` is unknown. `trained_on` says where it was learned.
    """

    classes: tuple[str, ...]
    signals: tuple[str, ...]
    weights: Floats
    offset: Floats
    least: float
    trained_on: str

    def classify(self, deviation: Floats, names: Sequence[str]) -> tuple[str, str, float]:
        """The class (or *unknown*), the nearest of those that are known, and that one's probability.

        Args:
            deviation: `[S]` or `[T, S]`, in scales of the own reference (`Scores.deviation`); of several samples the
                mean counts; NaN is normal.
            names: `[S]`, the signals' names.
        """
        known = self.probabilities(self.signature(deviation, names)[None])[0]
        best = int(known.argmax())
        nearest, probability = self.classes[best], float(known[best])
        return (UNKNOWN if probability < self.least else nearest), nearest, probability

    def signature(self, deviation: Floats, names: Sequence[str]) -> Floats:
        """What the regressions see `[S']`: the known signals' deviations, their sizes on a logarithmic scale."""
        rows = squashed(np.atleast_2d(deviation)).mean(axis=0)
        place = {name: index for index, name in enumerate(names)}
        return np.array([rows[place[name]] if name in place else 0.0 for name in self.signals], dtype=np.float64)

    def probabilities(self, signatures: Floats) -> Floats:
        """Probabilities `[N, C]` of signatures `[N, S']`; a row adds up to 1 at most."""
        odds = np.clip(signatures @ self.weights.T + self.offset, -30, 30)
        each = 1 / (1 + np.exp(-odds))
        return np.asarray(each / np.maximum(each.sum(axis=1, keepdims=True), 1.0))

    def save(self, path: Path) -> None:
        """Write the file."""
        about = {"format": FORMAT, "trained_on": self.trained_on, "least": self.least}
        arrays = {
            "classes": np.array(self.classes),
            "signals": np.array(self.signals),
            "weights": self.weights.astype(np.float32),
            "offset": self.offset.astype(np.float32),
        }
        weights.write(path, about, arrays)


def squashed(deviation: Floats) -> Floats:
    """Deviations with their sizes on a logarithmic scale, so that one wild signal does not drown the others."""
    known = np.nan_to_num(np.asarray(deviation, dtype=np.float64), nan=0.0)
    return np.asarray(np.sign(known) * np.log1p(np.abs(known)))


def load(path: Path) -> Diagnosis:
    """Read one.

    Raises:
        ModelError: the file is missing, damaged or of another version; the message says what to do.
    """
    with weights.read(path, FORMAT) as (about, arrays):
        found = Diagnosis(
            classes=tuple(arrays["classes"].tolist()),
            signals=tuple(arrays["signals"].tolist()),
            weights=arrays["weights"].astype(np.float64),
            offset=arrays["offset"].astype(np.float64),
            least=float(about["least"]),
            trained_on=str(about["trained_on"]),
        )
    shape = (len(found.classes), len(found.signals))
    if found.weights.shape != shape or found.offset.shape != shape[:1] or shape[0] < 1:
        raise ModelError(f"{path} is damaged (its parts don't fit together): install it again")
    if not (np.isfinite(found.weights).all() and np.isfinite(found.offset).all() and np.isfinite(found.least)):
        raise ModelError(f"{path} is damaged (it has a number that isn't finite): install it again")
    return found
