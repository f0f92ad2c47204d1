"""Attacks on HealingPolicies: nobody without the right to automate loosens a boundary, only tightens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from kintsugi.shell.kube import load_api_client
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import Handle, Person, RefusedError, Shop
from kintsugi_dev.people.objects import a_policy
from kintsugi_dev.people.shop import POLICIES

POLICY = "ValidatingAdmissionPolicy 'kintsugi-policies'"
K = "kintsugi.dev/"
STRICT: dict[str, Any] = {
    "mode": "AutoLowRisk",
    "priority": 100,
    "selector": {"matchLabels": {"tier": "critical"}},
    "constraints": {"maxDataLoss": "0B", "maxReplicationLag": "10s", "protected": ["public.ledger"]},
    "actions": [{"name": "create-index", "mode": "Observe"}],
    "limits": {"perHour": 2, "cooldown": "3m", "concurrent": 1},
    "approval": {"expiresAfter": "30m", "approvers": 2},
}


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    opened = Shop.opened(load_api_client(str(cluster.kubeconfig)))
    yield opened
    opened.close()


def strict(target: Handle) -> None:
    """As it was made."""


def paused_in_spec(target: Handle) -> None:
    target.spec(target.shop.eve, paused=True)


def paused(target: Handle) -> None:
    target.annotate(target.shop.pat, pause="migration")


def lowered(target: Handle) -> None:
    target.spec(target.shop.eve, mode="Observe")


def make(person: Person, shop: Shop, **spec: Any) -> object:
    return person.create(POLICIES, shop.namespace, a_policy(**spec))


def _make_by_eve(mode: str, shop: Shop, target: Handle) -> object:
    return make(shop.eve, shop, mode=mode)


@dataclass(frozen=True)
class Attack:
    """What somebody does to a policy, and the words with which the API server must refuse it."""

    name: str
    strike: Callable[[Shop, Handle], object]
    says: str
    given: Callable[[Handle], object] = strict


CHANGE = "eve may not change the policy"
STAMPS = "stamps are the API server's"

ATTACKS = (
    *(
        Attack(
            f"an editor creates a policy of mode {mode}",
            partial(_make_by_eve, mode),
            f"eve may not create a policy of mode {mode}",
        )
        for mode in ("Approve", "AutoLowRisk", "AutoMediumRisk")
    ),
    Attack(
        "an editor creates a policy that acts by itself, by server-side apply",
        lambda s, t: s.eve.apply(POLICIES, s.namespace, "evil", a_policy("evil", mode="AutoMediumRisk")),
        "eve may not create a policy of mode AutoMediumRisk",
    ),
    Attack(
        "an editor raises the mode of a policy of higher priority",
        lambda s, t: t.spec(s.eve, mode="AutoMediumRisk"),
        CHANGE,
    ),
    Attack("an editor lowers its priority", lambda s, t: t.spec(s.eve, priority=-1), CHANGE),
    Attack("an editor raises its priority", lambda s, t: t.spec(s.eve, priority=1000), CHANGE),
    Attack("an editor removes a protected table", lambda s, t: t.spec(s.eve, constraints={"protected": None}), CHANGE),
    Attack("an editor allows data loss", lambda s, t: t.spec(s.eve, constraints={"maxDataLoss": "1GB"}), CHANGE),
    Attack(
        "an editor makes the selector miss",
        lambda s, t: t.spec(s.eve, selector={"matchLabels": {"tier": "none"}}),
        CHANGE,
    ),
    Attack("an editor removes an action's stricter mode", lambda s, t: t.spec(s.eve, actions=None), CHANGE),
    Attack(
        "an editor asks for one approver instead of two", lambda s, t: t.spec(s.eve, approval={"approvers": 1}), CHANGE
    ),
    Attack("an editor allows more actions an hour", lambda s, t: t.spec(s.eve, limits={"perHour": 1000}), CHANGE),
    Attack(
        "an editor lowers the mode and opens a limit in one request",
        lambda s, t: t.spec(s.eve, mode="Observe", limits={"cooldown": "1s"}),
        CHANGE,
    ),
    Attack(
        "an editor opens a limit of a policy that only observes",
        lambda s, t: t.spec(s.eve, limits={"cooldown": "1s"}),
        CHANGE,
        lowered,
    ),
    Attack("an editor raises a mode that was lowered", lambda s, t: t.spec(s.eve, mode="AutoLowRisk"), CHANGE, lowered),
    Attack("an editor unpauses in the spec", lambda s, t: t.spec(s.eve, paused=False), CHANGE, paused_in_spec),
    Attack("an editor removes paused from the spec", lambda s, t: t.spec(s.eve, paused=None), CHANGE, paused_in_spec),
    Attack("an editor deletes a policy", lambda s, t: t.delete(s.eve), "eve may not delete the policy"),
    Attack(
        "an approver loosens what he must approve",
        lambda s, t: t.spec(s.ann, approval={"approvers": 1}),
        "ann may not change",
    ),
    Attack(
        "an editor writes a status",
        lambda s, t: t.status(s.eve, matched=0),
        "only the operator writes the status of a HealingPolicy",
    ),
    Attack("an editor pauses", lambda s, t: t.annotate(s.eve, pause="x"), "eve may not pause"),
    Attack("an editor unpauses", lambda s, t: t.annotate(s.eve, pause=None), "eve may not pause", paused),
    Attack("an editor sets paused-by alone", lambda s, t: t.annotate(s.eve, paused_by="pat"), STAMPS),
    Attack(
        "a DBA who may not pause deletes a paused policy",
        lambda s, t: t.delete(s.dora),
        "is paused, and deleting it",
        paused,
    ),
    Attack(
        "the operator pauses", lambda s, t: t.annotate(s.operator, pause="x"), "the operator approves, rejects, pauses"
    ),
    Attack(
        "the operator changes a policy",
        lambda s, t: t.spec(s.operator, mode="Observe"),
        "writes nothing but the status",
    ),
    Attack(
        "an acknowledgement on a policy",
        lambda s, t: t.annotate(s.pat, acknowledge="x"),
        "means nothing on a HealingPolicy",
    ),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_api_server_refuses(shop: Shop, attack: Attack) -> None:
    target = Handle(shop, POLICIES, shop.policy(**STRICT))
    attack.given(target)
    before = target.object()

    with pytest.raises(RefusedError) as refused:
        attack.strike(shop, target)

    assert attack.says in str(refused.value)
    assert POLICY in str(refused.value)
    assert "resulted in error" not in str(refused.value)
    assert target.object() == before


@pytest.fixture
def target(shop: Shop) -> Handle:
    return Handle(shop, POLICIES, shop.policy(**STRICT))


@pytest.mark.parametrize("mode", ["Observe", "Recommend"])
def test_an_editor_creates_a_policy_that_does_not_act(shop: Shop, mode: str) -> None:
    make(shop.eve, shop, mode=mode, priority=1000)


@pytest.mark.parametrize(
    "tighter", [{"mode": "Approve"}, {"mode": "Observe"}, {"paused": True}, {"mode": "Recommend", "paused": True}]
)
def test_an_editor_tightens_a_policy(target: Handle, tighter: dict[str, Any]) -> None:
    target.spec(target.shop.eve, **tighter)

    assert target.object()["spec"] == as_stored(target) | tighter


def as_stored(target: Handle) -> dict[str, Any]:
    """The strict policy with the defaults that the API server fills in."""
    stored: dict[str, Any] = target.shop.admin.create(POLICIES, target.shop.namespace, a_policy(**STRICT))["spec"]
    return stored


def test_the_dba_loosens_and_deletes_a_policy(target: Handle) -> None:
    target.spec(target.shop.dora, mode="AutoMediumRisk", approval={"approvers": 1}, priority=5)

    target.delete(target.shop.dora)


def test_an_editor_labels_a_policy_and_applies_it_unchanged(target: Handle) -> None:
    eve, namespace = target.shop.eve, target.shop.namespace

    eve.patch(POLICIES, namespace, target.name, {"metadata": {"labels": {"team": "shop"}}})
    eve.replace(POLICIES, namespace, target.name, target.object())


def test_the_person_on_call_pauses_and_unpauses(target: Handle) -> None:
    paused(target)
    assert target.ours == {"pause": "migration", "paused-by": "pat"}

    target.annotate(target.shop.pat, pause=None)
    assert target.ours == {}


def test_the_operator_writes_the_status(target: Handle) -> None:
    target.status(target.shop.operator, matched=3)

    assert target.object()["status"]["matched"] == 3
