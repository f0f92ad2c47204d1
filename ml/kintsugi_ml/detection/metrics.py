"""How good scores are: per sample, per event, and as probabilities. No point adjustment anywhere.

Scores are higher where something is wrong; labels are True there. A figure that the data can't give is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from kintsugi.domain.frame import Bools, Floats

Span = tuple[int, int]
"""First and last index of a stretch of samples."""

_LEVELS: Final = 40

_THRESHOLDS: Final = 250  # of VUS, as in its authors' code


def average_precision(scores: Floats, labels: Bools) -> float:
    """Area under the precision-recall curve as a step function; ties are one step."""
    if not labels.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    last_of_tie = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    precision = hits[last_of_tie] / (last_of_tie + 1)
    recall = hits[last_of_tie] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def f1(flags: Bools, labels: Bools) -> float:
    """Harmonic mean of precision and recall, per sample."""
    wrong = np.count_nonzero(flags != labels)
    right = np.count_nonzero(flags & labels)
    return float(2 * right / (2 * right + wrong)) if right + wrong else float("nan")


def best_threshold(scores: Floats, labels: Bools) -> float:
    """The threshold of the highest F1 (`score >= threshold` is a flag), between two scores where it can be."""
    if not len(scores) or not labels.any():
        return float("inf")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(labels[order])
    last_of_tie = np.flatnonzero(np.diff(ranked, append=np.nan) != 0)
    value = 2 * hits[last_of_tie] / (last_of_tie + 1 + hits[-1])
    best = int(last_of_tie[int(np.argmax(value))])
    return float((ranked[best] + ranked[best + 1]) / 2) if best + 1 < len(ranked) else float(ranked[best])


def best_event_threshold(scores: Sequence[Floats], labels: Sequence[Bools], slack: int = 0, beta: float = 1.0) -> float:
    """The threshold of the highest F-measure over events, of `_LEVELS` tried; of several the best one per sample.

    With long events the best threshold per sample raises an alarm at every flicker before them: it costs few samples.
    """
    if not any(truth.any() for truth in labels):
        return float("inf")
    levels = np.unique(np.quantile(np.concatenate(list(scores)), np.linspace(0.3, 0.995, _LEVELS)))
    flags = [[one >= level for one in scores] for level in levels]
    events, truth = [spans(one) for one in labels], np.concatenate(list(labels))
    found = [(_f_measure(one, events, slack, beta), f1(np.concatenate(one), truth)) for one in flags]
    best = max(range(len(levels)), key=lambda index: found[index])
    below = levels[best - 1] if best else levels[best]
    return float((levels[best] + below) / 2)


def spans(flags: Bools) -> list[Span]:
    """The stretches of True, first to last index each."""
    padded = np.zeros(len(flags) + 2, dtype=np.bool_)
    padded[1:-1] = flags
    edges = np.flatnonzero(padded[1:] != padded[:-1]).tolist()
    return [(first, after - 1) for first, after in zip(edges[::2], edges[1::2], strict=True)]


def event_f1(flags: Sequence[Bools], labels: Sequence[Bools], slack: int = 0, beta: float = 1.0) -> float:
    """F-measure over events: one is found when an alarm overlaps it, an alarm is true when it begins within one.

    An alarm that was already on when the event began is no help, so one that never ends is not true.

    Args:
        flags: per run `[T]`, which samples raise an alarm; alarms at most `slack` samples apart are one.
        labels: per run `[T]`, the truth.
        slack: samples by which an alarm may miss the event's edge.
        beta: how many times as much recall counts as precision (van Rijsbergen's; 1 gives F1).
    """
    return _f_measure(flags, [spans(truth) for truth in labels], slack, beta)


def _f_measure(flags: Sequence[Bools], events: Sequence[list[Span]], slack: int, beta: float) -> float:
    counts = np.sum([_counts(spans(one), real, slack) for one, real in zip(flags, events, strict=True)], axis=0)
    found, many, true, alarms = (int(one) for one in counts)
    if not many or not alarms:
        return float("nan") if not many else 0.0
    recall, precision = found / many, true / alarms
    weighed = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighed if weighed else 0.0


def event_counts(flagged: Bools, truth: Bools, slack: int = 0) -> tuple[int, int, int, int]:
    """Of one run: events found, events, true alarms, alarms."""
    return _counts(spans(flagged), spans(truth), slack)


def _counts(flagged: list[Span], real: list[Span], slack: int) -> tuple[int, int, int, int]:
    raised = _merged(flagged, slack)
    found = sum(any(_overlap(one, other, slack) for other in raised) for one in real)
    true = sum(any(_begins(one, other, slack) for other in real) for one in raised)
    return found, len(real), true, len(raised)


def delays(flags: Sequence[Bools], labels: Sequence[Bools], interval: float = 1.0) -> Floats:
    """Seconds from each event's first sample to the first flag within it, `[events]`; infinite when it is missed."""
    out = []
    for flagged, truth in zip(flags, labels, strict=True):
        for first, last in spans(truth):
            raised = np.flatnonzero(flagged[first : last + 1])
            out.append(float(raised[0]) * interval if len(raised) else float("inf"))
    return np.array(out)


def false_alarms(flags: Sequence[Bools], labels: Sequence[Bools], interval: float = 1.0, slack: int = 0) -> float:
    """Alarms that begin within no event, per normal hour."""
    wrong = sum(false_count(flagged, truth, slack) for flagged, truth in zip(flags, labels, strict=True))
    normal = sum(int(np.count_nonzero(~truth)) for truth in labels) * interval / 3600
    return wrong / normal if normal else float("nan")


def false_count(flagged: Bools, truth: Bools, slack: int = 0) -> int:
    """Alarms of one run that begin within no event; those at most `slack` samples apart are one."""
    _, _, true, alarms = event_counts(flagged, truth, slack)
    return alarms - true


def threshold_for(
    scores: Sequence[Floats], labels: Sequence[Bools], budget: float, interval: float = 1.0, slack: int = 0
) -> float:
    """The lowest threshold with at most `budget` false alarms per normal hour; infinite when none has."""
    candidates = np.unique(np.concatenate([np.ravel(one) for one in scores]))
    low, high = 0, len(candidates)
    while low < high:  # not monotone where two alarms grow into one, so what is found is checked from above
        middle = (low + high) // 2
        flags = [one >= candidates[middle] for one in scores]
        if false_alarms(flags, labels, interval, slack) <= budget:
            high = middle
        else:
            low = middle + 1
    return float(candidates[low]) if low < len(candidates) else float("inf")


def calibration_error(probabilities: Floats, labels: Bools, bins: int = 10) -> float:
    """Expected calibration error: the mean distance between said and seen, over bins of equal width."""
    if not len(labels):
        return float("nan")
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    said = np.bincount(index, weights=probabilities, minlength=bins)
    seen = np.bincount(index, weights=labels.astype(np.float64), minlength=bins)
    return float(np.abs(said - seen).sum() / len(labels))


def reliability(probabilities: Floats, labels: Bools, bins: int = 10) -> list[tuple[float, float, int]]:
    """Per bin that isn't empty: mean probability, share that was anomalous, samples."""
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    chosen = [index == one for one in range(bins)]
    return [
        (float(probabilities[one].mean()), float(labels[one].mean()), int(one.sum())) for one in chosen if one.any()
    ]


def vus_pr(scores: Floats, labels: Bools, widest: int) -> float:
    """Volume under the precision-recall surface (Paparrizos et al., VLDB 2022) over buffers of 0 … `widest` samples.

    Each event's edges are softened over half a buffer on both sides, so that a flag a little early is worth something;
    recall is also multiplied by the share of events that are touched at all. As in the authors' `RangeAUC_volume_opt`.
    """
    if not labels.any():
        return float("nan")
    ranked = -np.sort(-scores)
    levels = ranked[np.linspace(0, len(scores) - 1, min(_THRESHOLDS, len(scores))).astype(np.int64)]
    flags = scores >= levels[:, None]
    areas = [_range_precision(flags, labels, width) for width in range(widest + 1)]
    return float(np.mean(areas))


def _range_precision(flags: Bools, labels: Bools, width: int) -> float:
    soft = _soften(labels, width)
    events = spans(soft > 0)
    found = flags @ soft
    touched = np.mean([flags[:, first : last + 1].any(axis=1) for first, last in events], axis=0)
    weight = (np.count_nonzero(labels) + soft.sum()) / 2
    recall = np.minimum(found / weight, 1) * touched
    precision = np.concatenate([[1.0], found / np.maximum(flags.sum(axis=1), 1)])
    return float(np.sum(np.diff(recall, prepend=0.0) * (precision[1:] + precision[:-1]) / 2))


def _soften(labels: Bools, width: int) -> Floats:
    out = labels.astype(np.float64)
    reach = width // 2
    for first, last in spans(labels):
        after = np.arange(last + 1, min(last + reach + 1, len(out)))
        out[after] += np.sqrt(1 - (after - last) / width) if width else 0
        before = np.arange(max(first - reach, 0), first)
        out[before] += np.sqrt(1 - (first - before) / width) if width else 0
    return np.minimum(out, 1)


def _overlap(one: Span, other: Span, slack: int) -> bool:
    return one[0] <= other[1] + slack and other[0] <= one[1] + slack


def _begins(alarm: Span, event: Span, slack: int) -> bool:
    return event[0] - slack <= alarm[0] <= event[1] + slack


def _merged(found: list[Span], slack: int) -> list[Span]:
    out: list[Span] = []
    for first, last in found:
        if out and first - out[-1][1] - 1 <= slack:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out
