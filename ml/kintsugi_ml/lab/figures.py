"""Pictures of the data set: the cascade of each class in its typical run, and who moves when over all classes.

With the same matplotlib the same runs give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from kintsugi.domain.frame import Floats
from kintsugi_ml.lab import cascades
from kintsugi_ml.lab.dataset import Run
from kintsugi_ml.lab.manifest import Entry
from kintsugi_ml.lab.truth.measures import MEASURES, Measure
from kintsugi_ml.lab.truth.onset import Band, Move, band, moves

INK, FAINT, BAND, ACCENT, HEAL = "#24292f", "#8c959f", "#eaeef2", "#cf222e", "#1a7f37"
WIDTH: Final = 8.4
"""Inches; GitHub shows some 9 without scaling."""
LANE: Final = 0.42
PER_SECOND: Final = 2
"""Points drawn per second, each the farthest from normal of its half second; more can't be seen."""
STYLE: Final[dict[Any, Any]] = {
    # Comes with matplotlib, so that the layout is the same everywhere.
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "kintsugi",
}
_UNSEEN: Final = (
    (r"(\d+\.\d)\d+", r"\1"),  # less than a tenth of a point
    (r'<g id="[xy]tick_\d+">\s*<g id="line2d_\d+"/>\s*</g>\s*', ""),  # ticks of length 0
    (r"(?<=font-family: 'DejaVu Sans', )[^;]*", "sans-serif"),
    (r"(?m)^ +", ""),
)


def cascade(run: Run, title: str) -> str:
    """The SVG of one run: the clients' p95 on top, then a lane per component that moved, first mover first."""
    entry, parts = run.entry, run.entry.parts
    if parts is None:
        raise ValueError(f"run {entry.id} has no parts to draw ({entry.status})")
    found = moves(run.truth, parts, MEASURES)
    moved = sorted(((move, name) for name, move in found.items() if move), key=lambda item: (item[0].onset, item[1]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.75 + LANE * len(moved)), facecolor="white", layout="constrained")
        ratios = [2.4] + [1.0] * len(moved)
        axes = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        _clients(axes[0], run)
        for axis, (move, component) in zip(axes[1:], moved, strict=True):
            _lane(axis, run, component, move)
        for axis in axes:
            _moments(axis, entry)
        _marks(axes[0], entry)
        axes[-1].set_xlim(parts.normal - parts.injected, parts.ended - parts.injected)
        axes[-1].set_xlabel("seconds since the injection", fontsize=8)
        return _svg(figure)


