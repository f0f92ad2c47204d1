"""What PostgreSQL logged, without anybody's data: literals become ?, numbers #, and names of what exists stay.

Pure. When in doubt a value is taken out: text that is not understood to its end becomes one ?, and nothing is kept of
messages that are not the server's own (`messages`) or that quote what users sent (syntax errors). A name that a client
chose and the server did not find may be anything, such as a password typed as a user: it goes, too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from kintsugi.engines.postgresql.logs.messages import known

LENGTH: Final = 400
"""Characters of a template at most."""

_LSN: Final = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b")
_NUMBER: Final = re.compile(r"(?<![\w.$])[-+]?\d[\w.]*")
_OBJECT: Final = re.compile(
    r"\b(table|relation|column|index|constraint|database|role|user|schema|function|view|sequence|extension|slot|server"
    r'|trigger|parameter|publication|subscription) "([A-Za-z_][\w$.]*)"'
)
_KEPT: Final = "\x00{}\x00"
_EXISTING: Final = frozenset(
    "00 01 08 21 22 23 25 2B 40 44 53 54 55 57 58 72 F0 XX 42501 42710 42723 42P04 42P06 42P07".split()  # noqa: SIM905
)
"""SQLSTATEs and their classes whose messages name what exists, unless `_CHOSEN` is in them. In others a client may have
chosen the name: who may log in (28), what was not found (3D, 3F, 42), statements and cursors (26, 34) and so on."""
_CHOSEN: Final = re.compile(
    r"do(?:es)? not exist|not found|no such |unrecognized|not recognized|unknown|is not available"
    r"|authenticat(?:ion failed|ed as|ed user)|login failed|to log in\b|LDAP|usermap|pg_hba|user name"
    r"|normalization form|JSON"
)
"""Words around what a client chose, whatever the SQLSTATE: that of notices and the server's remarks tells nothing."""
_OWN_CONTEXT: Final = re.compile(r"PL/pgSQL function .* at (RAISE|ASSERT)$|(?!PL/pgSQL)PL/")
"""The first line of a message's context when the application raised it, whatever SQLSTATE it chose."""
_OWN_STATES: Final = ("P0", "38", "39")
"""SQLSTATE classes of RAISE and of routines that are not SQL, such as PL/Tcl's."""
_OWN: Final = "a message of the application's own"
_UNKNOWN: Final = "a message that may be the application's own"

_COMMAND: Final = re.compile(
    r"(?:ABORT|ALTER|ANALY[SZ]E|BEGIN|CALL|CHECKPOINT|CLOSE|CLUSTER|COMMENT|COMMIT|COPY|CREATE|DEALLOCATE|DECLARE|DELETE|"
    r"DISCARD|DO|DROP|END|EXECUTE|EXPLAIN|FETCH|GRANT|IMPORT|INSERT|LISTEN|LOAD|LOCK|MERGE|MOVE|NOTIFY|PREPARE|"
    r"REASSIGN|REFRESH|REINDEX|RELEASE|REPACK|RESET|REVOKE|ROLLBACK|SAVEPOINT|SECURITY|SELECT|SET|SHOW|START|TABLE|"
    r"TRUNCATE|UNLISTEN|UPDATE|VACUUM|VALUES|WITH)\b",
    re.I,
)
"""How a statement begins: what does not begin so was never one, whatever the message says before it."""
_BEFORE_COMMAND: Final = re.compile(r"[\s(;]+|--[^\n]*|(?P<comment>/\*)")
_RUN: Final = re.compile(
    r"(?P<took>duration: [\d.]+ ms +)?(?P<what>statement|parse|bind|execute|fastpath|cron job)(?=[ :])"
)
_COLON: Final = re.compile(": ")
_COLONS: Final = 8
"""How many are looked at for the end of a prepared statement's name, which may hold anything, colons, too."""
_NAME: Final = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$.]*)'
_SETTING: Final = rf"\b(SET +(?:SESSION +|LOCAL +)?(?:TIME +ZONE|{_NAME} *(?:=|\bTO\b))) *"
_SETTINGS: Final = re.compile(rf"{_SETTING}{_NAME}(?: *, *{_NAME})*", re.I)
_SETTINGS_IN_UPDATE: Final = re.compile(rf'{_SETTING}"(?:[^"]|"")*"', re.I)
"""A parameter may be set to a value without quotes, or in double ones; UPDATE sets columns to columns."""
_UPDATE: Final = re.compile(r"\bUPDATE\b", re.I)
_PLAN: Final = re.compile(r"^duration: [\d.]+ ms +plan:\s*", re.S)

_TOKEN: Final = re.compile(
    r"""(?P<line>--[^\n]*)
    | (?P<comment>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    | (?P<dollar>\$(?P<tag>[^\W\d]\w*|)\$)
    | (?P<name>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<parameter>\$\d+)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\.?\d[\w.]*(?:(?<=[eE])[-+]\d+)?)
    | (?P<space>\s+)
    | (?P<other>.)""",
    re.X | re.S,
)
_LIST: Final = re.compile(r"(\$\d+|[?#])(?: ?, ?(?:\$\d+|[?#]))+")
_ROWS: Final = re.compile(r"(\((?:\$\d+|[?#])(?:, …)?\))(?: ?, ?\((?:\$\d+|[?#])(?:, …)?\))+")


def template_id(template: str) -> str:
    """A short name of a template, the same everywhere."""
    return hashlib.blake2s(template.encode(), digest_size=4).hexdigest()


