"""What PostgreSQL logged, without anybody's data."""

from __future__ import annotations

import json

import pytest

from kintsugi.engines.postgresql.logs import templates

SECRETS = (
    "SELECT * FROM t WHERE a = 'SECRET' AND b = E'it\\'s SECRET' AND c = $$SECRET$$",
    "SELECT 'C:\\' || 'SECRET'",
    "SELECT 'it\\'s SECRET'",
    "SELECT $tag$ it's SECRET $tag$, U&'SECRET', N'SECRET', X'5EC4E7'",
    "/* by SECRET /* nested SECRET */ SECRET */ SELECT 1 -- SECRET",
    "SELECT 'never closed SECRET",
    "SELECT $$never closed SECRET",
    "SELECT 'a''SECRET'",
    'SELECT "never closed SECRET',
    "SELECT '\nSECRET\n'",
)


@pytest.mark.parametrize("sql", SECRETS)
@pytest.mark.parametrize(
    "prefix", ["duration: 1.5 ms  statement: ", "duration: 1 ms  execute <unnamed>: ", "statement: "]
)
def test_no_literal_of_a_statement_survives(sql: str, prefix: str) -> None:
    template = templates.of_message(prefix + sql, "00000")
    assert "SECRET" not in template
    assert "SELECT" in template


@pytest.mark.parametrize(
    ("message", "state", "context"),
    [
        ('invalid input syntax for type integer: "SECRET"', "22P02", ""),
        ('invalid input syntax for type integer: "a" table "SECRET" b"', "22P02", ""),
        ('invalid value for parameter "work_mem": "SECRET"', "22023", ""),
        ('syntax error at or near "SECRET"', "42601", ""),
        ('column "SECRET" does not exist', "42703", ""),
        ("customer SECRET is over limit", "P0001", ""),
        ("customer SECRET is over limit", "23514", "PL/pgSQL function pay(integer) line 3 at RAISE\nSQL statement"),
        ("connection authorized: user=app database=lab application_name=SECRET thing", "00000", ""),
        ('duration: 600 ms  plan:\n{"Plan": {"Node Type": "Result", "Filter": "(a = \'SECRET\')"}}', "00000", ""),
        ('duration: 600 ms  plan:\n{"Query Text": "SELECT \'SECRET\'", "Plan": {"Node Ty', "00000", ""),
        ('temporary file: path "it\'s SECRET", size 12', "00000", ""),
    ],
)
def test_no_value_in_a_message_survives(message: str, state: str, context: str) -> None:
    assert "SECRET" not in templates.of_message(message, state, context)


def test_identifiers_stay_and_numbers_go() -> None:
    sql = "SELECT o.id2, 'x' FROM \"Order Lines\" o WHERE id IN (1, 2.5e-3, 0xff) AND k = $1 AND n > -7"
    assert (
        templates.of_statement(sql) == 'SELECT o.id2, ? FROM "Order Lines" o WHERE id IN (#, …) AND k = $1 AND n > -#'
    )
    assert templates.of_message('duplicate key value violates unique constraint "jobs_pkey"', "23505") == (
        'duplicate key value violates unique constraint "jobs_pkey"'
    )
    assert templates.of_message("recovery stopped at 0/3A4B5C80, 12 s", "00000") == "recovery stopped at #, # s"


def test_statements_that_differ_only_in_values_have_one_template() -> None:
    first, second = (
        templates.of_statement("INSERT INTO e VALUES " + ", ".join(f"({n}, 'v{n}')" for n in range(rows)))
        for rows in (2, 50)
    )
    assert first == second
    assert templates.template_id(first) == templates.template_id(second)


def test_a_plan_keeps_its_shape() -> None:
    plan = {
        "Query Text": "SELECT 'x'",
        "Plan": {
            "Node Type": "Nested Loop",
            "Plans": [
                {"Node Type": "Seq Scan", "Relation Name": "tasks", "Filter": "(a = 'x')"},
                {"Node Type": "Index Scan", "Index Name": "parts_pkey", "Relation Name": "parts"},
            ],
        },
    }
    template = templates.of_message(f"duration: 600.1 ms  plan:\n{json.dumps(plan)}", "00000")
    assert template == "duration: # ms plan: Nested Loop(Seq Scan(tasks), Index Scan(parts_pkey)) of SELECT ?"


def test_a_plan_as_text_is_taken_for_a_part_of_its_statement() -> None:
    plan = "Query Text: SELECT * FROM t WHERE a = 'SECRET'\nSeq Scan on t  (cost=0.0..1.2)\n  Filter: (a = 'SECRET')"
    template = templates.of_message(f"duration: 600.1 ms  plan:\n{plan}", "00000")
    assert template.startswith("duration: # ms plan: of SELECT * FROM t WHERE a = ? Seq Scan on t (cost=")
    assert "SECRET" not in template
