"""Signals that may give a class away, because they are what the fault does: reviewed by a person, each with the reason.

What the leak check finds and is not here is either a mistake of the lab or belongs here with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXPECTED: Final[Mapping[str, Mapping[str, str]]] = {
    "missing-index": {
        "sequential_rows_read": "without the index the commonest read goes through the whole table",
        "rows_per_call": "without the index the commonest read goes through the whole table",
    },
    "too-many-indexes": {
        "rows_written": "the writer that the indexes slow down is part of the fault",
        "wal_full_page_images": "each further index means further pages written",
    },
    "lock-contention": {
        "blocked_by_one": "one transaction holds what everybody wants",
        "lock_waiters": "one transaction holds what everybody wants",
    },
    "idle-in-transaction": {
        "idle_in_transaction_sessions": "sessions that sit in a transaction are the fault",
        "idle_in_transaction_age": "sessions that sit in a transaction are the fault",
    },
    "deadlocks": {"deadlocks": "the server counts them; no other class makes them without end"},
    "connection-exhaustion": {
        "connections_used": "taking every connection is the fault",
        "idle_sessions": "leaked connections are idle sessions",
        "connections_exhausted": "taking every connection is the fault",
        "sessions_failed": "without a free connection new sessions are refused",
    },
    "pool-exhaustion": {
        "pooler_clients_waiting": "clients wait for a pool that others hold",
        "pooler_max_wait": "clients wait for a pool that others hold",
        "pooler_wait_time": "clients wait for a pool that others hold",
    },
    "stale-statistics": {
        "modified_rows": "rows that changed since ANALYZE are the fault",
        "modified_ratio": "rows that changed since ANALYZE are the fault",
    },
    "runaway-query": {"longest_query_age": "statements that never end are the fault"},
    "temp-spill": {"temp_bytes": "sorts that no longer fit memory are the fault"},
    "bloat": {
        "dead_rows": "rows that vacuum may not remove are the fault",
        "dead_ratio": "rows that vacuum may not remove are the fault",
        "oldest_xmin_age": "an old snapshot is what holds vacuum back",
    },
    "checkpoint-storm": {
        "checkpoints_requested": "checkpoints that follow one another are the fault",
        "wal_full_page_images": "after each checkpoint pages are logged whole",
    },
    "wal-pressure": {"wal_waiters": "many tiny synchronous commits wait for the WAL"},
    "bulk-insert": {"rows_written": "mass inserts are the fault"},
    "cold-cache": {
        "blocks_read": "an empty cache is filled by reads",
        "cache_hit_ratio": "an empty cache misses",
    },
    "io-saturation": {"host_disk_busy": "a disk with a tenth of its speed is always busy"},
    "cpu-hog": {"host_cpu_used": "a neighbour that takes the cores is the fault"},
    "memory-pressure": {
        "host_major_faults": "pages that were cached are read again",
        "host_memory_pressure": "too little memory is the fault",
    },
    "replication-lag": {
        "replication_delay": "a replica that replays late is the fault",
        "replication_lag": "a replica that replays late is the fault",
    },
    "replica-lost": {
        "sync_replication_waiters": "commits wait for a replica that is gone",
        "replicas_streaming": "a replica that is gone is the fault",
        "replication_reply_age": "a replica that is gone does not answer",
    },
    "workload-spike": {"client_requests": "more requests are the fault"},
}
