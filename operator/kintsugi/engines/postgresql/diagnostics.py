"""The questions asked of a PostgreSQL when an anomaly is flagged: read-only, brief, and behind nobody's lock.

Instants come as text with microseconds (`2026-11-21T23:54:53.123456Z`), ages as seconds, LSNs as byte positions.
Columns called `query` are stripped of literals before anybody sees them. No size function is called: those wait behind
ACCESS EXCLUSIVE; sizes are pg_class's own estimates. `@name@` stands for the quoted schema of the extension `name`.
"""

from __future__ import annotations

from kintsugi.engines.engine import Query

PAGE_BYTES = 8192
HEAVY_SECONDS = 4.0
"""For what grows with the catalogue: 70 ms with 4,000 tables, but a starved server is ten times slower."""
SETTINGS = (
    "autovacuum",
    "checkpoint_timeout",
    "deadlock_timeout",
    "default_statistics_target",
    "effective_cache_size",
    "enable_indexscan",
    "enable_nestloop",
    "fsync",
    "hot_standby_feedback",
    "idle_in_transaction_session_timeout",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "max_connections",
    "max_prepared_transactions",
    "max_wal_size",
    "max_worker_processes",
    "random_page_cost",
    "shared_buffers",
    "statement_timeout",
    "superuser_reserved_connections",
    "synchronous_commit",
    "synchronous_standby_names",
    "track_io_timing",
    "wal_level",
    "work_mem",
)


def _instant(column: str) -> str:
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _seconds(since: str) -> str:
    return f"extract(epoch FROM clock_timestamp() - {since})::float8"


_SESSION = f"""
    a.pid, {_instant("a.backend_start")} AS backend_start, {_instant("a.xact_start")} AS xact_start,
    a.usename::text, a.datname::text, a.application_name, a.backend_type, a.state, a.wait_event_type, a.wait_event,
    a.datname IS NOT DISTINCT FROM current_database() AS in_this_database,
    coalesce((SELECT r.rolsuper OR r.rolreplication FROM pg_roles r WHERE r.oid = a.usesysid), false) AS superuser,
    {_seconds("a.xact_start")} AS xact_age, {_seconds("a.state_change")} AS state_age, a.query"""

_WAITING = """waiting AS MATERIALIZED (
  SELECT a.pid, pg_blocking_pids(a.pid) AS blocked_by FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock'
)"""


def _blocking(wait: str, waits: str = "", join: str = "") -> str:
    return f"""
WITH {_WAITING}{waits}
SELECT {_SESSION}, coalesce(w.blocked_by, '{{}}') AS blocked_by,
    CASE WHEN w.pid IS NOT NULL THEN {wait} END AS wait
FROM pg_stat_activity a LEFT JOIN waiting w ON w.pid = a.pid {join}
WHERE cardinality(w.blocked_by) > 0 OR a.pid IN (SELECT unnest(blocked_by) FROM waiting)"""


BLOCKING = Query(
    "blocking",
    {
        # pg_locks.waitstart is new in 14; before, the waiting statement's age is the closest there is.
        13: _blocking(_seconds("a.query_start")),
        14: _blocking(
            f"coalesce({_seconds('l.since')}, 0)",
            ", since AS MATERIALIZED"
            " (SELECT pid, min(waitstart) AS since FROM pg_locks WHERE NOT granted GROUP BY pid)",
            "LEFT JOIN since l ON l.pid = a.pid",
        ),
    },
)

IDLE = Query(
    "idle",
    {
        13: f"""
WITH {_WAITING}, oldest AS (
  SELECT max(age(backend_xmin)) AS age FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
)
SELECT {_SESSION}, a.backend_xid IS NOT NULL AS has_written, age(a.backend_xmin)::bigint AS xmin_age,
    a.backend_xmin IS NOT NULL AND age(a.backend_xmin) = (SELECT age FROM oldest) AS holds_oldest_xmin,
    (SELECT count(*) FROM waiting w WHERE a.pid = ANY (w.blocked_by)) AS victims
FROM pg_stat_activity a
WHERE a.state LIKE 'idle in transaction%' AND a.pid <> pg_backend_pid()
ORDER BY a.xact_start LIMIT 100"""
    },
)

PREPARED = Query(
    "prepared",
    {
        13: f"""
SELECT gid, owner::text, database::text, {_seconds("prepared")} AS age
FROM pg_prepared_xacts ORDER BY prepared LIMIT 20"""
    },
)

SERVER = Query(
    "server",
    {
        13: f"""
SELECT current_database()::text AS database, current_setting('server_version') AS version,
    pg_is_in_recovery() AS in_recovery, {_seconds("pg_postmaster_start_time()")} AS uptime,
    CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_lsn() - '0/0')::bigint END AS lsn,
    current_setting('max_connections')::int AS max_connections,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'hypopg') AS hypopg_available,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'hypopg') AS hypopg_installed"""
    },
    baseline=True,
)

CONNECTIONS = Query(
    "connections",
    {
        13: f"""
SELECT usename::text, application_name, coalesce(state, 'unknown') AS state, count(*) AS sessions,
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting_for_lock,
    max({_seconds("state_change")}) AS longest_in_state
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND application_name NOT LIKE 'kintsugi%'
GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 50"""
    },
    baseline=True,
)

_STATEMENTS = """
SELECT s.queryid, r.rolname::text AS role, s.calls, s.total_exec_time / 1000 AS seconds, s.rows,
    s.shared_blks_hit + s.shared_blks_read AS blocks, left(s.query, 1000) AS query
FROM @pg_stat_statements@.pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.queryid IS NOT NULL {toplevel}
ORDER BY s.total_exec_time DESC LIMIT 100"""

