from __future__ import annotations

from kintsugi.domain.topology import EdgeType
from kintsugi.engines.catalogue import COMPONENTS
from kintsugi.engines.postgresql.topology import TOPOLOGY, fleet, with_neighbours
from kintsugi.stages.predict import EXPLAINS, reaches


def test_every_component_that_signals_belong_to_is_in_the_graph() -> None:
    assert set(TOPOLOGY.components) == set(COMPONENTS)
    assert len(TOPOLOGY.titles) == len(TOPOLOGY.components)


def test_every_edge_joins_known_components_and_has_a_reason_and_sane_numbers() -> None:
    pairs = [(edge.source, edge.target) for edge in TOPOLOGY.edges]
    assert len(pairs) == len(set(pairs))
    for edge in TOPOLOGY.edges:
        assert {edge.source, edge.target} <= set(TOPOLOGY.components)
        assert edge.source != edge.target
        assert 0 < edge.gain < 1
        assert 0 < edge.delay <= 600
        assert len(edge.why) > 10


def test_trouble_anywhere_reaches_the_client() -> None:
    for component in TOPOLOGY.components:
        assert "client" in reaches(TOPOLOGY, component)


def test_locks_reach_the_pooler_by_the_connections_they_hold() -> None:
    assert reaches(TOPOLOGY, "lock-manager")["pooler"].path == ("lock-manager", "connections", "pooler")


def test_the_client_explains_nothing_else() -> None:
    others = {name: r for name, r in reaches(TOPOLOGY, "client").items() if name != "client"}
    assert all(reach.probability < EXPLAINS for reach in others.values())


def test_a_dependency_s_trouble_reaches_sessions_and_dependents_follow_the_client() -> None:
    topology = with_neighbours(TOPOLOGY, dependencies=["shop/customers"], dependents=["shop/reports"])
    assert reaches(topology, "shop/customers")["connections"].delay > 0
    assert reaches(topology, "lock-manager")["shop/reports"].path[-2:] == ("client", "shop/reports")
    assert topology.title("shop/customers") == "shop/customers"
    assert topology.title("lock-manager") == "lock manager"


def test_the_fleet_s_graph_has_all_three_kinds_of_edges() -> None:
    topology = fleet({"a/x": ["a/y"]}, pooled_by={"a/x": "a/pool"}, replica_of={"a/z": "a/y"})
    assert {edge.type for edge in topology.edges} == {EdgeType.DEPENDS_ON, EdgeType.POOLED_BY, EdgeType.REPLICA_OF}
    assert set(reaches(topology, "a/y")) == {"a/y", "a/x", "a/z", "a/pool"}
