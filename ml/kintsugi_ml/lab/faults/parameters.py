"""Parameters of remedies, spelled as production's own `compile` wants them, from what the server says now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kintsugi.engines.postgresql.indexes import IndexIdea, index_name
from kintsugi_ml.lab.faults.base import Trial

if TYPE_CHECKING:
    from kintsugi_ml.lab.world import World

SCHEMA: Final = "public"

_INSTANT: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_SESSIONS: Final = f"""
SELECT pid, {_INSTANT.format("backend_start")} AS "backendStart", {_INSTANT.format("xact_start")} AS "xactStart",
    usename::text AS role, datname::text AS database
FROM pg_stat_activity WHERE application_name = $1 AND xact_start IS NOT NULL ORDER BY xact_start
"""
_ANALYZED: Final = """
SELECT analyze_count + autoanalyze_count AS analyzed FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = $2
"""


def transactions(world: World, application: str) -> list[dict[str, Any]]:
    """The open transactions of an application, the oldest first, each by the identity that production acts on."""
    return world.primary.fetch(_SESSIONS, application, database=world.database)


def analyze_table(world: World, table: str, *, right: bool = False) -> Trial:
    """Fresh statistics for a table."""
    rows = world.primary.fetch(_ANALYZED, SCHEMA, table, database=world.database)
    analyzed = rows[0]["analyzed"] if rows else 0
    return Trial("analyze-table", right, {"schema": SCHEMA, "table": table, "analyzed": analyzed})


def create_index(table: str, column: str, *, right: bool = False) -> Trial:
    """An index on one column, under the name that production gives it."""
    name = index_name(IndexIdea(SCHEMA, table, (column,)))
    return Trial("create-index", right, {"schema": SCHEMA, "table": table, "columns": [column], "index": name})


def resize_pool(world: World, more: int = 16, *, right: bool = False) -> Trial:
    """So many more server connections for the pool."""
    former = int(world.pooler.settings["default_pool_size"])
    return Trial("resize-pool", right, {"former": former, "size": former + more})


def vacuum_table(table: str, *, right: bool = False) -> Trial:
    """A VACUUM of a table."""
    return Trial("vacuum-table", right, {"schema": SCHEMA, "table": table})


def prewarm_cache(relation: str) -> Trial:
    """Read a relation into shared buffers."""
    return Trial("prewarm-cache", False, {"relation": relation})


def tune_setting(name: str, value: str, *, right: bool = False) -> Trial:
    """Another value for a server setting."""
    return Trial("tune-setting", right, {"name": name, "value": value})


CHECKPOINT: Final = Trial("checkpoint", right=False)
DISCARD_PLANS: Final = Trial("discard-plans", right=False)
