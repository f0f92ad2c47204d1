"""Texts of users' statements without what their users wrote into them: literal values never leave the database."""

from __future__ import annotations

import re
from dataclasses import dataclass

LENGTH = 200
READ = 1000
"""How much of a statement is looked at for what is shown of it; what is cut in the middle is no literal any more."""

_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<identifier>(?:[uU]&)?"(?:[^"]|"")*(?:"|\Z))
    | (?P<escape>\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<string>(?:\b[bBxXnN]|\b[uU]&)?'(?:[^']|'')*(?:'|\Z))
    | (?P<dollar>\$(?P<tag>[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$.*?(?:\$(?(tag)(?P=tag))\$|\Z))
    | (?P<parameter>\$\d+)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    | (?P<number>(?:0[xXoObB][0-9a-fA-F_]+|\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    """,
    re.VERBOSE | re.DOTALL,
)


def strip_literals(sql: str, length: int = LENGTH) -> str:
    """`sql` with `?` for every literal, without comments, on one line, cut at `length` characters.

    A text that the server cut in the middle of a string loses that string too.
    """
    text = " ".join(_TOKEN.sub(_without_literal, sql[: max(READ, length)]).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _without_literal(match: re.Match[str]) -> str:
    if match["comment"] is not None:
        return " "
    if match["identifier"] is not None or match["parameter"] is not None or match["word"] is not None:
        return match[0]
    return "?"


@dataclass(frozen=True, slots=True)
class Names:
    """The identifiers in a statement as the server reads them; `called` are those with a parenthesis behind."""

    all: frozenset[str]
    called: frozenset[str]


def names(sql: str) -> Names:
    """Every identifier in `sql`, keywords included: unquoted ones in lower case, quoted ones as they are."""
    found: set[str] = set()
    called: set[str] = set()
    for match in _TOKEN.finditer(sql):
        if match["identifier"] is None and match["word"] is None:
            continue
        name = match[0].lower() if match["word"] is not None else match[0].strip('uU&"').replace('""', '"')
        found.add(name)
        if sql[match.end() :].lstrip().startswith("("):
            called.add(name)
    return Names(frozenset(found), frozenset(called))
