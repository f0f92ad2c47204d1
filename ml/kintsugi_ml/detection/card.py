"""docs/models/detection.md: text by people, and between markers tables and pictures made from the results.

`python -m kintsugi_ml.detection.card` fills in the page from docs/results/detection.json; `--check` fails when a table
or a picture is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kintsugi_ml.detection import pictures

REPOSITORY: Final = Path(__file__).resolve().parents[3]
RESULTS: Final = REPOSITORY / "docs" / "results" / "detection.json"
PAGE: Final = REPOSITORY / "docs" / "models" / "detection.md"
IMAGES: Final = REPOSITORY / "docs" / "images" / "detection"

COMPARED: Final = (
    "dbsherlock masked",
    "dbsherlock masked, other run",
    "lab unseen class",
    "lab unseen workload",
    "dbsherlock 5 s",
    "lab unseen workload 5 s",
    "lab, learned on DBSherlock only",
)
META: Final = ("MAML, fast signal weights", "MAML, first order", "relation network")
"""The meta-learned methods, told beside what ships with and without the samples of doubtful labels."""
META_SETS: Final = ("dbsherlock masked", "dbsherlock masked, other run")
SHOWN: Final = ("AP", "F1", "event F1", "VUS-PR", "delay", "false alarms per hour", "ECE")
WEAKEST: Final = 5

_PART: Final = re.compile(r"(<!-- detection:(\w+) -->\n).*?(<!-- /detection -->)", re.S)

Results = Mapping[str, Any]


def made(found: Results) -> str:
    """Where the figures come from."""
    about = found["made"]
    return (
        f"`{about['command']}` at commit {about['commit']}: {about['seeds']} seeds, {about['draws']} bootstrap draws."
    )


def shipped(found: Results) -> str:
    """The shipped detector on every set."""
    rows = [["set", "examples", "base rate", *SHOWN]]
    for name, shots in _sets(found).items():
        for k, figures in shots.items():
            rows.append([name, k[1:], _number(figures["base rate"]), *(_interval(figures[one]) for one in SHOWN)])
    return _table(rows)


def compared(found: Results) -> str:
    """AP of everything on the sets of `COMPARED`, and whether the shipped detector is better for certain."""
    out = []
    for name in (one for one in COMPARED if one in found):
        shots = list(found[name])
        rows = [
            [name, *(f"k = {k[1:]}" for k in shots)],
            ["**shipped**", *(_interval(found[name][k]["AP"]) for k in shots)],
        ]
        for method, sets in found["baselines"].items():
            if name in sets:
                apart = found["differences"].get(method, {}).get(name, {})
                rows.append([_seeded(found, method, name), *(_beside(sets[name].get(k), apart.get(k)) for k in shots)])
        out.append(_table(rows))
    return "\n\n".join(out)


def harmless(found: Results) -> str:
    """False alarms where nothing is wrong."""
    rows = [["set", "examples", "hours without a fault", "false alarms per day", "at most, with 95 %"]]
    for name, shots in _sets(found).items():
        for k, figures in shots.items():
            if "harmless hours" in figures:
                alarms = figures["false alarms per day, harmless"]
                rows.append([name, k[1:], _number(figures["harmless hours"]), _number(alarms), f"{alarms['high']:.1f}"])
    return _table(rows) if len(rows) > 1 else "Not measured yet."


def weak(found: Results) -> str:
    """The classes that are told apart worst."""
    rows = [["set", "examples", f"the {WEAKEST} weakest classes (AP)"]]
    for name, shots in found["classes"].items():
        for k, classes in shots.items():
            worst = sorted(classes.items(), key=lambda item: item[1])[:WEAKEST]
            rows.append([name, k[1:], ", ".join(f"{group} {value:.3f}" for group, value in worst)])
    return _table(rows)


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for before anything was measured: at least (or at most) so much of a figure."""

    name: str
    k: int
    figure: str
    asked: float
    at_most: bool = False

    def row(self, found: Results) -> list[str]:
        """The target, what was measured, and whether that is enough."""
        measured = found.get(self.name, {}).get(f"k{self.k}", {}).get(self.figure)
        if measured is None or measured["mean"] is None:
            said, verdict = "–", "not measured"
        else:
            enough = measured["mean"] <= self.asked if self.at_most else measured["mean"] >= self.asked
            said, verdict = _interval(measured), "yes" if enough else "**no**"
        sign = "≤" if self.at_most else "≥"
        return [self.name, str(self.k), f"{self.figure} {sign} {self.asked:g}", said, verdict]


