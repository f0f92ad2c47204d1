"""What PostgreSQL logged, without anybody's data."""

from __future__ import annotations

import json
import time

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


CHOSEN = (
    ('password authentication failed for user "hunter2"', "28P01", "password authentication failed for user ?"),
    ('Peer authentication failed for user "hunter2"', "28000", "Peer authentication failed for user ?"),
    ('role "hunter2" is not permitted to log in', "28000", "role ? is not permitted to log in"),
    (
        'no pg_hba.conf entry for host "::1", user "hunter2", database "lab", no encryption',
        "28000",
        "no pg_hba.conf entry for host ?, no encryption",
    ),
    ('role "hunter2" does not exist', "28000", "role ? does not exist"),
    ('role "hunter2" does not exist', "42704", "role ? does not exist"),
    ('database "hunter2" does not exist', "3D000", "database ? does not exist"),
    ('schema "hunter2" does not exist', "3F000", "schema ? does not exist"),
    ('relation "hunter2" does not exist', "42P01", "relation ? does not exist"),
    ('relation "a" hunter2" does not exist', "42P01", "relation ? does not exist"),
    ('table "hunter2" does not exist, skipping', "00000", "table ? does not exist, skipping"),
    ('column "hunter2" of relation "tills" does not exist', "42703", "column ? does not exist"),
    ("column tills.hunter2 does not exist", "42703", "column ? does not exist"),
    (
        "column notation .hunter2 applied to type t, which is not a composite type",
        "42809",
        "column notation .? applied to type t, which is not a composite type",
    ),
    ("function does_hunter2(unknown) does not exist", "42883", "function ? does not exist"),
    ("operator does not exist: integer hunter2.= text", "42883", "operator does not exist: ?"),
    ("publications hunter2, b do not exist on the publisher", "42704", "publications ? do not exist on the publisher"),
    ("improper qualified name (too many dotted names): a.b.hunter2", "42601", None),
    ("cross-database references are not implemented: a.b.hunter2", "0A000", None),
    ("invalid command-line argument for server process: hunter2", "42601", None),
    ("invalid normalization form: hunter2", "22023", "invalid normalization form: ?"),
    ("duplicate JSON object key value: hunter2", "22030", "duplicate JSON object key value: ?"),
    ("hunter2 is not a valid encoding name", "42704", "? is not a valid encoding name"),
    ('extension "hunter2" is not available', "0A000", "extension ? is not available"),
    ('unrecognized parameter "hunter2"', "22023", "unrecognized parameter ?"),
    ('prepared statement "hunter2" does not exist', "26000", "prepared statement ? does not exist"),
    ('LDAP login failed for user "hunter2" on server "ldap": no', "00000", None),
    ("provided user name (hunter2) and authenticated user name (ann) do not match", "00000", None),
    ("connection authorized: user=hunter2 database=hunter2", "00000", "connection authorized: ?"),
    ("replication connection authorized: user=hunter2", "00000", "replication connection authorized: ?"),
    ('could not connect to server: password authentication failed for user "hunter2"', "08001", None),
)


@pytest.mark.parametrize(("message", "state", "template"), CHOSEN)
def test_a_name_that_a_client_chose_and_that_was_not_found_goes(message: str, state: str, template: str | None) -> None:
    found = templates.of_message(message, state)
    assert "hunter2" not in found
    assert template is None or found == template


@pytest.mark.parametrize("state", ["28P01", "00000", ""])
def test_who_failed_to_log_in_goes_even_without_an_sqlstate(state: str) -> None:
    assert "hunter2" not in templates.of_message('password authentication failed for user "hunter2"', state)
    assert "hunter2" not in templates.of_message('database "hunter2" does not exist', state)


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ('duplicate key value violates unique constraint "orders_pkey"', "23505"),
        ('insert or update on table "lines" violates foreign key constraint "lines_order_fkey"', "23503"),
        ('null value in column "owner" of relation "tills" violates not-null constraint', "23502"),
        ('could not obtain lock on row in relation "tills"', "55P03"),
        ("could not serialize access", "40001"),
        ('reached maximum value of sequence "orders_id_seq"', "2200H"),
        ('database "lab" is not currently accepting connections', "55000"),
        ('too many connections for role "app"', "53300"),
        ('relation "tills" already exists', "42P07"),
        ("permission denied for table tills", "42501"),
        ('automatic vacuum of table "lab.public.tills"', "00000"),
        ("could not receive data from client: Connection reset by peer", "08006"),
    ],
)
def test_what_exists_keeps_its_name(message: str, state: str) -> None:
    assert templates.of_message(message, state) == message.strip()


@pytest.mark.parametrize(
    "sql", ['SELECT "hunter2"', 'SELECT a FROM t WHERE a = "hunter2" AND u&"hunter2" = "a""hunter2"']
)
def test_of_a_statement_that_has_not_run_yet_no_word_in_double_quotes_is_kept(sql: str) -> None:
    assert "hunter2" not in templates.of_message(f"statement: {sql}", "00000")
    assert "hunter2" not in templates.of_message(f"execute <unnamed>: {sql}", "00000")
    ran = templates.of_message('duration: 700.1 ms  statement: SELECT id FROM "Order Lines"', "00000")
    assert ran == 'duration: # ms statement: SELECT id FROM "Order Lines"'


@pytest.mark.parametrize(
    ("sql", "template"),
    [
        ('SET app.token = "hunter2"', "SET app.token = ?"),
        ("set local app.token to hunter2, b", "set local app.token to ?"),
        ('ALTER ROLE app SET app.token = "hunter2"', "ALTER ROLE app SET app.token = ?"),
        ('SET TIME ZONE "hunter2"', "SET TIME ZONE ?"),
        ('UPDATE t SET a = b + 1; SET app.token = "hunter2"', "UPDATE t SET a = b + #; SET app.token = ?"),
        ("UPDATE t SET a = b, c = d WHERE e = f", "UPDATE t SET a = b, c = d WHERE e = f"),
    ],
)
def test_what_a_parameter_is_set_to_goes_whatever_its_quotes(sql: str, template: str) -> None:
    assert templates.of_message(f"duration: 1 ms  statement: {sql}", "00000") == f"duration: # ms statement: {template}"


def test_a_long_message_takes_no_time() -> None:
    token = 'a "b" column notation . user name ( SET x = ' * 6000
    began = time.process_time()
    for state in ("42601", "22P02", "00000"):
        templates.of_message(f'syntax error at or near "{token}"', state)
    templates.of_message(f"duration: 1 ms  statement: {token}", "00000")
    assert time.process_time() - began < 5


def test_identifiers_stay_and_numbers_go() -> None:
    sql = "SELECT o.id2, 'x' FROM \"Order Lines\" o WHERE id IN (1, 2.5e-3, 0xff) AND k = $1 AND n > -7"
    assert (
        templates.of_statement(sql) == 'SELECT o.id2, ? FROM "Order Lines" o WHERE id IN (#, …) AND k = $1 AND n > -#'
    )
    assert templates.of_message('duplicate key value violates unique constraint "jobs_pkey"', "23505") == (
        'duplicate key value violates unique constraint "jobs_pkey"'
    )
    assert templates.of_message("redo in progress, elapsed time: 12 s, current LSN: 0/3A4B5C80", "00000") == (
        "redo in progress, elapsed time: # s, current LSN: #"
    )


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
