"""One fault after another: settle, inject, watch until it is healed (or time is up), and record what happened."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kintsugi_dev.demo import measures
from kintsugi_dev.demo.approval import Approval, Commands, Person
from kintsugi_dev.demo.record import FaultRecord, Second
from kintsugi_dev.demo.view import Moment, View
from kintsugi_dev.demo.watch import Watcher
from kintsugi_dev.demo.world import (
    APP,
    APP_PASSWORD,
    APPROVER,
    APPROVERS,
    DATABASE,
    MODE,
    POOL_SIZE,
    STRANGER,
    World,
)
from kintsugi_dev.faults import BlockingTransaction, DroppedIndex, ExhaustedPool, Fault, KilledPrimary

TICK_SECONDS = 0.3
SETTLE_SECONDS = 8.0
HEALTHY_WITHIN = 60.0
HEALED_WITHIN = 90.0
UNHEALED_SECONDS = 45.0
LATE_SECONDS = 1.0
"""An incident opened so shortly before the injection returned may still be this fault's."""

FAULTS: Mapping[str, Callable[[World], Fault]] = {
    BlockingTransaction.name: lambda world: BlockingTransaction(world.primary.dsn(DATABASE, APP, APP_PASSWORD)),
    DroppedIndex.name: lambda world: DroppedIndex(world.primary, DATABASE),
    ExhaustedPool.name: lambda world: ExhaustedPool(world.pooler.dsn(DATABASE, APP), POOL_SIZE + 4),
    KilledPrimary.name: lambda world: KilledPrimary(world.primary, world.rebuild_failed_primary),
}
"""All faults in the order in which they are shown: the primary dies last, nothing comes after it."""


