"""Components and how trouble travels between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EdgeType(StrEnum):
    """Why trouble in the edge's source reaches its target."""

    WAITS_ON = "waits-on"
    SHARES = "shares"
    FEEDS = "feeds"
    HOLDS = "holds"
    REPLICA_OF = "replica-of"
    POOLED_BY = "pooled-by"
    DEPENDS_ON = "depends-on"


@dataclass(frozen=True, slots=True)
class Edge:
    """Trouble in `source` reaches `target` after about `delay` seconds, weakened to `gain` (0..1) of its strength."""

    source: str
    target: str
    type: EdgeType
    delay: float
    gain: float
    why: str


@dataclass(frozen=True, slots=True)
class Topology:
    """The components of one engine `[C]`, with their titles for people, and the edges `[E]` between them."""

    components: tuple[str, ...]
    titles: tuple[str, ...]
    edges: tuple[Edge, ...]

    def title(self, component: str) -> str:
        """The component's name in words; a name from elsewhere (`shop/customers`) is its own title."""
        return self.titles[self.components.index(component)] if component in self.components else component
