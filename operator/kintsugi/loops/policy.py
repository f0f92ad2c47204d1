"""What each `HealingPolicy`'s status says: databases matched, effective modes, what is blocked and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.policy import HealingPolicy
from kintsugi.loops.services import Services
from kintsugi.stages.budget import recent
from kintsugi.stages.policy import applying
from kintsugi.stages.policy_status import Matched, conflicts, status_of

EVERY = 2.0  # seconds
REMEMBERED = 256


class PolicyLoop:
    """Writes the status of policies, on change."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._last: datetime | None = None
        self._conflicts: dict[frozenset[tuple[str, int]], tuple[str, ...]] = {}

    async def cycle(self, now: datetime) -> None:
        """Every policy once; at most every other second."""
        if self._last is not None and abs((now - self._last).total_seconds()) < EVERY:
            return
        self._last = now
        for policy in list(self._services.fleet.policies.values()):
            await self._one(policy, now)

    async def _one(self, policy: HealingPolicy, now: datetime) -> None:
        policies = self._services.fleet.policies_in(policy.metadata.namespace)
        together = {
            database.metadata.key: applying(policies, database) for database in self._services.fleet.databases.values()
        }
        matched = [
            self._matched(database, now)
            for database in self._services.fleet.databases.values()
            if policy in together[database.metadata.key]
        ]
        beside = {other.metadata.name: other for group in together.values() if policy in group for other in group}
        status = status_of(
            policy, matched, self._services.ceiling, self._conflicts_of(tuple(beside.values()), now), now
        )
        await self._services.write_status(HealingPolicy.PLURAL, policy.metadata, status)

    def _matched(self, database: MonitoredDatabase, now: datetime) -> Matched:
        blocked = tuple(
            condition.message
            for condition in database.status.conditions
            if condition.type == "ActionsAllowed" and condition.status == "False"
        )
        return Matched(
            name=database.metadata.name,
            effective=self._services.policy_for(database),
            actions_last_hour=len(recent(database.status.budget, now)),
            blocked=blocked,
        )

    def _conflicts_of(self, policies: Sequence[HealingPolicy], now: datetime) -> tuple[str, ...]:
        """Windows that never overlap; computed when one of the policies has changed."""
        key = frozenset((policy.metadata.uid, policy.metadata.generation) for policy in policies)
        if key not in self._conflicts:
            if len(self._conflicts) >= REMEMBERED:
                self._conflicts.clear()
            self._conflicts[key] = conflicts(policies, now)
        return self._conflicts[key]
