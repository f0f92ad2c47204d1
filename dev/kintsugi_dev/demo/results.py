"""A run's results in short: the table for people, the summary for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kintsugi_dev.demo.record import P99, FaultRecord, Run

NOTHING = "–"
WIDE = 132
"""Columns that the table needs."""


def summary(run: Run) -> dict[str, Any]:
    """What stands in `summary.json`; seconds and milliseconds rounded to a tenth, null where there is none."""
    return {"faults": [_fault(fault) for fault in run.faults], "lost_writes": run.lost_writes}


def write_summary(run: Run, path: Path) -> None:
    """Write `summary.json`."""
    path.write_text(json.dumps(summary(run), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def shown(run: Run, width: int) -> RenderableType:
    """The table at the end; in a narrow terminal a few lines per fault instead."""
    if width < WIDE and run.operator:
        return Group(*(_lines(fault) for fault in run.faults))
    return _table(run)


def _table(run: Run) -> Table:
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    titles = ["fault", "detected", "forecast", "action", "approved by", "healed", "verdict"]
    for title in titles if run.operator else ["fault", "lasted"]:
        found.add_column(title, no_wrap=title not in ("forecast", "approved by"), max_width=26)
    found.add_column("client p99 in ms: before → during → after", justify="right", max_width=22)
    for fault in run.faults:
        style = "red" if run.operator and not fault.verified else None
        found.add_row(*(_cells(fault) if run.operator else _unhealed(fault, run)), p99_in_short(fault), style=style)
    return found


def _lines(fault: FaultRecord) -> Text:
    name, detected, forecast, action, approved, healed, verdict = _cells(fault)
    text = Text(f"\n{name}", style="bold" if fault.verified else "bold red")
    lines = {
        "detected after": detected,
        "forecast": forecast,
        "action": f"{action}, approved by {approved}",
        "healed after": f"{healed}, verdict {verdict}",
        "client p99": f"{p99_in_short(fault)} ms",
    }
    for title, value in lines.items():
        text.append(f"\n  {title:<15} {value}", style="not bold default")
    return text


def headline(run: Run) -> str:
    """The result in one sentence."""
    healed, total = sum(fault.verified for fault in run.faults), len(run.faults)
    if not run.operator:
        left = sum(fault.healed_at is None for fault in run.faults)
        return f"Without the operator: {left} of {total} faults were not healed in {run.bound_s or 0:.0f} s."
    lost = {None: "Lost writes were not counted.", 0: "No acknowledged write was lost."}
    words = lost.get(run.lost_writes, f"{run.lost_writes} acknowledged writes were lost.")
    return f"{healed} of {total} faults healed and verified. {words}"


def why_not(run: Run) -> list[str]:
    """Why the run has not passed, one sentence each; empty when it has."""
    reasons = [f"{fault.name}: {_why(fault)}" for fault in run.faults if run.operator and not fault.verified]
    if run.operator and run.lost_writes != 0:
        reasons.append(f"acknowledged writes lost: {run.lost_writes}; the policy's maxDataLoss is {run.max_data_loss}")
    return reasons


def _why(fault: FaultRecord) -> str:
    if fault.incident is None:
        return "the operator opened no incident"
    if fault.decisive is None:
        return "the operator proposed no action"
    if not fault.decisive.healed:
        return f"{fault.decisive.name} ended as {fault.decisive.phase} ({fault.decisive.action.status.message})"
    if fault.hurt_at is None:
        return "the client never felt it, so nothing was shown"
    return "the client's latency did not come back"


def _fault(fault: FaultRecord) -> dict[str, Any]:
    decisive = fault.decisive
    return {
        "fault": fault.name,
        "detected_s": _tenth(fault.detected_s),
        "forecast": decisive.action.spec.forecast.sentence if decisive else None,
        "action": decisive.action.spec.action if decisive else None,
        "approved_by": fault.approved_by,
        "healed_s": _tenth(fault.healed_s),
        "verdict": (decisive.verdict or None) if decisive else None,
        "p99_ms": _p99(fault.p99),
    }


def _p99(p99: P99) -> Mapping[str, float | None]:
    return {"before": _tenth(p99.before), "during": _tenth(p99.during), "after": _tenth(p99.after)}


def _cells(fault: FaultRecord) -> tuple[str, ...]:
    decisive = fault.decisive
    return (
        fault.name,
        seconds(fault.detected_s),
        forecast_in_short(fault) or NOTHING,
        decisive.action.spec.action if decisive else NOTHING,
        fault.approved_by or NOTHING,
        seconds(fault.healed_s),
        decisive.verdict or decisive.phase.value if decisive else NOTHING,
    )


def _unhealed(fault: FaultRecord, run: Run) -> tuple[str, ...]:
    lasted = f"not healed in {run.bound_s or 0:.0f} s" if fault.healed_s is None else seconds(fault.healed_s)
    return (fault.name, lasted)


def p99_in_short(fault: FaultRecord) -> str:
    """`40 → 1,609 → 54`, in ms."""
    return " → ".join(milliseconds(each) for each in (fault.p99.before, fault.p99.during, fault.p99.after))


def forecast_in_short(fault: FaultRecord) -> str:
    """Root and what was at risk: `lock-manager → client, connections`."""
    if fault.decisive is None:
        return ""
    forecast = fault.decisive.action.spec.forecast
    others = [impact.component for impact in forecast.impacts if impact.component != forecast.root]
    root = forecast.root or "no single root"
    return f"{root} → {', '.join(others[:3])}" if others else root


def seconds(value: float | None) -> str:
    """Seconds for a table."""
    return NOTHING if value is None else f"{value:.1f} s"


def milliseconds(value: float | None) -> str:
    """Milliseconds for a table."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def _tenth(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
