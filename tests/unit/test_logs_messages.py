"""Words stay where they are the server's own; an application's go, however little the log says about who wrote them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import orjson
import pytest

from kintsugi.engines.postgresql.logs import templates
from kintsugi.engines.postgresql.logs.book import Book
from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.messages import LONGEST, known
from kintsugi.engines.postgresql.logs.records import LINE_BYTES
from kintsugi_ml.lab import dataset

LAB = Path(__file__).parents[2] / "data" / "lab-v1"
STAMP = "2026-11-22 03:00:00.500 UTC"
RAISED = "PL/pgSQL function pay(integer) line 3 at RAISE"
UNKNOWN = "a message that may be the application's own"
OWN = "a message of the application's own"


def as_json(message: str, severity: str = "LOG", **more: str) -> bytes:
    return json.dumps({"timestamp": STAMP, "error_severity": severity, "message": message} | more).encode() + b"\n"


def as_csv(message: str, severity: str = "LOG", context: str = "") -> bytes:
    before = f'{STAMP},"u","d",1,"[local]",6.1,1,"SELECT",{STAMP[:19]} UTC,3/4,0,{severity},00000,"{message}"'
    return f'{before},,,,,"{context}",,,"","psql","client backend",,0\n'.encode()


def lines(name: str, data: bytes, prefix: str | None = None) -> list[Line]:
    reader = decoder(name, prefix)
    return [*reader.feed(data), *reader.end()]


@pytest.mark.parametrize(
    "message",
    [
        "starting PostgreSQL 15.18 on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14) 12.2.0, 64-bit",
        "database system was shut down at 2026-11-23 02:58:28 UTC",
        "database system is ready to accept connections",
        "received SIGHUP, reloading configuration files",
        "checkpoint starting: wal time",
        "checkpoint complete: wrote 3 buffers (0.0%), wrote 1 SLRU buffers; 0 WAL file(s) added, 0 removed, 0 recycled",
        "checkpoints are occurring too frequently (9 seconds apart)",
        "process 12 still waiting for ShareLock on transaction 9 after 500.112 ms",
        "process 12 acquired ExclusiveLock on tuple (0,1) of relation 16384 of database 5 after 500.112 ms",
        "process 12 detected deadlock while waiting for ShareLock on transaction 9 after 200.001 ms",
        'automatic aggressive vacuum to prevent wraparound of table "lab.public.jobs": index scans: 1\npages: 0',
        'automatic analyze of table "lab.public.jobs"\nI/O timings: read: 0.0 ms',
        'temporary file: path "base/pgsql_tmp/pgsql_tmp1.0", size 140000',
        "could not send data to client: Broken pipe",
        'could not extend file "base/5/16384": No space left on device',
        "remaining connection slots are reserved for non-replication superuser connections",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "canceling the wait for synchronous replication and terminating connection due to administrator command",
        "server process (PID 7) was terminated by signal 9: Killed",
        'background worker "logical replication launcher" (PID 16624) exited with exit code 1',
        "started streaming WAL from primary at 0/3000000 on timeline 1",
        "restartpoint starting: time",
        "consistent recovery state reached at 0/3A4B5C80",
        "unexpected EOF on client connection with an open transaction",
        "archive command failed with exit code 1",
        "current transaction is aborted, commands ignored until end of transaction block",
        "could not serialize access due to read/write dependencies among transactions",
        'invalid input syntax for type integer: "two\nlines"',
        'update or delete on table "a" violates foreign key constraint "b" on table "c"',
    ],
)
def test_the_servers_own_messages_are_known(message: str) -> None:
    assert known(message) == message


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("connection received: host=hunter2 port=1", "connection received: host=?"),
        ("received replication command: START_REPLICATION SLOT hunter2 LOGICAL 0/0", "received replication command: ?"),
        ("could not connect to the primary server: password=hunter2", "could not connect to the primary server: ?"),
        ("cron job 1 COMMAND completed: hunter2", "cron job 1 COMMAND completed: ?"),
        ("function hunter2(unknown) is not unique", "function ? is not unique"),
    ],
)
def test_where_a_message_may_hold_anything_it_is_masked(message: str, masked: str) -> None:
    assert known(message) == masked


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("customer hunter2 refused", "00000"),
        ("customer hunter2 warned", "01000"),
        ("permission denied for customer hunter2", "42501"),
        ("deadlock detected by hunter2", "40P01"),
        ("could not serialize access due to hunter2", "40001"),
        ("value too long hunter2", "22001"),
        ("execute step 3: customer hunter2", "00000"),
        ("statement: hunter2", "00000"),
        ("login by hunter2", ""),
        ("could not load library hunter2: x", "58P01"),
        ("duplicate key value violates unique constraint hunter2", "23505"),
    ],
)
def test_of_a_message_that_is_not_the_servers_nothing_is_kept_whatever_its_code(message: str, state: str) -> None:
    assert templates.of_message(message, state) == UNKNOWN


@pytest.mark.parametrize("severity", ["LOG", "WARNING", "NOTICE", "FATAL", "ERROR"])
@pytest.mark.parametrize("prefix", [None, "%m [%p] %q%u@%d %e "])
def test_what_is_raised_under_terse_verbosity_says_nothing(severity: str, prefix: str | None) -> None:
    state = " 23514" if prefix else ""
    data = f"{STAMP} [7] app@shop{state} {severity}:  customer hunter2 refused\n".encode()
    (line,) = lines("stderr", data, prefix)
    assert (line.severity, line.template) == (severity, UNKNOWN)


@pytest.mark.parametrize("state", ["P0001", "38000", "39P01"])
def test_what_pl_tcl_and_others_raise_is_the_applications_own(state: str) -> None:
    assert templates.of_message("customer hunter2 refused", state, "    while executing") == OWN
    assert templates.of_message("deadlock detected", state) == OWN


def test_what_was_raised_in_the_form_of_a_statement_is_the_applications_own() -> None:
    assert templates.of_message("statement: select hunter2", "00000", RAISED) == OWN


@pytest.mark.parametrize("severity", ["LOG", "ERROR"])
def test_of_a_line_whose_context_was_cut_off_only_known_words_are_kept(severity: str) -> None:
    message = "customer hunter2 refused " + "x" * (LINE_BYTES + 9000)
    (written,) = lines("jsonlog", as_json(message, severity, context=RAISED))
    (columns,) = lines("csvlog", as_csv(message, severity, RAISED))
    assert written.template == columns.template == UNKNOWN
    (error,) = lines("jsonlog", as_json("deadlock detected", "ERROR", state_code="40P01", query="x" * LINE_BYTES * 2))
    assert error.template == "deadlock detected"


@pytest.mark.parametrize(
    ("plan", "template"),
    [
        ("Query Text: \"select 1 where 'hunter2' = x\"\nPlan: \n  Filter: \"('hunter2'::text = x)\"", "?"),
        ("<explain><Query-Text>select 'hunter2'</Query-Text></explain>", "?"),
        ("Query Text: a > 'hunter2'\nResult", "?"),
        ("Query Text: select 'hunter2'\nResult  (cost=0.0..0.1 rows=1 width=4)", "of select ? Result (cost=# rows=#"),
    ],
)
def test_no_plan_shows_a_literal_whatever_its_format(plan: str, template: str) -> None:
    found = templates.of_message(f"duration: 5.1 ms  plan:\n{plan}", "00000")
    assert found.startswith(f"duration: # ms plan: {template}")
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("message", "template"),
    [
        (
            "duration: 5 ms  statement: select $é$hunter2$é$, $ü1$ $$ hunter2 $ü1$",
            "duration: # ms statement: select ?, …",
        ),
        ("cron job 1 starting: select f($$hunter2$$)", "cron job: select f(?)"),
        ("cron job 1 starting: -- hunter2\nselect 1", "cron job: select #"),
        ("cron job 1 starting: -- hunter2", "cron job # ?"),
        ("execute a:b: select $$hunter2$$ -- hunter2", "execute: select ?"),
        ("execute a: hunter2: select 1", "execute: select #"),
        ("duration: 3 ms  execute a:b: select $$hunter2$$", "duration: # ms execute: select ?"),
        ("duration: 3 ms  bind it's: /* hunter2 /* */ */ (select 'hunter2')", "duration: # ms bind: (select ?)"),
        ('duration: 3 ms  fastpath function call: "hunter2" (OID 7)', "duration: # ms fastpath: ?"),
    ],
)
def test_a_statement_is_told_from_the_name_before_it(message: str, template: str) -> None:
    assert templates.of_message(message, "00000") == template


def test_half_a_surrogate_pair_does_not_get_into_evidence() -> None:
    half = "\\ud800"
    message = f"duration: 700.1 ms  statement: select {half} from t".encode()
    data = as_json("MESSAGE").replace(b"MESSAGE", message) + as_json("x", "SEVERITY").replace(
        b"SEVERITY", half.encode()
    )
    plan = as_json(
        "duration: 9 ms  plan:\n" + json.dumps({"Query Text": "select \ud800", "Plan": {"Node Type": "\udc00"}})
    )
    found = lines("jsonlog", data + plan + as_json("deadlock detected", "ERROR", state_code="\ud800"))
    assert [line.kind for line in found] == ["slow_statement", "auto_explain", "error"]
    book = Book(600)
    book.begin(found[0].time - 10)
    book.add(found, found[0].time + 1)
    evidence = book.evidence(0, found[0].time + 1)
    assert len(evidence) == 3
    assert orjson.loads(orjson.dumps(evidence)) == list(evidence)


def test_no_message_takes_long_to_be_told() -> None:
    began = time.process_time()
    for start in (
        "could not extend file ",
        "column ",
        "process 1 acquired x on ",
        "no pg_hba.conf entry for host ",
        "",
    ):
        for part in ('"a" ', '" ', "a ", "1 ", ": ", "(a"):
            known((start + part * LONGEST)[:LONGEST])
            templates.of_message(f"duration: 1 ms  execute {part * 50_000}", "00000")
            templates.of_message(f"duration: 1 ms  execute {': /*' * 50_000}", "00000")
    assert time.process_time() - began < 10


def test_all_that_the_labs_runs_logged_is_known() -> None:
    """Their lines are kept as templates: any number and any value will do in the places of # and ?."""
    counting = [entry for entry in dataset.entries(LAB) if entry.status == "counts"]
    templates = {line.template for entry in counting for line in dataset.read_run(LAB, entry).logs.lines}
    said = [one for one in templates if not one.startswith("duration: # ms ")]
    assert len(said) > 50
    assert [one for one in said if known(one.replace("#", "1").replace("?", '"x"')) is None] == []
