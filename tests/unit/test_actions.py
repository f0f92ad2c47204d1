"""What actions compute without any server: plans from parameters, trees, plans of the planner, elections, texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kintsugi.domain.actions import StepKind, UndoKind
from kintsugi.engines.engine import BadParametersError, Diagnosis, MemberView
from kintsugi.engines.postgresql import election, sessions
from kintsugi.engines.postgresql.actions import ACTIONS
from kintsugi.engines.postgresql.identifiers import BadNameError, quote_identifier, quote_literal, quote_timestamp
from kintsugi.engines.postgresql.indexes import IndexIdea, ideas, index_name, touch
from kintsugi.engines.postgresql.plans import Scan, relations, sequential_scans
from kintsugi.engines.postgresql.slow import slow_statements
from kintsugi.engines.postgresql.statements import names, strip_literals
from kintsugi.engines.risk import RISKS

SESSION = {
    "pid": 4711,
    "backendStart": "2026-11-21T23:54:53.123456Z",
    "xactStart": "2026-11-21T23:55:00.000001Z",
    "role": "app",
    "database": "orders",
}
INDEX = {"schema": "public", "table": "orders", "columns": ["customer_id"]}
PARAMETERS: Mapping[str, dict[str, Any]] = {
    "terminate-blocker": SESSION,
    "terminate-idle-in-transaction": SESSION,
    "create-index": {**INDEX, "index": index_name(IndexIdea("public", "orders", ("customer_id",)))},
    "analyze-table": {"schema": "public", "table": "orders", "analyzed": 3},
    "resize-pool": {"former": 8, "size": 16},
    "failover": {
        "candidate": "orders-1",
        "oldPrimary": "orders-0",
        "service": "orders-rw",
        "selectorKey": "statefulset.kubernetes.io/pod-name",
        "selector": {"app": "orders", "statefulset.kubernetes.io/pod-name": "orders-0"},
        "timeline": 3,
        "receivedLsn": 123456789,
        "dataLossBytes": None,
        "lagSeconds": 0.5,
        "pools": ["orders"],
    },
    "restart-workload": {"kind": "StatefulSet", "name": "orders", "restartedAt": "2026-11-21T23:54:53Z"},
}
NAMES = sorted(PARAMETERS)


# --- compiling ---


def test_every_action_has_a_risk_and_the_other_way_round() -> None:
    assert set(ACTIONS) == set(RISKS) == set(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_parameters_give_the_same_plan_also_after_kubernetes_had_them(name: str) -> None:
    action, parameters = ACTIONS[name], PARAMETERS[name]
    shuffled = dict(reversed(json.loads(json.dumps(parameters)).items()))

    assert action.compile(parameters) == action.compile(shuffled)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_or_unknown_parameter_is_refused_by_name(name: str) -> None:
    parameters = PARAMETERS[name]
    for missing in parameters:
        with pytest.raises(BadParametersError, match=missing):
            ACTIONS[name].compile({key: value for key, value in parameters.items() if key != missing})
    with pytest.raises(BadParametersError, match="command"):
        ACTIONS[name].compile({**parameters, "command": "DROP TABLE orders"})


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_converted_a_number_as_text_is_refused(name: str) -> None:
    parameters = PARAMETERS[name]
    for key, value in parameters.items():
        wrong = str(value) if isinstance(value, int | float | None) else 7
        with pytest.raises(BadParametersError, match=key):
            ACTIONS[name].compile({**parameters, key: wrong})


@pytest.mark.parametrize("name", NAMES)
def test_every_plan_says_how_it_is_undone_and_asks_a_probe_that_changes_nothing(name: str) -> None:
    plan = ACTIONS[name].compile(PARAMETERS[name])

    assert plan.undo.note
    assert (plan.undo.kind is UndoKind.STEPS) == bool(plan.undo.steps)
    assert plan.probe.kind is not StepKind.SQL or plan.probe.command.startswith("SELECT")


@pytest.mark.parametrize("name", NAMES)
def test_no_plan_locks_a_table_against_its_users(name: str) -> None:
    plan = ACTIONS[name].compile(PARAMETERS[name])

    for step in (*plan.steps, *plan.undo.steps):
        if "INDEX" in step.command and step.command.startswith(("CREATE", "DROP")):
            assert " CONCURRENTLY " in step.command
            assert not step.transaction
        assert "CREATE INDEX CONCURRENTLY IF NOT EXISTS" not in step.command
        assert "VACUUM" not in step.command


EVIL = ["x'; DROP TABLE orders; --", 'x"; DROP TABLE orders; --', "x\\'; DROP TABLE orders; --", "Ünïcode Täble", "a b"]


@pytest.mark.parametrize("evil", EVIL)
def test_a_name_stays_a_name_whatever_it_contains(evil: str) -> None:
    idea = IndexIdea(evil, evil, (evil,))
    plans = [
        ACTIONS["terminate-blocker"].compile({**SESSION, "role": evil, "database": evil}),
        ACTIONS["analyze-table"].compile({"schema": evil, "table": evil, "analyzed": 0}),
        ACTIONS["create-index"].compile({"schema": evil, "table": evil, "columns": [evil], "index": index_name(idea)}),
    ]

    for plan in plans:
        for step in (*plan.steps, *plan.undo.steps, plan.probe):
            assert "DROP TABLE" not in strip_quoted(step.command)


def strip_quoted(sql: str) -> str:
    """What is left when every quoted name and string is taken out, read as the server reads it."""
    text = strip_literals(sql, length=100_000)
    parts = text.split('"')
    return "".join(parts[::2])


def test_an_index_name_that_is_not_ours_is_refused() -> None:
    with pytest.raises(BadParametersError, match="not Kintsugi's name"):
        ACTIONS["create-index"].compile({**INDEX, "index": "orders_customer_id_idx"})


@pytest.mark.parametrize("size", [8, 7, 0, -1, 100_000])
def test_a_pool_is_only_ever_enlarged_and_within_bounds(size: int) -> None:
    with pytest.raises(BadParametersError, match="size"):
        ACTIONS["resize-pool"].compile({"former": 8, "size": size})


@pytest.mark.parametrize("pool", ["orders; SHUTDOWN", 'orders"', "", "a" * 64, "orders\nSHUTDOWN"])
def test_a_pool_name_can_not_carry_a_command(pool: str) -> None:
    with pytest.raises(BadParametersError, match="pools"):
        ACTIONS["failover"].compile({**PARAMETERS["failover"], "pools": [pool]})


@pytest.mark.parametrize("start", ["2026-11-21", "now()", "2026-11-21T23:54:53.123456Z'; --", "infinity"])
def test_an_instant_can_not_carry_sql(start: str) -> None:
    with pytest.raises(BadParametersError, match="backendStart"):
        ACTIONS["terminate-blocker"].compile({**SESSION, "backendStart": start})
    with pytest.raises(BadNameError):
        quote_timestamp(start)


def test_failover_fences_before_it_promotes_and_routes_only_after() -> None:
    commands = [step.command for step in ACTIONS["failover"].compile(PARAMETERS["failover"]).steps]

    def place(part: str) -> int:
        return next(number for number, command in enumerate(commands) if part in command and "[" not in command)

    assert place("kintsugi-fenced.orders-0") < place("ALTER SYSTEM") < place("pg_promote") < place('"orders-1"')
    assert place('"orders-1"') < place('RECONNECT "orders"')


# --- names and texts ---


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text and len(text.encode()) <= 63))
def test_quoting_a_name_can_be_undone(name: str) -> None:
    quoted = quote_identifier(name)

    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', '"') == name
    assert '"' not in quoted[1:-1].replace('""', "")


@given(st.text(max_size=50).filter(lambda text: "\0" not in text))
def test_a_quoted_literal_is_one_token(text: str) -> None:
    assert strip_literals(quote_literal(text)) == "?"


@pytest.mark.parametrize("name", ["", "a\0b", "ä" * 32])
def test_what_postgresql_can_not_name_is_refused(name: str) -> None:
    with pytest.raises(BadNameError):
        quote_identifier(name)


@pytest.mark.parametrize(
    ("statement", "stripped"),
    [
        ("SELECT * FROM t WHERE a = 'secret' AND b = 42", "SELECT * FROM t WHERE a = ? AND b = ?"),
        ("SELECT E'it\\'s secret', 'it''s', $1", "SELECT ?, ?, $1"),
        ("SELECT $$secret$$, $tag$a $$ secret$tag$ FROM t1", "SELECT ?, ? FROM t1"),
        ('SELECT "Col 1", U&"d\\0061t" FROM "T 2" -- secret', 'SELECT "Col 1", U&"d\\0061t" FROM "T 2"'),
        ("UPDATE t /* secret */ SET a = 1.5e-3, b = .5", "UPDATE t SET a = ?, b = ?"),
        ("SELECT 'cut off secr", "SELECT ?"),
        ("SELECT /* cut off secr", "SELECT"),
        ("SELECT B'01', X'ff', N'secret', 0xFF, 1_000", "SELECT ?, ?, ?, ?, ?"),
        ("a\n  b\t c", "a b c"),
    ],
)
def test_no_literal_survives(statement: str, stripped: str) -> None:
    assert strip_literals(statement) == stripped


@given(st.text(max_size=200))
def test_stripping_never_fails_and_never_grows(statement: str) -> None:
    assert len(strip_literals(statement)) <= 200


def test_names_in_a_statement_are_read_as_the_server_reads_them() -> None:
    found = names('SELECT Evil (1), lower("Mixed Case") FROM "S"."V" WHERE x = \'quoted(\'')

    assert {"evil", "lower"} == found.called
    assert {"Mixed Case", "S", "V", "x"} <= found.all
    assert "quoted" not in found.all


def test_an_index_name_fits_and_is_unique_to_table_and_columns() -> None:
    long = IndexIdea("s", "ä" * 30, ("b" * 60, "c"))

    assert len(index_name(long).encode()) <= 63
    assert index_name(long) != index_name(replace(long, columns=("b" * 60, "d")))
    assert index_name(IndexIdea("a", "t", ("x",))) != index_name(IndexIdea("b", "t", ("x",)))


def test_a_touched_table_with_a_dot_in_its_name_is_not_two_names() -> None:
    assert touch("shop", "Order Items") == "table:shop.Order Items"
    assert touch("shop", "my.table") == 'table:shop."my.table"'


# --- the planner's plans ---


def scan(filter_: str, **node: Any) -> Scan:
    plan = {"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "orders", "Alias": "o", "Plan Rows": 5}
    return sequential_scans({**plan, "Filter": filter_, **node})[0]


@pytest.mark.parametrize(
    ("condition", "equal", "ranged"),
    [
        ("(o.customer_id = $1)", ("customer_id",), ()),
        ("($1 = o.customer_id)", ("customer_id",), ()),
        ("((o.a = $1) AND (o.b > $2) AND ((o.email)::text = $3))", ("a", "email"), ("b",)),
        ('((o."Mixed ""Case" = 5) AND (o.b <> $1))', ('Mixed "Case',), ()),
        ("((o.a = $1) OR (o.b = $2))", (), ()),
        ("((o.a = $1) AND ((o.b = $2) OR (o.c = $3)))", ("a",), ()),
        ("(NOT (o.a = $1))", (), ()),
        ("(o.a = o.b)", (), ()),
        ("(lower(o.a) = $1)", (), ()),
        ("((o.a + 1) = $1)", (), ()),
        ("(o.a = 'x AND (o.b = 1'::text)", ("a",), ()),
        ("((o.id >= $1) AND (o.id <= $2))", (), ("id",)),
        ("(other.a = $1)", (), ()),
        ("", (), ()),
    ],
)
def test_columns_that_an_index_could_serve_are_read_from_a_filter(
    condition: str, equal: tuple[str, ...], ranged: tuple[str, ...]
) -> None:
    found = scan(condition)

    assert (found.equal, found.ranged) == (equal, ranged)


def test_a_join_condition_gives_the_joined_column_of_the_scanned_table() -> None:
    inner = {"Node Type": "Seq Scan", "Schema": "s", "Relation Name": "items", "Alias": "i", "Plan Rows": 1}
    outer = {"Node Type": "Index Scan", "Schema": "s", "Relation Name": "orders", "Alias": "o", "Plan Rows": 1}
    plan = {"Node Type": "Hash Join", "Hash Cond": "(i.order_id = o.id)", "Plans": [inner, {**outer}]}

    assert sequential_scans(plan)[0].joined == ("order_id",)


def table(rows: float = 1e6, **more: Any) -> dict[str, Any]:
    return {"schema": "public", "table": "orders", "rows": rows, "n_live_tup": rows, **more}


def an_index(*columns: str, **more: Any) -> dict[str, Any]:
    row = {"schema": "public", "table": "orders", "index": "i", "columns": list(columns), "valid": True}
    return {**row, "partial": False, "expressions": False, "method": "btree", **more}


def columns_tried(indexes: list[dict[str, Any]], rows: float = 1e6) -> list[tuple[str, ...]]:
    found = ideas(scan("((o.a = $1) AND (o.b > $2))"), [table(rows)], indexes)
    return [idea.columns for idea in found]


def test_equality_comes_before_ranges_and_single_columns_before_several() -> None:
    assert columns_tried([]) == [("a",), ("b",), ("a", "b")]


def test_an_index_that_exists_is_not_tried_again_and_an_unusable_one_does_not_count() -> None:
    assert columns_tried([an_index("a", "z")]) == [("b",), ("a", "b")]
    for useless in ({"valid": False}, {"partial": True}, {"expressions": True}, {"method": "hash"}):
        assert ("a",) in columns_tried([an_index("a", **useless)])


def test_a_small_table_needs_no_index() -> None:
    assert columns_tried([], rows=500) == []


# --- slow statements ---


def statement(queryid: int = 1, calls: int = 100, seconds: float = 1.0, query: str = "SELECT 1") -> dict[str, Any]:
    return {"queryid": queryid, "role": "app", "calls": calls, "seconds": seconds, "query": query}


def test_a_statement_is_judged_by_what_it_cost_since_the_baseline() -> None:
    rows = {
        "statements_before": (statement(calls=1000, seconds=1.0),),
        "statements": (statement(calls=1010, seconds=3.0),),
    }

    found = slow_statements(rows)[0]

    assert found.mean == pytest.approx(0.2)
    assert found.slower == pytest.approx(200)


def test_reset_statistics_are_not_taken_for_a_change() -> None:
    rows = {
        "statements_before": (statement(calls=1000, seconds=50.0),),
        "statements": (statement(calls=10, seconds=1.0),),
    }

    found = slow_statements(rows)[0]

    assert found.mean == pytest.approx(0.1)
    assert found.slower is None


def test_a_statement_that_has_not_ended_yet_counts_with_its_age() -> None:
    running = ({"queryid": 1, "role": "app", "sessions": 4, "longest": 20.0, "query": "SELECT 1"},)
    rows = {
        "statements_before": (statement(),),
        "statements": (statement(), statement(2, 5000, 3.0)),
        "running": running,
    }

    assert slow_statements(rows)[0].queryid == 1


# --- who blocks whom ---


def waits(pid: int, *blocked_by: int, wait: float = 5.0) -> dict[str, Any]:
    return {"pid": pid, "blocked_by": list(blocked_by), "wait": wait if blocked_by else None}


def test_the_root_with_the_most_victims_comes_first_and_chains_count() -> None:
    found = sessions.roots([waits(1), waits(2, 1), waits(3, 2), waits(4, 3), waits(10), waits(11, 10), waits(12, 10)])

    assert [(root.row["pid"], root.direct, root.transitive) for root in found] == [(1, 1, 3), (10, 2, 2)]


def test_a_prepared_transaction_has_no_root_session() -> None:
    assert sessions.roots([waits(2, 0)]) == ()


def test_a_deadlock_has_no_root_and_ends_by_itself() -> None:
    assert sessions.roots([waits(1, 2), waits(2, 1)]) == ()


def test_who_blocks_in_every_look_has_blocked_all_the_time() -> None:
    root = {**waits(1), "backend_start": "b", "xact_start": "x"}
    waiting = {**waits(2, 1), "backend_start": "b", "xact_start": "y"}

    first = sessions.blocking_since([root, waiting], {}, 100.0)
    then = sessions.blocking_since([root, waiting], first, 102.0)

    assert then == {(1, "b", "x"): 100.0}
    assert sessions.blocking_since([{**root, "xact_start": "later"}, waiting], then, 104.0) == {
        (1, "b", "later"): 104.0
    }
    assert sessions.blocking_since([root], then, 104.0) == {}
    assert sessions.roots([{**root, "blocks_for": 7.0}, waiting])[0].blocked_for == 7.0


# --- elections ---


def a_member(name: str, **more: Any) -> MemberView:
    view = MemberView(name, True, in_recovery=True, timeline=1, replay_lsn=1000, receive_lsn=1000)
    return replace(view, wal_receiver_streaming=False, **more)


def a_dead_primary(*members: MemberView, **more: Any) -> Diagnosis:
    facts = Diagnosis(
        rows={},
        errors={},
        server_version=15,
        primary_reachable=False,
        unreachable_for=30.0,
        metrics_down=True,
        members=(MemberView("p", False), *members),
        primary_member="p",
        last_known_primary_lsn=5000,
        extra={"pulse_age": 32.0, "wal_rate": 100.0, "primary_timeline": 1},
    )
    return replace(facts, **more)


def test_the_replica_that_has_received_the_most_is_promoted() -> None:
    chosen = election.candidate(a_dead_primary(a_member("a"), a_member("b", receive_lsn=2000)), "p")

    assert isinstance(chosen, MemberView)
    assert chosen.name == "b"


def test_a_diverged_replica_is_never_promoted_however_far_it_is() -> None:
    chosen = election.candidate(a_dead_primary(a_member("a"), a_member("b", receive_lsn=9999, timeline=2)), "p")

    assert isinstance(chosen, MemberView)
    assert chosen.name == "a"


def test_without_any_replica_on_the_primarys_timeline_nobody_is_promoted() -> None:
    assert "diverged" in str(election.candidate(a_dead_primary(a_member("b", timeline=2)), "p"))


def test_the_loss_is_carried_on_until_the_primary_fell_silent() -> None:
    diagnosis = a_dead_primary(a_member("a", receive_lsn=4900))

    # Last read at 5,000; two seconds at 100 B/s until it fell silent.
    assert election.data_loss(diagnosis, a_member("a", receive_lsn=4900)) == 300


def test_the_loss_is_unknown_where_the_primary_was_never_asked() -> None:
    assert election.data_loss(a_dead_primary(last_known_primary_lsn=None), a_member("a")) is None


def test_one_replica_that_still_hears_the_primary_is_enough_to_stop() -> None:
    hears = replace(a_member("b", wal_receiver_age=1.0), wal_receiver_streaming=True)

    assert election.alive(a_dead_primary(a_member("a")), "p") is None
    assert election.alive(a_dead_primary(a_member("a"), hears), "p") == "b still receives WAL from the primary"


def test_a_wal_receiver_that_has_heard_nothing_for_long_is_deaf() -> None:
    deaf = replace(a_member("b", wal_receiver_age=60.0), wal_receiver_streaming=True)

    assert election.alive(a_dead_primary(deaf), "p") is None


def test_a_server_that_recovers_by_itself_is_given_a_minute() -> None:
    recovering = a_dead_primary(a_member("a"), extra={"primary_error": "NotReadyError"})

    assert "starting up" in str(election.alive(recovering, "p"))
    assert election.alive(replace(recovering, unreachable_for=61.0), "p") is None


def test_a_plan_that_scans_a_function_names_only_its_tables() -> None:
    function = {"Node Type": "Function Scan", "Schema": "pg_catalog", "Function Name": "unnest", "Alias": "u"}
    table = {"Node Type": "Index Scan", "Schema": "public", "Relation Name": "counters", "Alias": "c"}
    plan = {"Node Type": "Nested Loop", "Plans": [function, table, {"Node Type": "CTE Scan", "CTE Name": "new"}]}
    assert relations(plan) == {("public", "counters")}