TARGETS: Final = (
    Target("dbsherlock raw", 0, "AP", 0.92),
    Target("dbsherlock masked", 0, "AP", 0.965),
    Target("dbsherlock raw", 5, "AP", 0.97),
    Target("dbsherlock masked", 5, "AP", 0.97),
    Target("dbsherlock raw", 5, "F1", 0.92),
    Target("dbsherlock masked", 5, "F1", 0.92),
    Target("dbsherlock raw", 10, "AP", 0.988),
    Target("dbsherlock masked", 10, "AP", 0.988),
    Target("dbsherlock raw", 10, "F1", 0.935),
    Target("dbsherlock masked", 10, "F1", 0.935),
    Target("dbsherlock raw, other run", 10, "AP", 0.98),
    Target("dbsherlock masked, other run", 10, "AP", 0.98),
    Target("lab unseen class", 5, "AP", 0.95),
    Target("lab unseen class", 5, "event F1", 0.95),
    Target("lab unseen class, other run", 5, "delay", 3.0, at_most=True),
    Target("lab unseen class", 5, "false alarms per day, harmless", 0.0, at_most=True),
    Target("lab unseen workload", 5, "AP", 0.95),
    Target("lab unseen workload", 5, "event F1", 0.95),
    Target("lab unseen workload, other run", 5, "delay", 3.0, at_most=True),
    Target("lab unseen workload", 5, "false alarms per day, harmless", 0.0, at_most=True),
)


def targets(found: Results) -> str:
    """What was asked for beside what was measured."""
    return _table([["set", "examples", "asked", "measured", "reached"], *(one.row(found) for one in TARGETS)])


def meta(found: Results) -> str:
    """AP of the meta-learned methods beside what ships."""
    known = {"shipped": found} | {name: found["baselines"].get(name, {}) for name in META}
    columns = [(name, k) for name in META_SETS for k in ("k1", "k5", "k10")]
    rows = [["AP masked (raw)", *(f"{_source(name)}, k = {k[1:]}" for name, k in columns)]]
    for method, sets in known.items():
        rows.append([method, *(_with_raw(sets, name, k) for name, k in columns)])
    return _table(rows)


FIRST_TRY: Final = (
    ("dbsherlock raw", 0, 0.915),
    ("dbsherlock masked", 0, 0.961),
    ("dbsherlock masked, edges too", 0, 0.977),
    ("dbsherlock raw", 1, 0.923),
    ("dbsherlock raw", 5, 0.963),
    ("dbsherlock raw", 10, 0.988),
    ("dbsherlock raw, other run", 5, 0.958),
    ("dbsherlock raw, other run", 10, 0.977),
)
"""AP that a first try measured on DBSherlock, before this code: 171 features, free boosting, a learned stack."""


def first_try(found: Results) -> str:
    """The first try's AP beside that of what ships."""
    rows = [["set", "examples", "the first try", "shipped"]]
    for name, k, ap in FIRST_TRY:
        figures = found.get(name, {}).get(f"k{k}")
        rows.append([name, str(k), f"{ap:g}", "–" if figures is None else _interval(figures["AP"])])
    return _table(rows)


