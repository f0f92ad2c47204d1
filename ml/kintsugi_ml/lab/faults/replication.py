"""Faults of the synchronous replica: it shows old data, or it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import ClassVar

import psutil

from kintsugi_dev.servers.replicas import wait_streaming
from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
from kintsugi_ml.lab.world import REPLICA, World

CYCLE_SECONDS = 1.0
"""Length of one duty cycle: the process is stopped for a share of it."""
LONGEST_PAUSE = 20.0
"""Seconds; of a few a replica that has little to replay would show nothing."""


class _StoppedProcess(Fault):
    """Some of the replica's processes stand still for a growing share of every second."""

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """Not without a replica of ours."""
        return None if world.replica is not None else "this fault needs a replica that the lab started"

    async def _stop_and_go(self, ramp: float, *names: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            level = min(1.0, (loop.time() - began + CYCLE_SECONDS) / ramp)
            pids = await asyncio.to_thread(self._processes, *names)
            self._send(signal.SIGSTOP, pids)
            try:
                await asyncio.sleep(CYCLE_SECONDS * level)
            finally:
                self._send(signal.SIGCONT, pids)
            await asyncio.sleep(CYCLE_SECONDS * (1 - level))

    def _processes(self, *names: str) -> list[int]:
        """The replica's processes with one of these names in their title; without names, all of them."""
        if not self.world.standby.running:
            return []
        replica = psutil.Process(self.world.standby.pid)
        if not names:
            return [replica.pid, *(child.pid for child in replica.children())]
        found = []
        for child in replica.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(name in " ".join(child.cmdline()) for name in names):
                    found.append(child.pid)
        return found

    @staticmethod
    def _send(number: signal.Signals, pids: Sequence[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class ReplicationLag(_StoppedProcess):
    """The replica receives everything and shows it late.

    No client waits for replay (`synchronous_commit = on`), so reads from the replica are what is hurt: the delay.
    Severity, ramped: how long the pauses become, 8 to 20 s.
    """

    name: ClassVar[str] = "replication-lag"
    title: ClassVar[str] = "the replica replays too slowly and shows old data"
    root: ClassVar[str] = "replication"
    effect: ClassVar[Effect] = Effect(client=None, signal="replication_delay", factor=3.0)

    async def inject(self, ramp: float) -> None:
        """Pause replay, for good or for longer and longer."""
        if ramp == 0:
            await self.world.sql("SELECT pg_wal_replay_pause()", replica=True)
        else:
            self.background(self._pauses(ramp))

    async def _pauses(self, ramp: float) -> None:
        """Pause for longer and longer, up to `LONGEST_PAUSE`: the replica falls behind and catches up ever later."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            level = min(1.0, (loop.time() - began + CYCLE_SECONDS) / ramp)
            await self.world.sql("SELECT pg_wal_replay_pause()", replica=True)
            await asyncio.sleep(self.scaled(0.4, 1.0) * LONGEST_PAUSE * level)
            await self.world.sql("SELECT pg_wal_replay_resume()", replica=True)
            await asyncio.sleep(CYCLE_SECONDS / 2)

    async def remedy(self, action: str) -> None:
        """`resume-replay`."""
        if action != "resume-replay":
            raise ValueError(f"{self.name} has no remedy {action!r}; it has resume-replay")
        await self.lift()

    async def lift(self) -> None:
        """Let the process go on, and replay too."""
        await super().lift()
        await self.world.sql("SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()", replica=True)

    def trials(self) -> Sequence[Trial]:
        """Let replay go on; nothing done to the primary makes the replica faster."""
        return (
            Trial("resume-replay", right=True),
            parameters.CHECKPOINT,
            parameters.vacuum_table(self.world.targets.write_table),
            parameters.resize_pool(self.world),
        )


class ReplicaLost(_StoppedProcess):
    """The synchronous replica does not answer, and every commit waits for it.

    Abrupt: it is frozen (its machine hangs, the connection stays) or killed (the connection is closed). Ramped: it
    answers for an ever smaller part of each second.
    """

    name: ClassVar[str] = "replica-lost"
    title: ClassVar[str] = "the synchronous replica does not answer and commits wait for it"
    root: ClassVar[str] = "replication"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="sync_replication_waiters", factor=3.0)

    async def inject(self, ramp: float) -> None:
        """Freeze or kill it, or let it answer less and less."""
        if ramp > 0:
            self.background(self._stop_and_go(ramp, "walreceiver"))
        elif self.random.random() < 0.5:
            self._send(signal.SIGSTOP, self._processes())
        else:
            await asyncio.to_thread(self.world.standby.kill)

    async def remedy(self, action: str) -> None:
        """`detach-replica`: commits no longer wait for it."""
        if action != "detach-replica":
            raise ValueError(f"{self.name} has no remedy {action!r}; it has detach-replica")
        await self.world.configure(synchronous_standby_names="")

    async def lift(self) -> None:
        """Bring the replica back, and wait for it again once it streams."""
        await super().lift()
        world = self.world
        self._send(signal.SIGCONT, self._processes())
        if not world.standby.running:
            await asyncio.to_thread(world.standby.launch)
            if world.groups is not None:
                for pid in self._processes():
                    world.groups.replica.add(pid)
        await asyncio.to_thread(wait_streaming, world.primary, REPLICA, world.standby)
        await world.reset("synchronous_standby_names")

    def trials(self) -> Sequence[Trial]:
        """Go on without it; a larger pool only makes more sessions wait."""
        return (
            Trial("detach-replica", right=True),
            parameters.resize_pool(self.world),
            parameters.CHECKPOINT,
            parameters.DISCARD_PLANS,
        )
