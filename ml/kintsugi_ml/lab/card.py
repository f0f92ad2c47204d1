"""docs/lab.md: text by people, and between markers tables made from the manifest.

`python -m kintsugi_ml.lab.card` assembles the manifest from the recorded runs, looks for leaks, draws the pictures and
fills in the tables; `--check` fails when a table or a picture is missing or stale, or a file of the data set damaged.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kintsugi.engines import catalogue
from kintsugi_ml.lab import cascades, dataset, leak, manifest, tables
from kintsugi_ml.lab.dataset import read_run
from kintsugi_ml.lab.manifest import DatasetError, Manifest
from kintsugi_ml.lab.signals import recorded

REPOSITORY: Final = Path(__file__).resolve().parents[3]
DATA_SET: Final = REPOSITORY / "data" / manifest.VERSION
PAGE: Final = REPOSITORY / "docs" / "lab.md"
IMAGES: Final = PAGE.parent / tables.IMAGES
OVERVIEW: Final = "overview.png"
LEAKS: Final = "leaks.csv"
"""In the data set's directory: every signal's AUC for every class."""
_PART: Final = re.compile(r"(<!-- lab:(\w+) -->\n).*?(<!-- /lab -->)", re.S)


def write(directory: Path = DATA_SET, page: Path = PAGE, images: Path = IMAGES) -> leak.Report:
    """Assemble the manifest, draw the pictures and fill in the page; returns what the leak check found.

    Raises:
        DatasetError: no run is recorded, a file is damaged, or the page has no place for a table.
    """
    from kintsugi_ml.lab import figures  # matplotlib takes a second to import, and --check does not draw

    known = dataset.assemble(directory, components=catalogue.COMPONENTS, signals=recorded().names())
    if not known.counting():
        raise DatasetError(f"{directory} holds no run that counts; record some with `make lab`")
    report = leaks(known, directory)
    (directory / LEAKS).write_text(_csv(known, report), encoding="utf-8")
    page.write_text(filled(page.read_text(encoding="utf-8"), parts(known, report)), encoding="utf-8")
    pictures = {OVERVIEW: figures.overview(known.counting(), known.components)}
    for fault, runs in cascades.by_class(known.runs).items():
        typical = cascades.typical(runs)
        title = f"{fault}, {typical.form}, on {typical.workload}, severity {typical.severity:.2f}"
        pictures[f"{fault}.svg"] = figures.cascade(read_run(directory, typical), title).encode()
    figures.write_all(images, pictures)
    return report


def problems(directory: Path = DATA_SET, page: Path = PAGE, images: Path = IMAGES) -> list[str]:
    """What is stale, a sentence each. Raises DatasetError when a file of the data set is missing or damaged."""
    known = manifest.load(directory)
    text = page.read_text(encoding="utf-8")
    found = []
    if dataset.is_stale(directory, known):
        found.append(f"{directory / manifest.FILE} is not what the runs say; run `make lab-card`")
    report = leaks(known, directory)
    found += [f"{one.signal} gives {one.fault} away before the injection" for one in report.leaks]
    table = directory / LEAKS
    if filled(text, parts(known, report)) != text:
        found.append(f"{page} is stale; run `make lab-card`")
    if not table.exists() or table.read_text(encoding="utf-8") != _csv(known, report):
        found.append(f"{table} is stale; run `make lab-card`")
    wanted = {OVERVIEW, *(f"{fault}.svg" for fault in cascades.by_class(known.runs))}
    if missing := sorted(name for name in wanted if not (images / name).exists()):
        found.append(f"{images} lacks {', '.join(missing)}; run `make lab-card`")
    return found


def parts(known: Manifest, report: leak.Report) -> dict[str, str]:
    """The text of each marker."""
    made = {name: "\n".join(table(known)) for name, table in tables.TABLES.items()}
    return made | {"leaks": "\n".join(tables.leaks(report))}


def filled(text: str, made: Mapping[str, str]) -> str:
    """The page with every marked part replaced.

    Raises:
        DatasetError: a marker is missing, or is called like no table.
    """
    marked = [match.group(2) for match in _PART.finditer(text)]
    if sorted(marked) != sorted(made):
        raise DatasetError(
            f"the page has markers for {', '.join(marked) or 'nothing'} and there are tables {', '.join(made)}; "
            "write <!-- lab:NAME --> and <!-- /lab --> on lines of their own, once each"
        )
    return _PART.sub(lambda match: f"{match.group(1)}{made[match.group(2)]}\n{match.group(3)}", text)


def leaks(known: Manifest, directory: Path) -> leak.Report:
    """The leak check over the runs that count."""
    runs = (leak.summary(run, read_run(directory, run).frame) for run in known.counting())
    return leak.check(runs, recorded())


def _csv(known: Manifest, report: leak.Report) -> str:
    return "\n".join(leak.rows(report, known.signals)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card, or check it; status 1 when it is stale, or something leaks."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.lab.card", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when something is stale or damaged; write nothing")
    try:
        if parser.parse_args(arguments).check:
            said = problems()
        else:
            said = [f"{found.signal} gives {found.fault} away before the injection" for found in write().leaks]
    except DatasetError as error:
        said = [str(error)]
    for line in said:
        sys.stderr.write(f"lab: {line}\n")
    return 1 if said else 0


if __name__ == "__main__":
    raise SystemExit(main())
