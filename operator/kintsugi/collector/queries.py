"""The SQL of the collector, per server version. One row each; a column's alias is its metric.

The column `lock_waiters` becomes the metric `kintsugi_pg_lock_waiters`; one that ends in `_total` is a counter; NULL is
left out, because absent means unknown. Zero is always written as zero.

What none of these queries does: take a lock on a user's table or index (no size functions: they block behind ACCESS
EXCLUSIVE), read a user's rows, or write. Sessions of ours (`kintsugi/…`) count nowhere but in what is really used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Needs = Literal["pg_monitor", "pg_stat_statements"]


@dataclass(frozen=True, slots=True)
class Query:
    """One query: `sql` maps the lowest server version (13, 14, …) to its text; it runs on servers of this `role`."""

    name: str
    sql: Mapping[int, str]
    role: Literal["primary", "replica", "any"] = "primary"
    needs: Needs | None = None

    def text(self, version: int) -> str:
        """The text for a server of this major version."""
        return self.sql[max(lowest for lowest in self.sql if lowest <= version)]


IDENTITY: Final = """
SELECT pg_is_in_recovery() AS in_recovery,
  current_setting('max_connections')::float8 AS max_connections,
  current_setting('superuser_reserved_connections')::float8
    + coalesce(current_setting('reserved_connections', true), '0')::float8 AS reserved_connections,
  pg_has_role(current_user, 'pg_read_all_stats', 'usage') AS pg_monitor,
  current_setting('track_io_timing')::bool AS track_io_timing,
  coalesce(current_setting('track_wal_io_timing', true), 'off')::bool AS track_wal_io_timing,
  (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements' AND string_to_array(e.extversion, '.')::int[] >= '{1,8}'
      AND current_setting('pg_stat_statements.max', true) IS NOT NULL  -- set where the library is preloaded
  ) AS statements_schema
"""
"""Who answers, and what it can tell. Asked first: it decides what else is asked, and its answer means `up`."""

ACTIVITY: Final = Query(
    "activity",
    role="any",
    needs="pg_monitor",
    sql={
        13: """
WITH s AS MATERIALIZED (
  SELECT backend_type, state, wait_event_type, lower(wait_event) AS event,
    backend_type = 'client backend' AS client,
    coalesce(datname = current_database(), false) AS here,
    coalesce(application_name, '') LIKE 'kintsugi/%' AS ours,
    query ~* '^\\s*(vacuum|analyze|reindex|cluster|copy|create\\s+(unique\\s+)?index)\\y' AS upkeep,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS xact_age,
    extract(epoch FROM clock_timestamp() - query_start)::float8 AS query_age,
    extract(epoch FROM clock_timestamp() - state_change)::float8 AS state_age,
    age(backend_xmin)::float8 AS xmin_age
  FROM pg_stat_activity WHERE pid <> pg_backend_pid()
), working AS (
  SELECT *, event ~ '^wal(sync|write|insert|buf|init)' AS wal
  FROM s WHERE state = 'active' AND NOT ours AND backend_type IN ('client backend', 'parallel worker')
), clients AS (SELECT * FROM s WHERE client AND here AND NOT ours)
SELECT w.*, c.*, l.*, x.*, p.*
FROM (
  SELECT count(*) FILTER (WHERE wait_event_type IS NULL) AS on_cpu_sessions,
    count(*) FILTER (WHERE wait_event_type = 'LWLock' AND NOT wal) AS lwlock_waiters,
    count(*) FILTER (WHERE wait_event_type = 'IO' AND NOT wal) AS io_waiters,
    count(*) FILTER (WHERE wait_event_type IN ('IO', 'LWLock') AND wal) AS wal_waiters,
    count(*) FILTER (WHERE event = 'syncrep') AS sync_replication_waiters
  FROM working
) w, (
  SELECT count(*) FILTER (WHERE state = 'active') AS active_sessions,
    coalesce(max(query_age) FILTER (WHERE state = 'active' AND NOT upkeep), 0) AS longest_query_seconds,
    coalesce(max(xact_age), 0) AS longest_transaction_seconds,
    count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction_sessions,
    coalesce(max(state_age) FILTER (WHERE state LIKE 'idle in transaction%'), 0) AS idle_in_transaction_seconds
  FROM clients
) c, (
  SELECT count(*) FILTER (WHERE wait_event_type = 'Lock' AND here AND NOT ours AND backend_type <> 'autovacuum worker')
      AS lock_waiters,
    count(*) FILTER (WHERE client AND NOT ours AND state = 'idle') AS idle_sessions,
    count(*) FILTER (WHERE client) + 1 AS client_backends,
    count(*) FILTER (WHERE backend_type = 'autovacuum worker') AS vacuum_workers
  FROM s
) l, (
  SELECT coalesce(max(held), 0) AS oldest_xmin_age FROM (
    SELECT max(xmin_age) AS held FROM s
    UNION ALL SELECT greatest(max(age(xmin)), max(age(catalog_xmin))) FROM pg_replication_slots
    UNION ALL SELECT max(age(transaction)) FROM pg_prepared_xacts) AS holders
) x, (
  SELECT coalesce(extract(epoch FROM clock_timestamp() - min(prepared)), 0)::float8 AS prepared_transaction_seconds
  FROM pg_prepared_xacts WHERE database = current_database()
) p"""
    },
)

WAITS: Final = Query(
    "waits",
    role="any",
    needs="pg_monitor",
    sql={
        # pg_blocking_pids holds up the lock manager for a moment, so it is called for 64 waiters at most.
        13: """
