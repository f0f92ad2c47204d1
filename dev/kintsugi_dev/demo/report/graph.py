"""The component graph with a forecast's path: where it began, where it has been, where it goes next, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kintsugi.api.action import ActionForecast, ForecastImpact
from kintsugi.domain.text import human
from kintsugi.domain.topology import Edge, Topology
from kintsugi_dev.demo.report.words import attributes, percent, text

COLUMN, ROW = 124.0, 72.0
WIDE, HIGH = 108.0, 38.0
MARGIN = 8.0
BEND = 0.16
"""How far an edge bows out, of its length: two opposite edges stay apart, a long one clears what lies between."""

PLACES: Mapping[str, tuple[float, float]] = {
    "host-cpu": (0, 0.7),
    "host-memory": (0, 2.3),
    "planner-statistics": (1, 0.6),
    "query-engine": (1, 1.8),
    "buffer-pool": (1, 2.8),
    "autovacuum": (2, 0.1),
    "storage": (2.25, 2.3),
    "host-io": (2.25, 3.2),
    "lock-manager": (3, 0.4),
    "wal": (3.5, 2.8),
    "connections": (3.75, 1.5),
    "pooler": (4, 0),
    "replication": (4.5, 2.6),
    "client": (5, 1.5),
}
"""Column and row of PostgreSQL's components, hosts at the left and clients at the right, so that no edge runs behind a
third component; components without a place go in rows below."""


@dataclass(frozen=True)
class Node:
    """A component at its place; `kind` is root, degraded, ahead or calm."""

    component: str
    title: str
    x: float
    y: float
    kind: str
    note: str = ""
    path: tuple[str, ...] = ()


def svg(topology: Topology, forecast: ActionForecast, name: str) -> str:
    """The graph; `name` makes its ids unique on the page."""
    nodes = _nodes(topology, forecast)
    taken = _path_edges(forecast)
    columns = max(node.x for node in nodes.values()) + WIDE / 2 + MARGIN
    rows = max(node.y for node in nodes.values()) + HIGH / 2 + MARGIN
    label = f"Component graph. {forecast.sentence}" if forecast.sentence else "Component graph"
    head = attributes(
        {"class": "graph", "viewBox": f"0 0 {columns:.0f} {rows:.0f}", "role": "group", "aria-label": label}
    )
    calm = (edge for edge in topology.edges if (edge.source, edge.target) not in taken)
    parts = [f"<svg{head}>", _markers(name)]
    parts += [_edge(nodes, edge.source, edge.target, "edge", "", _why(topology, edge)) for edge in calm]
    parts += [_taken(nodes, topology, pair, kind, name) for pair, kind in taken.items()]
    parts += [_node(topology, node) for node in sorted(nodes.values(), key=lambda node: (node.x, node.y))]
    return "".join([*parts, "</svg>"])


def _nodes(topology: Topology, forecast: ActionForecast) -> dict[str, Node]:
    impacts = {impact.component: impact for impact in forecast.impacts}
    strangers = [c for c in (*topology.components, *impacts) if c not in PLACES]
    below = max(row for _, row in PLACES.values()) + 1
    places = {**PLACES, **{c: (float(number % 6), below + number // 6) for number, c in enumerate(strangers)}}
    known = dict.fromkeys((*topology.components, *impacts))
    return {c: _placed(topology, c, places[c], impacts.get(c), forecast.root) for c in known}


def _placed(
    topology: Topology, component: str, place: tuple[float, float], impact: ForecastImpact | None, root: str
) -> Node:
    x, y = MARGIN + WIDE / 2 + place[0] * COLUMN, MARGIN + HIGH / 2 + place[1] * ROW
    title = topology.title(component)
    if impact is None:
        return Node(component, title, x, y, "root" if component == root else "calm")
    if impact.eta_seconds > 0:
        note = f"{percent(impact.probability)} in ~{_about(impact.eta_seconds)}"
        return Node(component, title, x, y, "ahead", note, impact.path)
    if component == root:
        return Node(component, title, x, y, "root", "began here", impact.path)
    return Node(component, title, x, y, "degraded", f"degraded, {percent(impact.probability)}", impact.path)


def _about(seconds: float) -> str:
    """A time to impact as short as it is certain: whole minutes from one and a half on."""
    return human(max(1, round(seconds)) if seconds < 90 else round(seconds / 60) * 60)


def _path_edges(forecast: ActionForecast) -> dict[tuple[str, str], str]:
    """The edges that the trouble has travelled (`spread`) or will travel (`ahead`); what has happened wins."""
    found: dict[tuple[str, str], str] = {}
    for impact in sorted(forecast.impacts, key=lambda impact: impact.eta_seconds <= 0):
        kind = "ahead" if impact.eta_seconds > 0 else "spread"
        for pair in zip(impact.path, impact.path[1:], strict=False):
            found[pair] = kind
    return found


def _markers(name: str) -> str:
    arrow = '<path d="M0 0L8 4L0 8Z"/>'
    return "".join(
        f'<marker id="{text(name)}-{kind}" class="arrow {kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6"'
        f' markerHeight="6" orient="auto-start-reverse">{arrow}</marker>'
        for kind in ("spread", "ahead")
    )


def _taken(nodes: Mapping[str, Node], topology: Topology, pair: tuple[str, str], kind: str, name: str) -> str:
    known = next((edge for edge in topology.edges if (edge.source, edge.target) == pair), None)
    marker = f' marker-end="url(#{text(name)}-{kind})"'
    return _edge(nodes, *pair, f"edge {kind}", marker, _why(topology, known) if known else "")


def _why(topology: Topology, edge: Edge) -> str:
    return f"{topology.title(edge.source)} → {topology.title(edge.target)}: {edge.why}"


def _edge(nodes: Mapping[str, Node], source: str, target: str, kind: str, marker: str, title: str) -> str:
    one, two = nodes[source], nodes[target]
    dx, dy = two.x - one.x, two.y - one.y
    middle = ((one.x + two.x) / 2 + BEND * dy, (one.y + two.y) / 2 - BEND * dx)
    x1, y1 = _border(one, middle, 2)
    x2, y2 = _border(two, middle, 4)
    path = f"M{x1:.1f} {y1:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {x2:.1f} {y2:.1f}"
    data = f' data-edge="{text(source)} {text(target)}"'
    return f'<path class="{kind}" d="{path}"{marker}{data}><title>{text(title)}</title></path>'


def _border(node: Node, towards: tuple[float, float], gap: float) -> tuple[float, float]:
    """Where the line from the node's middle towards a point leaves its box."""
    dx, dy = towards[0] - node.x, towards[1] - node.y
    reach = min(
        (WIDE / 2 + gap) / abs(dx) if dx else math.inf,
        (HIGH / 2 + gap) / abs(dy) if dy else math.inf,
    )
    return node.x + dx * min(reach, 1), node.y + dy * min(reach, 1)


def _node(topology: Topology, node: Node) -> str:
    way = " → ".join(topology.title(component) for component in node.path)
    spoken = ", ".join(
        part for part in (node.title, node.note, f"by way of {way}" if len(node.path) > 1 else "") if part
    )
    head = attributes(
        {
            "class": f"node {node.kind}",
            "tabindex": 0 if node.kind != "calm" else -1,
            "role": "img",
            "aria-label": spoken,
            "data-path": " ".join(node.path),
            "transform": f"translate({node.x - WIDE / 2:.1f} {node.y - HIGH / 2:.1f})",
        }
    )
    lines = [f'<text class="name" x="{WIDE / 2}" y="{16 if node.note else 23}">{text(node.title)}</text>']
    if node.note:
        lines.append(f'<text class="note" x="{WIDE / 2}" y="30">{text(node.note)}</text>')
    box = f'<rect width="{WIDE}" height="{HIGH}" rx="6"/>'
    return f"<g{head}><title>{text(spoken)}</title>{box}{''.join(lines)}</g>"


def legend() -> Iterable[str]:
    """What the colours mean."""
    yield '<span class="key root">began here</span>'
    yield '<span class="key degraded">degraded</span>'
    yield '<span class="key ahead">expected next</span>'
