"""The collector's pure parts: configuration, the tree of waits, counters, the pooler's sums."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kintsugi.collector import pooler, queries, waits
from kintsugi.collector.config import ConfigError, load
from kintsugi.collector.exposition import Counters, Exposition

DATABASE: Mapping[str, Any] = {
    "name": "orders",
    "namespace": "shop",
    "database": "orders",
    "username": "monitor",
    "password": "secret-word",
    "members": [{"name": "orders-0", "host": "orders-0.orders"}],
}
MEMBER = {"name": "orders-0", "host": "x"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"passwordFile": "/p"}, "databases.0: give either password or passwordFile"),
        ({"username": None}, "databases.0: give either username or usernameFile"),
        ({"members": []}, "databases.0.members"),
        ({"members": [MEMBER, MEMBER]}, "databases.0.members: member orders-0 stands there more than once"),
        ({"members": [{**MEMBER, "port": 0}]}, "databases.0.members.0.port"),
        ({"labels": {"role": "x"}}, "'role' is set by the collector or Prometheus; choose another label name"),
        ({"labels": {"a-b": "x"}}, "'a-b' is not a label name"),
        ({"tls": "prefer"}, "databases.0.tls: Input should be 'disable', 'require', 'verify-ca' or 'verify-full'"),
        ({"pooler": {"host": "p", "username": "a"}}, "databases.0.pooler: give either password or passwordFile"),
        ({"pasword": "x"}, "databases.0.pasword: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_configuration_names_the_field_and_never_a_password(
    tmp_path: Path, changes: Mapping[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(a_file(tmp_path, {**DATABASE, **changes}))
    assert sentence in str(refused.value)
    assert "secret-word" not in str(refused.value)


def a_file(folder: Path, *databases: Mapping[str, Any], **more: Any) -> Path:
    path = folder / "collector.yaml"
    path.write_text(yaml.safe_dump({"databases": [dict(database) for database in databases], **more}))
    return path


def test_two_databases_of_the_same_name_or_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="database shop/orders stands there more than once"):
        load(a_file(tmp_path, DATABASE, DATABASE))
    other = {**DATABASE, "name": "other", "labels": {"service": "orders"}}
    with pytest.raises(ConfigError, match="set of labels"):
        load(a_file(tmp_path, DATABASE, other))


@pytest.mark.parametrize("budget", ["10ms", "2m", "fast", "0s"])
def test_a_budget_without_sense_is_refused(tmp_path: Path, budget: str) -> None:
    with pytest.raises(ConfigError, match="budget"):
        load(a_file(tmp_path, DATABASE, budget=budget))


def test_labels_are_the_namespace_and_the_name_unless_said_otherwise(tmp_path: Path) -> None:
    plain = load(a_file(tmp_path, DATABASE)).databases[0]
    named = load(a_file(tmp_path, {**DATABASE, "labels": {"service": "db", "tier": "1"}})).databases[0]
    assert plain.series_labels() == {"namespace": "shop", "service": "orders"}
    assert named.series_labels() == {"namespace": "shop", "service": "db", "tier": "1"}


def test_a_password_is_in_no_representation(tmp_path: Path) -> None:
    assert "secret-word" not in repr(load(a_file(tmp_path, DATABASE)))


@pytest.mark.parametrize(
    ("tree", "depth", "widest"),
    [
        ({}, 0, 0),
        ({2: [1]}, 1, 1),
        ({2: [1], 3: [1, 2], 4: [1, 2, 3]}, 1, 3),  # a queue: everybody waits for the holder too
        ({2: [1], 3: [2], 4: [3]}, 3, 3),  # a chain
        ({2: [1], 3: [2], 5: [4]}, 2, 2),  # two trees
        ({2: [0]}, 1, 1),  # behind a prepared transaction
        ({1: [2], 2: [1]}, 1, 1),  # a deadlock about to be broken
        ({2: []}, 0, 0),  # no longer blocked when asked
    ],
)
def test_the_tree_of_waits_is_measured_by_depth_and_by_its_worst_blocker(
    tree: Mapping[int, list[int]], depth: int, widest: int
) -> None:
    found = waits.measure([(pid, 1.5, blockers) for pid, blockers in tree.items()])
    assert (found["blocking_depth"], found["blocked_by_one"]) == (depth, widest)
    assert found["lock_wait_seconds"] == (1.5 if tree else 0)


@given(st.dictionaries(st.integers(1, 12), st.lists(st.integers(0, 12), max_size=4), max_size=12))
def test_any_tree_of_waits_is_measured_within_its_size(tree: dict[int, list[int]]) -> None:
    found = waits.measure([(pid, 0.0, blockers) for pid, blockers in tree.items()])
    assert 0 <= found["blocking_depth"] <= len(tree)
    assert 0 <= found["blocked_by_one"] <= len(tree)


@given(st.lists(st.floats(0, 1e12), min_size=1))
def test_a_counter_never_falls_and_counts_every_rise(readings: list[float]) -> None:
    counters = Counters()
    values = [counters.advance("calls_total", reading) for reading in readings]
    rises = sum(max(0.0, b - a) for a, b in itertools.pairwise(readings))
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] == pytest.approx(rises)


def test_samples_of_one_metric_stand_together_whoever_they_come_from() -> None:
    out = Exposition()
    for member in ("a", "b"):
        out.add("kintsugi_pg_up", "Up.", 1, {"member": member, "odd": 'quote " and \\ slash'})
        out.add("kintsugi_pg_calls_total", "Calls.", 2, {"member": member})
    families = {family.name: family for family in text_string_to_metric_families(out.text().decode())}
    assert [len(family.samples) for family in families.values()] == [2, 2]
    assert families["kintsugi_pg_calls"].type == "counter"
    assert families["kintsugi_pg_up"].samples[0].labels["odd"] == 'quote " and \\ slash'


def test_pools_are_added_up_and_the_fullest_one_counts() -> None:
    databases = {"orders": {"pool_size": 4}, "reports": {"pool_size": 0}}
    idle = {"cl_waiting": 0, "maxwait": 0, "maxwait_us": 0, "sv_active": 0, "sv_idle": 2, "sv_used": 1}
    busy = {"cl_waiting": 3, "maxwait": 2, "maxwait_us": 500_000, "sv_active": 3, "sv_idle": 0, "sv_used": 0}
    pools = [{"database": "orders", **idle}, {"database": "orders", **busy}]
    stats = [{"database": "orders", "total_query_count": 10, "total_wait_time": 2_500_000}]
    assert pooler.measure(databases, pools, stats) == {
        "clients_waiting": 3,
        "max_wait_seconds": 2.5,
        "servers_active": 3,
        "servers_idle": 3,
        "pool_used_ratio": 0.75,
        "queries_total": 10,
        "wait_seconds_total": 2.5,
    }


@pytest.mark.parametrize("query", [*queries.QUERIES, queries.WAITS], ids=lambda query: query.name)
def test_no_query_measures_sizes_or_writes(query: queries.Query) -> None:
    for text in query.sql.values():
        assert "_size(" not in text
        assert not any(word in text.upper().split() for word in ("INSERT", "UPDATE", "DELETE", "LOCK", "SET"))


def test_each_version_gets_the_newest_text_not_above_it() -> None:
    query = queries.Query("q", {13: "old", 17: "new"})
    assert [query.text(version) for version in (13, 16, 17, 19)] == ["old", "old", "new", "new"]


def test_the_documented_configuration_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/collector.md").read_text()
    path = tmp_path / "collector.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    database = load(path).databases[0]
    assert database.pooler is not None
    assert database.pooler.databases == ("orders",)