SELECT pid, extract(epoch FROM clock_timestamp() - query_start)::float8 AS age, pg_blocking_pids(pid) AS blockers
FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database() AND backend_type <> 'autovacuum worker'
  AND application_name NOT LIKE 'kintsugi/%'
ORDER BY query_start LIMIT 64""",
        14: """
SELECT a.pid, extract(epoch FROM clock_timestamp() - coalesce(l.since, a.query_start))::float8 AS age,
  pg_blocking_pids(a.pid) AS blockers
FROM (
  SELECT pid, query_start FROM pg_stat_activity
  WHERE wait_event_type = 'Lock' AND datname = current_database() AND backend_type <> 'autovacuum worker'
    AND application_name NOT LIKE 'kintsugi/%'
  ORDER BY query_start LIMIT 64
) a LEFT JOIN (SELECT pid, min(waitstart) AS since FROM pg_locks WHERE NOT granted GROUP BY pid) l USING (pid)""",
    },
)
"""Who waits for whom: several rows, asked only while somebody waits. `kintsugi.collector.waits` reads them."""

_DATABASE = """
SELECT xact_commit AS commits_total, xact_rollback AS rollbacks_total, deadlocks AS deadlocks_total,
  temp_bytes AS temp_bytes_total, blks_read AS blocks_read_total, blks_hit AS blocks_hit_total,
  tup_inserted + tup_updated + tup_deleted AS rows_written_total, conflicts AS recovery_conflicts_total,
  CASE WHEN current_setting('track_io_timing')::bool THEN blk_read_time / 1000 END AS block_read_seconds_total{more},
  (SELECT max(age(datfrozenxid))::float8 FROM pg_database) AS frozen_xid_age
FROM pg_stat_database WHERE datname = current_database()"""

DATABASE: Final = Query(
    "database",
    role="any",
    sql={
        13: _DATABASE.format(more=""),
        14: _DATABASE.format(
            more=""",
  sessions AS sessions_opened_total,
  sessions_abandoned + sessions_fatal + sessions_killed AS sessions_failed_total"""
        ),
    },
)

_STATEMENTS = """
SELECT coalesce(sum(calls), 0)::float8 AS statement_calls_total,
  coalesce(sum(total_exec_time), 0) / 1000 AS statement_seconds_total,
  coalesce(sum(rows), 0)::float8 AS statement_rows_total
FROM {schema}.pg_stat_statements(false)
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"""

STATEMENTS: Final = Query("statements", needs="pg_stat_statements", sql={13: _STATEMENTS})
"""Sums over pg_stat_statements, without texts (they lie in a file). `{schema}` is the extension's."""

TABLES: Final = Query(
    "tables",
    # pg_stat_user_tables would do the same, with joins and a GROUP BY over every index; this reads pg_class once.
    sql={
        13: """
WITH r AS MATERIALIZED (
  SELECT relkind <> 'i' AS heap, reltuples AS known_rows, pg_stat_get_numscans(oid) AS scans,
    pg_stat_get_tuples_returned(oid) AS returned,
    CASE WHEN relkind <> 'i' THEN pg_stat_get_live_tuples(oid) END AS live,
    CASE WHEN relkind <> 'i' THEN pg_stat_get_dead_tuples(oid) END AS dead,
    CASE WHEN relkind <> 'i' THEN pg_stat_get_mod_since_analyze(oid) END AS modified,
    CASE WHEN relkind <> 'i' THEN
      greatest(pg_stat_get_last_analyze_time(oid), pg_stat_get_last_autoanalyze_time(oid)) END AS analyzed
  FROM pg_class
  WHERE relkind IN ('r', 'm', 'i') AND relpersistence <> 't' AND relnamespace NOT IN (
    SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema') OR nspname ~ '^pg_toast')
)
SELECT coalesce(sum(returned) FILTER (WHERE heap), 0)::float8 AS sequential_rows_read_total,
  coalesce(sum(scans) FILTER (WHERE NOT heap), 0)::float8 AS index_scans_total,
  coalesce(sum(dead), 0)::float8 AS dead_rows,
  coalesce(max(dead::float8 / (live + dead)) FILTER (WHERE live + dead >= 1000), 0) AS dead_ratio,
  coalesce(sum(modified), 0)::float8 AS modified_rows,
  coalesce(max(modified::float8 / greatest(live, 1000)) FILTER (WHERE greatest(live, modified) >= 1000), 0)
    AS modified_ratio,
  coalesce(extract(epoch FROM clock_timestamp() - min(analyzed) FILTER (WHERE modified >= 50 + live / 10)), 0)::float8
    AS statistics_age_seconds,
  count(*) FILTER (WHERE heap AND analyzed IS NULL AND known_rows <= 0 AND live >= 1000) AS tables_never_analyzed
FROM r"""
    },
)

