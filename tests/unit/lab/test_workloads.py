"""What every workload promises to faults, and how the clients' demand follows its controls."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from kintsugi_dev.load.measure import Journal
from kintsugi_ml.lab.faults.host import MemoryPressure
from kintsugi_ml.lab.workloads import WORKLOADS, backoffice
from kintsugi_ml.lab.workloads.base import Workload, skewed
from kintsugi_ml.lab.workloads.clients import Demand
from kintsugi_ml.lab.workloads.process import base_rates
from kintsugi_ml.lab.world import World

workloads = pytest.mark.parametrize("workload", [kind() for kind in WORKLOADS.values()], ids=list(WORKLOADS))


def a_demand(**base: float) -> Demand:
    return Demand(base or {"read": 10.0, "search": 2.0}, Random(0))


def columns(workload: Workload, table: str) -> set[str]:
    body = re.search(rf"CREATE TABLE {table} \((.*?)\n?\)[ ;]", workload.tables, re.DOTALL)
    assert body is not None
    return set(re.findall(r"(?:^|,)\s*(\w+) (?:bigint|text|integer|numeric|timestamptz|double)", body[1]))


@workloads
def test_what_a_fault_can_be_aimed_at_is_there(workload: Workload) -> None:
    targets = workload.targets

    assert {targets.hot_key, targets.hot_number} <= columns(workload, targets.hot_table)
    assert targets.lookup_column in columns(workload, targets.lookup_table)
    assert set(targets.write_columns) <= columns(workload, targets.write_table)
    assert f"{targets.lookup_index} ON {targets.lookup_table} ({targets.lookup_column})" in workload.tables
    assert not any(f"ON {targets.write_table} ({name})" in workload.tables for name in targets.write_columns)


@workloads
def test_every_request_has_a_share_and_none_is_called_like_one_of_the_back_office(workload: Workload) -> None:
    assert set(workload.shares()) == set(workload.work())
    assert sum(workload.shares().values()) == pytest.approx(1)
    assert not set(workload.work()) & set(backoffice.RATES)
    assert set(backoffice.work(backoffice.Ledger("client", Journal(None)))) == set(backoffice.RATES)


@workloads
def test_a_high_level_is_more_of_every_request(workload: Workload) -> None:
    low, high = base_rates(workload, "low"), base_rates(workload, "high")

    assert all(high[kind] > low[kind] for kind in low)
    assert sum(high.values()) == workload.rates["high"] + sum(backoffice.RATES.values())


@workloads
def test_memory_pressure_is_not_for_those_whose_reads_are_in_shared_buffers(workload: Workload) -> None:
    reason = MemoryPressure.unavailable(cast("World", SimpleNamespace(workload=workload, groups=object())))
    if workload.name in ("tpcc", "keyvalue"):
        assert reason == f"what {workload.name} reads is in shared buffers, so nobody misses the page cache"
    else:
        assert reason is None


def test_more_jobs_are_taken_than_come_in() -> None:
    assert backoffice.RATES["dequeue"] > backoffice.RATES["enqueue"]


def test_the_first_ten_rows_are_the_hottest() -> None:
    random = Random(3)
    drawn = Counter(skewed(random, 1000) for _ in range(20_000))

    assert min(drawn) == 1
    assert max(drawn) <= 1000
    assert all(drawn[row] > 4 * drawn[row * 10] for row in range(1, 11))


def test_the_factor_multiplies_the_base_and_extra_requests_come_on_top() -> None:
    demand = a_demand()
    demand.rate_factor, demand.extra = 3.0, {"search": 40.0}

    assert demand.at(0.0) == {"read": 30.0, "search": 46.0}


def test_a_factor_of_zero_leaves_only_what_is_extra() -> None:
    demand = a_demand()
    demand.rate_factor, demand.extra = 0.0, {"search": 1.0}

    assert demand.at(0.0) == {"search": 1.0}


def test_a_pattern_begins_when_it_is_set() -> None:
    demand = a_demand(read=100.0)
    demand.begin("growth", 1000.0)

    assert demand.at(1000.0)["read"] == pytest.approx(85)
    assert demand.at(1180.0)["read"] == pytest.approx(120)


def test_the_same_pattern_set_again_takes_another_course() -> None:
    demand = a_demand(read=100.0)
    demand.begin("wave", 0.0)
    first = demand.at(0.0)
    demand.begin("wave", 0.0)

    assert demand.at(0.0) != first


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        ({"rate_factor": -1}, "rate_factor must be a number that is not negative"),
        ({"rate_factor": "fast"}, "rate_factor must be a number that is not negative"),
        ({"extra": {"sarch": 4}}, "no request is called sarch; there are read, search"),
        ({"extra": ["search"]}, "extra must map kinds to requests per second"),
        ({"pattern": "chaos"}, "no pattern is called chaos; there are steady, wave, spikes, growth"),
        ({"rate": 2}, "there is no control called rate"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused_with_the_reason(control: dict[str, object], sentence: str) -> None:
    assert a_demand().refusal(control) == sentence


def test_a_control_that_makes_sense_is_not_refused() -> None:
    assert a_demand().refusal({"rate_factor": 2, "extra": {"search": 4.5}, "pattern": "wave"}) is None
