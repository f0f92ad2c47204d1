"""What the ground truth asks PostgreSQL (13–18): one row each, never a lock on a table."""

from __future__ import annotations

from typing import Final

_LOCK_WAIT: Final = """
  SELECT max(extract(epoch FROM clock_timestamp() - waitstart)) FROM pg_locks WHERE NOT granted"""
_LOCK_WAIT_13: Final = """
  SELECT max(extract(epoch FROM clock_timestamp() - query_start)) FROM s WHERE kind = 'Lock'"""

# A lock's beginning is looked up only while somebody waits: pg_locks stops the lock manager for a moment.
_PRIMARY: Final = """
WITH s AS MATERIALIZED (
  SELECT backend_type, state, wait_event_type AS kind, lower(wait_event) AS event, query_start, state_change,
    backend_type = 'client backend' AS client, application_name LIKE 'kintsugi/%' AS ours,
    backend_type IN ('client backend', 'parallel worker') AND state = 'active' AS working,
    age(backend_xmin) AS xmin_age
  FROM pg_stat_activity WHERE pid <> pg_backend_pid()
), a AS (
  SELECT
    count(*) FILTER (WHERE working AND NOT ours AND kind IS NULL) AS on_cpu_sessions,
    max(extract(epoch FROM clock_timestamp() - query_start)) FILTER (WHERE working AND NOT ours) AS longest_statement,
    count(*) FILTER (WHERE kind = 'Lock' AND backend_type <> 'autovacuum worker') AS lock_waiters,
    max(extract(epoch FROM clock_timestamp() - state_change)) FILTER (WHERE state LIKE 'idle in transaction%')
      AS idle_in_transaction,
    count(*) FILTER (WHERE working AND kind = 'IO' AND event !~ '^wal') AS io_waiters,
    count(*) FILTER (WHERE working AND kind IN ('IO', 'LWLock') AND event ~ '^wal') AS wal_waiters,
    count(*) FILTER (WHERE event = 'syncrep') AS sync_waiters,
    count(*) FILTER (WHERE backend_type = 'checkpointer' AND event IS DISTINCT FROM 'checkpointermain')
      AS checkpointing,
    count(*) FILTER (WHERE backend_type = 'autovacuum worker') AS vacuum_workers,
    count(*) FILTER (WHERE client) + 1 AS client_backends,
    count(*) FILTER (WHERE client AND state = 'idle' AND NOT ours) AS idle_sessions,
    max(xmin_age) AS xmin_age
  FROM s
)
SELECT on_cpu_sessions::float8, coalesce(longest_statement, 0)::float8 AS longest_statement, lock_waiters::float8,
  CASE WHEN lock_waiters > 0 THEN coalesce(({lock_wait}), 0) ELSE 0 END::float8 AS lock_wait,
  coalesce(idle_in_transaction, 0)::float8 AS idle_in_transaction, io_waiters::float8, wal_waiters::float8,
  sync_waiters::float8, checkpointing::float8, vacuum_workers::float8, idle_sessions::float8,
  client_backends / current_setting('max_connections')::float8 AS connections_used,
  greatest(a.xmin_age, (SELECT max(greatest(age(xmin), age(catalog_xmin))) FROM pg_replication_slots),
    (SELECT max(age(transaction)) FROM pg_prepared_xacts), 0)::float8 AS oldest_xmin_age,
  (SELECT count(*) FROM pg_stat_get_wal_senders() WHERE state = 'streaming')::float8 AS replicas_streaming,
  CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 END
    AS wal_position,
  d.blks_read::float8 AS blocks_read, d.blks_hit::float8 AS blocks_hit, (d.blks_hit + d.blks_read)::float8
    AS blocks_asked, d.temp_bytes::float8,
  d.tup_returned::float8 AS rows_read, d.blk_read_time / 1000 AS block_read_seconds
FROM a, pg_stat_database d WHERE d.datname = current_database()"""

REPLICA: Final = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::float8 END
  AS replay_position"""

TABLES: Final = """
WITH r AS MATERIALIZED (
  SELECT pg_stat_get_live_tuples(oid) AS live, pg_stat_get_dead_tuples(oid) AS dead,
    pg_stat_get_mod_since_analyze(oid) AS modified,
    greatest(pg_stat_get_last_analyze_time(oid), pg_stat_get_last_autoanalyze_time(oid)) AS analyzed
  FROM pg_class
  WHERE relkind IN ('r', 'm') AND relpersistence <> 't'
    AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
)
SELECT coalesce(sum(dead), 0)::float8 AS dead_rows,
  coalesce(max(modified / greatest(live, 10000)::float8), 0) AS modified_ratio,
  coalesce(extract(epoch FROM clock_timestamp() - min(analyzed) FILTER (WHERE modified >= 50 + live / 10)), 0)::float8
    AS statistics_age
FROM r"""
"""Small tables count as 10,000 rows: a queue that is emptied all the time is always modified and harms no plan."""

PRIMARY_COLUMNS: Final = (
    "on_cpu_sessions",
    "longest_statement",
    "lock_waiters",
    "lock_wait",
    "idle_in_transaction",
    "io_waiters",
    "wal_waiters",
    "sync_waiters",
    "checkpointing",
    "vacuum_workers",
    "idle_sessions",
    "connections_used",
    "oldest_xmin_age",
    "replicas_streaming",
    "wal_position",
    "blocks_read",
    "blocks_hit",
    "blocks_asked",
    "temp_bytes",
    "rows_read",
    "block_read_seconds",
)
TABLES_COLUMNS: Final = ("dead_rows", "modified_ratio", "statistics_age")
REPLICA_COLUMNS: Final = ("replay_position",)


def primary(version: int) -> str:
    """The question to a primary of this major version; 13 does not know since when a lock is waited for."""
    return _PRIMARY.format(lock_wait=_LOCK_WAIT if version >= 14 else _LOCK_WAIT_13)
