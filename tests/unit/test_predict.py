from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.domain.anomaly import Anomaly, Contribution, Health
from kintsugi.domain.forecast import NO_FORECAST
from kintsugi.domain.topology import Edge, EdgeType, Topology
from kintsugi.engines.postgresql.topology import TOPOLOGY, with_neighbours
from kintsugi.stages.predict import PropagationPredictor, reaches

NOW = 1000.0


def an_anomaly(
    left: dict[str, float], scores: dict[str, float] | None = None, health: Health = Health.ANOMALOUS
) -> Anomaly:
    """Each component in `left` is degraded since then; all others are watched and well."""
    contributions = tuple(
        Contribution(f"{component}-signal", component, 20.0, 1.0, 0.0, "s", "…", first_at=at)
        for component, at in left.items()
    )
    components = dict.fromkeys(TOPOLOGY.components, 0.0) | dict.fromkeys(left, 0.9) | (scores or {})
    return Anomaly(health, 0.9, min(left.values(), default=NOW), contributions, components)


def test_a_lock_queue_puts_connections_and_client_at_risk() -> None:
    forecast = PropagationPredictor().predict(an_anomaly({"lock-manager": NOW - 1}), TOPOLOGY, NOW)
    ahead = {impact.component: impact for impact in forecast.ahead()}
    assert forecast.root == "lock-manager"
    assert ahead["connections"].eta == pytest.approx(4)
    assert ahead["connections"].probability == pytest.approx(0.9 * 0.85)
    assert ahead["pooler"].path == ("lock-manager", "connections", "pooler")
    likely = [impact.component for impact in forecast.impacts if impact.probability > 0.5]
    assert likely == ["lock-manager", "connections", "client", "pooler"]
    assert "lock manager since 1 s; at risk: " in forecast.sentence


def test_what_is_degraded_already_has_no_time_left() -> None:
    forecast = PropagationPredictor().predict(
        an_anomaly({"lock-manager": NOW - 12, "connections": NOW - 3}), TOPOLOGY, NOW
    )
    now = {impact.component: impact.eta for impact in forecast.impacts if impact.degraded}
    assert now == {"lock-manager": 0.0, "connections": 0.0}
    assert forecast.sentence.startswith("lock manager since 12 s, then connections")


def test_the_pooler_s_time_counts_from_when_the_connections_left_their_band() -> None:
    forecast = PropagationPredictor().predict(
        an_anomaly({"lock-manager": NOW - 60, "connections": NOW - 1}), TOPOLOGY, NOW
    )
    pooler = next(impact for impact in forecast.ahead() if impact.component == "pooler")
    assert pooler.eta == pytest.approx(2)
    assert pooler.path == ("lock-manager", "connections", "pooler")


def test_an_overdue_impact_is_never_called_degraded_and_is_believed_less_and_less() -> None:
    early = PropagationPredictor().predict(an_anomaly({"lock-manager": NOW - 1}), TOPOLOGY, NOW)
    late = PropagationPredictor().predict(an_anomaly({"lock-manager": NOW - 15}), TOPOLOGY, NOW)
    then = next(impact for impact in early.impacts if impact.component == "connections")
    now = next(impact for impact in late.impacts if impact.component == "connections")
    assert not now.degraded
    assert 0 < now.probability < then.probability / 2


def test_of_components_that_left_together_the_one_upstream_is_the_root() -> None:
    together = dict.fromkeys(("client", "connections", "query-engine", "planner-statistics"), NOW - 5)
    forecast = PropagationPredictor().predict(an_anomaly(together), TOPOLOGY, NOW)
    assert forecast.root == "planner-statistics"


def test_a_client_that_felt_it_first_is_still_not_the_root() -> None:
    forecast = PropagationPredictor().predict(an_anomaly({"client": NOW - 12, "lock-manager": NOW - 8}), TOPOLOGY, NOW)
    assert forecast.root == "lock-manager"


