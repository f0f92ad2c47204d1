"""Predict: where trouble started, and which components it reaches next.

Trouble travels along the topology's edges: the probability of a path is the product of its gains, its time the sum of
its delays, and the most probable path counts (Dijkstra over −log gain). Every component that is degraded now is a
source. The **root** is the component that explains most of the others in this incident: the sum of its path
probabilities to those that did not leave their bands (much) before it. So the earliest wins where it is upstream, an
old drift elsewhere does not, and a root stays one when it has recovered and others have not. Where none explains at
least half of the others, the root is unknown and said to be.

Thresholds differ between signals, so an order within two samples says little, and less at the ends of the graph: a
client's latency moves by milliseconds long before a lock wait lasts a second. Whatever explains nothing itself may
therefore have left its band somewhat before its cause (`EARLY` tolerances).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.forecast import NO_FORECAST, Forecast, Impact
from kintsugi.domain.text import human
from kintsugi.domain.topology import Edge, Topology

DEGRADED: Final = 0.5
"""A component's score from which it counts as degraded: its worst signal is at its threshold."""

LISTED: Final = 0.15
"""Risks below this are not worth a sentence."""

EXPLAINS: Final = 0.25
"""A path less probable than this explains nothing."""

EARLY: Final = 4.0
"""Tolerances by which a component at the end of the graph may precede its cause."""

NAMED: Final = 3
"""Components named in the sentence."""

