"""The least-privilege database roles, as the product's documentation makes them."""

from __future__ import annotations

from pathlib import Path

MONITOR = "kintsugi_monitor"
HEALER = "kintsugi_healer"

ROLES = (Path(__file__).resolve().parents[3] / "docs/database-role.sql").read_text()
"""Idempotent; run by a superuser in the database that the operator connects to. The file that users run, so that every
test proves it."""

EXTENSIONS = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"


def grant_ownership(owner: str) -> str:
    """SQL that lets the healer act as the role that owns the tables (CREATE INDEX and ANALYZE ask for the owner)."""
    return f'GRANT "{owner.replace(chr(34), chr(34) * 2)}" TO {HEALER}'
