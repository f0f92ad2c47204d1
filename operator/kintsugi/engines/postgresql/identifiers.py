"""The one place where SQL text is composed from names and values.

Every name and every string in a plan goes through here, so that a mixed-case table, a role called `o'brien"; --` and a
backslash are all just names. The rules are PostgreSQL's own; contract tests compare with its quote_ident and
quote_literal.
"""

from __future__ import annotations

import re

NAME_BYTES = 63
"""NAMEDATALEN - 1: the server cuts longer identifiers silently, which would name another object."""

TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")


class BadNameError(ValueError):
    """A text that PostgreSQL can't have as a name or value: empty, too long, or with a zero byte."""


def quote_identifier(name: str) -> str:
    """`name` as a quoted identifier, always with quotes: `"Order Items"`.

    Raises:
        BadNameError: the name is empty, longer than 63 bytes in UTF-8, or holds a zero byte.
    """
    if not name or "\0" in name:
        raise BadNameError(f"{name!r} can't be a PostgreSQL name; give a text of 1 to {NAME_BYTES} bytes without zeros")
    if len(name.encode()) > NAME_BYTES:
        raise BadNameError(f"{name!r} is longer than PostgreSQL's {NAME_BYTES} bytes for a name; give its exact name")
    return '"' + name.replace('"', '""') + '"'


def quote_qualified(schema: str, name: str) -> str:
    """`"schema"."name"`: nothing is ever looked up through search_path."""
    return f"{quote_identifier(schema)}.{quote_identifier(name)}"


def quote_literal(text: str) -> str:
    r"""`text` as a string literal: `'o''brien'`; with a backslash as `E'…\\…'`, right with every server setting.

    Raises:
        BadNameError: the text holds a zero byte.
    """
    if "\0" in text:
        raise BadNameError("a text with a zero byte can't be a PostgreSQL value; remove it")
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "E" + quoted if "\\" in text else quoted


def quote_timestamp(text: str) -> str:
    """`2026-11-21T23:54:53.123456Z`, as diagnostics spell instants, as a timestamptz literal."""
    if not TIMESTAMP.fullmatch(text):
        raise BadNameError(f"{text!r} is not an instant; write it like 2026-11-21T23:54:53.123456Z")
    return f"{quote_literal(text)}::pg_catalog.timestamptz"
