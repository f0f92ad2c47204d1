"""One run: settle, normal, fault, remedy, after; then everything is put back.

Nothing here judges: a run ends as times, what was done, and an error when the world broke; gate.py, onset.py and
outcome.py say what it was worth.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random

from kintsugi_dev.patient import Patient
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.errors import ServerError
from kintsugi_ml.lab import classes, remedies
from kintsugi_ml.lab.compound import Compound
from kintsugi_ml.lab.cpu import CpuUse
from kintsugi_ml.lab.faults.base import LOST, NOTHING, Fault, Trial
from kintsugi_ml.lab.noise import idle_service, noise
from kintsugi_ml.lab.parts import Parts, Planned
from kintsugi_ml.lab.remedies import Applied
from kintsugi_ml.lab.world import World

INJECT_SECONDS = 30.0
"""A fault that has not begun after so long never will."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each part takes, in seconds; drawn anew for each run, so that time gives nothing away."""

    settle: float
    normal: float
    fault: float
    ramp: float
    after: float

    @classmethod
    def short(cls, random: Random, form: str) -> Timing:
        """About a minute, for a look: long enough to be felt and healed, too short to be recorded."""
        del random
        ramp = 25.0 if form == "ramped" else 0.0
        return cls(settle=4.0, normal=20.0, fault=18.0 + ramp, ramp=ramp, after=12.0)

    @classmethod
    def draw(cls, random: Random, form: str) -> Timing:
        """An abrupt fault shows itself in half a minute; a ramp grows for most of a minute and is then held.

        At least 70 s lie between a ramp's injection and the remedy, so that what happens 60 s later can be labelled.
        """
        ramped = form == "ramped"
        return cls(
            settle=6.0,
            normal=random.uniform(28, 34),
            fault=random.uniform(72, 82) if ramped else random.uniform(28, 36),
            ramp=random.uniform(40, 55) if ramped else 0.0,
            after=random.uniform(20, 26),
        )


