"""create-index: the index that a slow statement lacks, built beside the running work and proven before it is built.

The name is ours (`kintsugi_<table>_<columns>_<hash>`). A name that is taken is never taken over, and what is undone is
only an index that carries our mark: one that a person has dropped and made again does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from kintsugi.api.database import DatabaseSpec
from kintsugi.api.meta import Model
from kintsugi.domain.actions import NotProposed, Objectives, Plan, Proposal, Step, StepKind, Undo, UndoKind
from kintsugi.engines.engine import BadParametersError, Diagnosis, Row
from kintsugi.engines.postgresql.actions.parameters import validated
from kintsugi.engines.postgresql.identifiers import quote_identifier, quote_literal, quote_qualified
from kintsugi.engines.postgresql.indexes import (
    IndexIdea,
    find_table,
    fingerprint,
    ideas,
    index_name,
    rows_of,
    rows_per_value,
    selective,
    touch,
)
from kintsugi.engines.postgresql.plans import sequential_scans
from kintsugi.engines.postgresql.slow import SlowStatement, slow_statements

NAME = "create-index"
BUILD_SECONDS = 1800.0
WORTH_IT = 5.0
"""How many times cheaper, in the planner's cost, a statement must become."""
ALMOST_AS_GOOD = 1.2
"""A simpler index whose cost is within this factor of the best one is preferred."""
SURELY_LARGE = 50_000
"""Rows that a table must have where there is no HypoPG to prove the index."""

SqlName = Annotated[str, Field(min_length=1, max_length=63)]


class IndexParameters(Model):
    """Which index."""

    schema_name: Annotated[str, Field(alias="schema", min_length=1, max_length=63)]
    table: SqlName
    columns: tuple[SqlName, ...] = Field(min_length=1, max_length=3)
    index: SqlName


class CreateIndex:
    """Builds a missing index without blocking anybody."""

    name = NAME

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """The index that helps the most expensive slow statement which one can help."""
        for name in ("statements", "plans", "tables", "indexes"):
            if name in diagnosis.errors:
                return [NotProposed(NAME, f"{name} are unknown: {diagnosis.errors[name]}")]
        reasons = []
        for statement in slow_statements(diagnosis.rows):
            answer = _for_statement(statement, diagnosis)
            if isinstance(answer, Proposal):
                return [answer]
            reasons.append(answer)
        return [NotProposed(NAME, reasons[0] if reasons else "no statement is slow")]

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """Check, drop what an interrupted build of ours left, build concurrently, mark as ours."""
        wanted = validated(IndexParameters, parameters, NAME)
        idea = IndexIdea(wanted.schema_name, wanted.table, wanted.columns)
        if wanted.index != index_name(idea):
            raise BadParametersError(f"index: {wanted.index!r} is not Kintsugi's name for it; use {index_name(idea)!r}")
        index = quote_qualified(wanted.schema_name, wanted.index)
        return Plan(
            steps=(
                Step(StepKind.SQL, "primary", _free_or_leftover(wanted), expect=True),
                Step(StepKind.SQL, "primary", _drop(index), timeout=120.0, transaction=False),
                Step(StepKind.SQL, "primary", _create(wanted), timeout=BUILD_SECONDS, transaction=False),
                Step(StepKind.SQL, "primary", f"COMMENT ON INDEX {index} IS {quote_literal(_mark(wanted))}"),
            ),
            undo=Undo(
                UndoKind.STEPS,
                (
                    Step(StepKind.SQL, "primary", _ours_or_gone(wanted), expect=True),
                    Step(StepKind.SQL, "primary", _drop(index), timeout=120.0, transaction=False),
                ),
                "drops the index without blocking; one that a person has made or dropped meanwhile is left as it is",
            ),
            probe=Step(StepKind.SQL, "primary", _built(wanted), timeout=3.0),
            idempotent=True,
        )


# --- proposing ---


def _for_statement(statement: SlowStatement, diagnosis: Diagnosis) -> Proposal | str:
    key = (statement.queryid, statement.role)
    plan = next((row for row in diagnosis.rows.get("plans", ()) if (row["queryid"], row["role"]) == key), None)
    if plan is None:
        return f"the plan of {statement.query} is unknown"
    if plan["plan"] is None:
        return f"{statement.query} can't be explained: {plan['error']}"
    tables, indexes = diagnosis.rows.get("tables", ()), diagnosis.rows.get("indexes", ())
    options = [idea for scan in sequential_scans(plan["plan"]) for idea in ideas(scan, tables, indexes)]
    if not options:
        return f"{statement.query} reads no large table in full by a column that lacks an index"
    tried = [row for row in diagnosis.rows.get("hypothetical", ()) if (row["queryid"], row["role"]) == key]
    answer = _proven(tried) if tried else _plausible(options, diagnosis)
    if isinstance(answer, str):
        return f"{answer} (for {statement.query})"
    idea, proof = answer
    return _possible(idea, diagnosis) or _proposal(statement, idea, proof, diagnosis)


def _proven(tried: Sequence[Row]) -> tuple[IndexIdea, str] | str:
    """The simplest index that HypoPG shows to be almost as good as the best."""
    best = min(row["cost_after"] for row in tried)
    chosen = next(row for row in tried if row["cost_after"] <= best * ALMOST_AS_GOOD)
    before, after = chosen["cost_before"], chosen["cost_after"]
    if before < WORTH_IT * after:
        return f"HypoPG shows no index worth it: cost {before:,.0f} → {after:,.0f} at best"
    idea = IndexIdea(chosen["schema"], chosen["table"], tuple(chosen["columns"]))
    return idea, f"HypoPG: planner cost {before:,.0f} → {after:,.0f} with an index on ({', '.join(idea.columns)})"


