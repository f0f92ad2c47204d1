"""Two faults, the second some seconds after the first: what a person on call meets on a bad day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final

from kintsugi_dev.servers.errors import ServerError
from kintsugi_ml.lab.faults.base import LOST, Effect, Fault, Trial

LATEST_SECONDS: Final = 15.0
"""The second fault begins so long after the first at most."""


class Compound(Fault):
    """`first` is the root; `delay` later `second` begins. `second_began` says whether it could."""

    name: ClassVar[str] = "compound"
    title: ClassVar[str] = "two faults, one after the other"
    root: ClassVar[str] = "client"
    effect: ClassVar[Effect] = Effect()

    def __init__(self, first: Fault, second: Fault) -> None:
        super().__init__(first.world, first.severity, first.random)
        self.first, self.second = first, second
        self.delay = self.random.uniform(0.0, LATEST_SECONDS)
        self.second_began = False
        # Of the class for any other fault; here every instance is of a class of its own.
        vars(self).update(
            name=f"{first.name}+{second.name}",
            title=f"{first.title}; then {second.title}",
            root=first.root,
            effect=first.effect,
            dirty=first.dirty or second.dirty,
        )

    async def prepare(self) -> None:
        """Both, in order."""
        await self.first.prepare()
        await self.second.prepare()

    async def inject(self, ramp: float) -> None:
        """The first at once, the second on its way."""
        await self.first.inject(ramp)
        self.background(self._follow(ramp))

    async def _follow(self, ramp: float) -> None:
        await asyncio.sleep(self.delay)
        await self.second.inject(max(0.0, ramp - self.delay))
        self.second_began = True

    async def lift(self) -> None:
        """Both, the second first; the other one also when one fails."""
        await super().lift()
        await _both(self.second.lift, self.first.lift)

    async def repair(self) -> None:
        """As `lift`."""
        await _both(self.second.repair, self.first.repair)

    def trials(self) -> Sequence[Trial]:
        """The right ones of both in order, then what is right for neither."""
        offered = [*self.first.trials(), *self.second.trials()]
        right = [trial for trial in offered if trial.right]
        healing = {trial.action for trial in right}
        return [*right, *(trial for trial in offered if not trial.right and trial.action not in healing)]

    async def remedy(self, action: str) -> None:
        """A remedy that only one of the two knows."""
        for fault in (self.first, self.second):
            offered = {trial.action for trial in fault.trials()}
            if action in offered and (known := getattr(fault, "remedy", None)) is not None:
                await known(action)
                return
        raise ValueError(f"neither {self.first.name} nor {self.second.name} has a remedy {action!r}")


async def _both(*steps: Callable[[], Awaitable[None]]) -> None:
    """All of them; the first failure is raised when all are done."""
    failures: list[Exception] = []
    for step in steps:
        try:
            await step()
        except (*LOST, ServerError) as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
