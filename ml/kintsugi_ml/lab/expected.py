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
        "blocks_read": "each write reads a page of each index",
    },
    "lock-contention": {
        "blocked_by_one": "one transaction holds what everybody wants",
        "lock_waiters": "one transaction holds what everybody wants",
        "lock_wait_age": "one transaction holds what everybody wants",
    },
    "idle-in-transaction": {
        "idle_in_transaction_sessions": "sessions that sit in a transaction are the fault",
        "idle_in_transaction_age": "sessions that sit in a transaction are the fault",
        "lock_waiters": "others wait for what the idle transaction has locked",
        "lock_wait_age": "others wait for what the idle transaction has locked",
        "blocking_depth": "others wait for what the idle transaction has locked",
        "blocked_by_one": "others wait for what the idle transaction has locked",
    },
    "deadlocks": {
        "deadlocks": "the server counts them; no other class makes them without end",
        "lock_waiters": "those who will be in a deadlock wait for each other first",
    },
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
        "statement_calls": "the transactions of the service that holds the pool are part of the fault",
        "pooler_queries": "the transactions of the service that holds the pool are part of the fault",
        "idle_in_transaction_sessions": "the transactions of the service that holds the pool are part of the fault",
    },
    "stale-statistics": {
        "modified_rows": "rows that changed since ANALYZE are the fault",
        "modified_ratio": "rows that changed since ANALYZE are the fault",
        "client_latency_p50": "with the wrong plan most calls take seconds; no other class slows as many",
        "client_latency_p95": "with the wrong plan most calls take seconds; no other class slows as many",
        "client_latency_p99": "with the wrong plan most calls take seconds; no other class slows as many",
        "on_cpu_sessions": "the wrong plan is work for the CPU",
        "index_scans": "the wrong plan is a nested loop: one index scan for each outer row",
        "pooler_wait_time": "slow statements keep the pool's connections",
    },
    "runaway-query": {
        "longest_query_age": "statements that never end are the fault",
        "wal_sync_latency": "what the join spills shares the disk with the WAL",
    },
    "temp-spill": {"temp_bytes": "sorts that no longer fit memory are the fault"},
    "bloat": {
        "dead_rows": "rows that vacuum may not remove are the fault",
        "dead_ratio": "rows that vacuum may not remove are the fault",
        "oldest_xmin_age": "an old snapshot is what holds vacuum back",
        "rows_written": "the queue turns over while nothing may be removed: hours of it, in seconds",
        "rows_per_call": "the queue turns over while nothing may be removed: hours of it, in seconds",
    },
    "checkpoint-storm": {
        "checkpoints_requested": "checkpoints that follow one another are the fault",
        "wal_full_page_images": "after each checkpoint pages are logged whole",
    },
    "wal-pressure": {
        "wal_waiters": "many tiny synchronous commits wait for the WAL",
        "wal_bytes": "tiny commits without end are the fault",
        "checkpoints_requested": "a checkpoint is due whenever that much WAL is written",
        "host_io_pressure": "each of them waits for the disk",
    },
    "bulk-insert": {
        "rows_written": "mass inserts are the fault",
        "longest_query_age": "the import is one statement",
        "buffers_allocated": "mass inserts are the fault: each page of them is allocated, logged and flushed",
        "wal_bytes": "mass inserts are the fault: each page of them is allocated, logged and flushed",
        "wal_waiters": "mass inserts are the fault: each page of them is allocated, logged and flushed",
        "lwlock_waiters": "mass inserts are the fault: each page of them is allocated, logged and flushed",
        "cache_hit_ratio": "new pages push out what was cached",
        "replication_delay": "the replica has to replay what was inserted",
        "replication_lag": "the replica has to replay what was inserted",
    },
    "cold-cache": {
        "blocks_read": "an empty cache is filled by reads",
        "cache_hit_ratio": "an empty cache misses",
        "io_waiters": "an empty cache is filled by reads",
        "collector_time": "the collector's own queries miss the cache, too",
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
    "workload-spike": {
        "client_requests": "more requests are the fault",
        "statement_calls": "more requests are the fault",
        "commits": "more requests are the fault",
        "pooler_queries": "more requests are the fault",
    },
}
