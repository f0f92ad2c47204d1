"""The database loop, cycle by cycle: what it opens, proposes, holds back and says, also while it can write nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kintsugi.api.action import ActionStatus, HealingAction, Phase
from kintsugi.api.database import DatabaseStatus, MonitoredDatabase
from kintsugi.api.meta import PAUSE
from kintsugi.domain.actions import NotProposed, Proposal
from kintsugi.domain.anomaly import Anomaly, Effect, Health, Opinion
from kintsugi.engines.engine import Engine
from kintsugi.loops.database import DatabaseLoop
from kintsugi.shell.errors import ForbiddenError, UnavailableError
from kintsugi_dev.memory import ANOMALOUS, NORMAL, POLICIES, Memory, MemoryServices, a_diagnosis, candidate

DATABASES, ACTIONS = MonitoredDatabase.PLURAL, HealingAction.PLURAL
KEY = "shop/orders"
LEARNING = Anomaly(Health.LEARNING, 0.0, None, (), {}, "3 s of 5 m of fault-free samples learned")
BLIND = Anomaly(Health.BLIND, 0.0, None, (), {}, "no sample for 9 s: is Prometheus reachable?")


class Offers:
    """An engine's action that always offers, or never."""

    def __init__(self, name: str, offer: bool = True) -> None:
        self.name = name
        self._offer = offer

    def propose(self, *_: Any) -> list[Proposal | NotProposed]:
        return [candidate(self.name).proposal if self._offer else NotProposed(self.name, "nobody waits")]

    def compile(self, parameters: Any) -> Any:
        return candidate(self.name).plan


class Ward:
    """One database and its loop; a cycle is a second."""

    def __init__(self, memory: Memory, *offers: Offers) -> None:
        self.memory = memory
        self.services: MemoryServices = memory.services()
        self.loop = DatabaseLoop(self.services)
        watch = self.services.watches[KEY]
        watch.engine = replace(watch.engine, actions={each.name: each for each in offers})
        self.at = memory.now.timestamp()

    @property
    def database(self) -> MonitoredDatabase:
        return self.services.fleet.databases[KEY]

    @property
    def status(self) -> DatabaseStatus:
        return self.database.status

    @property
    def engine(self) -> Engine:
        return self.services.watches[KEY].engine

    async def cycle(self, anomaly: Anomaly, *, diagnosed: bool = True) -> None:
        """One cycle in which the detector says this; the last diagnosis is a second old unless there is none."""
        self.at += 1
        watch = self.services.watches[KEY]
        watch.anomaly = anomaly
        watch.diagnosis, watch.diagnosed_at = (a_diagnosis(), self.at - 1) if diagnosed else (None, self.at - 1)
        self.loop._diagnosing[KEY] = asyncio.get_running_loop().create_future()  # type: ignore[assignment]  # no I/O here
        await self.loop.cycle(self.database, watch, self.at)

    def actions(self) -> list[HealingAction]:
        return self.services.fleet.actions_of(self.database)

    def condition(self, type_: str) -> tuple[str, str, str]:
        found = next(each for each in self.status.conditions if each.type == type_)
        return found.status, found.reason, found.message

    def told(self, reason: str) -> int:
        return self.memory.notes.reasons("MonitoredDatabase").count(reason)


def a_ward(*offers: Offers, policy: dict[str, Any] | None = None, incident: str = "") -> Ward:
    memory = Memory()
    if policy is not None:
        memory.policy(**policy)
    memory.database(incident=incident)
    return Ward(memory, *(offers or (Offers("terminate-blocker"),)))


async def test_an_anomaly_opens_an_incident_then_proposes_and_normal_closes_it() -> None:
    ward = a_ward(policy={})

    await ward.cycle(ANOMALOUS)
    assert ward.status.incident is not None
    assert ward.actions() == []  # the incident is written before anything is made for it
    await ward.cycle(ANOMALOUS)
    (action,) = ward.actions()
    assert action.spec.incident == ward.status.incident.id

    await ward.cycle(NORMAL)
    assert ward.status.incident is None
    assert (ward.told("IncidentOpened"), ward.told("IncidentClosed")) == (1, 1)


async def test_at_most_one_action_lives_at_a_time() -> None:
    ward = a_ward(Offers("terminate-blocker"), Offers("create-index"), policy={})

    for _ in range(5):
        await ward.cycle(ANOMALOUS)

    assert len(ward.actions()) == 1


