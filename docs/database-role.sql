-- The database roles that Kintsugi needs, and no more. Run it as a superuser in each database that Kintsugi watches
-- (function rights are per database); it may be run again at any time. Then set the passwords: \password kintsugi_monitor
--
-- kintsugi_monitor   modes Observe and Recommend, and the collector: reads statistics, can change nothing.
-- kintsugi_healer    modes Approve and automatic: ends sessions, promotes a replica, and acts for the owners named below.
--
-- Put the one that fits the mode into the Secret that spec.connection.secretRef names.

-- 1. Whose tables may be healed: CREATE INDEX and ANALYZE ask for the table's owner. Comma-separated; empty for none
--    (then create-index and analyze-table say that they may not). On PostgreSQL 17 and newer, ANALYZE alone is
--    content with pg_maintain or GRANT MAINTAIN.
SELECT set_config('kintsugi.owners', coalesce(current_setting('kintsugi.owners', true), ''), false);

CREATE EXTENSION IF NOT EXISTS pg_stat_statements;  -- needs shared_preload_libraries = 'pg_stat_statements'
-- CREATE EXTENSION IF NOT EXISTS hypopg;           -- lets create-index prove an index before it is built

-- 2. The roles. Neither inherits anything that is not named here.
DO $roles$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['kintsugi_monitor', 'kintsugi_healer'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
      EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN', name);
    END IF;
    -- pg_read_all_stats, pg_read_all_settings: other sessions' statements, waits and replication.
    EXECUTE pg_catalog.format('GRANT pg_monitor TO %I', name);
    -- A slot is kept for it when all others are taken; before 16 only a superuser has one.
    IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
      EXECUTE pg_catalog.format('GRANT pg_use_reserved_connections TO %I', name);
    END IF;
  END LOOP;
END
$roles$;

-- 3. Belt and braces for the modes that only look: whatever is granted to everybody, a read-only role writes nothing.
ALTER ROLE kintsugi_monitor SET default_transaction_read_only = on;

-- 4. terminate-blocker, terminate-idle-in-transaction: may end sessions of anybody but superusers.
GRANT pg_signal_backend TO kintsugi_healer;

-- 5. failover: promotes the replica; sends clients away from an old primary that still answers, and makes it read-only.
--    On 13 and 14 only a superuser can do the last (the step is optional; the Service is fenced all the same).
GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO kintsugi_healer;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO kintsugi_healer;
DO $fence$
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int >= 150000 THEN
    EXECUTE 'GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO kintsugi_healer';
  END IF;
END
$fence$;

-- 6. create-index, analyze-table: membership in the owners named in 1. This is the widest right of all: who holds this
--    password can do to those tables what their owner can. Leave it out to do without the two actions.
DO $owners$
DECLARE
  owner text;
BEGIN
  FOREACH owner IN ARRAY pg_catalog.string_to_array(pg_catalog.current_setting('kintsugi.owners'), ',') LOOP
    EXECUTE pg_catalog.format('GRANT %I TO kintsugi_healer', pg_catalog.btrim(owner));
  END LOOP;
END
$owners$;
