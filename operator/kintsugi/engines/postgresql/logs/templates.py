"""What PostgreSQL logged, without anybody's data: literals become ?, numbers #, and names of what exists stay.

Pure. When in doubt a value is taken out: text that is not understood to its end becomes one ?, and nothing is kept of
messages that users write themselves (RAISE) or that quote what they sent (syntax errors). A name that a client chose
and the server did not find may be anything, such as a password typed as a user: it goes, too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

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
_BARE: Final = tuple(
    (re.compile(pattern, re.S), template)
    for pattern, template in (
        (r"\A\S.*(?= is not a valid )", "?"),
        (r"\A(column notation \.).*(?= applied to type )", r"\1?"),
        (r"\A(provided user name ).*(?= do not match)", r"\1?"),
        (r": .*", ": ?"),
    )
)
"""Where such messages have names without quotes: all of ereport's formats with a bare %s in PostgreSQL 15 and 18."""
_NOT_THERE: Final = (" does not exist", " do not exist")
_OWN_CONTEXT: Final = re.compile(r"PL/pgSQL function .* at (RAISE|ASSERT)$|(?!PL/pgSQL)PL/")
"""The first line of a message's context when the application raised it, whatever SQLSTATE it chose."""
_OWN: Final = "a message of the application's own"

_STATEMENT: Final = re.compile(
    r"^(duration: [\d.]+ ms +)?(statement|(?:parse|bind|execute|fastpath)(?: (?!failed|to\b)[^:]*)?): ", re.S
)
_NAME: Final = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$.]*)'
_SETTING: Final = rf"\b(SET +(?:SESSION +|LOCAL +)?(?:TIME +ZONE|{_NAME} *(?:=|\bTO\b))) *"
_SETTINGS: Final = re.compile(rf"{_SETTING}{_NAME}(?: *, *{_NAME})*", re.I)
_SETTINGS_IN_UPDATE: Final = re.compile(rf'{_SETTING}"(?:[^"]|"")*"', re.I)
"""A parameter may be set to a value without quotes, or in double ones; UPDATE sets columns to columns."""
_UPDATE: Final = re.compile(r"\bUPDATE\b", re.I)
_SAID: Final = re.compile(r"\b(application_name|host|client)=.*?(?= \w+=|$)", re.M)
_ADMITTED: Final = re.compile(r"(?<=connection authorized: )user=.*", re.S)
"""Logged before the server looks whether role and database exist."""
_PLAN: Final = re.compile(r"^duration: [\d.]+ ms +plan:\s*", re.S)

_TOKEN: Final = re.compile(
    r"""(?P<line>--[^\n]*)
    | (?P<comment>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    | (?P<dollar>\$(?P<tag>[A-Za-z_]\w*|)\$)
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
    if found := _PLAN.match(message):
        return _shorten(f"duration: # ms plan: {_plan(message[found.end() :])}")
    if found := _STATEMENT.match(message):
        what = found.group(2).split(" ")[0]
        took = "duration: # ms " if found.group(1) else ""
        # What has run had names in its double quotes; of what is about to (log_statement), nobody knows yet.
        return _shorten(f"{took}{what}: {of_statement(message[found.end() :], quoted=bool(took))}")
    if state[:2] == "P0" or message.startswith("AUDIT: ") or _OWN_CONTEXT.match(context.split("\n", 1)[0]):
        return _OWN
    exists = not state or state[:2] in _EXISTING or state in _EXISTING
    return _shorten(_words(message, names=exists and not _CHOSEN.search(message)))


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
        message: as the server words it.
        names: whether what it names exists, and stays.
    """
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match.group(2))
        return f"{match.group(1)} {_KEPT.format(len(kept) - 1)}"

    text = message.replace("\x00", "")
    text = _OBJECT.sub(keep, text) if names else _without_bare_names(text)
    first = min((at for quote in "\"'" if (at := text.find(quote)) >= 0), default=-1)
    if first >= 0:
        last = max(text.rfind('"'), text.rfind("'"))
        text = text[:first] + "?" + (text[last + 1 :] if last > first else "")
    # Further lines hold figures only.
    text = _SAID.sub(r"\1=?", _ADMITTED.sub("?", text).split("\n", 1)[0])
    parts = re.split("\x00(\\d+)\x00", text)
    clean = [_numbers(part) if index % 2 == 0 else f'"{kept[int(part)]}"' for index, part in enumerate(parts)]
    return re.sub(r"\s+", " ", "".join(clean)).strip()


def _without_bare_names(text: str) -> str:
    """A message about what a client chose, without that where it stands without quotes."""
    end = max(text.rfind(words) for words in _NOT_THERE)
    kind, space, _ = text[: max(end, 0)].partition(" ")
    if space:
        text = f"{kind} ?{text[end:]}"
    for pattern, template in _BARE:
        text = pattern.sub(template, text)
    return text


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

    A plan as text (auto_explain's default) follows its statement without a mark, and is taken for a part of it.
    """
    if text.startswith("Query Text: "):
        return f"of {of_statement(text.removeprefix('Query Text: '))}"
    try:
        plan = json.loads(text)
    except ValueError:
        return "?"
    if not isinstance(plan, dict) or not isinstance(plan.get("Plan"), dict):
        return "?"
    return f"{_node(plan['Plan'])} of {of_statement(str(plan.get('Query Text', '')))}"


def _node(node: Mapping[str, Any]) -> str:
    named = [str(node[key]) for key in ("Index Name", "Relation Name") if key in node]
    below = [_node(child) for child in node.get("Plans", ()) if isinstance(child, dict)]
    inner = ", ".join([*named[:1], *below])
    return f"{node.get('Node Type', '?')}({inner})" if inner else str(node.get("Node Type", "?"))


def _shorten(template: str) -> str:
    return template if len(template) <= LENGTH else template[: LENGTH - 1] + "…"
