"""The questions asked of a PostgreSQL when an anomaly is flagged: read-only, brief, and behind nobody's lock.

Instants come as text with microseconds (`2026-11-21T23:54:53.123456Z`), ages as seconds. Columns called `query` are
stripped of literals before anybody sees them. No size function is called: those wait behind ACCESS EXCLUSIVE.
"""

from __future__ import annotations

from kintsugi.engines.engine import Query


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


def _blocking(wait: str, extra: str = "") -> str:
    return f"""
WITH waiting AS MATERIALIZED (
  SELECT a.pid, pg_blocking_pids(a.pid) AS blocked_by FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock'
){extra}
SELECT {_SESSION}, coalesce(w.blocked_by, '{{}}') AS blocked_by,
    CASE WHEN w.pid IS NOT NULL THEN {wait} END AS wait
FROM pg_stat_activity a LEFT JOIN waiting w ON w.pid = a.pid
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
        ).replace(
            "LEFT JOIN waiting w ON w.pid = a.pid",
            "LEFT JOIN waiting w ON w.pid = a.pid LEFT JOIN since l ON l.pid = a.pid",
        ),
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

QUERIES: tuple[Query, ...] = (BLOCKING, PREPARED)

MEMBER = """
SELECT pg_is_in_recovery() AS in_recovery,
    CASE WHEN pg_is_in_recovery()
        THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                      (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                      (SELECT received_tli FROM pg_stat_wal_receiver))
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
    END AS timeline,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0'
        ELSE pg_current_wal_lsn() - '0/0' END::bigint AS replay_lsn,
    CASE WHEN pg_is_in_recovery()
        -- Nothing is received where WAL comes from an archive, or since this server's start: then what it replayed.
        THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'
        ELSE pg_current_wal_lsn() - '0/0' END::bigint AS receive_lsn,
    coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false) AS streaming,
    (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time) FROM pg_stat_wal_receiver)::float8
        AS receiver_age"""
"""What one server says of itself, on any version; one row."""
