"""What the guard is told and what it answers: facts, permissions and the judgement, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from kintsugi.api.database import TrackRecord
from kintsugi.domain.decision import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that boundaries are checked against, read once per cycle.

    Attributes:
        now: the time.
        database_name: the database inside the server (`spec.connection.database`), for `database:` protections.
        database_paused: the text of the annotation `kintsugi.dev/pause` on the database; None where it is not there.
        newest_sample_age: seconds since the newest sample of this database; None when there is none.
        freshest_needed: seconds that the newest sample may be old (three scrape intervals, for example).
        last_action_ended: when an action on this database last ended (`Budget.last_ended_at`).
        started: starts of actions on this database (`Budget.started_at`), this one's own left out.
        at_work_here: the name of another action at work on this database; empty when none is.
        at_work: by policy name, how many other actions are at work over the databases it matches.
        at_work_fleet: how many other actions are at work in the whole fleet.
        open_incidents: databases with an open incident in the fleet, this one included.
        databases: databases in the fleet.
        record: how this action type has done on this database.
        trusted: how it has done on all databases that trust is counted over; `record` where that is only this one.
        tried: actions already taken or proposed for this incident, this one left out.
        data_loss_bytes: what a failover could lose (WAL that the replica has not received), as measured; None: unknown.
        replication_lag: seconds that the replica in question lags behind; None: unknown or no replica.
        observers: by observer (metrics, a direct connection, each replica), whether it sees the primary as down; None
            where that observer could not be asked.
    """

    now: datetime
    database_name: str
    database_paused: str | None
    newest_sample_age: float | None
    freshest_needed: float
    last_action_ended: datetime | None
    started: tuple[datetime, ...]
    at_work_here: str
    at_work: Mapping[str, int]
    at_work_fleet: int
    open_incidents: int
    databases: int
    record: TrackRecord
    trusted: TrackRecord
    tried: int
    data_loss_bytes: float | None = None
    replication_lag: float | None = None
    observers: Mapping[str, bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Forbidden:
    """No object is created, and an existing one does not run; `why` says what holds it back."""

    why: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class RecommendOnly:
    """An object that can't be run (`runnable: false`) is created, for people to read."""

    why: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """It may run once somebody approves; `why` says because of what."""

    why: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Auto:
    """It may run by itself."""


Permission: TypeAlias = Forbidden | RecommendOnly | Ask | Auto


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the guard says: the permission, every refusal, and every reason to ask a person."""

    permission: Permission
    refusals: tuple[Refusal, ...]
    asks: tuple[Refusal, ...]

    @property
    def retry_after(self) -> float | None:
        """Seconds until time alone may have lifted every refusal; None when it can't, or nothing is refused."""
        waits = [refusal.retry_after for refusal in self.refusals]
        known = [wait for wait in waits if wait is not None]
        return max(known) if known and len(known) == len(waits) else None

    @property
    def sentence(self) -> str:
        """Every reason in one line; empty when there is none."""
        return "; ".join(reason.message for reason in (*self.refusals, *self.asks))
