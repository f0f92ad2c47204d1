"""What one cycle of the database loop looks at, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kintsugi.api.action import HealingAction
from kintsugi.api.database import IncidentStatus, MonitoredDatabase
from kintsugi.api.meta import PAUSE
from kintsugi.domain.anomaly import Anomaly
from kintsugi.loops.watch import Watch
from kintsugi.stages.policy import EffectivePolicy


@dataclass(frozen=True, slots=True)
class Cycle:
    """Everything one cycle looks at: read once, never changed."""

    database: MonitoredDatabase
    watch: Watch
    policy: EffectivePolicy
    anomaly: Anomaly
    actions: tuple[HealingAction, ...]
    incident: IncidentStatus | None
    now: datetime

    @property
    def live(self) -> HealingAction | None:
        """The action that has not ended: what is at work first, then what waits."""
        open_ = [action for action in self.actions if not action.phase.ended and action.spec.runnable]
        return next((a for a in open_ if a.phase.at_work), open_[0] if open_ else None)

    @property
    def working(self) -> bool:
        """Whether an action is changing something or judging a change."""
        return self.live is not None and self.live.phase.at_work

    @property
    def paused(self) -> bool:
        """Whether anybody has switched this database off."""
        return PAUSE in self.database.metadata.annotations or self.policy.ceiling.paused or bool(self.policy.paused_by)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle came to: what was held back, and why what was not proposed."""

    held_back: tuple[str, ...] = ()
    not_proposed: tuple[str, ...] = ()
