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
    "lab, learned on DBSherlock only",
)
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
                rows.append([method, *(_beside(sets[name].get(k), apart.get(k)) for k in shots)])
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


PARTS: Final[Mapping[str, Callable[[Results], str]]] = {
    "made": made,
    "shipped": shipped,
    "compared": compared,
    "harmless": harmless,
    "weak": weak,
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
        "classes.svg": pictures.classes(found["classes"]),
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
