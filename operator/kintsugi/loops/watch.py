"""What the operator remembers of one database between two cycles, besides what stands in the objects themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kintsugi.api.database import MonitoredDatabase
from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.forecast import NO_FORECAST, Forecast
from kintsugi.domain.frame import Frame
from kintsugi.domain.signals import LOGS
from kintsugi.engines.engine import Diagnosis, Engine
from kintsugi.engines.postgresql.logs.book import Book
from kintsugi.loops.buffer import RingBuffer
from kintsugi.shell.logs.source import Position
from kintsugi.stages.ports import DetectorState
from kintsugi.stages.reference import GUARD, GUARD_SAMPLES, reference

BUFFER_MARGIN = 300.0  # seconds kept beyond the reference window: the present incident, and verification
NONSENSE = 20  # lines of a log of which none was understood, until its format must be wrong
MOST_SAMPLES = 10_000  # a range query of Prometheus gives at most 11,000


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something can't be read; `reason` is CamelCase for a condition, `message` says what to do."""

    reason: str
    message: str


@dataclass(slots=True)
class Log:
    """The server's log as far as it was read: `merged` (Unix s) is up to when the frame has its columns.

    `zone` is what is wrong with the time zone of its newest lines; `ahead` how many seconds they are from the future.
    """

    book: Book
    position: Position
    read_at: float | None = None
    merged: float = 0.0
    lines: int = 0
    junk: int = 0
    zone: str = ""
    ahead: float = 0.0

    @property
    def understood(self) -> bool:
        """Whether it is read, and lines of it are understood or there are hardly any."""
        return self.read_at is not None and (self.lines > 0 or self.junk < NONSENSE)


@dataclass(slots=True)
class Watch:
    """One database. Rebuilt from Prometheus and the object's status when the operator restarts.

    `incidents` are (start, end) in Unix seconds of the anomalies seen, end None while one is open; `silences` the same
    of what was silenced by a label. Both are kept out of the reference: what lasts longer than its label must not have
    become normal by then. `frozen` is the reference as it was when the open incident began. `judged_at` is the newest
    sample that detection has seen, `accepted` how often a person said that the present is normal. `uid` and
    `spec_generation` say for which object, and which generation of it, the buffer was made: a changed spec, and another
    database of the same name, begin anew. `due` is a time of the monotonic clock. `said` are the incidents of which it
    was said that they opened or closed: once, however often the status can't be written. `beside` are conditions from
    beside the cycle, by type: status, reason, message.
    """

    key: str
    uid: str
    engine: Engine
    spec_generation: int
    buffer: RingBuffer
    state: DetectorState = field(default_factory=DetectorState)
    incidents: list[tuple[float, float | None]] = field(default_factory=list)
    silences: list[tuple[float, float | None]] = field(default_factory=list)
    frozen: Frame | None = None
    judged_at: float | None = None
    accepted: int = 0
    offers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    discovered_at: float | None = None
    metrics_problem: Problem | None = None
    connection_problem: Problem | None = None
    connected: bool = False
    last_connected_at: float | None = None
    unreachable_since: float | None = None
    server_version: str = ""
    slo_value: float | None = None
    slo_problem: Problem | None = None
    slo_read_at: float | None = None
    diagnosis: Diagnosis | None = None
    diagnosed_at: float | None = None
    anomaly: Anomaly | None = None
    forecast: Forecast = NO_FORECAST
    due: float = 0.0
    said: set[str] = field(default_factory=set)
    beside: dict[str, tuple[bool, str, str]] = field(default_factory=dict)
    log: Log | None = None

    @property
    def normal(self) -> str:
        """Which normal is learned: another object, another spec and a person's acknowledgement begin a new one."""
        return f"{self.uid}/{self.spec_generation}/{self.accepted}"

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Where each signal comes from, preferred one first: the exporters that offer it, or the server's log."""
        read = self.log is not None and self.log.understood
        return {**(dict.fromkeys(self.engine.catalogue.logged(), (LOGS,)) if read else {}), **self.offers}

    def reference(self, database: MonitoredDatabase, now: float) -> Frame:
        """The fault-free samples that the present is compared with; while an incident is open, those of before it."""
        if self.frozen is not None:
            return self.frozen
        # Samples that came in after a stall have not been judged yet: a fault may be in them.
        now = now if self.judged_at is None else min(now, self.judged_at + self.buffer.frame.interval)
        since = database.status.reference_since
        frame = self.buffer.frame if since is None else self.buffer.frame.between(since.timestamp(), now + 1)
        return reference(frame, [*self.incidents, *self.silences], now, database.spec.reference.window.total_seconds())

    def freeze(self, database: MonitoredDatabase, now: float) -> None:
        """Keep the present reference, however long the incident lasts."""
        if self.frozen is None:
            self.frozen = self.reference(database, now)

    def accept_present(self) -> None:
        """A person says that what looks like an incident is how the database is now: learn anew from here."""
        if self.incidents and self.incidents[-1][1] is None:
            del self.incidents[-1]
        self.silenced(None, self.buffer.newest or 0.0)
        self.frozen, self.state = None, DetectorState()
        self.accepted += 1

    def opened(self, at: float) -> None:
        """An incident is open since `at`."""
        if not self.incidents or self.incidents[-1][1] is not None:
            self.incidents.append((at, None))

    def closed(self, at: float) -> None:
        """The open incident ended."""
        if self.incidents and self.incidents[-1][1] is None:
            self.incidents[-1] = (self.incidents[-1][0], at)
        self.frozen = None

    def judged(self, anomaly: Anomaly, state: DetectorState, now: float) -> None:
        """Detection has seen all that is in the buffer."""
        self.anomaly, self.state, self.judged_at = anomaly, state, self.buffer.newest
        self.silenced(state.silent_since, now)

    def silenced(self, since: float | None, now: float) -> None:
        """Something is silenced by a label since `since`, or nothing is any more."""
        still = bool(self.silences) and self.silences[-1][1] is None
        if since is not None and not still:
            self.silences.append((since, None))
        elif since is None and still:
            self.silences[-1] = (self.silences[-1][0], now)

    def says(self, what: str) -> bool:
        """Whether this is news; it is none the next time."""
        news = what not in self.said
        self.said.add(what)
        return news


