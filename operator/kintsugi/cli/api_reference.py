"""docs/api.md: every field of the three kinds in a table, from the same schemas as the CRDs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence

from kintsugi.api.crd import ACTIONS, KINDS, Kind, Vocabulary, schema
from kintsugi.api.meta import API_VERSION
from kintsugi.api.schema import Schema, walk

_TOP = f"""# The API: `{API_VERSION}`

Generated from `operator/kintsugi/api` by `make crds`. All kinds are namespaced; `kubectl explain mdb.spec` says the
same. Durations are written like `500ms`, `30s`, `5m` or `1h30m`, sizes like `0B`, `512KiB` or `16MB`, percentages like
`10%`. [Samples](samples/README.md) show every field in use.
"""
_LIMITS = (
    ("minimum", "maximum", "{} to {}"),
    ("minLength", "maxLength", "{} to {} characters"),
    ("minItems", "maxItems", "{} to {} items"),
    ("minProperties", "maxProperties", "{} to {} keys"),
)
_WRITTEN = {
    "must be a duration": "duration",
    "must be a size": "size",
    "must be a percentage": "percentage",
    "must be the name of an object": "name",
}
"""How values are written that are text for Kubernetes: known by the rule that explains it."""


def page(words: Vocabulary) -> str:
    """The whole page."""
    return "\n".join([_TOP, *(line for kind in KINDS for line in _kind(kind, schema(kind, words)))])


def _kind(kind: Kind, whole: Schema) -> Iterator[str]:
    written = "written by people" if kind is not ACTIONS else "written by the operator alone, never changed afterwards"
    yield f"## {kind.name} (`{kind.short}`)\n\n{whole['description']}\n"
    for part, who in (("spec", written), ("status", "written by the operator")):
        node = whole["properties"][part]
        yield f"### `{part}`: {who}\n\n{node['description']}\n"
        yield "| field | type | default | means |\n|---|---|---|---|"
        yield from _rows(node, {path.removeprefix(f"{part}.") for path in kind.optional})
        yield ""
    yield from _rules(whole)


def _rows(part: Schema, needed_by_rule: Collection[str]) -> Iterator[str]:
    for path, node in walk(part):
        parent, _, name = path.rpartition(".")
        if not path or path.endswith("[]"):
            continue
        needed = " **required**" if path in needed_by_rule or name in _required(part, parent) else ""
        means = _cell(node.get("description", ""))
        yield f"| `{path}` | {_type(node)}{needed} | {_default(node)} | {means} |"


def _required(part: Schema, path: str) -> Sequence[str]:
    found: Sequence[str] = next(node for at, node in walk(part) if at == path).get("required", ())
    return found


def _type(node: Schema) -> str:
    if "enum" in node:
        return _cell(" \\| ".join(f"`{value}`" for value in node["enum"]))
    if node["type"] == "array":
        return f"list of {_type(node['items'])}{_limits(node)}"
    if "additionalProperties" in node:
        return f"map to {_type(node['additionalProperties'])}{_limits(node)}"
    return next(_written(node), f"{node.get('format', node['type'])}{_limits(node)}")


def _written(node: Schema) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations", []):
        yield from (name for says, name in _WRITTEN.items() if says in rule.get("message", ""))


def _limits(node: Schema) -> str:
    for least, most, text in _LIMITS:
        if least in node and most in node:
            return ", " + text.format(node[least], node[most])
        if most in node:
            return ", " + text.format("", f"at most {node[most]}").replace(" to ", "").strip()
        if least in node:
            return ", " + text.format("", f"at least {node[least]}").replace(" to ", "").strip()
    return ""


def _default(node: Schema) -> str:
    return f"`{json.dumps(node['default'])}`" if "default" in node and node["type"] != "object" else ""


def _rules(whole: Schema) -> Iterator[str]:
    yield "### Refused by the API server, besides what the types say\n"
    for path, node in walk(whole):
        for rule in node.get("x-kubernetes-validations", []):
            where = f"{path}{rule.get('fieldPath', '')}".removeprefix(".")
            says = rule.get("message") or rule["messageExpression"].replace("' + ", "").replace(" + '", "").strip("'")
            if not any(part in says for part in _WRITTEN):
                yield f"- `{where}`: {says}"
    yield ""


def _cell(text: str) -> str:
    return text.replace("\n", " ")
