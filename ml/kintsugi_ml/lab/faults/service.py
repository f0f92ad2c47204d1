"""Faults by a service beside the application: batch jobs, tools, a release gone wrong. It has a role of its own."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import asyncpg

from kintsugi_ml.lab.faults import parameters
from kintsugi_ml.lab.faults.base import Fault

ROLE, PASSWORD = "jobs", "jobs"

_MAKE_ROLE: Final = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
        CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}' IN ROLE app;
    END IF;
END $$
"""
_SET_ROLE: Final = (
    f"ALTER ROLE {ROLE} CONNECTION LIMIT -1",
    f"ALTER ROLE {ROLE} SET deadlock_timeout = '{{deadlock_timeout}}'",
)


class ServiceFault(Fault):
    """A fault whose sessions belong to the role `jobs`, which may do what the application may."""

    application: ClassVar[str]
    """What the sessions call themselves."""
    deadlock_timeout: ClassVar[str] = "500ms"
    """A long one makes the application's sessions the victims, since they look for the deadlock first."""

    async def prepare(self) -> None:
        """The role, without limits."""
        await self.world.sql(_MAKE_ROLE)
        for statement in _SET_ROLE:
            await self.world.sql(statement.format(deadlock_timeout=self.deadlock_timeout))

    async def repair(self) -> None:
        """Take back a limit that a remedy has set."""
        await self.world.sql(_SET_ROLE[0])

    async def open(self, application: str | None = None, **settings: str) -> asyncpg.Connection:
        """A session of the service straight at the primary, closed by `lift`."""
        connection = await asyncpg.connect(
            self.world.direct_dsn(ROLE),
            password=PASSWORD,
            timeout=10,
            statement_cache_size=0,
            server_settings={"application_name": application or self.application, **settings},
        )
        self._sessions.append(connection)
        return connection

    def transactions(self) -> list[dict[str, Any]]:
        """The service's open transactions, as production names them."""
        return parameters.transactions(self.world, self.application)
