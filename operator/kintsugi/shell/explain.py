"""Asking the planner about slow statements: their generic plan, and what an index that does not exist would change.

A statement's text comes from pg_stat_statements, so it is someone else's. It is only ever planned, in a read-only
transaction that is rolled back, as one statement (the extended protocol refuses more), for at most a second, and
only if it uses no view, rule, row security or function of its own: planning may evaluate functions with our rights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from kintsugi.engines.engine import Row
from kintsugi.engines.postgresql import statements
from kintsugi.engines.postgresql.identifiers import quote_identifier, quote_literal, quote_qualified
from kintsugi.engines.postgresql.indexes import IndexIdea, ideas
from kintsugi.engines.postgresql.plans import Node, sequential_scans, total_cost
from kintsugi.engines.postgresql.slow import SlowStatement, slow_statements
from kintsugi.shell import sql
from kintsugi.shell.session import ReservedSession

STATEMENTS = 5
IDEAS = 4
PREPARED = "kintsugi_explain"
_PARAMETER = re.compile(r"\$(\d+)")

_TEXT = """
SELECT s.query, s.userid, r.rolname::text AS role
FROM {extension}.pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
WHERE s.queryid = $1 AND r.rolname = $2 AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
LIMIT 1"""

_STRANGE = """
SELECT 'function ' || p.proname AS what FROM pg_proc p
WHERE p.proname = ANY ($1::text[]) AND p.pronamespace <> 'pg_catalog'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
UNION ALL
SELECT 'relation ' || c.relname FROM pg_class c
WHERE c.relname = ANY ($2::text[]) AND c.relnamespace <> 'pg_catalog'::regnamespace
    AND (c.relkind IN ('v', 'f') OR c.relhasrules OR c.relrowsecurity)
LIMIT 1"""

_SEARCH_PATH = """
SELECT substring(setting FROM 'search_path=(.*)') FROM pg_db_role_setting s, unnest(s.setconfig) AS setting
WHERE setting LIKE 'search_path=%' AND s.setrole IN (0, $1)
    AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1"""

_COLUMN_STATS = """
SELECT schemaname::text AS schema, tablename::text AS table, attname::text AS column, n_distinct::float8,
    null_frac::float8
