"""analyze-table: fresh planner statistics for a table that slow statements read and that has changed a lot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from kintsugi.api.database import DatabaseSpec
from kintsugi.api.meta import Model
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.domain.text import human
from kintsugi.engines.engine import Diagnosis, Row
from kintsugi.engines.postgresql.actions.parameters import validated
from kintsugi.engines.postgresql.identifiers import quote_literal, quote_qualified
from kintsugi.engines.postgresql.indexes import rows_of, touch
from kintsugi.engines.postgresql.plans import relations
from kintsugi.engines.postgresql.slow import SlowStatement, slow_statements
from kintsugi.engines.postgresql.statements import names

NAME = "analyze-table"
CHANGED_ROWS = 1000
CHANGED_PART = 0.2
"""How much of a table must have changed since its last ANALYZE: twice autovacuum's default."""
ANALYZE_SECONDS = 300.0


class TableParameters(Model):
    """Which table, and how often it had been analysed when this was proposed."""

    schema_name: Annotated[str, Field(alias="schema", min_length=1, max_length=63)]
    table: Annotated[str, Field(min_length=1, max_length=63)]
    analyzed: Annotated[int, Field(ge=0)]


class AnalyzeTable:
    """Collects fresh statistics; readers and writers go on meanwhile."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """The most changed table that the slow statements name."""
        for name in ("statements", "tables"):
            if name in diagnosis.errors:
                return [NotProposed(NAME, f"{name} are unknown: {diagnosis.errors[name]}")]
        stale = sorted((row for row in diagnosis.rows.get("tables", ()) if _stale(row)), key=_changed, reverse=True)
        if not stale:
            return [NotProposed(NAME, "every table's statistics are fresh")]
        slow = [(statement, _reads(statement, diagnosis)) for statement in slow_statements(diagnosis.rows)]
        for table in stale:
            readers = [statement for statement, reads in slow if reads(table)]
            if readers and not table["may_maintain"]:
                return [
                    NotProposed(NAME, f"the operator's role may not analyse {_name(table)}: grant it {table['owner']}")
                ]
            if readers:
                return [_proposal(table, readers[0])]
        return [NotProposed(NAME, f"{_name(stale[0])} has old statistics, but no slow statement reads it")]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """Check the right to do it (ANALYZE only warns without), then analyse."""
        wanted = validated(TableParameters, parameters, NAME)
        table = quote_qualified(wanted.schema_name, wanted.table)
        there = (
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            f" WHERE n.nspname = {quote_literal(wanted.schema_name)} AND c.relname = {quote_literal(wanted.table)}"
        )
        probe = (
            "SELECT coalesce((SELECT CASE WHEN analyze_count + autoanalyze_count > "
            f"{wanted.analyzed} THEN 'done' ELSE 'not-done' END FROM pg_stat_user_tables"
            f" WHERE schemaname = {quote_literal(wanted.schema_name)} AND relname = {quote_literal(wanted.table)}),"
            " 'unknown')"
        )
        return Plan(
            steps=(
                Step(StepKind.SQL, "primary", f"SELECT c.relkind IN ('r', 'm', 'p') {there}", expect=True),
                Step(StepKind.SQL, "primary", f"ANALYZE {table}", timeout=ANALYZE_SECONDS),
            ),
            undo=Undo(UndoKind.NOTHING, note="fresh statistics harm nothing"),
            probe=Step(StepKind.SQL, "primary", probe, timeout=3.0),
            idempotent=True,
        )


def _reads(statement: SlowStatement, diagnosis: Diagnosis) -> Callable[[Row], bool]:
    """Whether the statement reads a table: by its plan, else by the names in what is known of its text."""
    key = (statement.queryid, statement.role)
    plans = (row["plan"] for row in diagnosis.rows.get("plans", ()) if (row["queryid"], row["role"]) == key)
    if plan := next(plans, None):
        read = relations(plan)
        return lambda table: (table["schema"], table["table"]) in read
    words = names(statement.query).all
    return lambda table: table["table"] in words


def _name(table: Row) -> str:
    return f"{table['schema']}.{table['table']}"


def _changed(table: Row) -> int:
    return int(table["n_mod_since_analyze"] or 0)


def _stale(table: Row) -> bool:
    return _changed(table) >= max(CHANGED_ROWS, CHANGED_PART * max(float(table["rows"]), 0.0))


def _proposal(table: Row, reader: SlowStatement) -> Proposal:
    age = "never analysed" if table["analyze_age"] is None else f"analysed {human(table['analyze_age'])} ago"
    planner = "nothing" if table["rows"] <= 0 else f"{table['rows']:,.0f} rows"
    return Proposal(
        action=NAME,
        parameters={"schema": table["schema"], "table": table["table"], "analyzed": table["analyzed"]},
        expected=Objectives(latency=0.5, throughput=0.4, resources=0.1, consistency=0.0),
        evidence=(
            f"{_changed(table):,} rows of {_name(table)} changed since its last ANALYZE ({age}); the planner believes"
            f" in {planner}, there are about {rows_of(table):,.0f}",
            reader.sentence(),
        ),
        touches=(touch(table["schema"], table["table"]),),
        heals=frozenset({"planner-statistics", "query-engine", "host-cpu", "client"}),
    )
