"""`python -m kintsugi_ml.detection.evaluate`: run the comparison, resumable, and tell what is there.

    run        score what is missing, into out/detection/; stop it at any time, the same command goes on
    summary    figures of what is there: the table, and docs/results/detection.json (of a part: out/detection.json)
    all        both
    ship       train the package's own model

Two processes may run side by side if they are given different trials or methods. Set OMP_NUM_THREADS=1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi_ml.detection import dbsherlock, lab_v1, summary
from kintsugi_ml.detection.baselines import boosted, classical, ours, unlearned
from kintsugi_ml.detection.model import SHIPPED
from kintsugi_ml.detection.protocol import Fold, Method, Run, Source, episode
from kintsugi_ml.detection.results import Kept, Unit
from kintsugi_ml.detection.trials import STATISTICAL, TRIALS, Data

OUT: Final = Path("out/detection")
TO: Final = Path("docs/results/detection.json")
PART: Final = Path("out/detection.json")
"""Where the figures go when only some trials, methods or seeds were asked for: not over those of all."""

DRAWS: Final = 200
"""Of the bootstrap: eight minutes for all sets on two cores."""

SEEDS: Final = 5
SHOTS: Final = (1, 5, 10)


def methods(wanted: Sequence[str] = ()) -> list[Method]:
    """All there are; the networks only where torch is installed, and only if one of them may be wanted."""
    known: list[Method] = [*ours.METHODS, *unlearned.METHODS, *classical.METHODS, *boosted.METHODS]
    enough = bool(wanted) and {method.name for method in known}.issuperset(wanted)
    if not enough and find_spec("torch") is not None and find_spec("higher") is not None:
        from kintsugi_ml.detection.meta.methods import METHODS

        known += METHODS
    return known


def units(method: Method, fold: str, seed: int, sources: Sequence[Source]) -> list[Unit]:
    """What is to be scored of a method on a fold: once without examples, and with, where they matter."""
    out = [Unit(method.name, fold, "none", 0, seed)]
    if method.uses_examples:
        out += [Unit(method.name, fold, source, k, seed) for source in sources for k in SHOTS]
    return out


def run(
    folds: Sequence[Fold],
    methods: Sequence[Method],
    seeds: Sequence[int],
    folder: Path,
    say: Callable[[str], None],
    sources: Sequence[Source],
) -> None:
    """Score whatever isn't in `folder` yet, fold by fold."""
    for seed in seeds:
        for fold in folds:
            for method in methods:
                wanted = units(method, fold.name, seed, sources)
                missing = [unit for unit in wanted if not unit.file(folder).exists()]
                if missing:
                    started = time.process_time()
                    _score(method, fold, missing, folder)
                    say(
                        f"{folder.name}, seed {seed}, {fold.name}: {method.name}, {time.process_time() - started:.1f} s"
                    )


def _score(method: Method, fold: Fold, missing: Sequence[Unit], folder: Path) -> None:
    trained = method.train(fold.train, missing[0].seed)
    for unit in missing:
        episodes = [episode(one, unit.source, unit.k, unit.seed, fold.test) for one in fold.test]
        judged = [trained.score(one) for one in episodes]
        Kept(
            tuple(one.scores for one in judged),
            tuple(one.scored for one in episodes),
            np.array([(one.threshold, one.alarm) for one in judged]),
        ).save(unit.file(folder))


def ship(data: Data) -> tuple[list[Run], str]:
    """What the package's model learns from, and a sentence about it."""
    theirs = dbsherlock.load(data.dbsherlock)
    mine = lab_v1.training(data.lab)
    about = f"DBSherlock ({len(theirs)} runs) and the training split of lab-v1 ({len(mine)} runs), seed 0"
    return [*theirs, *mine], about


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = parser().parse_args(arguments)
    data = Data(options.dbsherlock, options.lab)
    if options.command == "ship":
        runs, about = ship(data)
        model, _ = ours.fit(runs, 0, about)
        model.save(options.model)
        return 0
    chosen = [trial for trial in TRIALS if not options.trial or trial.name in options.trial]
    known = methods(options.method if options.command == "run" else ())
    wanted = [method for method in known if not options.method or method.name in options.method]
    folds = {trial.name: trial.folds(data) for trial in chosen}
    if options.command in ("run", "all"):
        for trial in chosen:
            some = [fold for fold in folds[trial.name] if not options.fold or fold.name.startswith(tuple(options.fold))]
            run(some, wanted, range(options.seeds), options.out / trial.name, say, trial.sources)
    if options.command in ("summary", "all"):
        _summarise(options, folds, [*(method.name for method in known), STATISTICAL])
    return 0


def _summarise(options: argparse.Namespace, folds: dict[str, list[Fold]], names: Sequence[str]) -> None:
    shipped = ours.METHODS[0].name
    asked = summary.Asked(options.out, names, shipped, options.seeds, options.draws)
    found = summary.document(folds, asked, os.cpu_count() or 1)
    made = {
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "kintsugi_ml.detection.evaluate", *sys.argv[1:]]),
        "seeds": options.seeds,
        "draws": options.draws,
        "shipped": shipped,
    }
    to = destination(options)
    to.parent.mkdir(parents=True, exist_ok=True)
    found |= diagnosed(to)
    to.write_text(json.dumps({"made": made, **found}, indent=1) + "\n")
    for line in summary.table(found):
        say(line)
    say(f"written to {to}")


def destination(options: argparse.Namespace) -> Path:
    """Where the figures go: figures of a part never take the place of those of all."""
    part = options.trial or options.method or options.fold or options.seeds < SEEDS or options.draws < DRAWS
    return options.to or (PART if part else TO)


def diagnosed(file: Path) -> dict[str, Any]:
    """What kintsugi_ml.lab.diagnosis has put into the file."""
    known = json.loads(file.read_text()) if file.exists() else {}
    return {name: known[name] for name in ("diagnosis",) if name in known}


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "not in a checkout"


def say(text: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    """The command line's."""
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = known.add_argument
    add("command", choices=("run", "summary", "all", "ship"))
    add("--dbsherlock", type=Path, default=dbsherlock.DATA, help="its .mat file or the folder of it")
    add("--lab", type=Path, default=lab_v1.DATA)
    add("--out", type=Path, default=OUT, help="where scores are kept")
    add("--to", type=Path, help=f"where the figures go; else {TO}, or {PART} when only a part was asked for")
    add("--model", type=Path, default=SHIPPED, help="where `ship` writes the model")
    add("--trial", action="append", choices=[trial.name for trial in TRIALS], help="only this one (may be repeated)")
    add("--method", action="append", default=[], help="only this one (may be repeated)")
    add("--fold", action="append", help="only those that begin so (may be repeated)")
    add("--seeds", type=int, default=SEEDS)
    add("--draws", type=int, default=DRAWS)
    return known


if __name__ == "__main__":
    raise SystemExit(main())
