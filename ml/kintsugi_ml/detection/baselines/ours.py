"""The shipped detector's own recipe in the harness: first step, and the second that weighs the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.features import chosen
from kintsugi_ml.detection.model import Model
from kintsugi_ml.detection.normal import measured
from kintsugi_ml.detection.protocol import Episode, Judged, Run
from kintsugi_ml.detection.shots import Decided, decide_labelled, examples_of, train_familiar
from kintsugi_ml.detection.stack import Decision, Examples, Own, Step
from kintsugi_ml.detection.training import calibrate, crossfit, whole, zero_shot

ALARM_BETA: Final = 0.5
"""For alarms recall counts half as much as precision: a false one wakes somebody, and a fault that one sample doesn't
show goes on and shows in the next. On DBSherlock F1's threshold raises twice the false alarms (see the model card).
Every baseline has F1's, which is what the tables judge.
"""


@dataclass(frozen=True, slots=True)
class PerSample:
    """The probability that best tells single samples apart, of each step; the model's own thresholds raise alarms."""

    first: float
    labelled: float
    familiar: float

    def threshold(self, examples: Examples | None) -> float:
        """Of the step that such examples call for."""
        if examples is None or not len(examples):
            return self.first
        return self.labelled if examples.labels.any() else self.familiar


def fit(runs: Sequence[Run], seed: int, trained_on: str) -> tuple[Model, PerSample]:
    """All three steps from these runs."""
    logits = crossfit(runs, seed)
    first, labelled = calibrate(runs, logits, ALARM_BETA), decide_labelled(runs, logits, seed, ALARM_BETA)
    forest, familiar = train_familiar(runs, logits, seed, ALARM_BETA)
    model = Model(
        first=Step(zero_shot(tuple(runs), seed), _alarming(first)),
        labelled=_alarming(labelled),
        familiar=Step(forest, _alarming(familiar)),
        trained_on=trained_on,
    )
    return model, PerSample(first[1].sample, labelled[1].sample, familiar[1].sample)


def _alarming(decided: Decided) -> Decision:
    calibration, thresholds = decided
    return Decision(calibration, thresholds.event)


@dataclass(frozen=True, slots=True)
class Stacked:
    """A model in the harness."""

    model: Model
    per_sample: PerSample

    def score(self, episode: Episode) -> Judged:
        """Judge with whichever step fits the examples."""
        seen = whole(episode.run)
        logits = self._logits(episode.run)
        given = self._given(episode)
        examples = examples_of(episode, given) if given else None
        thresholds = self.per_sample.threshold(examples), self.model.threshold(examples)
        if examples is None or not len(examples):
            return Judged(self.model.first.decision.calibration.probability(logits), *thresholds)
        own = Own.beside(seen.anchors, examples)
        probability, _ = self.model.weigh(logits, seen.points, own, episode.run.interval, measured(episode.run.values))
        return Judged(probability, *thresholds)

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
        return Stacked(*fit(runs, seed, "the training classes"))


METHODS: Final = (Stack(),)
