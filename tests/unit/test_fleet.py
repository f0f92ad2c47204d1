"""The registry: what the watch says and what a listing says, in whatever order they arrive."""

from __future__ import annotations

from typing import Any

from kintsugi.api.database import MonitoredDatabase
from kintsugi.loops.fleet import Fleet

DATABASES = MonitoredDatabase.PLURAL


def body(name: str = "orders", version: int = 10, uid: str = "u1", generation: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid,
            "generation": generation,
            "resourceVersion": str(version),
        },
        "spec": {
            "engine": "postgresql",
            "connection": {"host": "orders-rw", "database": "orders", "secretRef": "orders"},
            "metrics": {"prometheus": "http://prometheus:9090", "matchers": {"service": "orders"}},
        }
        | spec,
        "status": {"phase": f"v{version}"},
    }


def test_an_older_version_that_arrives_late_is_ignored() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body(version=10))

    fleet.apply(DATABASES, body(version=9))

    assert fleet.databases["shop/orders"].status.phase == "v10"
    assert fleet.raw_status[DATABASES, "shop/orders"] == {"phase": "v10"}


def test_versions_compare_as_numbers_and_not_as_text() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body(version=9))

    fleet.apply(DATABASES, body(version=10))

    assert fleet.databases["shop/orders"].status.phase == "v10"


def test_another_object_of_the_same_name_replaces_the_old_one_whatever_its_version() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body(version=10, uid="u1"))

    fleet.apply(DATABASES, body(version=9, uid="u2"))

    assert fleet.databases["shop/orders"].metadata.uid == "u2"


def test_what_a_listing_lacks_is_gone_and_said() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body("orders", version=10))
    fleet.apply(DATABASES, body("stock", version=11))

    missed = fleet.replace(DATABASES, [body("orders", version=10)], "20")

    assert missed == ["shop/stock is gone"]
    assert list(fleet.databases) == ["shop/orders"]


def test_what_was_created_while_the_listing_was_under_way_stays() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body("young", version=21))

    missed = fleet.replace(DATABASES, [], "20")

    assert missed == []
    assert list(fleet.databases) == ["shop/young"]


def test_a_listing_says_what_the_watch_had_not() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body("orders", version=10, generation=1))

    missed = fleet.replace(DATABASES, [body("orders", version=12, generation=2), body("stock", version=13)], "20")

    assert missed == ["shop/stock exists", "shop/orders has changed"]


def test_an_object_that_cannot_be_read_is_kept_apart_and_comes_back_when_it_can() -> None:
    fleet = Fleet()
    fleet.apply(DATABASES, body(version=10))

    fleet.apply(DATABASES, body(version=11, connection={"host": "x"}))
    assert "shop/orders" not in fleet.databases
    assert "spec.connection" in fleet.broken[DATABASES, "shop/orders"].problem

    fleet.apply(DATABASES, body(version=12))
    assert fleet.databases["shop/orders"].status.phase == "v12"
    assert fleet.broken == {}


def test_before_everything_was_listed_nothing_is_known_to_be_absent() -> None:
    fleet = Fleet()

    assert fleet.exists(DATABASES, "shop/orders", "u1") is None
    fleet.complete = True
    assert fleet.exists(DATABASES, "shop/orders", "u1") is False


def test_a_database_created_anew_under_the_same_name_is_another_one() -> None:
    fleet = Fleet(complete=True)
    fleet.apply(DATABASES, body(uid="u2"))

    assert fleet.exists(DATABASES, "shop/orders", "u1") is False
    assert fleet.exists(DATABASES, "shop/orders", "u2") is True


def test_a_database_that_cannot_be_read_is_not_taken_for_deleted() -> None:
    fleet = Fleet(complete=True)
    fleet.apply(DATABASES, body(uid="u1", connection={"host": "x"}))

    assert fleet.exists(DATABASES, "shop/orders", "u1") is True