async def test_a_suspicion_while_learning_is_told_once_and_nothing_is_done() -> None:
    ward = a_ward(policy={})
    suspected = replace(LEARNING, suspected=True, score=0.9, reason="suspicious: lock wait age 12 s")

    for _ in range(3):
        await ward.cycle(suspected)

    assert ward.told("Suspected") == 1
    assert ward.actions() == []
    assert ward.status.incident is None
    assert (ward.status.phase, ward.status.risk) == ("Learning", "~0.90")
    assert ward.condition("Healthy") == ("Unknown", "Suspected", "suspicious: lock wait age 12 s")


async def test_an_incident_that_is_labelled_normal_closes_and_says_why() -> None:
    ward = a_ward(policy={})
    await ward.cycle(ANOMALOUS)

    silenced = Opinion("7 (a test)", 0.2, 0.5, normals=1, effect=Effect.SILENCED)
    await ward.cycle(replace(NORMAL, opinion=silenced))

    assert ward.status.incident is None
    assert any("no further than what was labelled normal" in note for _, _, note in ward.memory.notes.told)
    assert ward.condition("Healthy")[:2] == ("True", "LabelledNormal")
    assert ward.status.judgement is not None
    assert (ward.status.judgement.probability, ward.status.judgement.normals) == ("0.00", 1)

    await ward.cycle(NORMAL)
    assert ward.status.judgement is None
    assert ward.condition("Healthy")[:2] == ("True", "WithinReference")


@pytest.mark.parametrize("anomaly", [BLIND, LEARNING], ids=["blind", "learning"])
async def test_what_cannot_be_judged_is_not_acted_on(anomaly: Anomaly) -> None:
    ward = a_ward(policy={}, incident="1402")

    for _ in range(3):
        await ward.cycle(anomaly)

    assert ward.actions() == []
    assert ward.status.incident is not None
    assert ward.status.doing == anomaly.reason


async def test_without_a_diagnosis_nothing_is_proposed() -> None:
    ward = a_ward(policy={}, incident="1402")

    for _ in range(3):
        await ward.cycle(ANOMALOUS, diagnosed=False)

    assert ward.actions() == []


async def test_without_a_policy_everything_is_held_back_and_said() -> None:
    ward = a_ward(incident="1402")

    await ward.cycle(ANOMALOUS)

    assert ward.actions() == []
    assert ward.condition("PolicyFound")[:2] == ("False", "NoPolicy")
    assert ward.condition("ActionsAllowed")[:2] == ("False", "HeldBack")
    assert "its mode here is Observe" in ward.condition("ActionsAllowed")[2]
    assert ward.told("HeldBack") == 1


async def test_the_strictest_of_two_policies_holds() -> None:
    ward = a_ward(policy={}, incident="1402")
    ward.services.fleet.apply(POLICIES, ward.memory.another_policy("strict", mode="Recommend"))

    await ward.cycle(ANOMALOUS)

    (action,) = ward.actions()
    assert not action.spec.runnable
    assert ward.status.effective_mode == "Recommend"
    assert ward.status.policies == ("critical", "strict")


async def test_a_pause_stops_proposals_and_is_shown_with_its_reason() -> None:
    ward = a_ward(policy={}, incident="1402")
    meta = ward.database.metadata.model_copy(update={"annotations": {PAUSE: "migration until noon"}})
    ward.services.fleet.databases[KEY] = ward.database.model_copy(update={"metadata": meta})

    await ward.cycle(ANOMALOUS)

    assert ward.actions() == []
    assert ward.condition("ActionsAllowed")[:2] == ("False", "Paused")


async def test_the_next_candidate_is_proposed_when_the_first_did_not_heal() -> None:
    ward = a_ward(Offers("terminate-blocker"), Offers("create-index"), policy={}, incident="1402")
    key = ward.memory.action("terminate-blocker", status=ActionStatus(phase=Phase.FAILED))
    ward.services.fleet.apply(ACTIONS, ward.memory.body(key))

    await ward.cycle(ANOMALOUS)

    assert [action.spec.action for action in ward.actions() if not action.phase.ended] == ["create-index"]


async def test_what_was_rejected_is_not_proposed_again_in_the_same_incident() -> None:
    ward = a_ward(policy={}, incident="1402")
    key = ward.memory.action("terminate-blocker", status=ActionStatus(phase=Phase.REJECTED))
    ward.services.fleet.apply(ACTIONS, ward.memory.body(key))

    for _ in range(3):
        await ward.cycle(ANOMALOUS)

    assert len(ward.actions()) == 1


