"""The hub: runs every database's loop when it is due, all that are due as one batch, and every action that has work.

It keeps the registry fresh (watch events, and a full listing each minute that removes ghosts and notices a dead watch),
and it is the outermost guard: whatever fails in one database's cycle is logged, counted and does not stop the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.policy import HealingPolicy
from kintsugi.domain.decision import DatabasePhase
from kintsugi.domain.experience import Example
from kintsugi.engines.registry import ENGINES
from kintsugi.loops.action import ActionLoop
from kintsugi.loops.database import DatabaseLoop
from kintsugi.loops.detection import Detection, Load
from kintsugi.loops.experience import ExperienceLoop
from kintsugi.loops.fleet import Fleet
from kintsugi.loops.logs import LogReader
from kintsugi.loops.observe import Observer
from kintsugi.loops.people import say_unheard
from kintsugi.loops.policy import PolicyLoop
from kintsugi.loops.services import Services
from kintsugi.loops.unwatchable import Unwatchable
from kintsugi.loops.watch import Watch, new_watch
from kintsugi.shell import models, telemetry
from kintsugi.shell.audit import AuditChain
from kintsugi.shell.errors import KubeError
from kintsugi.shell.events import EventRecorder
from kintsugi.shell.experience import ExperienceStore
from kintsugi.shell.gate import ApprovalGate
from kintsugi.shell.kube import Kube
from kintsugi.shell.secrets import Secrets
from kintsugi.shell.telemetry import OperatorMetrics, Pulse
from kintsugi.stages.policy import Ceiling
from kintsugi.stages.ports import Observed

log = logging.getLogger(__name__)

LIST_EVERY = 60.0
HEARTBEAT = 1.0
FLUSH = 3.0  # seconds for the last events
GATE_EVERY = 180.0
GATE_RETRY = 15.0
SHORTEST_CYCLE = 1.0  # seconds
RECENT = 60  # samples handed to the detector

Json = Mapping[str, Any]
KINDS = (MonitoredDatabase, HealingPolicy, HealingAction)


class Hub:
    """Owns the registry and everything that runs."""

    def __init__(
        self,
        kube: Kube,
        ceiling: Ceiling,
        metrics: OperatorMetrics,
        pulse: Pulse,
        *,
        identity: str,
        audit: Path | None = None,
        namespaces: Sequence[str] = (),
        experience: Callable[[], ExperienceStore] | None = None,
        learned: bool = True,
        load_models: Load = models.load,
    ) -> None:
        self.fleet = Fleet()
        self.watches: dict[str, Watch] = {}
        self._kube = kube
        self._pulse = pulse
        self._metrics = metrics
        self._namespaces = tuple(namespaces)
        self._wake = asyncio.Event()
        self._learned = learned
        self._detection = Detection(load_models)
        secrets = Secrets(kube)
        self._logs = LogReader(kube, secrets, ceiling)
        self._observer = Observer(secrets, self._logs)
        self._recorder = EventRecorder(kube, identity)
        self.services = Services(
            kube=kube,
            secrets=secrets,
            recorder=self._recorder,
            gate=ApprovalGate(kube.api),
            metrics=metrics,
            fleet=self.fleet,
            watches=self.watches,
            ceiling=ceiling,
            identity=identity,
            audit_chain=AuditChain(audit),
            wake=self.wake,
            wake_action=lambda key: self._actions.wake(key),
        )
        self._databases = DatabaseLoop(self.services)
        self._unwatchable = Unwatchable(self.services)
        self._actions = ActionLoop(self.services)
        self._policies = PolicyLoop(self.services)
        self._experience = (
            ExperienceLoop(self.services, experience, self._observer.past, self._hear) if experience else None
        )
        self._listed_at: float | None = None

    async def run(self) -> None:
        """Run until cancelled or a part fails."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            group.create_task(self._list_for_ever())
            group.create_task(self._databases_for_ever())
            group.create_task(self._actions.run())
            group.create_task(self._test_the_gate_for_ever())
            if self._experience is not None:
                group.create_task(self._experience.run())

    async def close(self) -> None:
        """Let running steps end and be told, then close every connection."""
        await self._actions.drain()
        if self._experience is not None:
            await self._experience.close()
        await self._recorder.flush(FLUSH)
        await self._detection.close()
        await self._observer.close()
        await self.services.close()

    def on_event(self, plural: str, type_: str, body: Json) -> None:
        """A watch saw an object appear, change or go."""
        meta = body["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        before = self.fleet.databases.get(key)
        if type_ == "DELETED":
            self.fleet.remove(plural, key)
        else:
            self.fleet.apply(plural, body)
        if plural == HealingAction.PLURAL:
            self._actions.wake(key)
        elif plural == MonitoredDatabase.PLURAL and self._matters(key, before):
            if watch := self.watches.get(key):
                watch.due = 0.0
            self._actions.wake_all(key)
        elif plural == HealingPolicy.PLURAL and (type_ == "DELETED" or not _observed_already(body)):
            self._actions.wake_all()
        self.wake()

    def _matters(self, key: str, before: MonitoredDatabase | None) -> bool:
        """Whether a database's event is more than our own status coming back."""
        after = self.fleet.databases.get(key)
        if before is None or after is None:
            return True
        old, new = before.metadata, after.metadata
        return (old.uid, old.generation, old.labels, old.annotations) != (
            new.uid,
            new.generation,
            new.labels,
            new.annotations,
        )

    def wake(self) -> None:
        """Look again now at what is due."""
        self._wake.set()

    async def _list_for_ever(self) -> None:
        while True:
            try:
                await self._list()
            except KubeError as error:
                log.warning("objects could not be listed, again in a moment: %s", error)
                await asyncio.sleep(2)
            else:
                await asyncio.sleep(LIST_EVERY)

    async def _list(self) -> None:
        """All objects of all kinds; what the watch missed is made up for, and said: a watch should miss nothing."""
        for kind in KINDS:
            listing = await self._kube.list_objects(kind.PLURAL, self._namespaces)
            missed = self.fleet.replace(kind.PLURAL, listing.items, listing.version)
            if missed and self._listed_at is not None:
                self._metrics.missed.labels(kind.PLURAL).inc(len(missed))
                log.warning("the watch of %s had not said that %s", kind.PLURAL, "; ".join(missed))
        if self._listed_at is None:
            log.info("watching %d databases", len(self.fleet.databases))
        self._listed_at = time.monotonic()
        self.fleet.complete = self._pulse.ready = True
        for key in self.fleet.actions:
            self._actions.wake(key)
        self.wake()

    async def _test_the_gate_for_ever(self) -> None:
        """The approval gate's self-test: at the start and every few minutes; what it says stands in conditions."""
        while True:
            try:
                state = await self._kube.run(self.services.gate.check)
            except Exception:
                log.exception("the approval gate's self-test failed; it is tried again in %s s", GATE_RETRY)
                await asyncio.sleep(GATE_RETRY)
                continue
            if not state.ok:
                log.error("approval gate: %s", state.message)
            self.services.gate_state = state
            await asyncio.sleep(GATE_EVERY if state.ok else GATE_RETRY)

    async def _databases_for_ever(self) -> None:
        while True:
            self._wake.clear()
            now = time.time()
            if self._listed_at is not None:
                self._metrics.watch_age.set(time.monotonic() - self._listed_at)
                try:
                    await self._tick(now)
                except Exception:
                    # No beat: if this goes on, liveness fails and Kubernetes starts the operator anew.
                    self._metrics.cycle_failures.inc()
                    log.exception("a cycle of the whole fleet failed; it is tried again in a moment")
                else:
                    self._pulse.beat()
            else:
                self._pulse.beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._until_due())

    def _until_due(self) -> float:
        now = time.monotonic()  # a wall clock that is set back would stop every loop until it has caught up
        soonest = min((watch.due for watch in self.watches.values()), default=now + HEARTBEAT)
        return min(max(soonest - now, 0.01), HEARTBEAT)

    async def _tick(self, now: float) -> None:
        """One cycle of every database that is due."""
        await self._keep_watches()
        self._count_phases()
        clock = time.monotonic()
        due = [
            (database, self.watches[key])
            for key, database in self.fleet.databases.items()
            if key in self.watches and self.watches[key].due <= clock
        ]
        if due:
            began, cpu = time.perf_counter(), time.process_time()
            await self._cycle(due, now)
            self._metrics.cycle_seconds.observe(time.perf_counter() - began)
            self._metrics.cycle_cpu_seconds.observe(time.process_time() - cpu)
            self._metrics.cycles.inc()
        await self._guarded("databases", self._unwatchable.say(datetime.fromtimestamp(now, UTC)))
        await self._guarded("policies", self._policies.cycle(datetime.fromtimestamp(now, UTC)))

    async def _cycle(self, due: Sequence[tuple[MonitoredDatabase, Watch]], now: float) -> None:
        for database, watch in due:
            interval = max(database.spec.metrics.scrape_interval.total_seconds(), SHORTEST_CYCLE)
            watch.due = time.monotonic() + interval
        allowed = [pair for pair in due if not self.services.ceiling.problems(pair[0])]
        await self._observer.observe(allowed, now)
        learned = [self._uses_models(database) for database, _ in due]
        self._detection.keep(wanted=any(learned))
        observed = [_observed(*pair, now, learned=uses) for pair, uses in zip(due, learned, strict=True)]
        verdicts = self._detection.detect(observed, now)
        if self._experience is not None:
            for uid in self._detection.unheard():
                self._experience.ask(uid)
        for (_, watch), (anomaly, state) in zip(due, verdicts, strict=True):
            watch.judged(anomaly, state, now)
        self._detection.say((watch, uses) for (_, watch), uses in zip(due, learned, strict=True))
        await asyncio.gather(
            *(self._guarded(watch.key, self._databases.cycle(database, watch, now)) for database, watch in due)
        )

    def _uses_models(self, database: MonitoredDatabase) -> bool:
        wish = database.spec.detector
        return self._learned if wish is None else wish == "Learned"

    def _hear(self, uid: str, examples: tuple[Example, ...]) -> None:
        """The examples of a database that is watched and uses them; the store may know others that are gone."""
        watched = (one for one in self.fleet.databases.values() if one.metadata.uid == uid)
        if any(self._uses_models(database) for database in watched):
            self._detection.hear(uid, examples)

    async def _guarded(self, what: str, work: Any) -> None:
        token = telemetry.database.set(what)
        try:
            await work
        except KubeError as error:
            log.warning("%s: %s", what, error)
        except Exception:
            self._metrics.cycle_failures.inc()
            log.exception("the cycle of %s failed; it is tried again when it is due", what)
        finally:
            telemetry.database.reset(token)

    def _count_phases(self) -> None:
        phases = Counter(database.status.phase or "New" for database in self.fleet.databases.values())
        for phase in (*DatabasePhase, "New"):
            self._metrics.databases.labels(str(phase)).set(phases[str(phase)])

    async def _keep_watches(self) -> None:
        """One watch per database of a known engine; a changed spec begins with an empty buffer."""
        for key in set(self.watches) - set(self.fleet.databases):
            self.services.forget(key)
            self._databases.forget(key)
            self._detection.forget(self.watches[key].uid)
            del self.watches[key]
        for key, database in self.fleet.databases.items():
            engine = ENGINES.get(database.spec.engine)
            known = self.watches.get(key)
            if engine is None:
                continue
            meta = database.metadata
            if known is None or (known.uid, known.spec_generation) != (meta.uid, meta.generation):
                self.services.forget(key)
                if known is not None and known.uid != meta.uid:
                    self._detection.forget(known.uid)
                self.watches[key] = new_watch(database, engine, time.time())
                if self._experience is not None:
                    self._experience.ask(meta.uid)
            if self._experience is None:
                say_unheard(database, self.watches[key])
        await self._logs.keep(self.watches)
        await self.services.close_stale()


def _observed_already(body: Json) -> bool:
    return bool(body["metadata"].get("generation") == (body.get("status") or {}).get("observedGeneration"))


def _observed(database: MonitoredDatabase, watch: Watch, now: float, *, learned: bool) -> Observed:
    frame = watch.buffer.frame
    span = database.spec.reference
    return Observed(
        key=watch.normal,
        catalogue=watch.engine.catalogue,
        reference=watch.reference(database, now),
        recent=frame.between(now - RECENT * frame.interval, now + 1),
        state=watch.state,
        minimum=span.minimum.total_seconds(),
        uid=watch.uid,
        learned=learned,
    )
