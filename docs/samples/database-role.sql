-- The role that Kintsugi logs in as. What it may do in the database is limited here, whatever a policy says.
-- Observe and Recommend need the first two statements only.
CREATE ROLE kintsugi LOGIN PASSWORD 'change-me' CONNECTION LIMIT 6;
GRANT pg_monitor TO kintsugi;

-- terminate-blocker and terminate-idle-in-transaction: other users' sessions, never a superuser's.
GRANT pg_signal_backend TO kintsugi;

-- create-index and analyze-table: PostgreSQL lets only the owner of a table do that (17 has MAINTAIN for ANALYZE).
-- GRANT shop_owner TO kintsugi;