def test_the_root_stays_the_root_when_it_has_recovered_and_others_have_not() -> None:
    left = {"lock-manager": NOW - 30, "client": NOW - 27, "pooler": NOW - 25}
    forecast = PropagationPredictor().predict(an_anomaly(left, scores={"lock-manager": 0.1}), TOPOLOGY, NOW)
    assert forecast.root == "lock-manager"
    assert {impact.component for impact in forecast.impacts if impact.degraded} == {"client", "pooler"}
    assert forecast.sentence.startswith("lock manager since 30 s, recovered; not yet: client, pooler")


def test_an_incident_whose_components_are_all_back_is_said_to_recover() -> None:
    anomaly = an_anomaly({"lock-manager": NOW - 30}, scores={"lock-manager": 0.1})
    forecast = PropagationPredictor().predict(anomaly, TOPOLOGY, NOW)
    assert forecast.impacts == ()
    assert forecast.sentence == "lock manager since 30 s, recovering"


def test_an_old_drift_that_explains_little_is_not_the_root() -> None:
    left = {"autovacuum": NOW - 300, "lock-manager": NOW - 10, "connections": NOW - 5, "client": NOW - 4}
    assert PropagationPredictor().predict(an_anomaly(left), TOPOLOGY, NOW).root == "lock-manager"


def test_causes_that_don_t_explain_each_other_have_no_root() -> None:
    islands = Topology(("a", "b", "c"), ("a", "b", "c"), (Edge("a", "c", EdgeType.FEEDS, 5, 0.1, "hardly ever"),))
    anomaly = an_anomaly({"a": NOW - 9, "b": NOW - 8, "c": NOW - 7})
    forecast = PropagationPredictor().predict(anomaly, islands, NOW)
    assert forecast.root is None
    assert forecast.sentence.startswith("no single root: a, b, c")
    assert all(impact.path == (impact.component,) for impact in forecast.impacts)


def test_nothing_is_forecast_while_nothing_is_flagged() -> None:
    for health in (Health.NORMAL, Health.BLIND, Health.LEARNING):
        anomaly = an_anomaly({"lock-manager": NOW}, health=health)
        assert PropagationPredictor().predict(anomaly, TOPOLOGY, NOW) == NO_FORECAST


def test_a_component_without_signals_is_not_forecast() -> None:
    anomaly = an_anomaly({"lock-manager": NOW - 1})
    watched = {name: score for name, score in anomaly.components.items() if name != "pooler"}
    unpooled = Anomaly(anomaly.health, 0.9, NOW, anomaly.contributions, watched)
    forecast = PropagationPredictor().predict(unpooled, TOPOLOGY, NOW)
    assert "pooler" not in {impact.component for impact in forecast.impacts}
    assert "client" in {impact.component for impact in forecast.impacts}


def test_a_database_that_depends_on_this_one_is_at_risk() -> None:
    topology = with_neighbours(TOPOLOGY, dependents=["shop/reports"])
    forecast = PropagationPredictor().predict(an_anomaly({"query-engine": NOW}), topology, NOW)
    risk = next(impact for impact in forecast.ahead() if impact.component == "shop/reports")
    assert risk.path == ("query-engine", "client", "shop/reports")


def test_the_most_probable_path_wins_over_the_shorter_one() -> None:
    edges = (
        Edge("a", "c", EdgeType.FEEDS, 1, 0.3, "short cut"),
        Edge("a", "b", EdgeType.FEEDS, 5, 0.9, "first half"),
        Edge("b", "c", EdgeType.FEEDS, 5, 0.9, "second half"),
    )
    way = reaches(Topology(("a", "b", "c"), ("a", "b", "c"), edges), "a")["c"]
    assert way.path == ("a", "b", "c")
    assert way.probability == pytest.approx(0.81)
    assert way.delay == 10


@given(left=st.dictionaries(st.sampled_from(TOPOLOGY.components), st.floats(NOW - 600, NOW), min_size=1))
def test_probabilities_are_probabilities_and_times_are_not_negative(left: dict[str, float]) -> None:
    forecast = PropagationPredictor().predict(an_anomaly(left), TOPOLOGY, NOW)
    assert {i.component for i in forecast.impacts if i.degraded} == set(left)
    assert forecast.root is None or forecast.root in left
    for impact in forecast.impacts:
        assert 0 < impact.probability <= 1
        assert impact.eta >= 0
        assert impact.path[-1] == impact.component
        assert len(set(impact.path)) == len(impact.path)
