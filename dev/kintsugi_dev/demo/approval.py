"""The approval of a high-risk action as people do it: with kubectl, refused to one and granted to another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kintsugi.api.action import Phase
from kintsugi.api.meta import APPROVE
from kintsugi_dev.cluster import Cluster, CommandError
from kintsugi_dev.demo.record import ActionRecord, Say

PERSON_SECONDS = 120.0


@dataclass(frozen=True)
class Person:
    """Who says it, in which groups."""

    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commands:
    """The kubectl commands of an approval."""

    cluster: Cluster
    namespace: str
    prefix: str = "kubectl"

    def arguments(self, action: ActionRecord) -> tuple[str, ...]:
        """What approves this very plan."""
        approval = f"{APPROVE}={action.action.spec.plan_hash}"
        return ("annotate", f"--namespace={self.namespace}", f"ha/{action.name}", approval)

    def shown(self, action: ActionRecord, person: Person) -> str:
        """The command as a person types it. Options come last: argparse takes a leading one for its own."""
        identity = [f"--as={person.name}", *(f"--as-group={group}" for group in person.groups)]
        words = " ".join([*self.arguments(action), *identity])
        return f'{self.prefix} ARGS="{words}"' if self.prefix.startswith("make") else f"{self.prefix} {words}"

    def say(self, action: ActionRecord, person: Person) -> tuple[bool, Say]:
        """Run it as this person: whether it was granted, and what was answered."""
        command, at = self.shown(action, person), time.time()
        try:
            answer = self.cluster.kubectl(*self.arguments(action), as_user=person.name, as_groups=person.groups)
        except CommandError as refusal:
            return False, Say(person.name, command, _sentence(refusal.output), at)
        return True, Say(person.name, command, answer.strip(), at)


def interactive() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Approval:
    """One approval, from the refused stranger to the granted one; `step` is called until the action has moved on."""

    def __init__(
        self, commands: Commands, stranger: Person, approver: Person, say: Callable[[str], None], *, wait: bool
    ) -> None:
        self._commands = commands
        self._stranger = stranger
        self._approver = approver
        self._say = say
        self._left = PERSON_SECONDS if wait else 0.0
        self._asked_at: float | None = None
        self.refused: Say | None = None
        self.approved: Say | None = None
        self.waited = 0.0

    def step(self, action: ActionRecord) -> None:
        """Do what is due for an action that waits."""
        if action.phase is not Phase.AWAITING_APPROVAL or self.approved is not None:
            return
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._show_refusal(action)
            if self._left:
                self._ask(action)
        self.waited = time.monotonic() - self._asked_at
        if self.waited >= self._left:
            self._approve(action)

    def settle(self, actions: Sequence[ActionRecord]) -> Say | None:
        """Who has approved in the end: we, or a person who was faster."""
        if self.approved is not None:
            return self.approved
        for action in actions:
            at = action.entered(Phase.APPROVED)
            if (name := action.action.status.approval.approved_by) and at is not None:
                return Say(name, "", "", at, by_demo=False)
        return None

    def _show_refusal(self, action: ActionRecord) -> None:
        granted, self.refused = self._commands.say(action, self._stranger)
        self._say(f"{self._stranger.name} tries:  {self.refused.command}")
        self._say(f"  {'GRANTED, which must not be' if granted else 'refused'}: {self.refused.answer}")

    def _ask(self, action: ActionRecord) -> None:
        self._say("it is yours to decide; in another terminal, in this directory:")
        self._say(f"  {self._commands.shown(action, self._approver)}")
        self._say(f"  (without an answer, {self._approver.name} approves in {self._left:.0f} s)")

    def _approve(self, action: ActionRecord) -> None:
        if self._left:
            self._say(f"nobody has answered for {self._left:.0f} s: the demo approves as {self._approver.name}")
        granted, said = self._commands.say(action, self._approver)
        self._say(f"{self._approver.name} ({', '.join(self._approver.groups)}) {'approves' if granted else 'tries'}:")
        self._say(f"  {said.command}")
        self._say(f"  {said.answer}")
        if granted:
            self.approved = said
        else:
            self._left = self.waited + 5.0


def _sentence(output: str) -> str:
    """The API server's words without kubectl's own beginning."""
    line = " ".join(output.split())
    return line.removeprefix("Error from server (Forbidden): ").removeprefix("The request is invalid: ")
