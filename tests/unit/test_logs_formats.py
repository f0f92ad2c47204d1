"""jsonlog, csvlog and stderr say the same, whole, cut, mixed with junk, and in any pieces."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.engines.postgresql.logs.line import Line, LogZoneError, time_of
from kintsugi.engines.postgresql.logs.prefix import LinePrefixError, header
from kintsugi.engines.postgresql.logs.records import LINE_BYTES, Decoder

START = datetime(2026, 11, 22, 3, 0, 0, tzinfo=UTC).timestamp()
STAMP = "2026-11-22 03:00:00.500 UTC"
PLAN = "duration: 600.1 ms  plan:\nQuery Text: SELECT 'SECRET'\nResult  (cost=0.00..0.01 rows=1 width=4)"
RAISED = 'PL/pgSQL function pay(integer) line 3 at RAISE\nSQL statement "x"'


few = settings(max_examples=20, deadline=None)

Said = tuple[str, str, str, str]
MESSAGES: tuple[tuple[Said, str], ...] = (
    (("LOG", "00000", "checkpoint complete: wrote 12 buffers (0.1%)", ""), "checkpoint"),
    (("ERROR", "40P01", "deadlock detected", ""), "deadlock"),
    (("ERROR", "42703", 'column "SECRET" does not exist', ""), "error_42"),
    (("ERROR", "23514", "customer SECRET is over limit", RAISED), "error_23"),
    (("LOG", "00000", PLAN, ""), "auto_explain"),
    (("LOG", "00000", "duration: 3.1 ms  statement: SELECT 'SECRET',\n\t'a\"b'\nFROM t", ""), "slow_statement"),
    (("FATAL", "53300", "sorry, too many clients already", ""), "fatal"),
    (("WARNING", "01000", "there is no transaction in progress", ""), "other"),
)


def as_json(said: Said) -> bytes:
    severity, state, message, context = said
    fields = {"timestamp": STAMP, "error_severity": severity, "state_code": state, "message": message}
    return json.dumps(fields | ({"context": context} if context else {})).encode() + b"\n"


def as_csv(said: Said, columns: int = 26) -> bytes:
    severity, state, message, context = said
    row = [STAMP, "app", "shop", "7", "10.0.0.1:5", "6921.7", "1", "SELECT", STAMP, "3/7", "0"]
    row += [severity, state, message] + [""] * 4 + [context, "SELECT 1", "", "", 'psql "x"', "client backend", "", "0"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row[:columns])
    return text.getvalue().replace(f'"{STAMP}",', f"{STAMP},").replace(f'"{severity}"', severity).encode()


def as_stderr(said: Said, prefix: str = f"{STAMP} [7] app@shop ", state: bool = True) -> bytes:
    severity, code, message, context = said
    tabbed = message.replace("\n", "\n\t")
    lines = [f"{prefix}{severity}:  {code + ': ' if state else ''}{tabbed}"]
    if context:
        lines.append(f"{prefix}CONTEXT:  " + context.replace("\n", "\n\t"))
    lines.append(f"{prefix}STATEMENT:  SELECT 'SECRET'\n\tFROM t")
    return ("\n".join(lines) + "\n").encode()


FORMATS = {"jsonlog": as_json, "csvlog": as_csv, "stderr": as_stderr}


def decoded(of: Decoder, data: bytes) -> list[Line]:
    return [*of.feed(data), *of.end()]


@pytest.mark.parametrize("name", FORMATS)
def test_each_message_has_its_class_time_and_code_and_no_value(name: str) -> None:
    data = b"".join(FORMATS[name](said) for said, _ in MESSAGES)
    reader = decoder(name)
    lines = decoded(reader, data)
    assert [line.kind for line in lines] == [kind for _, kind in MESSAGES]
    assert [(line.severity, line.state) for line in lines] == [said[:2] for said, _ in MESSAGES]
    assert {line.time for line in lines} == {START + 0.5}
    assert "SECRET" not in str(lines)
    assert reader.junk == 0


def test_the_formats_agree_on_every_template() -> None:
    found = [
        [line.template for line in decoded(decoder(n), b"".join(w(m) for m, _ in MESSAGES))] for n, w in FORMATS.items()
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", FORMATS)
@few
@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_the_pieces_in_which_bytes_come_do_not_matter(name: str, cuts: list[int]) -> None:
    data = b"".join(FORMATS[name](said) for said, _ in MESSAGES)
    edges = [0, *sorted(cuts), len(data)]
    reader = decoder(name)
    found = [line for start, end in pairwise(edges) for line in reader.feed(data[start:end])]
    assert [*found, *reader.end()] == decoded(decoder(name), data)


@pytest.mark.parametrize("name", FORMATS)
@few
@given(cut=st.integers(0, 2500))
def test_who_begins_again_at_what_was_pending_loses_and_repeats_nothing(name: str, cut: int) -> None:
    data = b"".join(FORMATS[name](said) for said, _ in MESSAGES)
    cut = min(cut, len(data))
    before, after = decoder(name), decoder(name)
    found = before.feed(data[:cut])
    assert [*found, *decoded(after, data[cut - before.pending :])] == decoded(decoder(name), data)


@pytest.mark.parametrize("name", FORMATS)
@few
@given(junk=st.binary(max_size=300))
def test_junk_between_two_lines_costs_neither(name: str, junk: bytes) -> None:
    checkpoint, fatal = MESSAGES[0][0], MESSAGES[6][0]
    lines = decoded(decoder(name), FORMATS[name](checkpoint) + junk + b"\n" + FORMATS[name](fatal))
    assert [line.kind for line in lines if line.time == START + 0.5] == ["checkpoint", "fatal"]


@pytest.mark.parametrize("name", FORMATS)
@few
@given(junk=st.binary(max_size=3000))
def test_no_bytes_are_refused(name: str, junk: bytes) -> None:
    assert all(line.kind for line in decoded(decoder(name), junk))


@pytest.mark.parametrize("name", FORMATS)
def test_of_a_line_larger_than_memory_only_the_beginning_is_kept(name: str) -> None:
    reader, part = decoder(name), b"x" * (1 << 16)
    long = FORMATS[name](("LOG", "00000", "duration: 900.0 ms  statement: SELECT 'MARK", ""))
    head, tail = long.split(b"MARK")
    found = reader.feed(head)
    for _ in range(40):
        found += reader.feed(part)
        assert len(reader._half) <= LINE_BYTES
    assert reader.pending > 40 * len(part)
    found += reader.feed(b"'" + tail + FORMATS[name](MESSAGES[0][0])) + reader.end()
    assert [line.kind for line in found] == ["slow_statement", "checkpoint"]
    assert found[0].template == "duration: # ms statement: SELECT ?"


@pytest.mark.parametrize("name", FORMATS)
def test_a_record_that_the_crash_cut_does_not_hide_the_next(name: str) -> None:
    cut = FORMATS[name](MESSAGES[4][0])
    lines = decoded(decoder(name), cut[: cut.index(b"plan") + 4] + b"\n" + FORMATS[name](MESSAGES[6][0]))
    assert lines[-1].kind == "fatal"


def test_reading_that_begins_within_a_csv_record_finds_the_next_one() -> None:
    data = as_csv(MESSAGES[5][0]) + as_csv(MESSAGES[0][0])
    assert [line.kind for line in decoded(decoder("csvlog"), data[data.index(b"FROM") :])] == ["checkpoint"]


@pytest.mark.parametrize("columns", [23, 24, 26])
def test_csvlog_of_every_version_is_read(columns: int) -> None:
    assert [line.kind for line in decoded(decoder("csvlog"), as_csv(MESSAGES[3][0], columns))] == ["error_23"]


def test_what_cloudnativepg_writes_to_its_pods_is_read() -> None:
    record = {"log_time": STAMP, "error_severity": "ERROR", "sql_state_code": "40001", "message": "could not serialize"}
    data = json.dumps({"level": "info", "ts": STAMP, "logger": "postgres", "msg": "record", "record": record}).encode()
    manager = json.dumps({"level": "info", "ts": STAMP, "logger": "instance-manager", "msg": "probe"}).encode()
    lines = decoded(decoder("jsonlog"), data + b"\n" + manager + b"\n")
    assert [(line.kind, line.state) for line in lines] == [("error_40", "40001")]


# --- time zones ---


@pytest.mark.parametrize(
    ("text", "away"),
    [("UTC", 0), ("GMT", 0), ("+00", 0), ("+02", 2), ("-03", -3), ("+0530", 5.5), ("+05:45", 5.75), ("-12:00", -12)],
)
def test_utc_and_offsets_are_understood(text: str, away: float) -> None:
    assert time_of(f"2026-11-22 03:00:00 {text}") == START - 3600 * away


def test_an_offset_may_follow_at_once() -> None:
    assert time_of("2026-11-22 03:00:00.25+01") == START - 3600 + 0.25


@pytest.mark.parametrize("zone", ["CET", "CST", "IST", "+99"])
def test_a_zone_that_may_be_several_is_passed_over_and_says_what_to_set(zone: str) -> None:
    new, good = decoder("stderr"), as_stderr(MESSAGES[0][0])
    bad = good.replace(b"UTC", zone.encode())
    assert decoded(new, bad) == []
    assert "log_timezone = 'UTC'" in new.zone
    assert new.junk == 1
    assert len(decoded(new, bad + good)) == 1
    assert new.zone == ""
    with pytest.raises(LogZoneError):
        time_of(f"2026-11-22 03:00:00 {zone}")


def test_a_date_that_does_not_exist_is_no_time() -> None:
    assert time_of("2026-13-40 03:00:00 UTC") is None


# --- log_line_prefix ---


@pytest.mark.parametrize(
    ("prefix", "written"),
    [
        (None, f"{STAMP} [7] "),
        (None, f"{STAMP} [7] app@shop "),
        ("%m [%p] ", f"{STAMP} [7] "),
        ("%t:%r:%u@%d:[%p]:", "2026-11-22 03:00:00 UTC:10.0.0.1(5432):app@shop:[7]:"),
        (
            "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
            "2026-11-22 03:00:00 UTC [7]: [1-1] user=a b,db=,app=x y,client=::1 ",
        ),
        ("%m [%5p] %-12u|%q%e ", f"{STAMP} [    7] app         |00000 "),
        ("%m %q%u@%d ", f"{STAMP} "),
        (
            "%n %c %b %v %x %i %Q %L %P %s 100%% ",
            "1795316400.500 6921.7 client backend 3/7 0 DROP TABLE -1 [local]  2026-11-22 02:00:00 UTC 100% ",
        ),
    ],
)
def test_what_each_prefix_writes_is_read(prefix: str | None, written: str) -> None:
    data = f"{written}LOG:  checkpoint starting: time\n".encode()
    (line,) = decoded(decoder("stderr", prefix), data)
    assert (line.kind, round(line.time - START)) == ("checkpoint", 0)


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [("[%p] ", "has no time; add %m"), ("%m %z ", "has %z, which"), ("%m %t ", "names the same twice")],
)
def test_a_prefix_that_can_not_be_read_with_says_what_to_write(prefix: str, sentence: str) -> None:
    with pytest.raises(LinePrefixError, match=sentence):
        header(prefix)


def test_words_that_look_like_another_prefix_do_not_move_the_message() -> None:
    (line,) = decoded(decoder("stderr"), f"{STAMP} [7] LOG:  connection received: a@b ERROR:  fake\n".encode())
    assert (line.severity, line.kind) == ("LOG", "connection")


@pytest.mark.parametrize(
    ("message", "state", "kind"),
    [
        ("deadlock detected", "40P01", "deadlock"),
        ("canceling statement due to statement timeout", "57014", "error_57"),
        ('column "SECRET" does not exist', "42703", "error_42"),
        ("customer SECRET is over limit", "", "error"),
    ],
)
def test_without_codes_known_messages_keep_theirs_and_others_say_nothing(message: str, state: str, kind: str) -> None:
    (line,) = decoded(decoder("stderr"), as_stderr(("ERROR", "", message, ""), state=False))
    assert (line.state, line.kind) == (state, kind)
    assert "SECRET" not in line.template


def test_the_last_message_is_given_out_when_nothing_more_comes() -> None:
    reader = decoder("stderr")
    data = as_stderr(MESSAGES[3][0])
    assert reader.feed(data) == []
    assert reader.pending == len(data)
    assert [line.kind for line in reader.idle()] == ["error_23"]
    assert reader.pending == 0


def test_half_a_line_is_waited_for() -> None:
    for name, write in FORMATS.items():
        reader = decoder(name)
        data = write(MESSAGES[0][0])
        assert reader.feed(data[:-9]) + reader.idle() == []
        assert [line.kind for line in reader.feed(data[-9:]) + reader.idle()] == ["checkpoint"]


def test_lines_before_the_wanted_time_are_left_out() -> None:
    assert decoded(decoder("jsonlog", since=START + 1), as_json(MESSAGES[0][0])) == []
