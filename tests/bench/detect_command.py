"""Seconds that `kintsugi-ml detect` takes on one core: `python tests/bench/detect_command.py`.

The command is started as a user starts it, once for one row and once for many rows with a support file. The baselines,
in the same run: starting Python with numpy and pyarrow, and that and reading the same files. Printed, never asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi_ml.detection.files import write

REFERENCE = 120
LABELLED = 10
"""Rows of each kind in the support file."""

FLOORS = {"one": 2.0, "many": 5.0}
"""Seconds that are asked for on one core."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
START = "import numpy, pyarrow.csv, pyarrow.parquet"
READ = f"{START}, sys; [pyarrow.csv.read_csv(file) for file in sys.argv[1:]]"


def seconds(command: Sequence[str], repeats: int) -> float:
    """The median of some runs, the first one not counted: it reads the disk."""
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | ONE_THREAD, stderr=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def table(file: Path, values: Floats, **more: Floats) -> str:
    """Write samples `[T, S]` of one second each."""
    columns = {"time": np.arange(len(values), dtype=np.float64)}
    columns |= {f"m{index}": values[:, index] for index in range(values.shape[1])}
    write(file, columns | more)
    return str(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # what is started inherits it
    random = np.random.default_rng(0)

    def noise(rows: int) -> Floats:
        return random.standard_normal((rows, options.columns))

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        reference, one = table(place / "reference.csv", noise(REFERENCE)), table(place / "one.csv", noise(1))
        many = table(place / "many.csv", noise(options.rows))
        label = np.repeat([0.0, 1.0], LABELLED)
        support = table(place / "support.csv", noise(2 * LABELLED) + 3 * label[:, None], label=label)
        detect = [sys.executable, "-m", "kintsugi_ml.cli", "detect"]
        detect += ["--output", str(place / "scores.csv"), "--reference", reference]
        start = seconds([sys.executable, "-c", START], options.repeats)
        read = seconds([sys.executable, "-c", READ, reference, many, support], options.repeats)
        found = {
            "one": seconds([*detect, "--input", one], options.repeats),
            "many": seconds([*detect, "--input", many, "--support", support], options.repeats),
        }
    say = sys.stdout.write
    say(f"`kintsugi-ml detect`, {options.columns} columns, reference of {REFERENCE} rows, one core; seconds in all\n")
    say(f"  starting Python with numpy and pyarrow (the baseline of one row): {start:.2f} s\n")
    say(f"  that and reading the files with {options.rows} rows (the baseline of many): {read:.2f} s\n")
    say(f"  one row: {found['one']:.2f} s (asked: {FLOORS['one']:g}), {found['one'] / start:.1f} of the baseline\n")
    say(
        f"  {options.rows} rows with a support of {2 * LABELLED}: {found['many']:.2f} s (asked: {FLOORS['many']:g}),"
        f" {found['many'] / read:.1f} of the baseline\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