def reach(database: MonitoredDatabase, now: float) -> float:
    """How many seconds back what is normal must be looked for: the window before now, an open incident or a silence.

    Found open after a restart, an incident could never be judged again if what came before it were not read.
    """
    window = database.spec.reference.window.total_seconds()
    interval = database.spec.metrics.scrape_interval.total_seconds()
    began = min((start for start in (_opened_at(database), _silent_since(database)) if start is not None), default=None)
    lasts = 0.0 if began is None else max(0.0, now - began + GUARD + GUARD_SAMPLES * interval)
    return min(window + lasts, max(window, MOST_SAMPLES * interval))


def _opened_at(database: MonitoredDatabase) -> float | None:
    incident = database.status.incident
    return incident.opened_at.timestamp() if incident else None


def _silent_since(database: MonitoredDatabase) -> float | None:
    judgement = database.status.judgement
    return judgement.silent_since.timestamp() if judgement and judgement.silent_since else None


def new_watch(database: MonitoredDatabase, engine: Engine, now: float) -> Watch:
    """A watch with an empty buffer that holds the reference window and what follows it; `now` in Unix seconds."""
    interval = database.spec.metrics.scrape_interval.total_seconds()
    span = reach(database, now) + BUFFER_MARGIN
    opened, silent = _opened_at(database), _silent_since(database)
    return Watch(
        key=database.metadata.key,
        uid=database.metadata.uid,
        engine=engine,
        spec_generation=database.metadata.generation,
        buffer=RingBuffer(engine.catalogue.names(), interval, int(span / interval) + 1),
        # At once: judged against a reference that holds it, an open incident would look over.
        incidents=[] if opened is None else [(opened, None)],
        silences=[] if silent is None else [(silent, None)],
        state=DetectorState(silent_since=silent),
    )


def expected_signals(database: MonitoredDatabase, engine: Engine) -> tuple[str, ...]:
    """The catalogue's signals that this database could offer: none of what it does not have."""
    absent = set()
    if database.spec.pooler is None:
        absent.add("pooler")
    if database.spec.replication is None:
        absent.add("replication")
    logged = engine.catalogue.logged() if database.spec.logs is None else {}
    return tuple(s.name for s in engine.catalogue if s.component not in absent and s.name not in logged)
