"""Reading EXPLAIN (VERBOSE, FORMAT JSON): which tables are read in full, and which columns an index could serve.

Only plain comparisons count (`orders.customer_id = $1`): what is joined by OR, negated or computed is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]

_NAME = r'(?:"(?:[^"]|"")+"|[a-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)'
# varchar compares as text; an index on the bare column serves that.
_COLUMN = rf"\(?(?P<alias>{_NAME})\.(?P<column>{_NAME})\)?(?:::text|::character varying)?"
_LEFT = re.compile(rf"{_COLUMN} (?P<operator>=|<=|>=|<|>) (?P<other>.+)", re.DOTALL)
_RIGHT = re.compile(rf"(?P<other>.+?) (?P<operator>=|<=|>=|<|>) {_COLUMN}", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_STRING = re.compile(r"'(?:[^']|'')*'")
_JOIN_CONDITIONS = ("Hash Cond", "Merge Cond", "Join Filter")


@dataclass(frozen=True, slots=True)
class Scan:
    """A sequential scan: of which table, and by which columns the statement picks its rows.

    `equal` and `ranged` come from the scan's own filter, `joined` from the join above it.
    """

    schema: str
    table: str
    rows: float
    equal: tuple[str, ...]
    ranged: tuple[str, ...]
    joined: tuple[str, ...]


def total_cost(plan: Node) -> float:
    """The planner's cost of the whole plan."""
    return float(plan["Total Cost"])


def sequential_scans(plan: Node) -> tuple[Scan, ...]:
    """Every sequential scan in a plan, in the plan's order."""
    nodes = list(_walk(plan))
    joined = [
        condition for node in nodes for key in _JOIN_CONDITIONS if key in node for condition in _comparisons(node[key])
    ]
    return tuple(_scan(node, joined) for node in nodes if node["Node Type"] == "Seq Scan" and "Schema" in node)


def relations(plan: Node) -> frozenset[tuple[str, str]]:
    """Every table that a plan reads, as (schema, table); a scan of a function or a CTE reads none."""
    tables = (node for node in _walk(plan) if {"Schema", "Relation Name"} <= node.keys())
    return frozenset((node["Schema"], node["Relation Name"]) for node in tables)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


@dataclass(frozen=True, slots=True)
class _Comparison:
    alias: str
    column: str
    operator: str


def _scan(node: Node, joined: list[_Comparison]) -> Scan:
    own = [c for c in _comparisons(node.get("Filter", "")) if c.alias == node["Alias"]]
    return Scan(
        schema=node["Schema"],
        table=node["Relation Name"],
        rows=float(node["Plan Rows"]),
        equal=_unique(c.column for c in own if c.operator == "="),
        ranged=_unique(c.column for c in own if c.operator != "="),
        joined=_unique(c.column for c in joined if c.alias == node["Alias"] and c.operator == "="),
    )


def _unique(columns: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(columns))


def _comparisons(condition: str) -> list[_Comparison]:
    """The comparisons that must all be true, from either side."""
    found: list[_Comparison] = []
    for part in _conjuncts(condition):
        for pattern in (_LEFT, _RIGHT):
            match = pattern.fullmatch(part)
            # A column compared with another column of the same table is no key to look up.
            if match and not _mentions(match["other"], match["alias"]) and not _compound(match["other"]):
                found.append(_Comparison(_plain(match["alias"]), _plain(match["column"]), match["operator"]))
    return found


def _mentions(text: str, alias: str) -> bool:
    return f"{alias}." in _STRING.sub("", text)


def _conjuncts(condition: str) -> Iterator[str]:
    """What is joined by AND at the top; nothing of a condition with OR at the top."""
    condition = _without_parentheses(condition.strip())
    if not condition or _split(condition, " OR ")[1:]:
        return
    parts = _split(condition, " AND ")
    if len(parts) == 1:
        yield condition
        return
    for part in parts:
        yield from _conjuncts(part)


def _compound(text: str) -> bool:
    return bool(_split(text, " AND ")[1:] or _split(text, " OR ")[1:])


def _split(text: str, separator: str) -> list[str]:
    """`text` cut at `separator` outside of parentheses and quotes."""
    hidden = _QUOTED.sub(lambda match: "\0" * len(match[0]), text)
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(hidden):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and hidden.startswith(separator, place):
            parts.append(text[start:place])
            start = place + len(separator)
    return [*parts, text[start:]]


def _without_parentheses(text: str) -> str:
    """`((a = 1))` → `a = 1`; `(a = 1) AND (b = 2)` stays."""
    while text.startswith("(") and text.endswith(")") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for place, letter in enumerate(_QUOTED.sub(lambda match: "\0" * len(match[0]), text)):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place == len(text) - 1
    return False


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
