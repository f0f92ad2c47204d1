"""A fault of the clients: more of them than the server was sized for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
from kintsugi_ml.lab.workloads.process import base_rates

STEP_SECONDS = 2.0


class WorkloadSpike(Fault):
    """All kinds of requests come 3 to 8 times as often as at level `high`, by severity, whatever the level is.

    A spike that the server answers as fast as ever is no fault; at a multiple of level `low` it often did.
    """

    name: ClassVar[str] = "workload-spike"
    title: ClassVar[str] = "clients send several times the usual requests"
    root: ClassVar[str] = "client"
    effect: ClassVar[Effect] = Effect(client=1.5)

    async def inject(self, ramp: float) -> None:
        """Raise the rate at once, or a little every two seconds."""
        if ramp == 0:
            await self._set(1.0)
        else:
            self.background(self._grow(ramp))

    async def _grow(self, ramp: float) -> None:
        async for level in self.grow(ramp, STEP_SECONDS):
            await self._set(level)

    async def _set(self, level: float) -> None:
        high = sum(base_rates(self.world.workload, "high").values())
        most = self.scaled(3, 8) * high / self.world.load.base_rate
        await self.world.load.control(rate_factor=1.0 + level * (most - 1.0))

    async def lift(self) -> None:
        """The usual rate."""
        await super().lift()
        await self.world.load.control(rate_factor=1.0)

    async def remedy(self, action: str) -> None:
        """`limit-clients`: admission control in front of the pooler lets the usual rate through."""
        if action != "limit-clients":
            raise ValueError(f"{self.name} has no remedy {action!r}; it has limit-clients")
        await self.lift()

    def trials(self) -> Sequence[Trial]:
        """Let in what the server can do; nothing else makes two CPUs more."""
        targets = self.world.targets
        return (
            Trial("limit-clients", right=True),
            parameters.resize_pool(self.world),
            parameters.analyze_table(self.world, targets.hot_table),
            parameters.prewarm_cache(targets.hot_table),
        )