@dataclass
class Scenario:
    """Runs faults in a world, one at a time, and says what happens."""

    world: World
    watcher: Watcher
    view: View
    operator: bool
    interactive: bool = False
    commands_prefix: str = "kubectl"
    bound_s: float = UNHEALED_SECONDS
    _repaired_at: float | None = field(default=None, init=False)

    def run(self, name: str, number: int, total: int) -> FaultRecord:
        """One fault from a calm start to its end; what is left of it is lifted."""
        fault = FAULTS[name](self.world)
        self.view.say("")
        self.view.say(f"Fault {number} of {total}: {fault.title}", style="title")
        settled_from = self._settle()
        injected_at = time.time()
        self.view.say(f"{fault.name} injected", style="inject")
        try:
            fault.inject()
            record = self._observe(fault, settled_from, injected_at)
        finally:
            fault.lift()
        self._tell_end(record)
        return record

    def _settle(self) -> float:
        """Some seconds of normal in a row, healthy and calm; when they began. Gives up waiting after a minute."""
        start, deadline = time.time(), time.monotonic() + HEALTHY_WITHIN
        while time.time() - start < SETTLE_SECONDS and time.monotonic() < deadline:
            if not self._healthy():
                start = time.time() + TICK_SECONDS
            self._tick("letting it settle")
        return min(start, time.time() - SETTLE_SECONDS)

    def _healthy(self) -> bool:
        return not self.operator or (self.watcher.state.phase == "Healthy" and self.watcher.incident is None)

    def _observe(self, fault: Fault, settled_from: float, injected_at: float) -> FaultRecord:
        self._repaired_at = None
        progress = _Progress(self, injected_at)
        approval = self._approval()
        bound = HEALED_WITHIN if self.operator else self.bound_s
        while time.time() - injected_at - approval.waited < bound:
            record = self._record(fault, settled_from, injected_at, approval)
            progress.tell(record)
            for action in record.actions:
                approval.step(action)
            if self.operator and record.verified:
                self._repair(fault)
                if self._healthy():
                    break
            self._tick(fault.title, fault, injected_at)
        return self._record(fault, settled_from, injected_at, approval)

    def _repair(self, fault: Fault) -> None:
        """Do once what people do afterwards."""
        if fault.repair_title and self._repaired_at is None:
            self.view.say(fault.repair_title)
            fault.repair()
            self._repaired_at = time.time()

    def _record(self, fault: Fault, settled_from: float, injected_at: float, approval: Approval) -> FaultRecord:
        ended_at = time.time()
        p99, hurt, healed = measures.p99_of(self._seconds(), settled_from, injected_at, ended_at)
        incident = self.watcher.incident_since(injected_at - LATE_SECONDS) if self.operator else None
        actions = self.watcher.actions(incident.id) if incident else ()
        return FaultRecord(
            name=fault.name,
            title=fault.title,
            settled_from=settled_from,
            injected_at=injected_at,
            ended_at=ended_at,
            hurt_at=hurt,
            healed_at=healed,
            p99=p99,
            incident=incident,
            actions=actions,
            refused=approval.refused,
            approved=approval.settle(actions),
            policy=MODE,
            repair=fault.repair_title,
            repaired_at=self._repaired_at,
        )

    def _approval(self) -> Approval:
        return Approval(
            Commands(self.world.cluster, "shop", self.commands_prefix),
            Person(STRANGER),
            Person(APPROVER, (APPROVERS,)),
            lambda line: self.view.say(line, style="person"),
            wait=self.interactive,
        )

    def _seconds(self) -> list[Second]:
        return self.world.seconds()

    def _tick(self, doing: str, fault: Fault | None = None, injected_at: float | None = None) -> None:
        self.view.show(
            Moment(
                now=time.time(),
                state=self.watcher.state,
                problem=self.watcher.problem,
                seconds=self._seconds()[-60:],
                events=[event for event in self.watcher.events if event.object == DATABASE][-4:],
                stage=doing,
                injected_at=injected_at,
            )
        )
        time.sleep(TICK_SECONDS)

    def wait_learned(self, seconds: float, alive: Callable[[], None]) -> None:
        """Return once the operator calls the database healthy.

        Raises:
            TimeoutError: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while (state := self.watcher.state).phase != "Healthy":
            alive()
            if time.monotonic() > deadline:
                said = f"it says {state.phase or 'nothing'}: {state.doing}"
                raise TimeoutError(f"the operator did not call {DATABASE} healthy within {seconds:.0f} s; {said}")
            self._tick("the operator learns what is normal here")

    def rest(self, seconds: float) -> None:
        """Watch for a while without doing anything."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._tick("done")

    def _tell_end(self, record: FaultRecord) -> None:
        felt = f"p99 {_ms(record.p99.before)} → {_ms(record.p99.during)} → {_ms(record.p99.after)}"
        if not self.operator:
            back = f"healed by itself after {record.healed_s:.1f} s" if record.healed_s is not None else ""
            self.view.say(f"{back or f'not healed in {self.bound_s:.0f} s'}; {felt}", style="end")
        elif record.verified and record.healed_s is not None:
            self.view.say(f"healed after {record.healed_s:.1f} s and verified; {felt}", style="good")
        else:
            self.view.say(f"NOT healed and verified within {HEALED_WITHIN:.0f} s; {felt}", style="bad")


class _Progress:
    """Says each thing once, when it is first seen."""

    def __init__(self, scenario: Scenario, injected_at: float) -> None:
        self._view = scenario.view
        self._injected_at = injected_at
        self._said: set[str] = set()

    def tell(self, record: FaultRecord) -> None:
        """What is new in the record."""
        if record.incident is not None and record.detected_s is not None:
            self._once(
                "incident", f"detected after {record.detected_s:.1f} s: {shortened(record.incident.summary, 240)}"
            )
        for action in record.actions:
            if action.action.spec.forecast.sentence:
                self._once("forecast", f"forecast: {action.action.spec.forecast.sentence}")
            for step in action.action.status.history:
                after = step.at.timestamp() - self._injected_at
                line = f"+{after:.1f} s  {action.action.spec.action}: {step.phase}  {shortened(step.message)}"
                self._once(f"{action.name}/{step.phase}/{step.at}", line.rstrip())

    def _once(self, key: str, line: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._view.say(line)


def shortened(text: str, most: int = 160) -> str:
    """The text on one line, cut at a word where it is too long; whole it stands in the report."""
    return textwrap.shorten(text, most, placeholder=" …")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"