FROM pg_stats WHERE (schemaname, tablename) IN (SELECT * FROM unnest($1::text[], $2::text[]))"""


@dataclass(frozen=True, slots=True)
class Explained:
    """Plans by statement, costs with hypothetical indexes, statistics of the columns concerned; as diagnosis rows."""

    plans: tuple[Row, ...]
    hypothetical: tuple[Row, ...]
    column_stats: tuple[Row, ...]


async def explain(
    session: ReservedSession, rows: Mapping[str, tuple[Row, ...]], extensions: Mapping[str, str]
) -> Explained:
    """Explain the most expensive slow statements of a diagnosis. What can't be explained carries its reason.

    Raises:
        SqlError: the session is gone.
    """
    slow = slow_statements(rows)[:STATEMENTS]
    if not slow or "pg_stat_statements" not in extensions:
        return Explained((), (), ())
    async with session.connection() as connection:
        try:
            return await _all(_Planner(connection, extensions, rows), slow)
        except sql.STATEMENT_ERRORS as error:
            explained = sql.explain_statement(error, session.endpoint)
            await sql.abandon(connection, isinstance(explained, sql.ConnectionLostError))
            raise explained from None


async def _all(planner: _Planner, slow: Sequence[SlowStatement]) -> Explained:
    plans: list[Row] = []
    hypothetical: list[Row] = []
    for statement in slow:
        await planner.connection.execute("BEGIN READ ONLY")
        try:
            plan, tried = await planner.look_at(statement)
            plans.append({"queryid": statement.queryid, "role": statement.role, "plan": plan, "error": ""})
            hypothetical += tried
        except (asyncpg.PostgresError, NotExplainedError) as error:
            reason = getattr(error, "message", None) or str(error)
            plans.append({"queryid": statement.queryid, "role": statement.role, "plan": None, "error": reason})
        await planner.connection.execute("ROLLBACK")
        await planner.forget()
    return Explained(tuple(plans), tuple(hypothetical), await planner.column_stats(plans))


class NotExplainedError(Exception):
    """A statement that is not shown to the planner, and why."""


class _Planner:
    def __init__(
        self, connection: sql.Connection, extensions: Mapping[str, str], rows: Mapping[str, tuple[Row, ...]]
    ) -> None:
        self.connection = connection
        self._extensions = extensions
        self._tables = rows.get("tables", ())
        self._indexes = rows.get("indexes", ())

    async def look_at(self, statement: SlowStatement) -> tuple[Node, list[Row]]:
        """The statement's plan, and the same with each index that might help."""
        found = await self.connection.fetchrow(
            _TEXT.format(extension=self._extensions["pg_stat_statements"]), statement.queryid, statement.role
        )
        if found is None or not found["query"]:
            raise NotExplainedError("its text is no longer in pg_stat_statements")
        await self._refuse_strange(found["query"])
        await self._configure(found["userid"], found["role"])
        plan = await self._plan(found["query"])
        tried = []
        if "hypopg" in self._extensions:
            options = dict.fromkeys(i for s in sequential_scans(plan) for i in ideas(s, self._tables, self._indexes))
            tried = [await self._try(statement, found["query"], plan, idea) for idea in list(options)[:IDEAS]]
        return plan, tried

    async def forget(self) -> None:
        """Leave nothing of ours in the session: prepared statements and hypothetical indexes outlive a rollback."""
        await self.connection.execute("DEALLOCATE ALL")
        if "hypopg" in self._extensions:
            await self.connection.execute(f"SELECT {self._extensions['hypopg']}.hypopg_reset()")

    async def column_stats(self, plans: Sequence[Row]) -> tuple[Row, ...]:
        """pg_stats of every table that is read in full."""
        scanned = {(s.schema, s.table) for row in plans if row["plan"] for s in sequential_scans(row["plan"])}
        if not scanned:
            return ()
        schemas, tables = zip(*sorted(scanned), strict=True)
        return tuple(dict(row) for row in await self.connection.fetch(_COLUMN_STATS, list(schemas), list(tables)))

    async def _refuse_strange(self, text: str) -> None:
        names = statements.names(text)
        strange = await self.connection.fetchval(_STRANGE, sorted(names.called), sorted(names.all))
        if strange is not None:
            raise NotExplainedError(f"it uses {strange}, which planning might run with the operator's rights")

    async def _configure(self, userid: int, role: str) -> None:
        """Plan under the names that the statement's own role sees."""
        path = await self.connection.fetchval(_SEARCH_PATH, userid) or '"$user", public'
        path = path.replace('"$user"', "$user").replace("$user", quote_identifier(role))
        await self.connection.execute(
            "SELECT set_config('search_path', $1, true), set_config('statement_timeout', '1000', true),"
            " set_config('lock_timeout', '200', true), set_config('plan_cache_mode', 'force_generic_plan', true)",
            path,
        )

    async def _plan(self, text: str) -> Node:
        """The generic plan, the same way on every version: EXPLAIN (GENERIC_PLAN) is new in 16."""
        # One statement only, or the extended protocol refuses it.
        await self.connection.fetch(f"PREPARE {PREPARED} AS {text}")
        count = max((int(number) for number in _PARAMETER.findall(text)), default=0)
        arguments = f"({', '.join(['NULL'] * count)})" if count else ""
        answer = await self.connection.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE {PREPARED}{arguments}")
        await self.connection.execute(f"DEALLOCATE {PREPARED}")
        plan: Node = json.loads(answer)[0]["Plan"]
        return plan

    async def _try(self, statement: SlowStatement, text: str, plan: Node, idea: IndexIdea) -> Row:
        """The plan's cost with one index that does not exist."""
        hypopg = self._extensions["hypopg"]
        columns = ", ".join(map(quote_identifier, idea.columns))
        definition = f"CREATE INDEX ON {quote_qualified(idea.schema, idea.table)} ({columns})"
        await self.connection.fetch(f"SELECT {hypopg}.hypopg_create_index({quote_literal(definition)})")
        better = await self._plan(text)
        await self.connection.fetch(f"SELECT {hypopg}.hypopg_reset()")
        row: dict[str, Any] = {"queryid": statement.queryid, "role": statement.role, "schema": idea.schema}
        row |= {"table": idea.table, "columns": list(idea.columns)}
        return {**row, "cost_before": total_cost(plan), "cost_after": total_cost(better)}
