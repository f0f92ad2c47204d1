"""`python -m kintsugi_ml.detection.evaluate`: run the comparison, resumable, and print what is there.

    run        score what is missing, into out/detection/; stop it at any time, the same command goes on
    summary    figures of what is there, as JSON and as a table
    ship       train the package's own model on all of it

Set OMP_NUM_THREADS=1 where others need the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from kintsugi_ml.detection import dbsherlock, results
from kintsugi_ml.detection.baselines import boosted, classical, ours, unlearned
from kintsugi_ml.detection.model import SHIPPED
from kintsugi_ml.detection.protocol import Method, Run, Source, episode, every, leave_one_out
from kintsugi_ml.detection.results import Judgement, Kept, Unit

METHODS: Final[tuple[Method, ...]] = (
    *ours.METHODS,
    *unlearned.METHODS,
    *classical.METHODS,
    *boosted.METHODS,
)
DATA: Final = Path("/work/shared/data/dbsherlock")
OUT: Final = Path("out/detection")
SHOTS: Final = (1, 5, 10)
SOURCES: Final[tuple[Source, ...]] = ("same", "other", "strict", "normals")


def units(method: Method, group: str, seed: int) -> list[Unit]:
    """What is to be scored of a method on a class: once without examples, and with, where they matter."""
    out = [Unit(method.name, group, "none", 0, seed)]
    if method.uses_examples:
        out += [Unit(method.name, group, source, k, seed) for source in SOURCES for k in SHOTS]
    return out


def run(
    runs: Sequence[Run],
    methods: Sequence[Method],
    groups: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Score whatever isn't in `folder` yet, class by class."""
    for seed in seeds:
        for group, others, own in leave_one_out(runs):
            for method in methods if group in groups or not groups else ():
                missing = [unit for unit in units(method, group, seed) if not unit.file(folder).exists()]
                if missing:
                    started = time.process_time()
                    _score(method, others, own, missing, folder)
                    say(f"{method.name}: {group}, seed {seed}, {time.process_time() - started:.1f} s of CPU")


def _score(method: Method, others: Sequence[Run], own: Sequence[Run], missing: Sequence[Unit], folder: Path) -> None:
    trained = method.train(others, missing[0].seed)
    for unit in missing:
        episodes = [episode(one, unit.source, unit.k, unit.seed, own) for one in own]
        judged = [trained.score(one) for one in episodes]
        Kept(
            tuple(one.scores for one in judged),
            tuple(one.scored for one in episodes),
            np.array([one.threshold for one in judged]),
        ).save(unit.file(folder))


def summary(runs: Sequence[Run], methods: Sequence[Method], seeds: Sequence[int], folder: Path, draws: int) -> Any:
    """`{method: {"k5 same": {"raw": {metric: {mean, low, high}, "classes": n}, "masked": …}}}` of what is there."""
    by_group = {group: own for group, _, own in leave_one_out(runs)}
    picks = results.resamples({group: len(own) for group, own in by_group.items()}, draws)
    out: dict[str, Any] = {}
    for method in methods:
        for source, k in dict.fromkeys((unit.source, unit.k) for unit in units(method, "", 0)):
            found = _found(method, source, k, seeds, by_group, folder)
            if found:
                name = "k0" if k == 0 else f"k{k} {source}"
                out.setdefault(method.name, {})[name] = _figures(found, by_group, picks)
    return out


def _found(
    method: Method, source: Source, k: int, seeds: Sequence[int], by_group: Mapping[str, list[Run]], folder: Path
) -> list[tuple[str, Kept]]:
    wanted = [Unit(method.name, group, source, k, seed) for group in by_group for seed in seeds]
    return [(unit.group, results.read(unit.file(folder))) for unit in wanted if unit.file(folder).exists()]


def _figures(
    found: Sequence[tuple[str, Kept]], by_group: Mapping[str, list[Run]], picks: Sequence[Mapping[str, Sequence[int]]]
) -> dict[str, Any]:
    out: dict[str, Any] = {"classes": len({group for group, _ in found}), "seeds": len(found)}
    for name, masked, reference in (("raw", False, True), ("masked", True, True), ("strict", True, False)):
        judged: list[tuple[str, Sequence[Judgement]]] = [
            (group, results.judgements(kept, by_group[group], masked=masked, reference=reference))
            for group, kept in found
        ]
        out[name] = {
            label: asdict(
                results.interval(
                    [results.over_classes(judged, figure, pick) for pick in picks],
                    results.over_classes(judged, figure),
                )
            )
            for label, figure in results.FIGURES.items()
        }
        out[name]["per class"] = {
            group: round(float(np.mean([results.FIGURES["AP"](one) for other, one in judged if other == group])), 4)
            for group in dict.fromkeys(group for group, _ in judged)
        }
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    runs = dbsherlock.load(options.data, edges=options.edges)
    if options.interval > 1:
        runs = [every(one, options.interval) for one in runs]
    methods = [method for method in METHODS if not options.method or method.name in options.method]
    seeds = range(options.seeds)
    if options.command == "ship":
        about = f"DBSherlock, {len(runs)} runs of {len({one.group for one in runs})} classes, seed 0"
        ours.fit(runs, 0, about).save(options.to)
    elif options.command == "run":
        run(runs, methods, options.classes, seeds, options.out, _say)
    else:
        found = summary(runs, methods, seeds, options.out, options.draws)
        (options.out / "summary.json").write_text(json.dumps(found, indent=1))
        for line in table(found):
            _say(line)
    return 0


def table(found: Mapping[str, Any]) -> list[str]:
    """A line per method and kind of examples: AP and F1, raw, without doubtful samples, and without references too."""
    views = ("raw", "masked", "strict")
    out = [f"{'':36} {'':12} classes  " + "  ".join(f"{view:>13}" for view in views) + "   event F1"]
    for name, sets in found.items():
        for label, figures in sets.items():
            pairs = [f"{figures[view]['AP']['mean']:.3f} / {figures[view]['F1']['mean']:.3f}" for view in views]
            events = figures["masked"]["event F1"]["mean"]
            out.append(f"{name:36} {label:12} {figures['classes']:7}  " + "  ".join(pairs) + f"   {events:.3f}")
    return out


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "summary", "ship"))
    parser.add_argument("--data", type=Path, default=DATA, help="DBSherlock's .mat file or its folder")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--to", type=Path, default=SHIPPED, help="where `ship` writes the model")
    parser.add_argument("--method", action="append", help="only this one (may be repeated)")
    parser.add_argument("--classes", action="append", default=[], help="only this one (may be repeated)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--edges", type=int, default=0, help="seconds around a label's edges that are doubtful, too")
    parser.add_argument("--draws", type=int, default=results.RESAMPLES)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
