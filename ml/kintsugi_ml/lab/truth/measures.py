"""What is measured of each component at 8 Hz, and how the sampler's raw numbers become it.

Floors are the smallest change that could matter on the lab's machine (two cores, 16 pooled connections, a disk of
30–60 MB/s): of sessions one more than chance puts there, of time a tenth, of bytes a tenth of what the disk
does, of rows what a fiftieth of a core reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from kintsugi.domain.frame import Floats
from kintsugi.domain.signals import Hurts
from kintsugi_ml.lab.clienttrack import WINDOW_SECONDS, Requests, client_track

RATE_SECONDS: Final = 1.0
"""A rate looks back so far: PostgreSQL's backends report their counters once a second at most (PGSTAT_MIN_INTERVAL)."""
GAP_SECONDS: Final = 2.5
"""A rate over a longer gap would smear over it what happened: missing instead."""

UP, DOWN = Hurts.UP, Hurts.DOWN


@dataclass(frozen=True, slots=True)
class Gauge:
    """A raw column as it is."""

    column: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A raw counter's growth per second; with `per`, against another counter's growth."""

    column: str
    per: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One raw column less another, never below 0."""

    column: str
    less: str


@dataclass(frozen=True, slots=True)
class Delay:
    """How long ago one raw counter was where another one, that follows it, is now."""

    column: str
    less: str


