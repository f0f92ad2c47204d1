"""The action loop between two requests: answers that are lost, an API server that is away, restarts, deletions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from kintsugi.api.action import ActionStatus, Attempt, Phase
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import PAUSE
from kintsugi.domain.actions import Step
from kintsugi.domain.verdict import Outcome, Verdict
from kintsugi.loops import action as loop_module
from kintsugi.loops.action import ActionLoop
from kintsugi.shell.errors import ConflictError, ForbiddenError, UnavailableError
from kintsugi.shell.execute import ProbeAnswer, ProbeResult, StepResult, StepState
from kintsugi.shell.secrets import SecretError
from kintsugi_dev.memory import Memory, MemoryServices

HEALED = Verdict(Outcome.HEALED, ("as before",), ())


@dataclass
class Hands:
    """What is done to databases: each step that ran, and what the next answers are."""

    ran: list[str] = field(default_factory=list)
    answers: list[StepResult] = field(default_factory=list)
    probe: ProbeAnswer = ProbeAnswer.NOT_DONE
    before_step: Callable[[], Awaitable[None]] | None = None

    async def run_step(self, step: Step, *_: Any) -> StepResult:
        if self.before_step:
            await self.before_step()
        self.ran.append(step.command)
        return self.answers.pop(0) if self.answers else StepResult(StepState.DONE, "t")

    async def run_probe(self, *_: Any) -> ProbeResult:
        return ProbeResult(self.probe)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(loop_module, "run_step", hands.run_step)
    monkeypatch.setattr(loop_module, "run_probe", hands.run_probe)
    monkeypatch.setattr(loop_module, "verdict_of", lambda *_: HEALED)
    monkeypatch.setattr(loop_module, "AWAY", 0.01)
    return hands


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    memory.policy()
    memory.database()
    return memory


async def settle(memory: Memory, key: str, *phases: Phase, services: MemoryServices | None = None) -> None:
    """Run a fresh action loop until the action is in one of these phases; two seconds at most."""
    services = services or memory.services()
    loop = ActionLoop(services)
    ringing = asyncio.create_task(loop.run())
    try:
        loop.wake(key)
        async with asyncio.timeout(3):
            while memory.read(key).phase not in phases:
                await asyncio.sleep(0.01)
                if services.refusal is None:
                    loop.wake(key)
        await asyncio.sleep(0.05)
    except TimeoutError:
        status = memory.read(key).status
        raise AssertionError(f"{status.phase}: {status.message}; wanted {phases}") from None
    finally:
        ringing.cancel()


async def test_an_action_that_may_run_by_itself_runs_once_and_is_verified(memory: Memory, hands: Hands) -> None:
    key = memory.action()

    await settle(memory, key, Phase.SUCCEEDED)

    assert len(hands.ran) == 1
    assert memory.notes.reasons("HealingAction") == ["Automatic", "Executing", "Executed", "Healed"]
    assert memory.notes.reasons("MonitoredDatabase") == memory.notes.reasons("HealingAction")


@pytest.mark.parametrize("fault", ["away", "lost", ConflictError("changed"), ForbiddenError("not yet")], ids=str)
@pytest.mark.parametrize("write", range(5))
async def test_whichever_write_fails_the_step_runs_once(memory: Memory, hands: Hands, write: int, fault: Any) -> None:
    """The writes are: Approved, Executing, the step's progress, Verifying, Succeeded."""
    key = memory.action()
    memory.kube.faults = [*[None] * write, fault]

    await settle(memory, key, Phase.SUCCEEDED)

    assert len(hands.ran) == 1
    assert [attempt.outcome for attempt in memory.read(key).status.attempts] == ["done"]
    assert len(memory.read(key).status.outputs) == 1
    assert memory.notes.reasons("HealingAction") == ["Automatic", "Executing", "Executed", "Healed"]