def of_message(message: str, state: str, context: str = "") -> str:
    """The template of a message that came with this SQLSTATE and context."""
    if state[:2] in _OWN_STATES or message.startswith("AUDIT: ") or _OWN_CONTEXT.match(context.split("\n", 1)[0]):
        return _OWN
    if found := _PLAN.match(message):
        return _clean(f"duration: # ms plan: {_plan(message[found.end() :])}")
    if (statement := _logged_statement(message)) is not None:
        return _clean(statement)
    if (words := known(message)) is None:
        return _UNKNOWN
    exists = not state or state[:2] in _EXISTING or state in _EXISTING
    return _clean(_words(words, names=exists and not _CHOSEN.search(words)))


def _logged_statement(message: str) -> str | None:
    """A statement that has run, or (without a duration) is about to; None for another message."""
    if (found := _RUN.match(message)) is None:
        return None
    took, what, end = "duration: # ms " if found["took"] else "", found["what"], found.end()
    for colon in islice(_COLON.finditer(message, end, end + 2 if what == "statement" else len(message)), _COLONS):
        if _is_command(message, colon.end()):
            # What has run had names in its double quotes; of what is about to (log_statement), nobody knows yet.
            return f"{took}{what}: {of_statement(message[colon.end() :], quoted=bool(took))}"
    return f"{took}{what}: ?" if took else None


def _is_command(text: str, at: int) -> bool:
    while before := _BEFORE_COMMAND.match(text, at):
        at = _after_comment(text, before.end()) if before["comment"] else before.end()
    return _COMMAND.match(text, at) is not None


def of_statement(sql: str, *, quoted: bool = True) -> str:
    """SQL without comments and literals, in one line; lists of values are shortened to their first.

    Args:
        sql: one or several statements.
        quoted: whether words in double quotes stay.
    """
    text = re.sub(r"\s+", " ", "".join(_pieces(sql, quoted=quoted))).strip()
    settings = _SETTINGS_IN_UPDATE if _UPDATE.search(text) else _SETTINGS
    text = settings.sub(r"\1 ?", text)
    text = _LIST.sub(r"\1, …", text)
    return _ROWS.sub(r"\1, …", text)


def _words(message: str, *, names: bool) -> str:
    """A message without quoted values; from the first quote that holds no known object's name, all to the last one.

    Args:
        message: one of the server's own.
        names: whether what it names exists, and stays.
    """
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match.group(2))
        return f"{match.group(1)} {_KEPT.format(len(kept) - 1)}"

    text = message.replace("\x00", "")
    if names:
        text = _OBJECT.sub(keep, text)
    first = min((at for quote in "\"'" if (at := text.find(quote)) >= 0), default=-1)
    if first >= 0:
        last = max(text.rfind('"'), text.rfind("'"))
        text = text[:first] + "?" + (text[last + 1 :] if last > first else "")
    # Further lines hold figures only.
    parts = re.split("\x00(\\d+)\x00", text.split("\n", 1)[0])
    clean = [_numbers(part) if index % 2 == 0 else f'"{kept[int(part)]}"' for index, part in enumerate(parts)]
    return re.sub(r"\s+", " ", "".join(clean)).strip()


def _numbers(text: str) -> str:
    return _NUMBER.sub("#", _LSN.sub("#", text))


def _pieces(sql: str, *, quoted: bool) -> Iterator[str]:
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            return
        at = match.end()
        text = match.group()
        match match.lastgroup:
            case "line" | "space":
                yield " "
            case "comment":
                at = _after_comment(sql, at)
                yield " "
            case "string" if re.search(r"\\'", text):
                # Where it ends depends on standard_conforming_strings, which nobody knows here.
                yield "?"
                return
            case "escaped" | "string":
                yield "?"
            case "dollar" | "tag":
                end = sql.find(text, at)
                at = len(sql) if end < 0 else end + len(text)
                yield "?"
            case "name" if not quoted:
                yield '"?"'
            case "number":
                yield "#"
            case "other" if text in "\"'":
                yield "?"
                return
            case _:
                yield text


def _after_comment(sql: str, at: int) -> int:
    """Where a comment ends that has begun before `at`; they nest."""
    depth = 1
    for match in re.finditer(r"/\*|\*/", sql[at:]):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return at + match.end()
    return len(sql)


def _plan(text: str) -> str:
    """The shape of a plan in JSON: its nodes with the tables and indexes they read, and the statement.

    A plan as text (auto_explain's default) follows its statement without a mark, and is taken for a part of it. Of one
    in YAML, which begins the same way but with the statement in double quotes, and of one in XML nothing is kept.
    """
    if text.startswith("Query Text: "):
        statement = text.removeprefix("Query Text: ")
        return f"of {of_statement(statement)}" if _is_command(statement, 0) else "?"
    try:
        plan = json.loads(text)
        if not isinstance(plan, dict) or not isinstance(plan.get("Plan"), dict):
            return "?"
        return f"{_node(plan['Plan'])} of {of_statement(str(plan.get('Query Text', '')))}"
    except (ValueError, RecursionError):
        return "?"


def _node(node: Mapping[str, Any]) -> str:
    named = [str(node[key]) for key in ("Index Name", "Relation Name") if key in node]
    below = [_node(child) for child in node.get("Plans", ()) if isinstance(child, dict)]
    inner = ", ".join([*named[:1], *below])
    return f"{node.get('Node Type', '?')}({inner})" if inner else str(node.get("Node Type", "?"))


def _clean(template: str) -> str:
    """At most `LENGTH` characters, all of which can be encoded: JSON may hold half a surrogate pair."""
    text = template.encode(errors="replace").decode()
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"
