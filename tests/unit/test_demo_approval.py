"""The demo's approval: a stranger is refused first, and nobody is approved for who answers by himself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kintsugi.api.action import Phase
from kintsugi_dev.demo import approval, record
from kintsugi_dev.demo.approval import Approval, Commands, Person
from kintsugi_dev.demo.record import ActionRecord, Say

RECORDED = Path(__file__).parents[1] / "e2e/data/demo-run.json"
EVE, ANN = Person("eve"), Person("ann", ("dba-oncall",))


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Answers(Commands):
    """Grants to those who may; remembers who asked."""

    def __init__(self, *may: str) -> None:
        super().__init__(cluster=None, namespace="shop", prefix="make kubectl")  # type: ignore[arg-type]
        object.__setattr__(self, "may", may)
        object.__setattr__(self, "asked", [])

    def say(self, action: ActionRecord, person: Person) -> tuple[bool, Say]:
        asked: list[str] = self.asked  # type: ignore[attr-defined]
        asked.append(person.name)
        granted = person.name in self.may  # type: ignore[attr-defined]
        return granted, Say(person.name, self.shown(action, person), "yes" if granted else "denied request", 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(approval, "time", found)
    return found


@pytest.fixture(scope="module")
def failover() -> ActionRecord:
    return record.read(RECORDED).faults[-1].actions[-1]


def waiting(action: ActionRecord, **status: Any) -> ActionRecord:
    return ActionRecord({**action.body, "status": {"phase": "AwaitingApproval", **status}})


def an_approval(commands: Commands, lines: list[str], *, wait: bool) -> Approval:
    return Approval(commands, EVE, ANN, lines.append, wait=wait)


def test_without_a_person_the_stranger_is_refused_first_and_then_it_is_approved(
    clock: Clock, failover: ActionRecord
) -> None:
    commands, lines = Answers("ann"), list[str]()
    found = an_approval(commands, lines, wait=False)
    found.step(waiting(failover))
    assert commands.asked == ["eve", "ann"]  # type: ignore[attr-defined]
    assert found.refused is not None
    assert found.refused.answer == "denied request"
    assert found.approved is not None
    assert found.approved.who == "ann"


def test_a_granted_stranger_is_shouted_about(clock: Clock, failover: ActionRecord) -> None:
    lines: list[str] = []
    an_approval(Answers("eve", "ann"), lines, wait=False).step(waiting(failover))
    assert any("GRANTED, which must not be" in line for line in lines)


def test_with_a_person_nobody_is_approved_for_until_the_time_is_up(clock: Clock, failover: ActionRecord) -> None:
    commands, lines = Answers("ann"), list[str]()
    found = an_approval(commands, lines, wait=True)
    found.step(waiting(failover))
    clock.now = approval.PERSON_SECONDS - 1
    found.step(waiting(failover))
    assert commands.asked == ["eve"]  # type: ignore[attr-defined]
    clock.now = approval.PERSON_SECONDS + 1
    found.step(waiting(failover))
    assert commands.asked == ["eve", "ann"]  # type: ignore[attr-defined]
    assert any("the demo approves as ann" in line for line in lines)


def test_the_person_is_shown_the_whole_command(clock: Clock, failover: ActionRecord) -> None:
    lines: list[str] = []
    an_approval(Answers("ann"), lines, wait=True).step(waiting(failover))
    spec = failover.action.spec
    command = (
        f'make kubectl ARGS="annotate --namespace=shop ha/{failover.name} kintsugi.dev/approve={spec.plan_hash}'
        ' --as=ann --as-group=dba-oncall"'
    )
    assert f"  {command}" in lines


def test_nothing_is_said_about_an_action_that_waits_for_nobody(clock: Clock, failover: ActionRecord) -> None:
    commands, lines = Answers("ann"), list[str]()
    found = an_approval(commands, lines, wait=False)
    for phase in Phase:
        if phase is not Phase.AWAITING_APPROVAL:
            found.step(ActionRecord({**failover.body, "status": {"phase": phase.value}}))
    assert commands.asked == []  # type: ignore[attr-defined]


def test_who_was_faster_than_the_demo_is_recorded(clock: Clock, failover: ActionRecord) -> None:
    found = an_approval(Answers("ann"), [], wait=True)
    settled = found.settle([failover])
    assert settled is not None
    assert (settled.who, settled.by_demo) == ("ann", False)
