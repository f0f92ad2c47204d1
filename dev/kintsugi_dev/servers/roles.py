"""The least-privilege database roles that the product's documentation names, as one piece of SQL."""

from __future__ import annotations

MONITOR = "kintsugi_monitor"
HEALER = "kintsugi_healer"

ROLES = f"""
DO $roles$
DECLARE role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['{MONITOR}', '{HEALER}'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I LOGIN', role);
    END IF;
    EXECUTE format('GRANT pg_monitor TO %I', role);
    -- From 16 on a monitoring role keeps a reserved slot, so that it still connects when all others are taken.
    IF current_setting('server_version_num')::int >= 160000 THEN
      EXECUTE format('GRANT pg_use_reserved_connections TO %I', role);
    END IF;
  END LOOP;
END $roles$;
GRANT pg_signal_backend TO {HEALER};
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {HEALER};
"""
"""Idempotent; run by a superuser in the database that the operator connects to. Extend it with what an action needs."""

EXTENSIONS = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"


def grant_ownership(owner: str) -> str:
    """SQL that lets the healer act as the role that owns the tables (CREATE INDEX and ANALYZE ask for the owner)."""
    return f'GRANT "{owner.replace(chr(34), chr(34) * 2)}" TO {HEALER}'
