"""The model card's pictures as SVG text: nothing to install, and the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

INK, FAINT, GRID = "#24292f", "#8c959f", "#eaeef2"
COLOURS: Final = ("#8c959f", "#54aeff", "#0969da", "#0a3069")
LEGEND: Final = ("no example", "1 example", "5 examples", "10 examples")

SIDE: Final = 180
GAP: Final = 60
ROW: Final = 16
NAMES: Final = 250
BAR: Final = 420
LEAST: Final = 0.5
"""Where the axis of the classes' AP begins."""


def reliability(sets: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Said against seen, a panel per set: on the diagonal a probability means what it says."""
    panels = [
        _panel(name, shots, GAP + number % 3 * (SIDE + GAP), GAP + number // 3 * (SIDE + GAP))
        for number, (name, shots) in enumerate(sets.items())
    ]
    rows = (len(sets) + 2) // 3
    return _svg(3 * (SIDE + GAP) + GAP, rows * (SIDE + GAP) + GAP, [*_legend(GAP), *panels])


def classes(sets: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """AP of every class, a mark per number of examples."""
    parts, y = [], 20
    for name, shots in sets.items():
        parts.append(_text(10, y + 12, name, bold=True))
        y += 22
        for group in sorted({group for values in shots.values() for group in values}):
            parts.append(_text(NAMES - 8, y + 11, group, anchor="end"))
            parts.append(f'<rect x="{NAMES}" y="{y + 7}" width="{BAR}" height="1" fill="{GRID}"/>')
            for (k, values), colour in zip(shots.items(), COLOURS, strict=False):
                if group in values:
                    x = NAMES + BAR * (max(values[group], LEAST) - LEAST) / (1 - LEAST)
                    said = f"{group}, {k[1:]} examples: {values[group]:.3f}"
                    parts.append(_dot(x, y + 7, colour, said))
            y += ROW
        y += 14
    axis = [_text(NAMES + BAR * share, y, f"{LEAST + (1 - LEAST) * share:g}", anchor="middle") for share in (0, 0.5, 1)]
    return _svg(NAMES + BAR + 40, y + 14, [*_legend(NAMES), *parts, *axis])


def _panel(name: str, shots: Mapping[str, Sequence[Sequence[float]]], x: int, y: int) -> str:
    out = [
        f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{GRID}"/>',
        f'<line x1="{x}" y1="{y + SIDE}" x2="{x + SIDE}" y2="{y}" stroke="{FAINT}" stroke-dasharray="3 3"/>',
        _text(x + SIDE / 2, y + SIDE + 14, "probability said", anchor="middle"),
        _text(x + 6, y + 16, "share seen"),
    ]
    lines = name.split(", ", 1)  # a long name in two lines, or it would run into the next panel's
    out += [_text(x, y - 8 - 13 * (len(lines) - 1 - at), line, bold=True) for at, line in enumerate(lines)]
    for (_, bins), colour in zip(shots.items(), COLOURS, strict=False):
        points = " ".join(f"{x + SIDE * said:.1f},{y + SIDE * (1 - seen):.1f}" for said, seen, _ in bins)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "\n".join(out)


def _legend(x: float) -> list[str]:
    return [
        part
        for at, (words, colour) in enumerate(zip(LEGEND, COLOURS, strict=True))
        for part in (_dot(x + 90 * at, 10, colour), _text(x + 90 * at + 8, 14, words))
    ]


def _dot(x: float, y: float, colour: str, said: str = "") -> str:
    title = f"<title>{_safe(said)}</title>" if said else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{title}</circle>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}>{_safe(words)}</text>'


def _safe(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")


def _svg(width: float, height: float, parts: Sequence[Any]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' font-family="sans-serif" font-size="11" fill="{INK}">'
    )
    return "\n".join([head, f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>', *parts, "</svg>", ""])