Formula = Gauge | Rate | Difference | Delay | Literal["latency", "failed_share"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number per sample.

    `origin` is where it comes from. What does not `decide` is recorded, but routine work moves it, so it never says
    that a component left its band.
    """

    name: str
    component: str
    unit: str
    hurts: Hurts
    floor: float
    formula: Formula
    origin: str
    decides: bool = True

    @property
    def memory(self) -> float:
        """How many seconds a sample looks back: so long is a moment's burst seen after it."""
        if isinstance(self.formula, str):
            return WINDOW_SECONDS
        return RATE_SECONDS if isinstance(self.formula, Rate) else 0.0


def _gauge(name: str, component: str, unit: str, floor: float, origin: str, hurts: Hurts = UP) -> Measure:
    return Measure(name, component, unit, hurts, floor, Gauge(name), origin)


def _context(name: str, component: str, unit: str, floor: float, formula: Formula, origin: str) -> Measure:
    return Measure(name, component, unit, UP, floor, formula, origin, decides=False)


ACTIVITY, DATABASE, TABLES = "pg_stat_activity", "pg_stat_database", "pg_class's statistics"

MEASURES: Final[tuple[Measure, ...]] = (
    Measure("client_latency", "client", "s", UP, 0.01, "latency", "requests.csv: p90 of half a second"),
    Measure("client_failed", "client", "ratio", UP, 0.05, "failed_share", "requests.csv: failed of half a second"),
    _gauge("on_cpu_sessions", "query-engine", "sessions", 2.0, f"{ACTIVITY}: active, waiting for nothing"),
    _gauge("longest_statement", "query-engine", "s", 1.0, f"{ACTIVITY}: oldest active statement of a client"),
    Measure("rows_read", "query-engine", "rows/s", UP, 200_000.0, Rate("rows_read"), f"{DATABASE}.tup_returned"),
    _gauge("answer_time", "query-engine", "s", 0.1, "how long the sampler's own question has waited for its answer"),
    _gauge("modified_ratio", "planner-statistics", "ratio", 0.25, f"{TABLES}: rows modified since analyze / live rows"),
    _context(
        "statistics_age", "planner-statistics", "s", 60.0, Gauge("statistics_age"), f"{TABLES}: oldest due ANALYZE"
    ),
    _gauge("lock_waiters", "lock-manager", "sessions", 0.9, f"{ACTIVITY}: waiting for a heavyweight lock"),
    _gauge("lock_wait", "lock-manager", "s", 0.5, "pg_locks: longest wait (13: age of the waiting statement)"),
    _context(
        "idle_in_transaction", "lock-manager", "s", 1.0, Gauge("idle_in_transaction"), f"{ACTIVITY}: longest idle one"
    ),
    Measure("blocks_read", "buffer-pool", "blocks/s", UP, 500.0, Rate("blocks_read"), f"{DATABASE}.blks_read"),
    Measure(
        "hit_ratio", "buffer-pool", "ratio", DOWN, 0.05, Rate("blocks_hit", "blocks_asked"), f"{DATABASE}.blks_hit"
    ),
    _gauge("io_waiters", "storage", "sessions", 1.0, f"{ACTIVITY}: waiting for a data or temporary file"),
    Measure("temp_bytes", "storage", "B/s", UP, 4e6, Rate("temp_bytes"), f"{DATABASE}.temp_bytes"),
    Measure(
        "read_latency",
        "storage",
        "s",
        UP,
        0.002,
        Rate("block_read_seconds", "blocks_read"),
        f"{DATABASE}.blk_read_time",
    ),
    Measure("wal_bytes", "wal", "B/s", UP, 2e6, Rate("wal_position"), "pg_current_wal_insert_lsn()"),
    _gauge("wal_waiters", "wal", "sessions", 2.0, f"{ACTIVITY}: waiting for WAL to be written, flushed or inserted"),
    _context("checkpointing", "wal", "ratio", 0.5, Gauge("checkpointing"), f"{ACTIVITY}: the checkpointer is at work"),
    _gauge("dead_rows", "autovacuum", "rows", 10_000.0, f"{TABLES}: dead rows of all tables"),
    _gauge("oldest_xmin_age", "autovacuum", "transactions", 2000.0, f"{ACTIVITY}, slots, prepared: oldest snapshot"),
    _context(
        "vacuum_workers", "autovacuum", "workers", 0.6, Gauge("vacuum_workers"), f"{ACTIVITY}: autovacuum workers"
    ),
    _gauge("connections_used", "connections", "ratio", 0.1, f"{ACTIVITY}: client backends / max_connections"),
    _gauge("idle_sessions", "connections", "sessions", 5.0, f"{ACTIVITY}: idle client backends"),
    _gauge("clients_waiting", "pooler", "clients", 1.5, "SHOW POOLS: cl_waiting"),
    _gauge("pool_wait", "pooler", "s", 0.1, "SHOW POOLS: maxwait"),
    Measure(
        "replay_distance",
        "replication",
        "B",
        UP,
        4e6,
        Difference("wal_position", "replay_position"),
        "the primary's LSN less pg_last_wal_replay_lsn() of the replica, asked at the same moment",
    ),
    Measure(
        "replay_delay",
        "replication",
        "s",
        UP,
        1.0,
        Delay("wal_position", "replay_position"),
        "how long ago the primary's LSN was what the replica's pg_last_wal_replay_lsn() is",
    ),
    _gauge("sync_waiters", "replication", "sessions", 2.0, f"{ACTIVITY}: commits waiting for the replica"),
    _gauge("replicas_streaming", "replication", "replicas", 0.5, "pg_stat_get_wal_senders()", DOWN),
    Measure("cpu_pressure", "host-cpu", "s/s", UP, 0.1, Rate("cpu_pressure"), "/proc/pressure/cpu: some"),
    Measure("cpu_busy", "host-cpu", "ratio", UP, 0.15, Rate("cpu_busy", "cpu_all"), "/proc/stat"),
    Measure("cpu_throttled", "host-cpu", "s/s", UP, 0.1, Rate("cpu_throttled"), "the primary's group: cpu.stat"),
    _context("database_cpu", "host-cpu", "s/s", 0.15, Rate("group_cpu"), "the primary's group: cpuacct.usage"),
    Measure("memory_pressure", "host-memory", "s/s", UP, 0.05, Rate("memory_pressure"), "/proc/pressure/memory: some"),
    _gauge("memory_taken", "host-memory", "ratio", 0.1, "the primary's group: rss / limit; without: /proc/meminfo"),
    Measure(
        "cache_refaults",
        "host-memory",
        "pages/s",
        UP,
        500.0,
        Rate("cache_refaults"),
        "the primary's group: memory.stat",
    ),
    Measure("io_pressure", "host-io", "s/s", UP, 0.15, Rate("io_pressure"), "/proc/pressure/io: some"),
    Measure("disk_busy", "host-io", "ratio", UP, 0.15, Rate("disk_busy"), "/proc/diskstats: time with I/O under way"),
    Measure("disk_latency", "host-io", "s", UP, 0.005, Rate("disk_seconds", "disk_operations"), "/proc/diskstats"),
    _context("database_io", "host-io", "B/s", 4e6, Rate("group_io"), "the primary's group: blkio"),
)


@dataclass(frozen=True, slots=True)
class Samples:
    """The sampler's raw numbers: `times` `[T]` (Unix s, increasing), columns `[T]`, NaN = not had in time."""

    times: Floats
    columns: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Track:
    """The measures: `values` `[T, M]` at `times` `[T]` (Unix s), NaN = missing; `names` `[M]`."""

    times: Floats
    names: tuple[str, ...]
    values: Floats

    def column(self, name: str) -> Floats:
        """One measure `[T]`."""
        column: Floats = self.values[:, self.names.index(name)]
        return column


def track(samples: Samples, requests: Requests, measures: Sequence[Measure] = MEASURES) -> Track:
    """The measures of a run, from what the sampler and the clients wrote."""
    client = client_track(requests, samples.times)
    columns = []
    for measure in measures:
        if isinstance(measure.formula, str):
            columns.append(client.latency if measure.formula == "latency" else client.failed_share)
        else:
            columns.append(_values(samples, measure.formula))
    values = np.stack(columns, axis=1) if columns else np.empty((len(samples.times), 0))
    return Track(samples.times, tuple(measure.name for measure in measures), values)


def _values(samples: Samples, formula: Gauge | Rate | Difference | Delay) -> Floats:
    missing = np.full(len(samples.times), np.nan)
    column = samples.columns.get(formula.column, missing)
    match formula:
        case Gauge():
            return column
        case Difference():
            ahead: Floats = np.maximum(column - samples.columns.get(formula.less, missing), 0.0)
            return ahead
        case Delay():
            return _delay(samples.times, column, samples.columns.get(formula.less, missing))
        case Rate():
            growth, seconds = _growth(samples.times, column)
            if formula.per is not None:
                seconds, _ = _growth(samples.times, samples.columns.get(formula.per, missing))
            return np.divide(growth, seconds, out=np.full_like(growth, np.nan), where=seconds > 0)


def _delay(times: Floats, ahead: Floats, behind: Floats) -> Floats:
    """Seconds since `ahead` was last where `behind` is, `[T]`; at least those since it was first measured."""
    measured = np.flatnonzero(~np.isnan(ahead))
    if len(measured) == 0:
        return np.full(len(times), np.nan)
    newest = np.searchsorted(np.maximum.accumulate(ahead[measured]), behind, side="right") - 1
    delay = np.maximum(times - times[measured[np.maximum(newest, 0)]], 0.0)
    return np.where(np.isnan(ahead) | np.isnan(behind), np.nan, delay)


def _growth(times: Floats, counter: Floats) -> tuple[Floats, Floats]:
    """A counter's growth over the last second or so and how long that was, `[T]` each; NaN after a reset or a gap."""
    growth, seconds = np.full(len(times), np.nan), np.full(len(times), np.nan)
    measured = np.flatnonzero(~np.isnan(counter))
    if len(measured) == 0:
        return growth, seconds
    at, value = times[measured], counter[measured]
    before = np.searchsorted(at, at - RATE_SECONDS + 1e-3, side="right") - 1
    span = at - at[before]
    usable = (before >= 0) & (span <= GAP_SECONDS) & (value >= value[before])
    growth[measured[usable]] = (value - value[before])[usable]
    seconds[measured[usable]] = span[usable]
    return growth, seconds
