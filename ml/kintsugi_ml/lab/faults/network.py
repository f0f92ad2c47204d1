"""A fault of the path between pooler and database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import Effect, Fault, Trial


class NetworkDelay(Fault):
    """Every packet between pooler and database takes longer.

    The root is the pooler: there is no component for a network, and the pooler is the near end of this path. It sees
    the fault first (its server connections are busy longer, then clients wait for one), while inside the database
    statements are as fast as ever and sessions wait for their client.
    """

    name: ClassVar[str] = "network-delay"
    title: ClassVar[str] = "the network between pooler and database delays every packet"
    root: ClassVar[str] = "pooler"
    effect: ClassVar[Effect] = Effect(client=1.5, signal="pooler_servers_active", factor=2.0)

    async def inject(self, ramp: float) -> None:
        """Delay at once, or a little more every second; each way."""
        if ramp == 0:
            self.world.link.delay(self._delay)
        else:
            self.background(self._grow(ramp))

    @property
    def _delay(self) -> float:
        """Seconds each way: another zone (1 ms) is felt by nobody, another continent (50 ms) stops everything."""
        return self.scaled(0.002, 0.015)

    async def _grow(self, ramp: float) -> None:
        async for level in self.grow(ramp):
            self.world.link.delay(level * self._delay)

    async def remedy(self, action: str) -> None:
        """`reroute`: traffic takes another path."""
        if action != "reroute":
            raise ValueError(f"{self.name} has no remedy {action!r}; it has reroute")
        await self._end()

    async def _end(self) -> None:
        await super().lift()
        self.world.link.delay(0.0)

    async def lift(self) -> None:
        """No delay."""
        await self._end()

    def trials(self) -> Sequence[Trial]:
        """Nothing done to the database helps; a larger pool hides some of it."""
        targets = self.world.targets
        return (
            Trial("reroute", right=True),
            parameters.resize_pool(self.world),
            parameters.analyze_table(self.world, targets.lookup_table),
            parameters.DISCARD_PLANS,
            parameters.prewarm_cache(targets.hot_table),
        )
