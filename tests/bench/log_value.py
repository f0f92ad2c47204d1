"""What the log adds to the metrics: `OPENBLAS_NUM_THREADS=1 .venv/bin/python tests/bench/log_value.py [data/lab-v1]`.

Two tables over the lab's runs that count. Printed, never asserted.

1. **Signals.** When each signal first held five robust standard deviations of the run's own normal part (floors as in
   production) for two of three seconds. Of a class the one metric, and the one column of the log, that was out in most
   of its runs less the share of harmless and null runs in which the same signal was out, too. It is chosen and counted
   on the same runs, of the metrics among more: generous to both, more so to the metrics.
2. **The shipped model**, which takes any signals, on runs that it has not learned from: with the metrics alone, with
   the log's columns beside them, with these alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi.domain.signals import Hurts, Role, Signal
from kintsugi.engines.catalogue import load
from kintsugi.engines.postgresql.logs.book import Book
from kintsugi.engines.postgresql.logs.line import Line
from kintsugi_ml.detection import lab_v1, results
from kintsugi_ml.detection.baselines.ours import PerSample, Stacked
from kintsugi_ml.detection.model import SHIPPED
from kintsugi_ml.detection.model import load as load_model
from kintsugi_ml.detection.protocol import Run, Source, episode
from kintsugi_ml.detection.results import Judgement, Kept, judgements
from kintsugi_ml.lab import dataset, manifest
from kintsugi_ml.lab.logs import LogTrack
from kintsugi_ml.lab.manifest import Entry

OUT: Final = 5.0
NORMAL_SCALE: Final = 1.4826

After = Mapping[str, float]
"""By signal, how many seconds after the injection it was first out; signals that never were are missing."""

Columns = Mapping[str, Floats]


class Seen(NamedTuple):
    """What one run showed."""

    fault: str
    negative: bool
    metrics: After
    log: After


def out_after(columns: Columns, signals: Sequence[Signal], normal: np.ndarray, fault: np.ndarray) -> After:
    """Over symptoms and causes; `normal` and `fault` `[T]` say which rows are which."""
    found = {}
    for signal in signals:
        values = columns.get(signal.name)
        if values is None or signal.role is Role.CONTEXT or not np.isfinite(values[normal]).any():
            continue
        middle = np.nanmedian(values[normal])
        scale = max(NORMAL_SCALE * np.nanmedian(np.abs(values[normal] - middle)), signal.floor)
        out = (values[fault] - middle) / scale
        out = {Hurts.UP: out, Hurts.DOWN: -out, Hurts.BOTH: np.abs(out)}[signal.hurts]
        out = np.nan_to_num(out, nan=0.0)
        held = np.sort(np.lib.stride_tricks.sliding_window_view(out, 3), axis=1)[:, 1] if len(out) > 2 else out[:0]
        first = np.flatnonzero(held >= OUT)
        if first.size:
            found[signal.name] = float(first[0] + 2)
    return found


def log_columns(track: LogTrack, times: Floats) -> Columns:
    """The log's signals on the frame's grid, as production counts them."""
    book = Book(len(times) + 60)
    book.begin(float(track.times[0]))
    lines = [Line(line.time, "", "", line.kind, line.template) for line in track.lines]
    book.add(lines, float(track.times[-1]) + 1)
    return book.columns(load("postgresql").logged(), times, 1.0)


def seen(entry: Entry, run: dataset.Run, columns: Columns) -> Seen:
    """What the run's metrics and its log's `columns` showed."""
    signals, frame = load("postgresql").signals, run.frame
    at = entry.injected_at or 0.0
    normal = (frame.times < at) & (frame.times >= at - 30)
    fault = (frame.times >= at) & (frame.times < (entry.lifted_at or frame.times[-1]))
    metrics = dict(zip(frame.signals, frame.values.T, strict=True))
    return Seen(
        entry.fault,
        entry.negative,
        out_after(metrics, signals, normal, fault),
        out_after(columns, signals, normal, fault),
    )


def table(runs: Sequence[Seen]) -> list[str]:
    """A row per fault class."""
    calm = [run for run in runs if run.negative]
    by_class = defaultdict[str, list[Seen]](list)
    for run in runs:
        if not run.negative:
            by_class[run.fault].append(run)
    head = ["class", "runs", "best metric", "out in", "after", f"harmless of {len(calm)}"]
    rows = [[*head, "best of the log", *head[3:], "log only", "log first"]]
    for fault, of_class in sorted(by_class.items()):
        metric = _best(of_class, calm, lambda run: run.metrics)
        column = _best(of_class, calm, lambda run: run.log)
        only = sum(column in run.log and metric not in run.metrics for run in of_class)
        sooner = sum(run.log.get(column, np.inf) < run.metrics.get(metric, -np.inf) for run in of_class)
        cells = [fault, str(len(of_class)), *_cells(metric, of_class, calm, lambda run: run.metrics)]
        cells += [*_cells(column, of_class, calm, lambda run: run.log), str(only), str(sooner)]
        rows.append(cells)
    return [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def _best(of_class: Sequence[Seen], calm: Sequence[Seen], of: Callable[[Seen], After]) -> str:
    """The signal that parts the class best from what is harmless; of several the earliest. `–`: none does."""

    def worth(name: str) -> tuple[float, float]:
        after = [of(run)[name] for run in of_class if name in of(run)]
        wrong = sum(name in of(run) for run in calm) / len(calm)
        return len(after) / len(of_class) - wrong, -statistics.median(after)

    names = sorted({name for run in of_class for name in of(run)})
    best = max(names, key=worth, default="–")
    return best if best != "–" and worth(best)[0] > 0 else "–"


def _cells(name: str, of_class: Sequence[Seen], calm: Sequence[Seen], of: Callable[[Seen], After]) -> list[str]:
    after = [of(run)[name] for run in of_class if name in of(run)]
    late = f"{statistics.median(after):.0f} s" if after else "–"
    return [name, str(len(after)), late, str(sum(name in of(run) for run in calm))]


def shipped(runs: Sequence[Run]) -> list[str]:
    """Figures of the shipped model on these runs, without and with five examples of the same run."""
    model = Stacked(load_model(SHIPPED), PerSample(0.5, 0.5, 0.5))
    kinds: tuple[tuple[Source, int], ...] = (("none", 0), ("same", 5))
    return [f"{k} examples: {_figures(judged)}" for source, k in kinds for judged in [_judge(model, runs, source, k)]]


def _judge(model: Stacked, runs: Sequence[Run], source: Source, k: int) -> list[Judgement]:
    episodes = [episode(run, source, k, 0, runs) for run in runs]
    judged = [model.score(one) for one in episodes]
    thresholds = np.array([(one.threshold, one.alarm) for one in judged])
    kept = Kept(tuple(one.scores for one in judged), tuple(one.scored for one in episodes), thresholds)
    return judgements(kept, runs, "doubtful")


def _figures(judged: Sequence[Judgement]) -> str:
    once = np.ones((1, len(judged)))
    wrong, hours = results.harmless(judged)
    return (
        f"AP {results.precision(judged, once)[0]:.3f}, event F1 {results.event_f1(judged, once)[0]:.3f}, "
        f"delay {results.delay(judged, once)[0]:.1f} s, {wrong} false alarms in {60 * hours:.1f} harmless minutes"
    )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("data/lab-v1"))
    directory = parser.parse_args().directory
    known = manifest.load(directory)
    logged = {}
    found = []
    for entry in known.runs:
        if entry.counts and entry.injected_at is not None:
            run = dataset.read_run(directory, entry)
            logged[entry.id] = log_columns(run.logs, run.frame.times)
            found.append(seen(entry, run, logged[entry.id]))
    sys.stdout.write("\n".join(table(found)) + "\n\n")
    learned_from = {entry.id for entry in known.split("train")}
    judged = [run for run in lab_v1.load(directory) if run.name not in learned_from]
    for words, change in (("metrics", _same), ("metrics and log", _beside), ("log", _alone)):
        for line in shipped([change(run, logged[run.name]) for run in judged]):
            sys.stdout.write(f"{words}, {len(judged)} runs, {line}\n")


def _same(run: Run, columns: Columns) -> Run:
    del columns
    return run


def _beside(run: Run, columns: Columns) -> Run:
    values = np.column_stack([run.values, *columns.values()])
    return replace(run, signals=(*run.signals, *columns), values=values)


def _alone(run: Run, columns: Columns) -> Run:
    return replace(run, signals=tuple(columns), values=np.column_stack(list(columns.values())))


if __name__ == "__main__":
    main()
