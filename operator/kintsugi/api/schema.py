"""A pydantic model as a structural Kubernetes schema: what the API server accepts, and nothing that it ignores.

Kubernetes takes a subset of JSON Schema (no references, no `const`, no `additionalProperties: false`, no patterns that
explain themselves). What has no exact counterpart is refused by name, never dropped: a boundary that the API server
doesn't check is one that a user believes in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "enum",
    "default",
    "description",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "pattern",
)
_TRANSLATED = {"$ref", "anyOf", "const", "properties", "required", "items", "additionalProperties"}
_DROPPED = {"title", "$defs"}
_TYPES = {"string", "integer", "number", "boolean", "array", "object"}


class UnmappableFieldError(TypeError):
    """A field of a model can't be written as a Kubernetes schema: which, why, and what to use instead."""


def structural(model: type[BaseModel], root: str, *, defaults: bool = True, free: Collection[str] = ()) -> Schema:
    """The structural schema of `model`, whose fields are called `root.…` in errors.

    Without `defaults` none is carried: the API server then stores exactly what was sent. `free` are the paths of the
    objects that may hold anything.

    Raises:
        UnmappableFieldError: a field has no exact counterpart in Kubernetes.
    """
    whole = model.model_json_schema(mode="serialization", by_alias=True)
    return _Translation(whole.get("$defs", {}), defaults, free).node(whole, root)


class _Translation:
    def __init__(self, definitions: Mapping[str, Schema], defaults: bool, free: Collection[str]) -> None:
        self.definitions = definitions
        self.defaults = defaults
        self.free = free

    def node(self, source: Schema, path: str) -> Schema:
        source = self.resolved(source, path)
        unknown = source.keys() - _TRANSLATED - _DROPPED - set(_KEPT)
        if unknown:
            raise UnmappableFieldError(
                f"{path}: Kubernetes has no {', '.join(sorted(unknown))}; express it as a rule in api/rules.py"
            )
        if source.get("type") not in _TYPES:
            raise UnmappableFieldError(f"{path}: has no single JSON type; give it one, or split it into two fields")
        result = {key: source[key] for key in _KEPT if key in source}
        if "const" in source:
            result["enum"] = [source["const"]]
        if source["type"] == "array":
            result["items"] = self.items(source, path)
        if source["type"] == "object":
            result |= self.members(source, path)
        self.default(result)
        return result

    def resolved(self, source: Schema, path: str) -> Schema:
        """`source` with its reference and its `| None` replaced by what they stand for; what stands beside wins."""
        beside = {key: value for key, value in source.items() if key not in ("$ref", "anyOf")}
        if "$ref" in source:
            name = source["$ref"].removeprefix("#/$defs/")
            if name not in self.definitions:
                raise UnmappableFieldError(
                    f"{path}: refers to {source['$ref']}, which is not a definition of the model"
                )
            return self.resolved(self.definitions[name], path) | beside
        if "anyOf" in source:
            choices = [choice for choice in source["anyOf"] if choice != {"type": "null"}]
            if len(choices) != 1:
                raise UnmappableFieldError(f"{path}: is a union; give each alternative a field of its own")
            if beside.get("default", 0) is None:
                del beside["default"]
            return self.resolved(choices[0], path) | beside
        return source

    def items(self, source: Schema, path: str) -> Schema:
        if not isinstance(source.get("items"), dict):
            raise UnmappableFieldError(f"{path}: is a list without one type for its items; use tuple[X, ...]")
        return self.node(source["items"], f"{path}[]")

    def members(self, source: Schema, path: str) -> Schema:
        properties, values = source.get("properties"), source.get("additionalProperties")
        if properties is None:
            if path in self.free:
                return {"x-kubernetes-preserve-unknown-fields": True}
            if not isinstance(values, dict):
                raise UnmappableFieldError(
                    f"{path}: may hold anything; name its fields, or list it as free in api/crd.py"
                )
            return {"additionalProperties": self.node(values, f"{path}[]")}
        if values not in (None, False):
            raise UnmappableFieldError(f"{path}: has both fields and free keys; move the free keys into a field")
        result: Schema = {"properties": {key: self.node(value, f"{path}.{key}") for key, value in properties.items()}}
        required = [key for key in properties if key in source.get("required", ())]
        return result | ({"required": required} if required else {})

    def default(self, result: Schema) -> None:
        if not self.defaults or ("default" in result and result["default"] in ([], "", None)):
            result.pop("default", None)
        elif "default" in result and result["type"] == "object":
            fields = result.get("properties", {})
            result["default"] = {name: field["default"] for name, field in fields.items() if "default" in field}


def at(schema: Schema, path: str) -> Schema:
    """The node of `schema` at `spec.windows[].schedule`, for example; the empty path is the schema itself.

    Raises:
        UnmappableFieldError: there is no such field.
    """
    here = schema
    for part in path.replace("[]", ".[]").split(".") if path else ():
        following = here.get("items", here.get("additionalProperties")) if part == "[]" else _property(here, part)
        if not isinstance(following, dict):
            raise UnmappableFieldError(f"{path}: there is no such field; correct the path in api/rules.py")
        here = following
    return here


def _property(schema: Schema, name: str) -> Schema | None:
    found: Schema | None = schema.get("properties", {}).get(name)
    return found


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of `schema` with its path, parents first."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}" if path else name)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")
