"""CPU of scoring many databases in one call: `OPENBLAS_NUM_THREADS=1 python tests/bench/batched.py`.

References and samples are noise, with as many signals as asked for; features and scores together, without reading
metrics. The baseline is one call per database. Printed, never asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from kintsugi.stages.scoring import ROWS, ROWS_WITHOUT
from kintsugi_ml import serving

REFERENCE = 600
REPEATS = 3


def cpu(work: Callable[[], object]) -> float:
    """The median CPU seconds of some calls, the first one not counted."""
    work()
    took = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", type=int, default=1000)
    parser.add_argument("--signals", type=int, default=45)
    options = parser.parse_args(arguments)
    many, width = options.databases, options.signals
    random = np.random.default_rng(0)
    model = serving.load()
    floor, hurts = np.full(width, 0.1), np.ones(width)
    calm = random.standard_normal((REFERENCE, width))
    lessons = model.teach(
        [(calm, calm[:30] + 5 * anomalous, 1.0, anomalous) for anomalous in (True, False) * 5], floor, hurts
    )
    assert lessons is not None
    began = time.process_time()
    plain = [model.learn(random.standard_normal((REFERENCE, width)), 1.0, floor, hurts) for _ in range(many)]
    learning = (time.process_time() - began) / many
    began = time.process_time()
    taught = [model.recall(one, lessons) for one in plain]
    recalling = (time.process_time() - began) / many
    values = random.standard_normal((many, ROWS, width))
    newest = values[:, -ROWS_WITHOUT:]

    def apart() -> None:
        for place, one in enumerate(plain):
            model.score([one], values[place : place + 1])

    alone = cpu(apart)
    sys.stdout.write(f"{many} databases, {width} signals; CPU seconds of features and scores together\n")
    for name, seconds in (
        (f"{ROWS} samples, one call per database (the baseline)", alone),
        (f"{ROWS} samples, one call", cpu(lambda: model.score(plain, values))),
        (
            f"{ROWS} samples, one call, ten examples each (the operator with examples)",
            cpu(lambda: model.score(taught, values)),
        ),
        (f"{ROWS_WITHOUT} samples, one call (the operator without examples)", cpu(lambda: model.score(plain, newest))),
    ):
        sys.stdout.write(f"  {name}: {seconds:.2f} s, {seconds / alone:.2f} of the baseline\n")
    sys.stdout.write(
        f"when a reference has moved on, each: {learning * 1000:.1f} ms, with examples {recalling * 1000:.1f} ms more\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