Draw = Callable[[Random, str], Timing]


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went. `error` says what broke, in a sentence; then nothing after it is to be trusted.

    `failed` says what ended the work of the fault before the remedy came.
    """

    planned: Planned
    parts: Parts
    root: str | None
    fault: Fault | None
    applied: tuple[Applied, ...]
    foreign_cpu: float
    dirty: bool
    error: str | None = None
    failed: str | None = None


async def carry_out(
    planned: Planned, world: World, draw: Draw = Timing.draw, tried: Mapping[str, int] | None = None
) -> Course:
    """Do the run; always lifts and repairs.

    `draw` says how long its parts take; `tried` how often each action was tried against this class already.
    """
    random = Random(planned.seed)
    timing = draw(random, planned.form)
    fault = classes.make(planned, world, random)
    await world.load.control(rate_factor=1.0, extra={}, pattern=planned.pattern)
    recording = _Recording(planned, world, fault, timing, random, tried or {})
    async with noise(planned.noise, world, random), _others(fault, world, random):
        try:
            await recording.go()
        except (*LOST, ServerError) as error:
            recording.error = f"{type(error).__name__}: {error}"
        await recording.put_back()
    return recording.course()


def _others(fault: Fault | None, world: World, random: Random) -> AbstractAsyncContextManager[None]:
    """The idle service, once."""
    brought = fault is not None and fault.idle_service
    return contextlib.nullcontext() if brought else idle_service(world, random)


class _Recording:
    def __init__(
        self,
        planned: Planned,
        world: World,
        fault: Fault | None,
        timing: Timing,
        random: Random,
        tried: Mapping[str, int],
    ) -> None:
        self._planned, self._world, self._fault = planned, world, fault
        self._timing, self._random, self._tried = timing, random, tried
        self._times: dict[str, float] = {}
        self._applied: list[Applied] = []
        self._healer: Patient | None = None
        self._foreign = 0.0
        self.error: str | None = None
        self._failed: str | None = None
        self.dirty = fault.dirty if fault is not None else False

    async def go(self) -> None:
        timing = self._timing
        if self._fault is not None:
            await self._fault.prepare()
        # Also where nothing is injected: a session more or less would tell null runs apart.
        self._healer = remedies.healer(self._world)
        await self._healer.diagnoser.baseline()
        await asyncio.sleep(timing.settle)
        use = CpuUse.start()
        await self._rest("normal", timing.normal)
        self._times["injected"] = time.time()
        if self._fault is not None:
            await asyncio.wait_for(self._fault.inject(timing.ramp), INJECT_SECONDS + timing.ramp)
        await self._until(self._times["injected"] + timing.fault)
        trials = self._trials()
        self._failed = self._fault.failed() if self._fault is not None else None
        self._times["remedied"] = time.time()
        for trial in trials:
            assert self._fault is not None
            applied = await remedies.carry_out(trial, self._fault, self._world, self._healer)
            self._applied.append(applied)
            self.dirty = self.dirty or applied.dirty
        await self._until(time.time() + timing.after)
        self._times["ended"] = time.time()
        self._foreign = use.foreign()

    async def put_back(self) -> None:
        """Lift and repair; a world that can't be put back is dirty, which is no error of the run."""
        steps = () if self._fault is None else (self._fault.lift, self._take_back, self._fault.repair)
        for step in steps:
            try:
                await step()
            except (*LOST, ServerError):
                self.dirty = True
            self._times.setdefault("lifted", time.time())
        if self._healer is not None:
            await self._healer.close()
        with contextlib.suppress(*LOST):
            await self._world.load.control(rate_factor=1.0, extra={})

    def course(self) -> Course:
        now = time.time()
        times = self._times
        ended = times.get("ended", now)
        healed = bool(self._applied) and all(one.right and one.ok for one in self._applied)
        lifted = self._applied[-1].ended if healed else min(times.get("lifted", now), ended)
        parts = Parts(
            normal=times.get("normal", now),
            injected=times.get("injected", now),
            remedied=times.get("remedied", now),
            lifted=lifted,
            ended=ended,
        )
        if self.error is None:
            self.error = self._gone()
        return Course(
            self._planned,
            parts,
            None if self._fault is None or self._fault.negative else self._fault.root,
            self._fault,
            tuple(self._applied),
            self._foreign,
            self.dirty or self.error is not None,
            self.error,
            self._failed,
        )

    def _gone(self) -> str | None:
        """Which server of the world has ended although nothing of ours ended it, and its last words."""
        world = self._world
        servers: list[LocalServer] = [world.pooler, world.load, *([] if self.dirty else [world.primary])]
        gone = next((server for server in servers if not server.running), None)
        return None if gone is None else f"{gone.kind} is gone: {gone.last_words()}"

    async def _take_back(self) -> None:
        """Undo what remedies left behind, the last one first."""
        for applied in reversed(self._applied):
            if await remedies.put_back(applied, self._world):
                self.dirty = True

    def _trials(self) -> list[Trial]:
        """What is tried: a right remedy (of a compound fault: of each), or a wrong one, or nothing.

        Of several that which was tried least: of right ones the first among equals, of wrong ones any.
        """
        fault = self._fault
        if fault is None:
            return []
        if self._planned.remedy == "nothing":
            return [NOTHING]
        if self._planned.remedy == "right":
            each = (fault.first, fault.second) if isinstance(fault, Compound) else (fault,)
            return [self._least_tried([trial for trial in one.trials() if trial.right]) for one in each]
        wrong = [trial for trial in fault.trials() if not trial.right]
        self._random.shuffle(wrong)
        return [self._least_tried(wrong)]

    def _least_tried(self, trials: Sequence[Trial]) -> Trial:
        return min(trials, key=lambda trial: self._tried.get(trial.action, 0), default=NOTHING)

    async def _rest(self, part: str, seconds: float) -> None:
        self._times[part] = time.time()
        await self._until(self._times[part] + seconds)

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - time.time()))


__all__ = ["Course", "Timing", "carry_out"]
