"""What the guard is told: the age of the newest sample, what is at work, who sees the primary down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from kintsugi.api.action import ActionStatus, Attempt, HealingAction, Phase
from kintsugi.domain.actions import Plan, Undo, UndoKind
from kintsugi.engines.engine import Diagnosis, MemberView
from kintsugi.loops.facts import candidate_of, guard_facts, newest_sample_age, observers
from kintsugi.loops.watch import new_watch
from kintsugi.shell.prometheus import Samples
from kintsugi_dev.builders import a_database
from kintsugi_dev.memory import POSTGRESQL, Memory, MemoryServices, candidate

NOW = 1_800_000_000.0


def age(*values: float, now: float = NOW) -> float | None:
    """Of samples a second apart, the last at NOW."""
    watch = new_watch(a_database(metrics={"prometheus": "http://p", "matchers": {"a": "b"}}), POSTGRESQL, NOW)
    times = NOW - np.arange(len(values) - 1, -1, -1, dtype=np.float64)
    watch.buffer.append(Samples(times, {"postgres_up": np.array(values, dtype=np.float64)}))
    return newest_sample_age(watch, now)


NAN = float("nan")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [((1, 1, 1), 0.0), ((1, NAN, NAN), 2.0), ((NAN, 1, NAN), 1.0), ((NAN, NAN), None), ((), None)],
)
def test_the_newest_sample_is_the_newest_that_was_measured(samples: tuple[float, ...], expected: float | None) -> None:
    assert age(*samples) == expected


def test_a_sample_from_the_future_is_not_fresh() -> None:
    assert age(1, 1, now=NOW - 20) == 20


def view(name: str, streaming: bool | None, *, reachable: bool = True) -> MemberView:
    fields: dict[str, Any] = dict.fromkeys(MemberView.__dataclass_fields__)
    return MemberView(**(fields | {"name": name, "reachable": reachable, "wal_receiver_streaming": streaming}))


def test_each_observer_speaks_for_itself_and_the_primary_does_not_observe_itself() -> None:
    diagnosis = Diagnosis(
        rows={},
        errors={},
        server_version=15,
        primary_reachable=False,
        metrics_down=True,
        primary_member="orders-0",
        members=(
            view("orders-0", None),
            view("orders-1", False),
            view("orders-2", True),
            view("orders-3", None),
            view("orders-4", False, reachable=False),
        ),
    )

    assert observers(diagnosis) == {
        "metrics": True,
        "direct connection": True,
        "orders-1": True,
        "orders-2": False,
        "orders-3": None,
        "orders-4": None,
    }


def test_without_a_diagnosis_nobody_has_seen_anything() -> None:
    assert observers(None) == {}


def at_work(memory: Memory) -> tuple[MemoryServices, HealingAction]:
    started = memory.now - timedelta(seconds=2)
    attempt = Attempt(started_at=started, executor="operator/1")
    key = memory.action(status=ActionStatus(phase=Phase.EXECUTING, attempts=(attempt,)))
    return memory.services(), memory.read(key)


def a_memory() -> Memory:
    memory = Memory()
    memory.policy()
    memory.database()
    return memory


def test_an_action_is_not_counted_against_itself() -> None:
    memory = a_memory()
    services, action = at_work(memory)
    database, watch = services.fleet.databases["shop/orders"], services.watches["shop/orders"]

    own = guard_facts(services, database, watch, candidate_of(action), "1402", memory.now, this=action.metadata.name)
    another = guard_facts(services, database, watch, candidate("create-index"), "1402", memory.now)

    assert (own.at_work_here, own.at_work, own.at_work_fleet) == ("", {}, 0)
    assert another.at_work_here == action.metadata.name
    assert (another.at_work, another.at_work_fleet) == ({"critical": 1}, 1)
    assert (own.tried, another.tried) == (0, 1)


def test_open_incidents_are_counted_over_the_fleet() -> None:
    memory = a_memory()
    services = memory.services()
    database = services.fleet.databases["shop/orders"]
    calm = a_database("stock")
    services.fleet.databases["shop/stock"] = calm

    facts = guard_facts(
        services, database, services.watches["shop/orders"], candidate("create-index"), "1402", memory.now
    )

    assert (facts.open_incidents, facts.databases) == (1, 2)


def test_a_candidate_made_from_an_object_has_its_plan_risk_and_touches() -> None:
    memory = a_memory()
    _, action = at_work(memory)

    found = candidate_of(action)

    original = candidate("terminate-blocker")
    assert isinstance(found.plan, Plan)
    assert found.plan.steps == original.plan.steps
    assert found.plan.undo == Undo(UndoKind.IMPOSSIBLE, (), original.plan.undo.note)
    assert (found.action, found.risk) == (original.action, original.risk)
