"""The client's p99, second by second on a logarithmic scale, with the events drawn in and the phases below, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from kintsugi_dev.demo import measures
from kintsugi_dev.demo.record import Second
from kintsugi_dev.demo.report.words import attributes, clock, milliseconds, text

LEFT, RIGHT = 64.0, 14.0
AXIS, LANE, LANE_GAP = 24.0, 18.0, 4.0
LABEL_ROW, CHARACTER, LABEL_GAP = 15.0, 6.1, 8.0
DECADES = (1.0, 10.0, 100.0, 1000.0, 10000.0)


@dataclass(frozen=True)
class Mark:
    """A vertical line at a moment, with its label above the plot."""

    at: float
    label: str
    kind: str


@dataclass(frozen=True)
class Band:
    """A span of time behind the curve; a label stands in its middle, above."""

    start: float
    end: float
    label: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Segment:
    """A span of a lane."""

    start: float
    end: float
    label: str
    kind: str
    title: str = ""


@dataclass(frozen=True)
class Lane:
    """A row below the plot."""

    title: str
    segments: Sequence[Segment]


@dataclass(frozen=True)
class Chart:
    """Everything that a chart shows. `origin` is the moment that the time axis counts from; None: the clock's time."""

    name: str
    title: str
    start: float
    end: float
    seconds: Sequence[Second]
    limits: Sequence[tuple[float, float, float]]
    """Where a second is too slow: from, to, and above how many ms."""
    slo_ms: float
    origin: float | None = None
    marks: Sequence[Mark] = ()
    bands: Sequence[Band] = ()
    lanes: Sequence[Lane] = ()
    width: float = 740.0
    plot: float = 150.0

    def x(self, at: float) -> float:
        """Where a moment is."""
        share = (min(max(at, self.start), self.end) - self.start) / max(self.end - self.start, 1e-9)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, ms: float) -> float:
        """Where a latency is, from the plot's top."""
        low, high = math.log10(DECADES[0]), math.log10(DECADES[-1])
        share = (math.log10(min(max(ms, DECADES[0]), DECADES[-1])) - low) / (high - low)
        return (1 - share) * self.plot

    def limit(self, second: int) -> float:
        """Above how many ms this second is too slow."""
        return next((limit for start, end, limit in self.limits if start <= second + 1 and second < end), math.inf)


def svg(chart: Chart) -> str:
    """The chart."""
    rows = _rows(chart)
    top = 8 + LABEL_ROW * (max((row for _, row in rows), default=-1) + 1) + (LABEL_ROW if _labelled(chart) else 0)
    height = top + chart.plot + AXIS + len(chart.lanes) * (LANE + LANE_GAP)
    head = attributes(
        {
            "class": "chart",
            "viewBox": f"0 0 {chart.width:.0f} {height:.0f}",
            "role": "img",
            "tabindex": 0,
            "aria-label": f"{chart.title}. Arrow keys read it second by second.",
            "data-chart": chart.name,
            "data-start": f"{chart.start:.3f}",
            "data-end": f"{chart.end:.3f}",
            "data-left": LEFT,
            "data-right": RIGHT,
            "data-top": f"{top:.1f}",
            "data-plot": chart.plot,
            "data-origin": "" if chart.origin is None else f"{chart.origin:.3f}",
        }
    )
    parts = [
        f"<svg{head}>",
        f'<g transform="translate(0 {top:.1f})">',
        *_bands(chart),
        *_grid(chart),
        *_marks(chart, rows),
        *_curve(chart),
        *_rug(chart),
        *_time_axis(chart),
        *_lanes(chart),
        f'<line class="cursor" x1="0" x2="0" y1="0" y2="{chart.plot:.0f}" visibility="hidden"/>',
        "</g></svg>",
    ]
    return "".join(parts)


def _labelled(chart: Chart) -> bool:
    return any(band.label for band in chart.bands)


def _bands(chart: Chart) -> Iterable[str]:
    for band in chart.bands:
        left, right = chart.x(band.start), chart.x(band.end)
        yield f'<rect class="band" x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" height="{chart.plot:.0f}"/>'
        if band.label:
            label = f'<text class="band-label" x="{(left + right) / 2:.1f}" y="-7">{text(band.label)}</text>'
            yield f'<a href="#{text(band.anchor)}">{label}</a>' if band.anchor else label


def _grid(chart: Chart) -> Iterable[str]:
    right = chart.width - RIGHT
    for value in DECADES:
        y = chart.y(value)
        label = f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.0f} s"
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
    if not any(math.isclose(chart.slo_ms, value) for value in DECADES):
        y = chart.y(chart.slo_ms)
        yield f'<line class="slo" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _rows(chart: Chart) -> list[tuple[Mark, int]]:
    """Each mark with the row of its label: as low as it goes without touching an earlier one."""
    free: list[float] = []
    placed = []
    for mark in sorted(chart.marks, key=lambda each: each.at):
        start, end = _label_span(chart, mark)
        row = next((number for number, until in enumerate(free) if until <= start), len(free))
        free[row : row + 1] = [end]
        placed.append((mark, row))
    return placed


