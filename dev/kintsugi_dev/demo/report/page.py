"""The whole page, self-contained: no request ever leaves it."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from kintsugi_dev.demo import measures, results
from kintsugi_dev.demo.record import FaultRecord, Run
from kintsugi_dev.demo.report import chart
from kintsugi_dev.demo.report.card import card
from kintsugi_dev.demo.report.lanes import action_lane, database_lane
from kintsugi_dev.demo.report.words import NOTHING, day, embedded, milliseconds, seconds, text

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
LEAD_SECONDS = 10.0


def page(run: Run) -> str:
    """The report of a run."""
    title = results.headline(run)
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
            f"<title>Kintsugi: {text(title)}</title><style>{_file('style.css')}</style></head><body>",
            '<a class="skip" href="#faults">Skip to the faults</a><main>',
            _header(run, title),
            _whole(run),
            _table(run),
            '<section id="faults"><h2>Fault by fault</h2>',
            *(card(run, fault) for fault in run.faults),
            "</section>",
            _footer(run),
            f'</main><script type="application/json" id="run">{embedded(_data(run))}</script>',
            f"<script>{_file('script.js')}</script></body></html>\n",
        ]
    )


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _header(run: Run, title: str) -> str:
    machine = run.machine
    meta = [
        day(run.started_at),
        f"{run.rate:.0f} requests/s for {(run.ended_at - run.started_at) / 60:.1f} minutes",
        f"PostgreSQL {machine.postgresql} with a synchronous replica and PgBouncer",
        f"Kubernetes {machine.kubernetes.removeprefix('v')}",
        f"{machine.cpus} CPUs, {machine.memory_gib:.0f} GiB",
    ]
    items = "".join(f"<li>{text(item)}</li>" for item in meta)
    return (
        f'<header class="top"><p class="brand">{_seam()}<span>Kintsugi</span> heals a real database</p>'
        f'<h1 class="{"passed" if run.passed else "failed"}">{text(title)}</h1><ul class="meta">{items}</ul></header>'
    )


def _seam() -> str:
    """The mark: a crack, filled with gold."""
    return (
        '<svg class="seam" viewBox="0 0 28 28" aria-hidden="true"><circle cx="14" cy="14" r="12.5"/>'
        '<path d="M10 1.9L13 8l-3 4 6 4-2 5 3 5.3"/><path d="M16 16l5-2 5 2.5"/></svg>'
    )


def _whole(run: Run) -> str:
    start = max(run.started_at, run.faults[0].injected_at - LEAD_SECONDS) if run.faults else run.started_at
    limits = [(f.injected_at, f.ended_at, f.p99.limit) for f in run.faults if f.p99.limit is not None]
    actions = [action for fault in run.faults for action in fault.actions]
    lanes = (database_lane(run, run.ended_at), action_lane(actions, run.ended_at))
    found = chart.Chart(
        name="run",
        title="Client p99 over the whole run",
        start=start,
        end=run.ended_at,
        seconds=run.seconds,
        limits=limits,
        slo_ms=run.slo_ms,
        bands=[chart.Band(f.injected_at, f.healed_at or f.ended_at, f.name, f.name) for f in run.faults],
        lanes=[lane for lane in lanes if lane.segments],
        width=1144.0,
        plot=190.0,
    )
    return (
        '<section><h2>What the client felt</h2><figure class="readable wide">'
        f"{chart.svg(found)}<output></output><figcaption>{_caption(run)}</figcaption></figure></section>"
    )


def _caption(run: Run) -> str:
    words = (
        "p99 of the requests of each second, on a logarithmic scale: shaded from each fault’s injection until the "
        "client was served as before, red where it was slow, with a tick below where requests failed."
    )
    return f"{words} A request that is not answered within {milliseconds(run.timeout_ms)} has failed."


def _table(run: Run) -> str:
    titles = ["fault", "detected after", "forecast", "action", "approved by", "healed after", "verdict"]
    titles = titles if run.operator else ["fault", "lasted"]
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    head += '<th scope="col" class="number">client p99 before → during → after</th>'
    rows = "".join(f"<tr>{_row(run, fault)}</tr>" for fault in run.faults)
    return (
        '<section><h2>In numbers</h2><div class="scroll"><table class="results">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(run: Run, fault: FaultRecord) -> str:
    decisive = fault.decisive
    lasted = f"not healed in {run.bound_s or 0:.0f} s" if fault.healed_s is None else seconds(fault.healed_s)
    cells = [
        ("plain", seconds(fault.detected_s)),
        ("", results.forecast_in_short(fault) or NOTHING),
        ("plain", decisive.action.spec.action if decisive else NOTHING),
        ("", fault.approved_by or NOTHING),
        ("plain", seconds(fault.healed_s)),
        ("plain", (decisive.verdict or decisive.phase.value) if decisive else NOTHING),
    ]
    cells = cells if run.operator else [("plain", lasted)]
    name = f'<th scope="row"><a href="#{text(fault.name)}">{text(fault.name)}</a></th>'
    numbers = " → ".join(milliseconds(each) for each in (fault.p99.before, fault.p99.during, fault.p99.after))
    words = "".join(f'<td class="{kind}">{text(cell)}</td>' for kind, cell in cells)
    return f'{name}{words}<td class="number">{text(numbers)}</td>'


def _footer(run: Run) -> str:
    words = {
        "calm": measures.CALM_SECONDS,
        "factor": f"{measures.FACTOR:.0f}",
        "margin": f"{measures.MARGIN_MS:.0f} ms",
        "timeout": milliseconds(run.timeout_ms),
        "lost": _lost(run),
    }
    return Template(_file("footer.html")).substitute(words)


def _lost(run: Run) -> str:
    if run.lost_writes is None or run.acknowledged_writes is None:
        return "They were not counted."
    return (
        f"Of {run.acknowledged_writes:,} ledger entries that the database had acknowledged to the client, "
        f"{run.lost_writes:,} were missing at the end; the policy allows {text(run.max_data_loss)}."
    )


def _data(run: Run) -> dict[str, Any]:
    """What the page's script reads out second by second."""
    return {
        "seconds": [[s.second, round(measures.felt_ms(s), 1), s.count, s.failed] for s in run.seconds],
        "faults": results.summary(run),
    }