async def test_no_action_that_fits_is_said_once_a_remedy_was_looked_for() -> None:
    ward = a_ward(Offers("terminate-blocker", offer=False), policy={}, incident="1402")

    await ward.cycle(ANOMALOUS)
    assert ward.status.doing == "looking for a remedy: lock waiters 9"

    ward.at += 20
    await ward.cycle(ANOMALOUS)
    assert ward.status.doing.startswith("no action fits, a person is needed: lock waiters 9")
    assert ward.status.not_proposed == ("terminate-blocker: nobody waits",)


async def test_while_the_api_server_is_away_one_incident_is_opened_and_told_once() -> None:
    ward = a_ward(policy={})
    ward.memory.kube.down = True
    for _ in range(4):
        with pytest.raises(UnavailableError):
            await ward.cycle(ANOMALOUS)
    watch = ward.services.watches[KEY]
    assert [end for _, end in watch.incidents] == [None]
    assert ward.status.incident is None

    ward.memory.kube.down = False
    ward.services._away_until = 0.0
    await ward.cycle(ANOMALOUS)
    assert ward.told("IncidentOpened") == 1
    assert ward.status.incident is not None

    ward.memory.kube.down = True
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await ward.cycle(NORMAL)
    ward.memory.kube.down = False
    ward.services._away_until = 0.0
    await ward.cycle(NORMAL)
    assert ward.told("IncidentClosed") == 1
    assert all(end is not None for _, end in watch.incidents)


async def test_an_incident_that_is_over_before_it_could_be_written_leaves_nothing_frozen() -> None:
    ward = a_ward(policy={})
    ward.memory.kube.down = True
    with pytest.raises(UnavailableError):
        await ward.cycle(ANOMALOUS)
    ward.memory.kube.down = False
    ward.services._away_until = 0.0

    await ward.cycle(NORMAL)

    watch = ward.services.watches[KEY]
    assert watch.frozen is None
    assert all(end is not None for _, end in watch.incidents)


async def test_a_proposal_that_the_api_server_refuses_is_said_and_the_status_still_written() -> None:
    ward = a_ward(policy={}, incident="1402")
    ward.memory.kube.faults = [ForbiddenError("denied by somebody's policy (HTTP 403)")]

    await ward.cycle(ANOMALOUS)

    status, reason, message = ward.condition("ActionsAllowed")
    assert (status, reason) == ("False", "HeldBack")
    assert "terminate-blocker could not be proposed, the API server refused it: denied by somebody's policy" in message


async def test_a_proposal_whose_answer_was_lost_is_not_made_twice() -> None:
    ward = a_ward(policy={}, incident="1402")
    ward.memory.kube.faults = ["lost"]
    with pytest.raises(UnavailableError):
        await ward.cycle(ANOMALOUS)

    await ward.cycle(ANOMALOUS)

    assert len([path for method, path in ward.memory.kube.writes if method == "POST"]) == 2
    assert len([path for path in ward.memory.kube.objects if f"/{ACTIONS}/" in path]) == 1


async def test_an_incident_found_after_a_restart_that_nothing_can_judge_is_closed_with_the_reason() -> None:
    ward = a_ward(policy={}, incident="1402")
    await ward.cycle(LEARNING)
    assert ward.status.incident is not None

    ward.at += timedelta(hours=1).total_seconds()
    await ward.cycle(LEARNING)

    assert ward.status.incident is None
    (note,) = [note for _, reason, note in ward.memory.notes.told if reason == "IncidentClosed"]
    assert "nothing is left of the time before it" in note


async def test_an_unchanged_status_is_not_written_again() -> None:
    ward = a_ward(policy={})
    await ward.cycle(NORMAL)
    await ward.cycle(NORMAL)
    before = len(ward.memory.kube.writes)

    for _ in range(5):
        await ward.cycle(NORMAL)

    assert len(ward.memory.kube.writes) == before


async def test_only_the_newest_ended_actions_stay_as_objects() -> None:
    ward = a_ward(policy={}, incident="1402")
    for number in range(23):
        ward.services.fleet.apply(ACTIONS, ward.memory.ended_action(number))

    await ward.cycle(NORMAL)

    left = sorted(action.metadata.name for action in ward.actions())
    assert left == [f"ended-{number:02}" for number in range(3, 23)]
