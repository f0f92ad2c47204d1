"""What every fault of the lab has in common, and what a run asks of it.

    prepare → (normal part is recorded) → inject → (fault part) → a remedy, or none → (after part) → lift → repair

`prepare` must not be felt, `inject` returns once the fault has begun (a ramp goes on in the background), `lift` ends
whatever is left of it and is fine when a remedy has healed it, `repair` puts the world back to what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg

from kintsugi_dev.servers.errors import ServerError

if TYPE_CHECKING:
    from kintsugi_ml.lab.world import World

LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""How a session of ours may end when a remedy, a crash or a timeout hits it; TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a run must show to count (the effect gate), against the run's own normal part.

    Either is enough: the client's p95 latency rose, or its throughput fell, by the factor `client`; or the mean of the
    catalogue signal `signal` changed by the factor `factor` (into the direction that hurts, past the signal's floor).
    None: that way is not open to this class.
    """

    client: float | None = 1.5
    signal: str | None = None
    factor: float = 2.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A remedy to try: an action by its name in DESIGN §4, with parameters; `right` when it should heal."""

    action: str
    right: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Trial("nothing", right=False)


class Fault(ABC):
    """Something that goes wrong, of a `severity` between 0 (just felt) and 1 (bad)."""

    name: ClassVar[str]
    """As in the manifest, `missing-index` for example."""
    title: ClassVar[str]
    """What happens, in a sentence."""
    root: ClassVar[str]
    """The component where it starts; one of `engines.catalogue.COMPONENTS`."""
    effect: ClassVar[Effect]
    negative: ClassVar[bool] = False
    """A hard negative: looks like a fault and must not lead to an action."""
    forms: ClassVar[tuple[str, ...]] = ("abrupt", "ramped")
    idle_service: ClassVar[bool] = False
    """It brings the idle sessions itself that every other run has beside it; see noise.idle_service."""
    dirty: ClassVar[bool] = False
    """`repair` can't put everything back: the world is built anew after the run."""

    def __init__(self, world: World, severity: float, random: Random) -> None:
        self.world = world
        self.severity = severity
        self.random = random
        self._sessions: list[asyncpg.Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: list[str] = []

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """Why this machine or server can't have this fault, in a sentence; None where it can."""
        del world
        return None

    async def prepare(self) -> None:
        """Make what the fault needs, long before it, without being felt."""
        return

    @abstractmethod
    async def inject(self, ramp: float) -> None:
        """Begin; abrupt when `ramp` is 0, else grow over `ramp` seconds in the background."""

    async def lift(self) -> None:
        """End it. Subclasses that changed settings put them back first, then call this for sessions and tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        # A server process at work does not notice that its client has gone: it must be ended at the server.
        pids = [session.get_server_pid() for session in self._sessions if not session.is_closed()]
        for session in self._sessions:
            session.terminate()
        self._sessions.clear()
        if pids:
            with contextlib.suppress(*LOST):
                await self.world.sql("SELECT pg_terminate_backend(pid, 2000) FROM unnest($1::int[]) AS pid", pids)

    def failed(self) -> str | None:
        """What ended its work before its time, in a sentence, as known until now; None when nothing did."""
        return self._lost[0] if self._lost else None

    async def repair(self) -> None:
        """Put back what lifting leaves behind (dropped indexes, bloat, extra rows)."""
        return

    @abstractmethod
    def trials(self) -> Sequence[Trial]:
        """At least one right remedy and two plausible wrong ones; called when the fault is at its height."""

    # --- for subclasses ---

    def scaled(self, low: float, high: float) -> float:
        """The severity on a scale of the class' own, `low` at 0 and `high` at 1."""
        return low + (high - low) * self.severity

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the recording until it ends by itself or the fault is lifted; a lost session ends it, too."""

        async def guarded() -> None:
            try:
                await work
            except (*LOST, ServerError) as error:
                self._lost.append(f"{type(error).__name__}: {error}")

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Lifted before it has begun, the work was never awaited, and Python would complain.
        task.add_done_callback(lambda _: work.close())

    async def session(self, application: str, *, user: str | None = None, **settings: str) -> asyncpg.Connection:
        """A session straight at the primary as the application's user (`user`: another), closed by `lift`."""
        connection = await asyncpg.connect(
            self.world.direct_dsn(user),
            timeout=10,
            statement_cache_size=0,
            server_settings={"application_name": application, **settings},
        )
        self._sessions.append(connection)
        return connection

    async def grow(self, ramp: float, step: float = 1.0) -> AsyncIterator[float]:
        """The level of a ramp, every `step` seconds, from above 0 to exactly 1; just 1 when `ramp` is 0."""
        steps = max(1, round(ramp / step))
        for number in range(1, steps + 1):
            yield number / steps
            if number < steps:
                await asyncio.sleep(step)
