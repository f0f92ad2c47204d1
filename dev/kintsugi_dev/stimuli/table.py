"""Which stimulus moves which signal, and how far at least.

By default a signal has to rise by its own floor. Where seconds on a fast disk can't reach that (an age of a minute, a
latency of a slow disk), `at_least` says how much proves that the number is the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kintsugi_dev.stimuli import phases
from kintsugi_dev.stimuli.phases import Act


@dataclass(frozen=True, slots=True)
class Stimulus:
    """`act` moves the signal `direction`-wards by `at_least` (None: its floor) on servers from version `since` on."""

    act: Act
    direction: Literal["up", "down"] = "up"
    at_least: float | None = None
    since: int = 13


STIMULI: Final[Mapping[str, Stimulus]] = {
    "client_latency_p50": Stimulus(phases.locked_shop),
    "client_latency_p95": Stimulus(phases.locked_shop),
    "client_latency_p99": Stimulus(phases.locked_shop),
    "client_requests": Stimulus(phases.locked_shop, "down"),
    "client_errors": Stimulus(phases.locked_shop),
    "longest_query_age": Stimulus(phases.long_query),
    "active_sessions": Stimulus(phases.long_query),
    "on_cpu_sessions": Stimulus(phases.computing),
    "statement_latency": Stimulus(phases.slow_statements),
    "statement_time": Stimulus(phases.slow_statements),
    "statement_calls": Stimulus(phases.failing),
    "rows_per_call": Stimulus(phases.slow_statements),
    "commits": Stimulus(phases.transactions),
    "rollbacks": Stimulus(phases.failing),
    "temp_bytes": Stimulus(phases.spilling),
    "sequential_rows_read": Stimulus(phases.scanning),
    "index_scans": Stimulus(phases.looking_up),
    "collector_time": Stimulus(phases.locked_catalogue),
    "modified_rows": Stimulus(phases.changing_rows),
    "modified_ratio": Stimulus(phases.changing_rows),
    "statistics_age": Stimulus(phases.changing_rows, at_least=4.0),
    "tables_never_analyzed": Stimulus(phases.changing_rows),
    "lock_waiters": Stimulus(phases.lock_tree),
    "lock_wait_age": Stimulus(phases.lock_tree),
    "blocking_depth": Stimulus(phases.lock_tree, at_least=2.0),
    "blocked_by_one": Stimulus(phases.lock_tree, at_least=3.0),
    "longest_transaction_age": Stimulus(phases.lock_tree),
    "idle_in_transaction_sessions": Stimulus(phases.lock_tree),
    "idle_in_transaction_age": Stimulus(phases.lock_tree),
    "prepared_transaction_age": Stimulus(phases.prepared_transaction),
    "deadlocks": Stimulus(phases.deadlocks),
    "lwlock_waiters": Stimulus(phases.slow_index_insert),
    "cache_hit_ratio": Stimulus(phases.scanning, "down"),
    "blocks_read": Stimulus(phases.scanning),
    "buffers_allocated": Stimulus(phases.scanning),
    "backend_buffer_writes": Stimulus(phases.writing),
    "io_waiters": Stimulus(phases.frozen_in_a_read),
    "block_read_latency": Stimulus(phases.frozen_in_a_read, at_least=1e-4),
    "rows_written": Stimulus(phases.writing),
    "wal_waiters": Stimulus(phases.flushing),
    "wal_bytes": Stimulus(phases.writing),
    "wal_full_page_images": Stimulus(phases.writing, since=14),
    "wal_sync_latency": Stimulus(phases.frozen_in_a_flush, since=14),
    "checkpoints_requested": Stimulus(phases.writing),
    "checkpoint_write_time": Stimulus(phases.writing, at_least=1e-3),
    "checkpoint_sync_time": Stimulus(phases.writing, at_least=1e-3),
    "archive_failures": Stimulus(phases.failing_archive),
    "dead_rows": Stimulus(phases.changing_rows),
    "dead_ratio": Stimulus(phases.changing_rows),
    "oldest_xmin_age": Stimulus(phases.transactions),
    "frozen_xid_age": Stimulus(phases.transactions, at_least=2000),
    "vacuum_workers": Stimulus(phases.vacuuming),
    "postgres_up": Stimulus(phases.primary_gone, "down", at_least=1.0),
    "connections_used": Stimulus(phases.idle_sessions),
    "connections_exhausted": Stimulus(phases.all_connections_taken, at_least=1.0),
    "idle_sessions": Stimulus(phases.idle_sessions),
    "sessions_opened": Stimulus(phases.short_sessions, since=14),
    "sessions_failed": Stimulus(phases.short_sessions, since=14),
    "pooler_up": Stimulus(phases.replica_and_pooler_gone, "down", at_least=1.0),
    "pooler_clients_waiting": Stimulus(phases.queueing_at_the_pooler),
    "pooler_max_wait": Stimulus(phases.queueing_at_the_pooler),
    "pooler_wait_time": Stimulus(phases.queueing_at_the_pooler),
    "pooler_servers_active": Stimulus(phases.queueing_at_the_pooler),
    "pooler_servers_idle": Stimulus(phases.queueing_at_the_pooler, "down"),
    "pooler_pool_used": Stimulus(phases.queueing_at_the_pooler),
    "pooler_queries": Stimulus(phases.queueing_at_the_pooler),
    "replicas_streaming": Stimulus(phases.replica_and_pooler_gone, "down", at_least=1.0),
    "replication_delay": Stimulus(phases.paused_replay),
    "replication_lag": Stimulus(phases.paused_replay),
    "replication_reply_age": Stimulus(phases.silent_receiver),
    "slot_retained_bytes": Stimulus(phases.replica_and_pooler_gone),
    "sync_replication_waiters": Stimulus(phases.waiting_for_a_replica),
    "recovery_conflicts": Stimulus(phases.conflicting_with_replay),
}
