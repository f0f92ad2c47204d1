"""Scores the operator's statistical detector in the learned ones' harness: the same folds of lab-v1, the same figures.

    .venv/bin/python tests/bench/statistical.py

Writes to out/detection/, where `python -m kintsugi_ml.detection.evaluate summary` finds it. It lives here because the
learned detector's package knows nothing of the operator. The score is its evidence, the threshold is its own: 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue
from kintsugi.engines import catalogue
from kintsugi.stages.detect import SERVER_UP
from kintsugi.stages.evidence import judge, learn
from kintsugi_ml.detection import dbsherlock, evaluate, lab_v1
from kintsugi_ml.detection.protocol import Episode, Judged, Run
from kintsugi_ml.detection.trials import STATISTICAL, TRIALS, Data


@dataclass(frozen=True)
class Statistical:
    """Symptoms, causes and residual against the run's own reference; nothing is learned from other runs."""

    known: Catalogue
    name: str = STATISTICAL
    uses_examples: bool = False
    probabilities: bool = False

    def train(self, runs: Sequence[Run], seed: int) -> Statistical:
        """Nothing to do."""
        return self

    def score(self, episode: Episode) -> Judged:
        """The evidence of every sample."""
        frame = framed(episode.run)
        model = learn(frame.between(0, episode.run.reference * frame.interval), self.known, SERVER_UP)
        evidence: Floats = np.asarray(judge(model, frame).evidence, dtype=np.float64)
        return Judged(np.nan_to_num(evidence, nan=0.0), 1.0, 1.0)


def framed(run: Run) -> Frame:
    """A run as the operator sees one; its first sample is at 0 s."""
    times: Floats = np.arange(len(run.values)) * np.float64(run.interval)
    return Frame(run.signals, times, run.values, ~np.isnan(run.values), run.interval)


def main() -> None:
    """Score all folds of the lab's trials that aren't scored yet."""
    known, data = catalogue.load("postgresql"), Data(dbsherlock.DATA, lab_v1.DATA)
    method = Statistical(Catalogue(known.engine, tuple(signal for signal in known if signal.exporters)))
    for trial in TRIALS:
        if trial.name.startswith("lab-"):
            folder = evaluate.OUT / trial.name
            evaluate.run(trial.folds(data), [method], range(5), folder, evaluate.say, ())


if __name__ == "__main__":
    main()
