"""The shipped detector's own recipe in the harness: first step, and the second that weighs the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.features import chosen
from kintsugi_ml.detection.model import Model
from kintsugi_ml.detection.protocol import Episode, Judged, Run
from kintsugi_ml.detection.shots import decide_labelled, examples_of, train_familiar
from kintsugi_ml.detection.stack import Decision, Step
from kintsugi_ml.detection.training import calibrate, crossfit, whole, zero_shot


def fit(runs: Sequence[Run], seed: int, trained_on: str) -> Model:
    """All three steps from these runs."""
    logits = crossfit(runs, seed)
    calibration, threshold = calibrate(runs, logits)
    return Model(
        first=Step(zero_shot(tuple(runs), seed), Decision(calibration, threshold)),
        labelled=decide_labelled(runs, logits, seed),
        familiar=train_familiar(runs, logits, seed),
        trained_on=trained_on,
    )


@dataclass(frozen=True, slots=True)
class Stacked:
    """A model in the harness."""

    model: Model

    def score(self, episode: Episode) -> Judged:
        """Judge with whichever step fits the examples."""
        seen = whole(episode.run)
        logits = self._logits(episode.run)
        given = self._given(episode)
        examples = examples_of(episode, given) if given else None
        threshold = self.model.threshold(examples)
        if examples is None or not len(examples):
            return Judged(self.model.first.decision.calibration.probability(logits), threshold)
        interval = episode.run.interval
        probability, _ = self.model.weigh(logits, seen.points, seen.anchors, examples, interval)
        return Judged(probability, threshold)

    def _logits(self, run: Run) -> Floats:
        return self.model.first.forest.logits(chosen(whole(run).features))

    def _given(self, episode: Episode) -> Mapping[str, Floats]:
        return {} if episode.support is None else {episode.support.run.name: self._logits(episode.support.run)}


class Stack:
    """First step and own examples, as shipped."""

    name = "stack"
    uses_examples = True
    probabilities = True

    def train(self, runs: Sequence[Run], seed: int) -> Stacked:
        """Fit all three steps on these runs."""
        return Stacked(fit(runs, seed, "the training classes"))


METHODS: Final = (Stack(),)