STATEMENTS = Query(
    "statements",
    {13: _STATEMENTS.format(toplevel=""), 14: _STATEMENTS.format(toplevel="AND s.toplevel")},
    timeout=HEAVY_SECONDS,
    baseline=True,
)

RUNNING = Query(
    "running",
    {
        14: f"""
SELECT query_id AS queryid, usename::text AS role, count(*) AS sessions, max({_seconds("query_start")}) AS longest,
    min(query) AS query
FROM pg_stat_activity
WHERE state = 'active' AND backend_type = 'client backend' AND datname = current_database() AND query_id IS NOT NULL
    AND wait_event_type IS DISTINCT FROM 'Lock' AND application_name NOT LIKE 'kintsugi%'
    AND query_start < clock_timestamp() - interval '0.2 s'
GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20"""
    },
)


def _tables(may_maintain: str) -> str:
    return f"""
SELECT s.schemaname::text AS schema, s.relname::text AS table, c.relkind::text AS kind, c.reltuples::float8 AS rows,
    c.relpages::bigint * {PAGE_BYTES} AS bytes, s.seq_scan, s.seq_tup_read, coalesce(s.idx_scan, 0) AS idx_scan,
    s.n_live_tup, s.n_dead_tup, s.n_mod_since_analyze, s.analyze_count + s.autoanalyze_count AS analyzed,
    {_seconds("greatest(s.last_analyze, s.last_autoanalyze)")} AS analyze_age,
    r.rolname::text AS owner, pg_has_role(r.oid, 'USAGE') AS is_owner,
    has_schema_privilege(c.relnamespace, 'CREATE') AS may_create, {may_maintain} AS may_maintain
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid JOIN pg_roles r ON r.oid = c.relowner
ORDER BY greatest(s.seq_tup_read, s.n_mod_since_analyze) DESC LIMIT 200"""


TABLES = Query(
    "tables",
    {
        13: _tables("pg_has_role(r.oid, 'USAGE')"),
        17: _tables("pg_has_role(r.oid, 'USAGE') OR has_table_privilege(c.oid, 'MAINTAIN')"),
    },
    timeout=HEAVY_SECONDS,
    baseline=True,
)

INDEXES = Query(
    "indexes",
    {
        13: """
SELECT n.nspname::text AS schema, t.relname::text AS table, c.relname::text AS index, i.indisvalid AS valid,
    i.indpred IS NOT NULL AS partial, i.indexprs IS NOT NULL AS expressions, am.amname::text AS method,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE k.place <= i.indnkeyatts) AS columns,
    EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid) AS being_built
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am am ON am.oid = c.relam
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'
ORDER BY t.reltuples DESC LIMIT 2000"""
    },
    timeout=HEAVY_SECONDS,
)

SETTINGS_NOW = Query(
    "settings",
    {
        13: f"""
SELECT name, setting, unit, source, pending_restart FROM pg_settings
WHERE name IN ({", ".join(f"'{name}'" for name in SETTINGS)}) ORDER BY name"""
    },
)

REPLICATION = Query(
    "replication",
    {
        13: """
SELECT application_name, state, sync_state, (sent_lsn - '0/0')::bigint AS sent_lsn,
    (flush_lsn - '0/0')::bigint AS flush_lsn, (replay_lsn - '0/0')::bigint AS replay_lsn,
    extract(epoch FROM replay_lag)::float8 AS replay_lag
FROM pg_stat_replication ORDER BY application_name LIMIT 32"""
    },
    baseline=True,
)

SLOTS = Query(
    "slots",
    {
        13: """
SELECT slot_name::text, slot_type, active, wal_status,
    CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_lsn() - restart_lsn)::bigint END AS retained
FROM pg_replication_slots ORDER BY slot_name LIMIT 64"""
    },
)

TIMELINE = """CASE WHEN pg_is_in_recovery()
        THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                      (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                      (SELECT received_tli FROM pg_stat_wal_receiver))
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END"""
"""The server's timeline, as a replica or as a primary."""

# Nothing is received where WAL comes from an archive, or since this server's start: then what it replayed counts.
RECEIVED_LSN = """(CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        ELSE pg_current_wal_lsn() END - '0/0')::bigint"""
"""How far the server has WAL."""

PULSE = f"""
SELECT (pg_current_wal_lsn() - '0/0')::bigint AS lsn, {TIMELINE} AS timeline,
    current_setting('synchronous_commit') NOT IN ('off', 'local') AS waits_for_standbys,
    (SELECT array_agg(application_name ORDER BY pid) FROM pg_stat_replication) AS standbys,
    (SELECT array_agg(sync_state ORDER BY pid) FROM pg_stat_replication) AS sync_states,
    (SELECT array_agg(coalesce(extract(epoch FROM replay_lag), 0)::float8 ORDER BY pid)
     FROM pg_stat_replication) AS lags
WHERE NOT pg_is_in_recovery()"""
"""How far the primary is and how its standbys follow; asked every few seconds: a dead one tells nothing."""

MEMBER = f"""
SELECT pg_is_in_recovery() AS in_recovery, {TIMELINE} AS timeline,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::bigint
        AS replay_lsn,
    {RECEIVED_LSN} AS receive_lsn,
    coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false) AS streaming,
    (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time) FROM pg_stat_wal_receiver)::float8
        AS receiver_age"""
"""What one server says of itself, on any version; one row."""

QUERIES: tuple[Query, ...] = (
    SERVER,
    BLOCKING,
    IDLE,
    PREPARED,
    CONNECTIONS,
    STATEMENTS,
    RUNNING,
    TABLES,
    INDEXES,
    SETTINGS_NOW,
    REPLICATION,
    SLOTS,
)
