"""What the log adds to the metrics, per fault class: `python tests/bench/log_value.py data/lab-v1`.

For each run of the lab's data set: how far the best signal is out of its band during the fault, in robust standard
deviations of the run's own normal part (floors as in production), once over all metrics and once over the log's
columns, and when each first held five of them for two of three seconds. Printed, never asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi.domain.signals import Hurts, Role, Signal
from kintsugi.engines.catalogue import load
from kintsugi.engines.postgresql.logs.book import Book
from kintsugi.engines.postgresql.logs.line import Line
from kintsugi_ml.lab import dataset
from kintsugi_ml.lab.logs import LogTrack

OUT = 5.0
NORMAL_SCALE = 1.4826
NEVER = float("inf")


class Seen(NamedTuple):
    """The signal that is furthest out, by how much, and after how many seconds one first was (infinite: never)."""

    signal: str
    deviation: float
    after: float


def best(columns: dict[str, Floats], signals: Sequence[Signal], normal: np.ndarray, fault: np.ndarray) -> Seen:
    """Over symptoms and causes; `normal` and `fault` `[T]` say which rows are which."""
    furthest, earliest = ("–", 0.0), NEVER
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
        if held.size and held.max() > furthest[1]:
            furthest = (signal.name, float(held.max()))
        first = np.flatnonzero(held >= OUT)
        if first.size:
            earliest = min(earliest, float(first[0] + 2))
    return Seen(*furthest, earliest)


def log_columns(track: LogTrack, times: Floats) -> dict[str, Floats]:
    """The log's signals on the frame's grid, as production counts them."""
    book = Book(len(times) + 60)
    book.begin(float(track.times[0]))
    lines = [Line(line.time, "", "", line.kind, line.template) for line in track.lines]
    book.add(lines, float(track.times[-1]) + 1)
    return book.columns(load("postgresql").logged(), times, 1.0)


def main() -> None:
    """One row per fault class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    catalogue, rows = load("postgresql"), defaultdict[str, list[tuple[Seen, Seen]]](list)
    for entry in dataset.entries(directory):
        if not entry.counts or entry.injected_at is None:
            continue
        run = dataset.read_run(directory, entry)
        frame = run.frame
        normal = (frame.times < entry.injected_at) & (frame.times >= entry.injected_at - 30)
        fault = (frame.times >= entry.injected_at) & (frame.times < (entry.lifted_at or frame.times[-1]))
        metrics = dict(zip(frame.signals, frame.values.T, strict=True))
        logged = log_columns(run.logs, frame.times)
        rows[entry.fault].append(
            (best(metrics, catalogue.signals, normal, fault), best(logged, catalogue.signals, normal, fault))
        )
    titles = (
        "fault",
        "runs",
        "metrics: seen, after s",
        "log: seen, after s",
        "only the log",
        "log first",
        "log's best",
    )
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += [_row(name, seen) for name, seen in sorted(rows.items())]
    sys.stdout.write("\n".join(lines) + "\n")


def _row(fault: str, seen: list[tuple[Seen, Seen]]) -> str:
    cells = [fault, str(len(seen))]
    for which in (0, 1):
        after = [pair[which].after for pair in seen if pair[which].after < NEVER]
        cells.append(f"{len(after)}, {statistics.median(after):.0f}" if after else "0")
    cells.append(str(sum(log.after < NEVER and metrics.after == NEVER for metrics, log in seen)))
    cells.append(str(sum(log.after < metrics.after < NEVER for metrics, log in seen)))
    names = [log.signal for _, log in seen]
    cells.append(max(set(names), key=names.count))
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