def _label_span(chart: Chart, mark: Mark) -> tuple[float, float]:
    """The label stands right of its line, or left of it where the chart ends."""
    x, wide = chart.x(mark.at), len(mark.label) * CHARACTER + LABEL_GAP
    return (x, x + wide) if x + wide <= chart.width else (x - wide, x)


def _marks(chart: Chart, rows: Sequence[tuple[Mark, int]]) -> Iterable[str]:
    for mark, row in rows:
        x, y = chart.x(mark.at), -6 - row * LABEL_ROW
        left = _label_span(chart, mark)[0] < x
        anchor = f'x="{x - 4:.1f}" text-anchor="end"' if left else f'x="{x + 4:.1f}"'
        yield (
            f'<g class="mark {mark.kind}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9:.1f}" y2="{chart.plot:.0f}"/>'
            f'<text {anchor} y="{y:.1f}">{text(mark.label)}</text></g>'
        )


def _curve(chart: Chart) -> Iterable[str]:
    """One step per second, in runs of calm and of slow seconds, each joined to the one before."""
    shown = [s for s in chart.seconds if s.second + 1 > chart.start and s.second < chart.end]
    last: tuple[float, float] | None = None
    for slow, run in groupby(shown, key=lambda s: measures.felt_ms(s) > chart.limit(s.second)):
        points = [point for second in run for point in _step(chart, second)]
        joined = [last, *points] if last is not None else points
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in joined)
        if slow:
            area = f"{path}L{points[-1][0]:.1f} {chart.plot:.1f}L{points[0][0]:.1f} {chart.plot:.1f}Z"
            yield f'<path class="area" d="{area}"/>'
        yield f'<path class="curve{" slow" if slow else ""}" d="{path}"/>'
        last = points[-1]


def _step(chart: Chart, second: Second) -> list[tuple[float, float]]:
    y = chart.y(measures.felt_ms(second))
    return [(chart.x(second.second), y), (chart.x(second.second + 1), y)]


def _rug(chart: Chart) -> Iterable[str]:
    """A tick at the bottom for each second in which requests failed."""
    for second in chart.seconds:
        if second.failed and chart.start <= second.second < chart.end:
            left, right = chart.x(second.second), chart.x(second.second + 1)
            wide = max(right - left - 0.6, 1)
            yield f'<rect class="rug" x="{left:.1f}" y="{chart.plot - 4:.1f}" width="{wide:.1f}" height="4"/>'


def _time_axis(chart: Chart) -> Iterable[str]:
    step = next((each for each in (5, 10, 15, 30, 60, 120) if (chart.end - chart.start) / each <= 12), 300)
    origin = chart.start if chart.origin is None else chart.origin
    first = math.ceil((chart.start - origin) / step) * step
    y = chart.plot + 15
    yield f'<line class="axis" x1="{LEFT}" x2="{chart.width - RIGHT}" y1="{chart.plot:.0f}" y2="{chart.plot:.0f}"/>'
    for number in range(int((chart.end - origin - first) // step) + 1):
        after = first + number * step
        label = clock(origin + after) if chart.origin is None else f"{after:+d} s" if after else "0"
        yield f'<text class="tick" x="{chart.x(origin + after):.1f}" y="{y:.0f}" text-anchor="middle">{label}</text>'


def _lanes(chart: Chart) -> Iterable[str]:
    for number, lane in enumerate(chart.lanes):
        y = chart.plot + AXIS + number * (LANE + LANE_GAP)
        yield f'<text class="lane-title" x="{LEFT - 8}" y="{y + 12.5:.1f}" text-anchor="end">{text(lane.title)}</text>'
        yield f'<rect class="lane" x="{LEFT}" y="{y:.1f}" width="{chart.width - LEFT - RIGHT:.1f}" height="{LANE}"/>'
        for segment in lane.segments:
            yield from _segment(chart, segment, y)


def _segment(chart: Chart, segment: Segment, y: float) -> Iterable[str]:
    left, right = chart.x(segment.start), chart.x(segment.end)
    if right <= left:
        return
    wide = max(right - left, 1.5)
    title = text(segment.title or f"{segment.label}, {segment.end - segment.start:.1f} s")
    yield f'<g class="segment {segment.kind.lower()}"><title>{title}</title>'
    yield f'<rect x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{LANE}" rx="2"/>'
    if wide > len(segment.label) * CHARACTER + 10:
        yield f'<text x="{left + 6:.1f}" y="{y + 12.5:.1f}">{text(segment.label)}</text>'
    yield "</g>"


def readout(second: Second) -> str:
    """One second in words, for tables and screen readers."""
    failed = f", {second.failed} failed" if second.failed else ""
    return f"p99 {milliseconds(measures.felt_ms(second))}, {second.count} requests{failed}"