_WRITER = """
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS wal_bytes_total,
  a.failed_count AS archive_failures_total,
  b.buffers_alloc AS buffers_allocated_total,{columns}
FROM pg_stat_archiver a, pg_stat_bgwriter b{views}"""

_CHECKPOINTS_13 = """
  b.buffers_backend AS backend_buffer_writes_total,
  b.checkpoints_req AS checkpoints_requested_total,
  b.checkpoint_write_time / 1000 AS checkpoint_write_seconds_total,
  b.checkpoint_sync_time / 1000 AS checkpoint_sync_seconds_total"""
_CHECKPOINTS_17 = """
  i.writes AS backend_buffer_writes_total,
  c.num_requested AS checkpoints_requested_total,
  c.write_time / 1000 AS checkpoint_write_seconds_total,
  c.sync_time / 1000 AS checkpoint_sync_seconds_total"""
_WAL_14 = """,
  w.wal_fpi AS wal_full_page_images_total,
  w.wal_sync AS wal_syncs_total,
  CASE WHEN current_setting('track_wal_io_timing')::bool THEN w.wal_sync_time / 1000 END AS wal_sync_seconds_total"""
_WAL_18 = """,
  w.wal_fpi AS wal_full_page_images_total,
  i.wal_syncs AS wal_syncs_total,
  CASE WHEN current_setting('track_wal_io_timing')::bool THEN i.wal_sync_time / 1000 END AS wal_sync_seconds_total"""
_IO_17 = """,
  (SELECT coalesce(sum(writes), 0)::float8 AS writes FROM pg_stat_io
    WHERE backend_type = 'client backend' AND object = 'relation') i"""
_IO_18 = """,
  (SELECT coalesce(sum(writes) FILTER (WHERE backend_type = 'client backend' AND object = 'relation'), 0)::float8
      AS writes,
    coalesce(sum(fsyncs) FILTER (WHERE object = 'wal'), 0)::float8 AS wal_syncs,
    coalesce(sum(fsync_time) FILTER (WHERE object = 'wal'), 0)::float8 AS wal_sync_time
  FROM pg_stat_io) i"""

WRITER: Final = Query(
    "writer",
    sql={
        13: _WRITER.format(columns=_CHECKPOINTS_13, views=""),
        14: _WRITER.format(columns=_CHECKPOINTS_13 + _WAL_14, views=", pg_stat_wal w"),
        17: _WRITER.format(columns=_CHECKPOINTS_17 + _WAL_14, views=", pg_stat_wal w, pg_stat_checkpointer c" + _IO_17),
        18: _WRITER.format(columns=_CHECKPOINTS_17 + _WAL_18, views=", pg_stat_wal w, pg_stat_checkpointer c" + _IO_18),
    },
)
"""WAL, checkpoints, archiver. 17 moved checkpoints to a view of their own, 18 the WAL's flushes to pg_stat_io."""

SENDERS: Final = Query(
    "senders",
    needs="pg_monitor",
    sql={
        13: """
SELECT r.*, s.* FROM (
  SELECT count(*) FILTER (WHERE state = 'streaming') AS replicas_streaming,
    coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::float8 AS replication_lag_bytes,
    coalesce(extract(epoch FROM clock_timestamp() - min(reply_time)), 0)::float8 AS replication_reply_seconds
  FROM pg_stat_replication WHERE state <> 'backup'
) r, (
  SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::float8 AS slot_retained_bytes
  FROM pg_replication_slots
) s"""
    },
)

RECEIVER: Final = Query(
    "receiver",
    role="replica",
    sql={
        13: """
SELECT coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::float8
    AS replay_backlog_bytes,
  extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS replay_age"""
    },
)
"""`kintsugi.collector.member` makes `replay_delay_seconds` of it."""