def _plausible(options: Sequence[IndexIdea], diagnosis: Diagnosis) -> tuple[IndexIdea, str] | str:
    """Without HypoPG: only a large table, and a column whose values each select very little of it."""
    for idea in options:
        table = find_table(diagnosis.rows.get("tables", ()), idea.schema, idea.table)
        stats = {
            row["column"]: row
            for row in diagnosis.rows.get("column_stats", ())
            if (row["schema"], row["table"]) == (idea.schema, idea.table)
        }
        if table is None or rows_of(table) < SURELY_LARGE or not selective(stats, idea, rows_of(table)):
            continue
        per_value = rows_per_value(stats[idea.columns[0]], rows_of(table)) or 0.0
        return idea, (
            f"pg_stats: one value of {idea.columns[0]} selects about {per_value:,.0f} of {rows_of(table):,.0f} rows"
            " (HypoPG is not installed, so the planner could not be asked)"
        )
    return "without HypoPG no index is certain enough: install it, or see pg_stats for a selective column"


def _possible(idea: IndexIdea, diagnosis: Diagnosis) -> str | None:
    """Why we could not build it, in words."""
    table = find_table(diagnosis.rows.get("tables", ()), idea.schema, idea.table)
    where = f"{idea.schema}.{idea.table}"
    if table is None:
        return f"{where} is not among the tables that the diagnosis shows"
    if table["kind"] != "r":
        return f"{where} is partitioned: CREATE INDEX CONCURRENTLY can't be used on it as a whole"
    if not (table["is_owner"] and table["may_create"]):
        return f"the operator's role may not: grant it {table['owner']}, the owner of {where}, and CREATE on its schema"
    busy = [row for row in diagnosis.rows.get("indexes", ()) if row["being_built"] and row["table"] == idea.table]
    return f"{busy[0]['index']} is being built on {where} just now" if busy else None


def _proposal(statement: SlowStatement, idea: IndexIdea, proof: str, diagnosis: Diagnosis) -> Proposal:
    table = find_table(diagnosis.rows["tables"], idea.schema, idea.table)
    evidence = [statement.sentence()]
    if table is not None:
        evidence.append(f"it reads all {rows_of(table):,.0f} rows of {idea.schema}.{idea.table}")
    evidence.append(proof)
    evidence += [
        f"{row['index']} on the same table is invalid: a build of it was interrupted (left alone)"
        for row in diagnosis.rows.get("indexes", ())
        if not row["valid"] and (row["schema"], row["table"]) == (idea.schema, idea.table) and not row["being_built"]
    ]
    return Proposal(
        action=NAME,
        parameters={
            "schema": idea.schema,
            "table": idea.table,
            "columns": list(idea.columns),
            "index": index_name(idea),
        },
        # It costs disk, and every write a little, for ever.
        expected=Objectives(latency=0.8, throughput=0.7, resources=-0.1, consistency=0.0),
        evidence=tuple(evidence),
        touches=(touch(idea.schema, idea.table),),
        heals=frozenset(
            {"query-engine", "planner-statistics", "storage", "host-cpu", "host-io", "connections", "client"}
        ),
    )


# --- compiling ---


def _mark(wanted: IndexParameters) -> str:
    return f"kintsugi/{fingerprint(wanted.schema_name, wanted.table, wanted.columns)}"


def _create(wanted: IndexParameters) -> str:
    columns = ", ".join(map(quote_identifier, wanted.columns))
    # Never IF NOT EXISTS: it would take over a name that means something else.
    return (
        f"CREATE INDEX CONCURRENTLY {quote_identifier(wanted.index)}"
        f" ON {quote_qualified(wanted.schema_name, wanted.table)} ({columns})"
    )


def _drop(index: str) -> str:
    return f"DROP INDEX CONCURRENTLY IF EXISTS {index}"


def _relation(wanted: IndexParameters) -> str:
    """The relation that bears our index's name, if any, as `c`, with its index entry `i` and table `t`."""
    return (
        "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid"
        " LEFT JOIN pg_class t ON t.oid = i.indrelid"
        f" WHERE n.nspname = {quote_literal(wanted.schema_name)} AND c.relname = {quote_literal(wanted.index)}"
    )


_IN_PROGRESS = "EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid)"


def _leftover(wanted: IndexParameters) -> str:
    """True of the invalid rest of an interrupted build on our table."""
    return f"coalesce(NOT i.indisvalid AND t.relname = {quote_literal(wanted.table)}, false) AND NOT {_IN_PROGRESS}"


def _free_or_leftover(wanted: IndexParameters) -> str:
    return f"SELECT NOT EXISTS (SELECT FROM {_relation(wanted)} AND NOT ({_leftover(wanted)}))"


def _ours_or_gone(wanted: IndexParameters) -> str:
    ours = f"obj_description(c.oid, 'pg_class') IS NOT DISTINCT FROM {quote_literal(_mark(wanted))}"
    return f"SELECT NOT EXISTS (SELECT FROM {_relation(wanted)} AND NOT ({ours}) AND NOT ({_leftover(wanted)}))"


def _built(wanted: IndexParameters) -> str:
    columns = ", ".join(quote_literal(column) for column in wanted.columns)
    keys = (
        "ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place)"
    )
    return (
        "SELECT coalesce((SELECT CASE"
        f" WHEN i.indisvalid AND t.relname = {quote_literal(wanted.table)} AND {keys} = ARRAY[{columns}] THEN 'done'"
        f" WHEN {_IN_PROGRESS} THEN 'unknown' ELSE 'not-done' END FROM {_relation(wanted)}), 'not-done')"
    )
