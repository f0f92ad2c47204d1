"""What the three kinds share: strict immutable models, durations and sizes as users write them, conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "kintsugi.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

APPROVE = f"{GROUP}/approve"
APPROVED_BY = f"{GROUP}/approved-by"
APPROVED_GROUPS = f"{GROUP}/approved-groups"
SECOND_APPROVE = f"{GROUP}/second-approve"
SECOND_APPROVED_BY = f"{GROUP}/second-approved-by"
SECOND_APPROVED_GROUPS = f"{GROUP}/second-approved-groups"
REJECT = f"{GROUP}/reject"
REJECTED_BY = f"{GROUP}/rejected-by"
PAUSE = f"{GROUP}/pause"
PAUSED_BY = f"{GROUP}/paused-by"
ACKNOWLEDGE = f"{GROUP}/acknowledge"
ACKNOWLEDGED_BY = f"{GROUP}/acknowledged-by"
LABEL = f"{GROUP}/label"
LABELLED_BY = f"{GROUP}/labelled-by"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_PATTERN = r"^([0-9]+(ms|s|m|h))+$"
_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h)")
_SIZES = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2, "GB": 1000**3, "GiB": 1024**3}
SIZE_PATTERN = r"^[0-9]+(B|kB|KiB|MB|MiB|GB|GiB)$"
PERCENT_PATTERN = r"^(100|[0-9]{1,2}(\.[0-9]+)?)%$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


class Model(BaseModel):
    """Immutable, camelCase outside, unknown fields refused: a misspelt boundary must never be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """As Kubernetes stores it: camelCase, JSON values, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Status(Model):
    """A status tolerates fields it does not know: a newer operator may have written it."""

    model_config = ConfigDict(extra="ignore")


def parse_duration(value: Any) -> Any:
    """`1h30m`, `90s`, `500ms` as a timedelta; anything else is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(DURATION_PATTERN, value):
        raise ValueError(f"{value!r} is not a duration; write it like 30s, 5m or 1h30m")
    return timedelta(seconds=sum(int(n) * _UNITS[unit] for n, unit in _DURATION_PART.findall(value)))


def format_duration(value: timedelta) -> str:
    """The shortest spelling that `parse_duration` reads back."""
    left = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: Any) -> Any:
    """`16MB` as bytes; anything else is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]+)([A-Za-z]+)", value)
    if not match or match[2] not in _SIZES:
        raise ValueError(f"{value!r} is not a size; write it like 0B, 512KiB or 16MB")
    return int(match[1]) * _SIZES[match[2]]


def parse_percent(value: Any) -> Any:
    """`10%` as 0.1; anything else is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(PERCENT_PATTERN, value):
        raise ValueError(f"{value!r} is not a percentage; write it like 10%")
    return float(value[:-1]) / 100


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 32}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(lambda value: f"{value}B", return_type=str),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "maxLength": 32}),
]
Percent = Annotated[
    float,
    BeforeValidator(parse_percent),
    PlainSerializer(lambda value: f"{value * 100:g}%", return_type=str),
    WithJsonSchema({"type": "string", "pattern": PERCENT_PATTERN, "maxLength": 16}),
]
Name = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]
Time = Annotated[
    datetime,
    PlainSerializer(
        lambda value: value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), return_type=str
    ),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class HttpAuth(Model):
    """Credentials for an HTTP server; the subclass says for which."""

    type: Literal["bearer", "basic"] = Field(
        description="bearer: the Secret has token. basic: it has username and password."
    )
    secret_ref: Name = Field(description="The Secret with the credentials.")


class Condition(Status):
    """One aspect of a status, as the Kubernetes API conventions have it."""

    type: str = Field(max_length=316, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(max_length=1024, description="The cause in one word.")
    message: str = Field(default="", max_length=32768, description="The cause in a sentence, with what to do.")
    observed_generation: int | None = Field(default=None, description="The generation that the condition is about.")
    last_transition_time: Time = Field(description="When the status last changed.")


def set_condition(
    conditions: tuple[Condition, ...],
    type_: str,
    status: bool | None,
    reason: str,
    message: str,
    *,
    now: datetime,
    generation: int | None = None,
) -> tuple[Condition, ...]:
    """`conditions` with this one set; the transition time moves only when the status does."""
    word: Literal["True", "False", "Unknown"] = "Unknown" if status is None else ("True" if status else "False")
    old = next((c for c in conditions if c.type == type_), None)
    since = old.last_transition_time if old and old.status == word else now
    new = Condition(
        type=type_,
        status=word,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if c.type == type_ else c for c in conditions)


def get_condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """The condition of this type, or None."""
    return next((c for c in conditions if c.type == type_), None)


class ObjectMeta(Model):
    """The part of Kubernetes' metadata that we read; the rest is ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"
