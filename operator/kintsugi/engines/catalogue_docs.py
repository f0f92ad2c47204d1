"""docs/signals.md, made from signals.yaml: what each signal says, from whom it comes, and how it is asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kintsugi.domain.signals import Catalogue, Signal
from kintsugi.domain.text import quantity
from kintsugi.engines.catalogue import COMPONENTS, load

ENGINE = "postgresql"
PAGE = Path("docs/signals.md")

INTRODUCTION = """\
# Signals

<!-- Made from operator/kintsugi/engines/postgresql/signals.yaml by `python -m kintsugi.engines.catalogue --docs`. -->

A signal is one number per sample. Kintsugi asks Prometheus for it once for all databases, and knows for each which
component it belongs to and which direction hurts. `kubectl get mdb <name> -o yaml` shows under `status.signals` which
of them were found for a database and which are missing.

- **symptom**: somebody waits or fails. Only symptoms open an incident.
- **cause**: explains an incident and strengthens it.
- **context**: the workload itself; never an anomaly.
- **floor**: the least that ever counts as one standard deviation; an incident takes five or more.

From whom: **kintsugi** is our collector (`kintsugi collect`, see [collector.md](collector.md)); **postgres_exporter**
is version 0.11.1 as in Debian 12; **node_exporter** is that of the database's machine; **client** are metrics that the
database's own clients export; **logs** is the server's log, where `spec.logs` names it (see [logs.md](logs.md)).
Missing is not zero: where a source can't say, there is a gap.
"""


def page(catalogue: Catalogue) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_overview(catalogue), *(line for c in COMPONENTS for line in _part(catalogue, c))])


def _overview(catalogue: Catalogue) -> Iterator[str]:
    yield f"{len(catalogue)} signals of {len({signal.component for signal in catalogue})} components.\n"


def _part(catalogue: Catalogue, component: str) -> Iterator[str]:
    signals = [signal for signal in catalogue if signal.component == component]
    if not signals:
        return
    yield f"## {component}\n"
    yield "| signal | says | unit | hurts | role | floor | from |"
    yield "|---|---|---|---|---|---|---|"
    yield from (_row(signal) for signal in signals)
    yield "\n<details><summary>PromQL, and classes of log lines</summary>\n\n```"
    for signal in signals:
        yield from (f"{signal.name} ({source})\n  {template}" for source, template in signal.sources.items())
    yield "```\n\n</details>\n"


def _row(signal: Signal) -> str:
    floor = quantity(signal.floor, signal.unit)
    cells = (f"`{signal.name}`", signal.description, signal.unit, signal.hurts, signal.role, floor)
    return "| " + " | ".join((*cells, ", ".join(signal.sources))) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """`--docs` writes the page, `--check` compares it; status 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi.engines.catalogue", description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--docs", action="store_true", help=f"write {PAGE}")
    choice.add_argument("--check", action="store_true", help=f"fail when {PAGE} is not what --docs would write")
    chosen = parser.parse_args(arguments)
    text = page(load(ENGINE))
    if chosen.docs:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE} is stale; run: python -m kintsugi.engines.catalogue --docs\n")
    return 1