QUERIES: Final = (ACTIVITY, SENDERS, RECEIVER, DATABASE, WRITER, STATEMENTS, TABLES)
"""In the order in which they are asked: what opens incidents first, what may be slow last."""

HELP: Final[Mapping[str, str]] = {
    "up": "1 when the server answered this scrape, else 0.",
    "on_cpu_sessions": "Sessions and parallel workers that run and wait for nothing.",
    "lwlock_waiters": "Sessions that wait for a lightweight lock, WAL's aside.",
    "io_waiters": "Sessions that wait for a data or temporary file.",
    "wal_waiters": "Sessions that wait for the WAL to be written or flushed.",
    "sync_replication_waiters": "Commits that wait for a synchronous replica.",
    "active_sessions": "Client sessions of the database that run a statement.",
    "longest_query_seconds": "Age of the oldest running statement of a client of the database; upkeep and COPY aside.",
    "longest_transaction_seconds": "Age of the oldest open transaction of a client of the database.",
    "idle_in_transaction_sessions": "Client sessions of the database that are idle in a transaction.",
    "idle_in_transaction_seconds": "How long the longest of them has been idle.",
    "lock_waiters": "Sessions of the database that wait for a heavyweight lock.",
    "lock_wait_seconds": "How long the longest of them has waited.",
    "blocking_depth": "Levels of waiting behind those who wait for nobody.",
    "blocked_by_one": "Sessions that wait, directly or not, for one and the same session; the most there are.",
    "idle_sessions": "Idle client sessions of the whole server.",
    "client_backends": "Client sessions of the whole server, ours included.",
    "connections_used_ratio": "client_backends against max_connections.",
    "connections_exhausted": "1 while only reserved connections are left.",
    "vacuum_workers": "Autovacuum workers that run.",
    "oldest_xmin_age": "Transactions since the oldest snapshot that anything holds.",
    "prepared_transaction_seconds": "Age of the oldest prepared transaction of the database.",
    "commits_total": "Committed transactions.",
    "rollbacks_total": "Rolled back transactions.",
    "deadlocks_total": "Deadlocks.",
    "temp_bytes_total": "Bytes written to temporary files.",
    "blocks_read_total": "Blocks that were not in shared buffers.",
    "blocks_hit_total": "Blocks that were in shared buffers.",
    "rows_written_total": "Rows inserted, updated and deleted.",
    "recovery_conflicts_total": "Queries cancelled because replay needed what they read.",
    "block_read_seconds_total": "Time spent reading blocks (track_io_timing).",
    "sessions_opened_total": "Sessions begun.",
    "sessions_failed_total": "Sessions ended by a fatal error, a lost client or an administrator.",
    "frozen_xid_age": "Transactions since the oldest unfrozen row of any database.",
    "statement_calls_total": "Statements ended.",
    "statement_seconds_total": "Their execution time.",
    "statement_rows_total": "Rows they returned or changed.",
    "sequential_rows_read_total": "Rows read by sequential scans of user tables.",
    "index_scans_total": "Scans of indexes of user tables.",
    "dead_rows": "Dead row versions of user tables.",
    "dead_ratio": "Dead among all row versions; the worst table of 1,000 or more.",
    "modified_rows": "Rows changed since their table was analyzed.",
    "modified_ratio": "The same against the table's rows; the worst table of 1,000 or more.",
    "statistics_age_seconds": "Age of the oldest statistics of a table of which a tenth has changed since.",
    "tables_never_analyzed": "Tables of 1,000 rows or more without statistics.",
    "wal_bytes_total": "WAL written.",
    "archive_failures_total": "Failed attempts to archive a WAL file.",
    "buffers_allocated_total": "Buffers given to new blocks.",
    "backend_buffer_writes_total": "Dirty blocks that sessions wrote themselves.",
    "checkpoints_requested_total": "Checkpoints before their time.",
    "checkpoint_write_seconds_total": "Time in the write phase of checkpoints.",
    "checkpoint_sync_seconds_total": "Time in the sync phase of checkpoints.",
    "wal_full_page_images_total": "Whole blocks in the WAL.",
    "wal_syncs_total": "Flushes of the WAL.",
    "wal_sync_seconds_total": "Their time (track_wal_io_timing).",
    "replicas_streaming": "Replicas that stream.",
    "replication_lag_bytes": "WAL that the slowest replica has not replayed.",
    "replication_reply_seconds": "Since the most silent replica last reported.",
    "slot_retained_bytes": "WAL that the most backward slot keeps.",
    "replay_backlog_bytes": "WAL received and not replayed.",
    "replay_delay_seconds": "How far behind in time this replica shows the data.",
}
"""What each metric says, without the prefix `kintsugi_pg_`; a metric that is not listed is not served."""
