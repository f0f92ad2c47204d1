"""Faults of the machine under the database: its disk, CPUs and memory, and a backup that takes the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import ClassVar, Final

from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
from kintsugi_ml.lab.faults.hogs import Hogs, without_groups
from kintsugi_ml.lab.world import Groups, World

STEP_SECONDS = 4.0
NEIGHBOUR_CPUS = 0.1
SPARE: Final = 16 * 2**20
"""Bytes left for the page cache at the worst; with less than 8 MB the kernel kills."""


class _HostFault(Fault):
    """Limits of the primary's group, and hogs in a group; lifting puts the ones back and ends the others."""

    def __init__(self, world: World, severity: float, random: Random) -> None:
        super().__init__(world, severity, random)
        self.hogs: Hogs | None = None

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """Not without control groups."""
        return without_groups(world)

    @property
    def groups(self) -> Groups:
        """The control groups, which are there when the fault is available."""
        assert self.world.groups is not None
        return self.world.groups

    async def lift(self) -> None:
        """Put the limits back, end the hogs."""
        await super().lift()
        if self.hogs is not None:
            await self.hogs.kill()
        self.groups.limit()


class IoSaturation(_HostFault):
    """The disk's burst credit is used up: it does a small part of what it did."""

    name: ClassVar[str] = "io-saturation"
    title: ClassVar[str] = "the disk's burst credit is used up and it becomes several times slower"
    root: ClassVar[str] = "host-io"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="wal_sync_latency", factor=3.0)

    async def inject(self, ramp: float) -> None:
        """Lower the disk's limits at once, or every four seconds by the same ratio."""
        if ramp == 0:
            self._slow(1.0)
        else:
            self.background(self._grow(ramp))

    async def _grow(self, ramp: float) -> None:
        async for level in self.grow(ramp, STEP_SECONDS):
            self._slow(level)

    def _slow(self, level: float) -> None:
        left = self.scaled(0.15, 0.05) ** level
        self.groups.primary.disk(self.groups.disk.times(left), self.groups.device)

    def trials(self) -> Sequence[Trial]:
        """A faster disk."""
        targets = self.world.targets
        return (
            Trial("scale", right=True, parameters={"disk": 2.0}),
            parameters.CHECKPOINT,
            Trial("scale", right=False, parameters={"cpus": 2.0}),
            parameters.resize_pool(self.world),
            parameters.vacuum_table(targets.write_table),
        )


class CpuHog(_HostFault):
    """A noisy neighbour: busy processes that weigh more than the database."""

    name: ClassVar[str] = "cpu-hog"
    title: ClassVar[str] = "a neighbour on the same machine takes the CPUs"
    root: ClassVar[str] = "host-cpu"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="host_cpu_pressure", factor=2.0)

    async def inject(self, ramp: float) -> None:
        """Start the neighbour's processes at once, or one after another."""
        self.groups.hogs.cpu_shares(round(self.scaled(512, 4096)))
        self.hogs = Hogs(self.groups.hogs, self.world.directory)
        if ramp == 0:
            await self._burn(self.hogs, 1.0)
        else:
            self.background(self._grow(self.hogs, ramp))

    async def _grow(self, hogs: Hogs, ramp: float) -> None:
        async for level in self.grow(ramp):
            await self._burn(hogs, level)

    async def _burn(self, hogs: Hogs, level: float) -> None:
        while len(hogs) < level * round(self.scaled(2, 6)):
            await hogs.start("burn")

    async def remedy(self, action: str) -> None:
        """`limit-neighbour`: it gets what the database leaves."""
        if action != "limit-neighbour":
            raise ValueError(f"{self.name} has no remedy {action!r}; it has limit-neighbour")
        self.groups.hogs.cpu_shares(2)
        self.groups.hogs.cpu_quota(NEIGHBOUR_CPUS)

    def trials(self) -> Sequence[Trial]:
        """Give the database its CPUs back."""
        targets = self.world.targets
        return (
            Trial("limit-neighbour", right=True),
            parameters.analyze_table(self.world, targets.lookup_table),
            parameters.resize_pool(self.world),
            parameters.DISCARD_PLANS,
            Trial("scale", right=False, parameters={"memory": 2.0}),
        )


class MemoryPressure(_HostFault):
    """Something on the database's machine takes memory; the page cache goes, and reads hit the disk."""

    name: ClassVar[str] = "memory-pressure"
    title: ClassVar[str] = "memory runs short, the page cache goes and reads hit the slow disk"
    root: ClassVar[str] = "host-memory"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="block_read_latency", factor=3.0)

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """Not without control groups, nor where nothing is read past shared buffers: recorded, nobody felt it."""
        if world.workload.buffered:
            return f"what {world.workload.name} reads is in shared buffers, so nobody misses the page cache"
        return super().unavailable(world)

    async def inject(self, ramp: float) -> None:
        """Start the process that takes memory: in two seconds, or over the ramp."""
        group, limit = self.groups.primary, self.groups.memory
        self.hogs = Hogs(group, self.world.directory)
        left = round(self.scaled(2 * SPARE, SPARE))
        pace = (limit - left - group.memory_fixed()) / (ramp or 2.0)
        await self.hogs.start("memory", group.memory_statistics, limit, left, pace)

    def trials(self) -> Sequence[Trial]:
        """More memory."""
        targets = self.world.targets
        return (
            Trial("scale", right=True, parameters={"memory": 2.0}),
            parameters.CHECKPOINT,
            parameters.analyze_table(self.world, targets.lookup_table),
            parameters.resize_pool(self.world),
        )


class Backup(_HostFault):
    """A base backup onto the database's own disk, without a limit on its rate."""

    name: ClassVar[str] = "backup"
    title: ClassVar[str] = "a backup without rate limit writes to the database's own disk"
    root: ClassVar[str] = "host-io"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="wal_sync_latency", factor=3.0)

    async def inject(self, ramp: float) -> None:
        """Start it, at full speed or faster and faster; one backup follows the other."""
        session = await self.session("backup", user="postgres")
        await session.execute("SELECT pg_backup_start('lab', true)")
        self.hogs = Hogs(self.groups.primary, self.world.directory)
        pace = self.groups.disk.write_bytes * self.scaled(0.9, 2.0)
        await self.hogs.start(
            *("copy", self.world.directory / "backup.tar", pace, ramp, round(self.scaled(1, 4))),
            source=("tar", "--create", "--file=-", "--ignore-failed-read", self.world.primary.data),
        )

    async def remedy(self, action: str) -> None:
        """`cancel-backup`: it is ended, to be taken at night with a limited rate."""
        if action != "cancel-backup":
            raise ValueError(f"{self.name} has no remedy {action!r}; it has cancel-backup")
        if self.hogs is not None:
            await self.hogs.kill()

    async def repair(self) -> None:
        """Remove the backup."""
        await asyncio.to_thread((self.world.directory / "backup.tar").unlink, missing_ok=True)

    def trials(self) -> Sequence[Trial]:
        """End it."""
        targets = self.world.targets
        return (
            Trial("cancel-backup", right=True),
            parameters.CHECKPOINT,
            parameters.analyze_table(self.world, targets.write_table),
            parameters.resize_pool(self.world),
            parameters.prewarm_cache(targets.hot_table),
        )