ANY_MOMENT: Final = 1.0
"""Seconds left of an impact that is due and has not come: not 0, because 0 says that it has."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The most probable way from a source: its probability, its time in seconds, its components from the source on."""

    probability: float
    delay: float
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A component of this incident: how degraded it is now (its score), and when it first left its band."""

    component: str
    strength: float
    onset: float


class PropagationPredictor:
    """Deviation propagated along the engine's topology. Needs no training.

    Args:
        tolerance: seconds within which departures count as simultaneous; about two and a half scrape intervals.
    """

    def __init__(self, tolerance: float = 2.5) -> None:
        self._tolerance = tolerance

    def predict(self, anomaly: Anomaly, topology: Topology, now: float) -> Forecast:
        """The forecast for one database; `NO_FORECAST` when nothing is flagged or no component is out of its band.

        Components without any signal in this database (no pooler, say) are not forecast: nobody would see it happen.
        """
        if not anomaly.flagged:
            return NO_FORECAST
        involved = _involved(anomaly, now)
        sources = [one for one in involved if one.strength >= DEGRADED]
        ways = {one.component: reaches(topology, one.component) for one in involved}
        root = _root(involved, ways, self._tolerance)
        seen = set(anomaly.components)
        impacts = (*_present(sources, ways, root), *_ahead(sources, ways, root, topology, seen, now))
        if root is None and not impacts:
            return NO_FORECAST
        return Forecast(root.component if root else None, impacts, _sentence(root, sources, impacts, topology, now))


def reaches(topology: Topology, source: str) -> Mapping[str, Reach]:
    """The most probable way from `source` to every component that it reaches, itself included."""
    outgoing: dict[str, list[Edge]] = {}
    for edge in topology.edges:
        outgoing.setdefault(edge.source, []).append(edge)
    done: dict[str, Reach] = {}
    queue: list[tuple[float, float, tuple[str, ...]]] = [(0.0, 0.0, (source,))]
    while queue:
        cost, delay, path = heapq.heappop(queue)
        here = path[-1]
        if here in done:
            continue
        done[here] = Reach(math.exp(-cost), delay, path)
        for edge in outgoing.get(here, ()):
            if edge.gain > 0 and edge.target not in done:
                gain = min(edge.gain, 1.0)
                heapq.heappush(queue, (cost - math.log(gain), delay + edge.delay, (*path, edge.target)))
    return done


def _involved(anomaly: Anomaly, now: float) -> list[Source]:
    """Components that are degraded, or were in this incident, in order of departure; an unknown one is just now."""
    left: dict[str, float] = {}
    for contribution in anomaly.contributions:
        if contribution.first_at is not None:
            left[contribution.component] = min(left.get(contribution.component, math.inf), contribution.first_at)
    found = [
        Source(component, score, left.get(component, now))
        for component, score in anomaly.components.items()
        if score >= DEGRADED or component in left
    ]
    return sorted(found, key=lambda s: (s.onset, -s.strength, s.component))


def _root(sources: Sequence[Source], ways: Mapping[str, Mapping[str, Reach]], tolerance: float) -> Source | None:
    """The source that explains most of the others, and at least half of them; of equal ones the earliest."""
    explained = {source.component: _explained(source, sources, ways, tolerance) for source in sources}
    enough = [s for s in sources if 2 * len(explained[s.component]) >= len(sources) - 1]
    return min(enough, key=lambda s: (-sum(explained[s.component]), s.onset, -s.strength, s.component), default=None)


def _explained(
    source: Source, sources: Sequence[Source], ways: Mapping[str, Mapping[str, Reach]], tolerance: float
) -> list[float]:
    """Probabilities of the other sources that this one could have caused: reachable, and not much earlier.

    One that left its band before its supposed cause counts less, half at the end of the tolerance.
    """
    found = []
    for other in sources:
        reach = ways[source.component].get(other.component)
        slack = max(tolerance, 1e-3) * (EARLY if _ends_at(other.component, ways) else 1)
        lead = max(source.onset - other.onset, 0.0)
        if other is not source and reach is not None and reach.probability >= EXPLAINS and lead <= slack:
            found.append(reach.probability * 0.5 ** (lead / slack))
    return found


def _ends_at(component: str, ways: Mapping[str, Mapping[str, Reach]]) -> bool:
    """Whether trouble goes no further from here."""
    return all(r.probability < EXPLAINS for name, r in ways[component].items() if name != component)


def _present(
    sources: Sequence[Source], ways: Mapping[str, Mapping[str, Reach]], root: Source | None
) -> tuple[Impact, ...]:
    """What is degraded already, the root first, then in order of departure."""
    ordered = sorted(sources, key=lambda s: (s is not root, s.onset, s.component))
    return tuple(Impact(s.component, s.strength, 0.0, _path(root, s.component, ways)) for s in ordered)


def _path(root: Source | None, component: str, ways: Mapping[str, Mapping[str, Reach]]) -> tuple[str, ...]:
    reach = ways[root.component].get(component) if root else None
    return reach.path if reach is not None and reach.probability >= EXPLAINS else (component,)


def _ahead(
    sources: Sequence[Source],
    ways: Mapping[str, Mapping[str, Reach]],
    root: Source | None,
    topology: Topology,
    seen: set[str],
    now: float,
) -> tuple[Impact, ...]:
    """What is not degraded yet and at risk, most probable first."""
    degraded = {source.component for source in sources}
    impacts = []
    for component in topology.components:
        if component in degraded or (component not in seen and "/" not in component):
            continue
        candidates = [
            _impact(source, reach, root, ways, now)
            for source in sources
            if (reach := ways[source.component].get(component)) is not None
        ]
        best = max(candidates, key=lambda i: (i.probability, -i.eta), default=None)
        if best is not None and best.probability >= LISTED:
            impacts.append(best)
    return tuple(sorted(impacts, key=lambda i: (-i.probability, i.eta, i.component)))


def _impact(
    source: Source, reach: Reach, root: Source | None, ways: Mapping[str, Mapping[str, Reach]], now: float
) -> Impact:
    """One way to one component. The longer it is overdue, the less it is believed: halved after each further delay."""
    left = source.onset + reach.delay - now
    overdue = max(-left, 0.0) / max(reach.delay, ANY_MOMENT)
    probability = min(source.strength, 1.0) * reach.probability * 0.5**overdue
    before = _path(root, source.component, ways)[:-1]
    path = reach.path if set(before) & set(reach.path) else (*before, *reach.path)
    return Impact(reach.path[-1], probability, max(left, ANY_MOMENT), path)


def _sentence(
    root: Source | None, sources: Sequence[Source], impacts: Sequence[Impact], topology: Topology, now: float
) -> str:
    """As in "lock manager since 12 s, then client; at risk: connections in ~9 s (84 %)"."""
    begun = _begun(root, sources, topology, now)
    soon = sorted((i for i in impacts if not i.degraded), key=lambda i: (-i.probability, i.eta))[:NAMED]
    words = [f"{topology.title(i.component)} in ~{human(round(i.eta))} ({i.probability * 100:.0f} %)" for i in soon]
    return f"{begun}; at risk: {', '.join(words)}" if words else begun


def _begun(root: Source | None, sources: Sequence[Source], topology: Topology, now: float) -> str:
    """What has happened so far."""
    names = [topology.title(source.component) for source in sources if source is not root][:NAMED]
    if root is None:
        return f"no single root: {', '.join(names)} left their bands independently"
    start = f"{topology.title(root.component)} since {human(max(now - root.onset, 0.0))}"
    if root.strength >= DEGRADED:
        return f"{start}, then {', '.join(names)}" if names else start
    return f"{start}, recovered; not yet: {', '.join(names)}" if names else f"{start}, recovering"
