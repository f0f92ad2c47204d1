"""The networks in the harness. Without an anomalous example those that need one say what the first step says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.calibrate import Calibration
from kintsugi_ml.detection.features import chosen
from kintsugi_ml.detection.meta import encoder, outer, reconstruct
from kintsugi_ml.detection.meta.nets import one_thread
from kintsugi_ml.detection.meta.outer import KINDS, Kind
from kintsugi_ml.detection.protocol import Episode, Judged, Method, Run, Source, Thresholds, episode
from kintsugi_ml.detection.shots import Decided, counting, episodes, examples_of
from kintsugi_ml.detection.tokens import LONG_S, mean_over, samples
from kintsugi_ml.detection.training import calibrate, crossfit, decide, whole, zero_shot
from kintsugi_ml.detection.trees import Forest

_SHOTS: Final = 5
SOURCES: Final[tuple[Source, ...]] = ("same", "other")


@dataclass(frozen=True, slots=True, eq=False)
class Adapting:
    """A network over a database's own signals, and the first step."""

    kind: Kind
    net: Any
    first: Forest
    plain: Decided
    labelled: Decided

    def score(self, episode: Episode) -> Judged:
        """Adapt, then judge; scores are averaged over 5 s, as the shipped detector's are."""
        runs = [episode.run] if episode.support is None else [episode.run, episode.support.run]
        logits = {run.name: self.first.logits(chosen(whole(run).features)) for run in runs}
        examples = examples_of(episode, logits)
        if examples is None or not examples.labels.any():
            calibration, thresholds = self.plain
            return Judged(calibration.probability(logits[episode.run.name]), *thresholds)
        calibration, thresholds = self.labelled
        return Judged(calibration.probability(judged(self.kind, self.net, episode, logits)), *thresholds)


@dataclass(frozen=True, slots=True)
class Learner:
    """Trains a kind of network on tasks of the training classes."""

    kind: Kind
    steps: int = outer.STEPS
    uses_examples: bool = True
    probabilities: bool = True

    @property
    def name(self) -> str:
        """The kind's."""
        return self.kind.name

    def train(self, runs: Sequence[Run], seed: int) -> Adapting:
        """Learn; calibration and threshold come from the training classes' own episodes."""
        logits = crossfit(runs, seed)
        net = outer.learn(self.kind, runs, seed, self.steps)
        scores, labels = [], []
        for chosen_one, _ in episodes(runs, logits, seed, ("same", "other")):
            kept = counting(chosen_one)
            scores.append(judged(self.kind, net, chosen_one, logits)[kept])
            labels.append(chosen_one.run.labels[kept])
        plain, labelled = calibrate(runs, logits), decide(scores, labels, runs[0].interval)
        return Adapting(self.kind, net, zero_shot(tuple(runs), seed), plain, labelled)


def judged(kind: Kind, net: Any, episode: Episode, logits: dict[str, Floats]) -> Floats:
    """A network's scores `[T]` of an episode that has an anomalous example, averaged over 5 s."""
    seen, examples = whole(episode.run), examples_of(episode, logits)
    if examples is None:
        raise ValueError(f"run {episode.run.name} has no examples")
    found = outer.apply(kind, net, seen.anchors, examples, seen.points, logits[episode.run.name])
    smooth = mean_over(found.astype(np.float32)[None, :, None], samples(LONG_S, episode.run.interval))
    return np.asarray(smooth[0, :, 0], dtype=np.float64)


Tell = Callable[[encoder.Headed, encoder.Shots, Any], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """An encoder with its way to use examples; without anomalous ones the plain head decides, if it was trained."""

    headed: encoder.Headed
    plain: encoder.Headed
    tell: Tell
    decided: Decided

    def score(self, episode: Episode) -> Judged:
        """Use the examples, then judge."""
        with one_thread():
            logits = self.logits(episode)
        calibration, thresholds = self.decided
        return Judged(calibration.probability(logits), *thresholds)

    def logits(self, episode: Episode) -> Floats:
        """Scores `[T]`."""
        given, features = episode.support, whole(episode.run).features
        if given is None or not given.labels.any():
            return self.plain.logits(features)
        return self.tell(self.headed, encoder.Shots(whole(given.run).features[given.rows], given.labels), features)


@dataclass(frozen=True, slots=True)
class Encoding:
    """Trains an encoder of pooled features."""

    name: str
    learn: Callable[[Sequence[Run], int], encoder.Headed]
    tell: Tell
    uses_examples: bool = True
    probabilities: bool = True

    def train(self, runs: Sequence[Run], seed: int) -> Told:
        """Learn; calibration and threshold come from the training classes' own episodes of five examples."""
        with one_thread():
            plain = encoder.pretrain(runs, seed)
            headed = plain if self.learn is encoder.pretrain else self.learn(runs, seed)
            raw = Told(headed, plain, self.tell, (Calibration(), Thresholds(0.5, 0.5)))
            scores, labels = [], []
            for run in runs:
                for source in SOURCES:
                    chosen_one = episode(run, source, _SHOTS, seed, runs)
                    kept = counting(chosen_one)
                    scores.append(raw.logits(chosen_one)[kept])
                    labels.append(run.labels[kept])
        return Told(headed, plain, self.tell, decide(scores, labels, runs[0].interval))


METHODS: Final[tuple[Method, ...]] = (
    *(Learner(kind) for kind in KINDS),
    Encoding("pre-train + fine-tune", encoder.pretrain, encoder.tuned),
    Encoding("ProtoNet", encoder.prototypes, encoder.nearer),
    Encoding("ANIL", encoder.anil, encoder.adapted),
    reconstruct.METHOD,
)
