"""Databases that can't be watched at all: objects that this version can't read, and engines that it does not know."""

from __future__ import annotations

from datetime import datetime

from kintsugi.api.database import DatabaseStatus, MonitoredDatabase
from kintsugi.api.meta import Condition, ObjectMeta
from kintsugi.domain.decision import DatabasePhase
from kintsugi.engines.registry import ENGINES
from kintsugi.loops.services import Services


class Unwatchable:
    """Says so in their status, once per generation."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._said: dict[str, tuple[int, str]] = {}

    async def say(self, now: datetime) -> None:
        """Say of every database that can't be watched at all what is wrong with it, once."""
        fleet = self._services.fleet
        wrong = {
            broken.meta.key: (broken.meta, "InvalidSpec", f"this version can't read the object: {broken.problem}")
            for (plural, _), broken in fleet.broken.items()
            if plural == MonitoredDatabase.PLURAL
        }
        for key, database in fleet.databases.items():
            if database.spec.engine not in ENGINES:
                known = ", ".join(sorted(ENGINES))
                message = (
                    f"engine {database.spec.engine} is unknown to this version; it knows {known}: correct spec.engine"
                )
                wrong[key] = (database.metadata, "UnknownEngine", message)
        for key in set(self._said) - set(wrong):
            del self._said[key]
        for key, (meta, reason, message) in wrong.items():
            if self._said.get(key) != (meta.generation, message):
                await self._say(meta, reason, message, now)
                self._said[key] = (meta.generation, message)

    async def _say(self, meta: ObjectMeta, reason: str, message: str, now: datetime) -> None:
        healthy = Condition(
            type="Healthy",
            status="Unknown",
            reason=reason,
            message=message,
            observed_generation=meta.generation,
            last_transition_time=now,
        )
        status = DatabaseStatus(
            observed_generation=meta.generation,
            phase=DatabasePhase.BLIND,
            risk="-",
            soon="-",
            doing=message,
            conditions=(healthy,),
        )
        await self._services.write_status(MonitoredDatabase.PLURAL, meta, status)
        self._services.recorder.emit(MonitoredDatabase.KIND, meta, reason, message, now=now, warning=True)