def overview(runs: Sequence[Entry], components: Sequence[str]) -> bytes:
    """The PNG of classes by components: median onset in seconds, where at least half of the runs moved."""
    classes = cascades.by_class(runs)
    seconds = np.full((len(classes), len(components)), np.nan)
    for row, members in enumerate(classes.values()):
        for lag in cascades.lags(members):
            if lag.component in components:
                seconds[row, components.index(lag.component)] = lag.seconds
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 1.3 + 0.24 * len(classes)), facecolor="white", layout="constrained")
        axis = figure.subplots()
        axis.imshow(np.log1p(seconds), cmap="YlOrRd_r", vmin=-1.2, vmax=np.log1p(90), aspect="auto")
        axis.set_facecolor("#f6f8fa")
        for row, column in zip(*np.nonzero(~np.isnan(seconds)), strict=True):
            value = seconds[row, column]
            colour = "white" if value < 0.6 else INK
            axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7.5, color=colour)
        axis.set_xticks(range(len(components)), components, rotation=40, ha="left", fontsize=8)
        axis.set_yticks(range(len(classes)), [_labelled(fault, members) for fault, members in classes.items()])
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        _frameless(axis)
        axis.set_xticks(np.arange(len(components) + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="white", linewidth=1.5)
        axis.tick_params(which="minor", length=0)
        return _png(figure)


def write_all(directory: Path, pictures: dict[str, bytes]) -> None:
    """Write the pictures, and remove what no class is called any more."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in directory.iterdir()} - pictures.keys():
        (directory / stale).unlink()
    for name, content in pictures.items():
        (directory / name).write_bytes(content)


def _clients(axis: Axes, run: Run) -> None:
    """The clients' p95 as Prometheus has it, logarithmic: what a person on call sees."""
    index = run.frame.signals.index("client_latency_p95")
    assert run.entry.injected_at is not None
    milliseconds = np.maximum(run.frame.values[:, index] * 1000, 0.1)
    axis.plot(run.frame.times - run.entry.injected_at, milliseconds, color=INK, linewidth=1.2)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.tick_params(axis="y", which="minor", left=False, labelleft=False)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("clients' p95, ms", rotation=0, ha="right", va="center", fontsize=8.5)
    axis.grid(axis="y", color=BAND, linewidth=0.8)
    _frameless(axis)


def _lane(axis: Axes, run: Run, component: str, move: Move) -> None:
    """A component's first measure to move, its normal band in grey, its onset marked."""
    entry = run.entry
    assert entry.parts is not None
    measure = next(measure for measure in MEASURES if measure.name == move.measure)
    column = run.truth.column(measure.name)
    normal = band(column[(run.truth.times >= entry.parts.normal) & (run.truth.times < entry.parts.injected)], measure)
    assert normal is not None, "a measure without a band has no onset"
    times, values = _thinned(run.truth.times - entry.parts.injected, column, measure)
    low, high = _range(values, normal)
    axis.axhspan(max(normal.low, low), min(normal.high, high), color=BAND, linewidth=0)
    axis.plot(times, values, color=INK, linewidth=0.9)
    axis.plot([move.onset], [low + 0.1 * (high - low)], marker="^", color=ACCENT, markersize=5, clip_on=False)
    axis.set_ylim(low, high)
    axis.set_yticks([])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(f"{component}  {move.onset:.1f} s", rotation=0, ha="right", va="center", fontsize=8.5)
    peak = np.nanmin(values) if normal.low > -np.inf and normal.high == np.inf else np.nanmax(values)
    label = f"{measure.name.replace('_', ' ')}, to {_quantity(float(peak), measure)}"
    axis.text(1.01, 0.5, label, transform=axis.transAxes, va="center", fontsize=7.5, color=FAINT)
    _frameless(axis)


def _thinned(times: Floats, values: Floats, measure: Measure) -> tuple[Floats, Floats]:
    """Of every half second the sample that hurts most."""
    steps = np.floor(times * PER_SECOND)
    starts = np.flatnonzero(np.diff(steps, prepend=-np.inf))
    worst = np.fmin if measure.hurts == "down" else np.fmax
    return times[starts], worst.reduceat(values, starts)


def _range(values: Floats, normal: Band) -> tuple[float, float]:
    edges = [edge for edge in (normal.low, normal.high) if np.isfinite(edge)]
    low, high = min(float(np.nanmin(values)), *edges), max(float(np.nanmax(values)), *edges)
    room = 0.06 * ((high - low) or 1.0)
    return low - room, high + room


def _moments(axis: Axes, entry: Entry) -> None:
    assert entry.parts is not None
    axis.axvline(0, color=ACCENT, linewidth=0.9, linestyle=(0, (4, 2)))
    axis.axvline(entry.parts.remedied - entry.parts.injected, color=HEAL, linewidth=0.9, linestyle=(0, (4, 2)))


def _marks(axis: Axes, entry: Entry) -> None:
    assert entry.parts is not None
    action = entry.remedy.action if entry.remedy else "nothing"
    for at, text, colour in (
        (0.0, "injected", ACCENT),
        (entry.parts.remedied - entry.parts.injected, action if action != "nothing" else "nothing done", HEAL),
    ):
        axis.annotate(
            text,
            (at, 1),
            xycoords=axis.get_xaxis_transform(),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=7.5,
            color=colour,
        )


def _frameless(axis: Axes) -> None:
    for spine in axis.spines.values():
        spine.set_visible(False)


def _labelled(fault: str, members: Sequence[Entry]) -> str:
    return f"{fault}{' (harmless)' if members[0].negative else ''}  {len(members)}"


def _quantity(value: float, measure: Measure) -> str:
    if measure.unit in ("B", "B/s"):
        return f"{value / 1e6:.3g} M{measure.unit}"
    return f"{value:.3g} {measure.unit}" if measure.unit != "ratio" else f"{value:.2f}"


def _svg(figure: Figure) -> str:
    """The figure as SVG at half of matplotlib's size, by leaving out what can't be seen."""
    target = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(target, format="svg", metadata=metadata)
    text = target.getvalue()
    for pattern, instead in _UNSEEN:
        text = re.sub(pattern, instead, text)
    return text


def _png(figure: Figure) -> bytes:
    """The figure as PNG with a palette, a third of the size of true colour."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110, metadata={"Software": None})
    small = io.BytesIO()
    Image.open(target).convert("RGB").quantize(64).save(small, format="png", optimize=True)
    return small.getvalue()