async def test_an_intent_whose_answer_came_too_late_is_not_carried_out_but_judged_again(
    memory: Memory, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = memory.action()
    memory.kube.faults = [None, "lost"]
    monkeypatch.setattr(loop_module, "LATE", timedelta(0))
    services = memory.services()
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.3)

    action = memory.read(key)
    assert hands.ran == []
    assert action.phase is Phase.EXECUTING
    assert action.status.attempts[0].outcome == "busy"
    assert "the API server was away" in action.status.message


async def test_before_everything_is_listed_no_action_is_touched(memory: Memory, hands: Hands) -> None:
    """A watch may tell of an action before it tells of its database: that does not mean that it was deleted."""
    key = memory.action()
    services = memory.services()
    services.fleet.complete = False
    services.fleet.remove(MonitoredDatabase.PLURAL, "shop/orders")
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.1)

    assert memory.read(key).phase is Phase.PROPOSED
    assert hands.ran == []


async def test_a_database_that_is_gone_ends_its_action(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()
    services.fleet.remove(MonitoredDatabase.PLURAL, "shop/orders")

    await settle(memory, key, Phase.SUPERSEDED, services=services)

    assert hands.ran == []
    assert "database orders was deleted; nothing more is done" in memory.read(key).status.message


async def test_a_database_deleted_between_two_steps_gets_no_further_step(memory: Memory, hands: Hands) -> None:
    key = memory.action("create-index")
    services = memory.services()

    async def delete_during_the_second() -> None:
        if len(hands.ran) == 1:
            services.fleet.remove(MonitoredDatabase.PLURAL, "shop/orders")

    hands.before_step = delete_during_the_second
    await settle(memory, key, Phase.INCONCLUSIVE, services=services)

    assert len(hands.ran) == 2
    assert "was deleted; nothing more is done" in memory.read(key).status.message


async def test_a_missing_secret_fails_the_action_with_what_to_do(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()
    services.refusal = SecretError("SecretMissing", "there is no Secret orders-kintsugi in shop; create it")

    await settle(memory, key, Phase.FAILED, services=services)

    assert "there is no Secret orders-kintsugi in shop; create it" in memory.read(key).status.message
    assert hands.ran == []


async def test_a_secret_that_cannot_be_read_just_now_makes_it_wait(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()
    services.refusal = UnavailableError("the API server does not answer")
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.2)

    assert memory.read(key).phase is Phase.EXECUTING
    assert memory.read(key).status.attempts[0].outcome == "busy"
    assert hands.ran == []


async def test_while_the_api_server_is_away_nothing_begins(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()
    memory.kube.down = True
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.2)
    assert hands.ran == []
    memory.kube.down = False

    await settle(memory, key, Phase.SUCCEEDED, services=services)
    assert len(hands.ran) == 1


async def test_a_step_that_ended_while_the_api_server_was_away_is_not_run_again(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()

    async def go_away() -> None:
        memory.kube.down = True
        asyncio.get_running_loop().call_later(0.2, lambda: setattr(memory.kube, "down", False))

    hands.before_step = go_away
    await settle(memory, key, Phase.SUCCEEDED, services=services)

    assert len(hands.ran) == 1
    assert len(memory.read(key).status.attempts) == 1


def interrupted(memory: Memory) -> ActionStatus:
    """As an operator leaves it that was killed while it executed."""
    attempt = Attempt(started_at=memory.now - timedelta(seconds=3), executor="operator/0")
    return ActionStatus(phase=Phase.EXECUTING, attempts=(attempt,))


async def test_after_a_restart_what_the_probe_finds_done_is_verified_and_not_repeated(
    memory: Memory, hands: Hands
) -> None:
    key = memory.action(status=interrupted(memory))
    hands.probe = ProbeAnswer.DONE

    await settle(memory, key, Phase.SUCCEEDED)

    assert hands.ran == []


async def test_after_a_restart_what_was_not_done_is_done_once(memory: Memory, hands: Hands) -> None:
    key = memory.action(status=interrupted(memory))

    await settle(memory, key, Phase.SUCCEEDED)

    assert len(hands.ran) == 1
    assert [attempt.executor for attempt in memory.read(key).status.attempts] == ["operator/0", "operator/1"]


async def test_after_a_restart_what_nobody_can_tell_is_not_repeated(memory: Memory, hands: Hands) -> None:
    key = memory.action(status=interrupted(memory))
    hands.probe = ProbeAnswer.UNKNOWN
    loop = ActionLoop(memory.services())

    loop.wake(key)
    await asyncio.sleep(0.2)

    assert hands.ran == []
    assert memory.read(key).phase is Phase.EXECUTING
    assert "whether it was done is not known yet" in memory.read(key).status.message


async def test_two_operators_at_once_run_it_once(memory: Memory, hands: Hands) -> None:
    """A frozen process that wakes up late: entering Executing is a compare-and-swap."""
    key = memory.action()
    first, second = memory.services(), memory.services()
    second.identity = "operator/2"
    loops = [ActionLoop(first), ActionLoop(second)]

    for loop in loops:
        loop.wake(key)
    await asyncio.sleep(0.3)

    assert len(hands.ran) == 1


async def test_a_paused_database_holds_its_action_and_says_so(memory: Memory, hands: Hands) -> None:
    memory = Memory()
    memory.policy()
    database = memory.database()
    paused = database.model_copy(
        update={"metadata": database.metadata.model_copy(update={"annotations": {PAUSE: "until noon"}})}
    )
    key = memory.action()
    services = memory.services()
    services.fleet.databases["shop/orders"] = paused
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.2)

    assert hands.ran == []
    assert memory.read(key).phase is Phase.APPROVED
    assert "until noon" in memory.read(key).status.message


async def test_an_incident_that_is_over_supersedes_its_action(hands: Hands) -> None:
    memory = Memory()
    memory.policy()
    memory.database(incident="")
    key = memory.action()

    await settle(memory, key, Phase.SUPERSEDED)

    assert hands.ran == []
    assert "back to normal without it" in memory.read(key).status.message


async def test_stale_metrics_hold_it_back(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()
    services.watches["shop/orders"].buffer.clear()
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.2)

    assert hands.ran == []
    assert "there are no metrics of this database" in memory.read(key).status.message


async def test_an_action_deleted_under_the_loop_is_dropped_quietly(memory: Memory, hands: Hands) -> None:
    key = memory.action(asks=True)
    services = memory.services()
    memory.kube.objects.clear()
    loop = ActionLoop(services)

    loop.wake(key)
    await asyncio.sleep(0.1)

    assert services.fleet.actions == {}
    assert hands.ran == []


async def test_an_unexpected_error_is_logged_and_the_action_looked_at_again(
    memory: Memory, hands: Hands, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = memory.action()

    def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(loop_module, "advance", broken)
    loop = ActionLoop(memory.services())
    loop.wake(key)
    await asyncio.sleep(0.1)

    assert f"{key} failed; it is looked at again" in caplog.text
    assert hands.ran == []


async def test_an_operator_that_ends_lets_its_step_finish_and_begins_nothing(memory: Memory, hands: Hands) -> None:
    key = memory.action()
    services = memory.services()
    loop = ActionLoop(services)
    began, let_go = asyncio.Event(), asyncio.Event()

    async def take_long() -> None:
        began.set()
        await let_go.wait()

    hands.before_step = take_long
    loop.wake(key)
    await asyncio.wait_for(began.wait(), 2)

    ending = asyncio.create_task(loop.drain())
    await asyncio.sleep(0.05)
    assert not ending.done()
    let_go.set()
    await asyncio.wait_for(ending, 2)
    loop.wake(key)
    await asyncio.sleep(0.05)

    assert len(hands.ran) == 1
    assert memory.read(key).status.attempts[0].outcome == "done"