def diagnosis(found: Results) -> str:
    """How well the fault's class is named."""
    rows = [["asked of", "figure", "measured"]]
    for name, figures in found.get("diagnosis", {}).items():
        if all(figure["low"] is None for figure in figures.values()):  # one number for each class
            said = sorted(figures.items(), key=lambda item: (-item[1]["mean"], item[0]))
            rows.append([name, "share", ", ".join(f"{group} {figure['mean']:.2g}" for group, figure in said)])
        else:
            rows += [[name, figure, _interval(value)] for figure, value in figures.items()]
    return _table(rows) if len(rows) > 1 else "Not measured yet."


def _seeded(found: Results, method: str, name: str) -> str:
    """A method's name, and how many seeds it was run with where these are fewer than all."""
    many, every = found["seeds"][method][name], found["made"]["seeds"]
    return method if many >= every else f"{method} ({many} of {every} seeds)"


def _source(name: str) -> str:
    return "other run" if name.endswith("other run") else "same run"


def _with_raw(sets: Mapping[str, Any], name: str, k: str) -> str:
    masked, raw = (sets.get(one, {}).get(k) for one in (name, name.replace("masked", "raw")))
    return "–" if masked is None or raw is None else f"{_number(masked['AP'])} ({_number(raw['AP'])})"


PARTS: Final[Mapping[str, Callable[[Results], str]]] = {
    "made": made,
    "shipped": shipped,
    "compared": compared,
    "harmless": harmless,
    "weak": weak,
    "targets": targets,
    "meta": meta,
    "first": first_try,
    "diagnosis": diagnosis,
}


def filled(text: str, found: Results) -> str:
    """The page with every marked part replaced.

    Raises:
        ValueError: a marker is missing, or is called like no part.
    """
    marked = [match.group(2) for match in _PART.finditer(text)]
    if sorted(marked) != sorted(PARTS):
        raise ValueError(f"the page has markers for {', '.join(marked) or 'nothing'}, not for {', '.join(PARTS)}")
    return _PART.sub(lambda match: f"{match.group(1)}{PARTS[match.group(2)](found)}\n{match.group(3)}", text)


def drawn(found: Results) -> dict[str, str]:
    """The pictures by file name."""
    return {
        "reliability.svg": pictures.reliability(found["reliability"]),
        "classes.svg": pictures.classes(
            {name: found["classes"][name] for name in COMPARED if name in found["classes"]}
        ),
    }


def main(
    arguments: Sequence[str] | None = None, *, results: Path = RESULTS, page: Path = PAGE, to: Path = IMAGES
) -> int:
    """Write the card, or check it; status 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.detection.card", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when something is stale; write nothing")
    found = json.loads(results.read_text(encoding="utf-8"))
    files = {page: filled(page.read_text(encoding="utf-8"), found)}
    files |= {to / name: content for name, content in drawn(found).items()}
    if parser.parse_args(arguments).check:
        stale = [file for file, text in files.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
        for file in stale:
            sys.stderr.write(f"{file} is stale: run `python -m kintsugi_ml.detection.card`\n")
        return 1 if stale else 0
    to.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return 0


def _sets(found: Results) -> dict[str, Any]:
    return {name: found[name] for name in found["classes"]}


def _beside(figures: Mapping[str, Any] | None, apart: Mapping[str, Any] | None) -> str:
    """A baseline's AP; ▲ where it is better than what ships with 95 %, ▽ where it is worse."""
    if figures is None:
        return "–"
    low, high = (apart["AP"]["low"], apart["AP"]["high"]) if apart else (None, None)
    sign = " ▽" if low is not None and low > 0 else " ▲" if high is not None and high < 0 else ""
    return f"{_number(figures['AP'])}{sign}"


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None or figure["mean"] is None:
        return _number(figure)
    return f"{figure['mean']:.3g} ({figure['low']:.3g}–{figure['high']:.3g})"


def _number(figure: Mapping[str, Any]) -> str:
    return "–" if figure["mean"] is None else f"{figure['mean']:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
