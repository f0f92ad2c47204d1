"""collector.yaml: which databases to collect from. Unknown fields are refused, so that a misspelt one is noticed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from kintsugi.api.meta import Duration, Model, Port

Tls = Literal["disable", "require", "verify-ca", "verify-full"]

RESERVED = frozenset({"member", "role", "query", "reason", "what", "sqlstate", "le", "job", "instance"})
"""Labels that the collector or Prometheus sets itself."""


class ConfigError(ValueError):
    """collector.yaml can't be used: which file, which field, and what it should be."""


class CredentialError(ValueError):
    """A file with a user name, password or authority can't be read: which, and why."""


class Login(Model):
    """As whom to connect. What changes (a rotated password) is read from its file with each new connection."""

    username: str | None = None
    username_file: Path | None = None
    password: str | None = Field(default=None, repr=False)
    password_file: Path | None = None
    tls: Tls = Field(default="verify-full", description="As libpq's sslmode.")
    ca_file: Path | None = Field(default=None, description="PEM bundle of a private authority.")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.username is None) == (self.username_file is None):
            raise ValueError("give either username or usernameFile")
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give either password or passwordFile")
        return self

    def user(self) -> str:
        """The user name now; CredentialError when its file can't be read."""
        return self.username if self.username is not None else _read(self.username_file)

    def secret(self) -> str:
        """The password now; CredentialError when its file can't be read."""
        return self.password if self.password is not None else _read(self.password_file)

    def authority(self) -> str | None:
        """The authority's PEM, or None; CredentialError when its file can't be read."""
        return _read(self.ca_file) if self.ca_file is not None else None


class MemberConfig(Model):
    """One PostgreSQL server of a database; `name` becomes the label `member`."""

    name: str = Field(min_length=1, max_length=253)
    host: str = Field(min_length=1, max_length=253)
    port: Port = 5432


class PoolerConfig(Login):
    """The PgBouncer in front, asked over its admin console (a user of stats_users is enough)."""

    host: str = Field(min_length=1, max_length=253)
    port: Port = 6432
    tls: Tls = "disable"
    databases: tuple[str, ...] = Field(
        default=(), description="Pools by their name in pgbouncer.ini; none given: those that lead to the database."
    )


class DatabaseConfig(Login):
    """One database; its series carry `namespace`, `service` (its name unless `labels` says otherwise) and `labels`."""

    name: str = Field(min_length=1, max_length=253)
    namespace: str = Field(min_length=1, max_length=253)
    labels: Mapping[str, str] = Field(default_factory=dict)
    members: tuple[MemberConfig, ...] = Field(min_length=1, max_length=16)
    database: str = Field(min_length=1, max_length=63)
    pooler: PoolerConfig | None = None

    @field_validator("labels")
    @classmethod
    def _usable_labels(cls, labels: Mapping[str, str]) -> Mapping[str, str]:
        for name in labels:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or name.startswith("__"):
                raise ValueError(f"{name!r} is not a label name; use letters, digits and _")
            if name in RESERVED:
                raise ValueError(f"{name!r} is set by the collector or Prometheus; choose another label name")
        return labels

    @field_validator("members")
    @classmethod
    def _distinct_members(cls, members: tuple[MemberConfig, ...]) -> tuple[MemberConfig, ...]:
        _distinct("member", [member.name for member in members])
        return members

    @property
    def key(self) -> str:
        """`namespace/name`, for logs."""
        return f"{self.namespace}/{self.name}"

    def series_labels(self) -> dict[str, str]:
        """The labels that all of this database's series carry."""
        return {"namespace": self.namespace, "service": self.name, **self.labels}


class CollectorConfig(Model):
    """The whole file."""

    budget: Duration = Field(
        default=timedelta(seconds=2),
        description="What is not answered by then is left out of a scrape; never more than 0.8 of its own timeout.",
    )
    databases: tuple[DatabaseConfig, ...] = Field(min_length=1)

    @field_validator("budget")
    @classmethod
    def _sensible_budget(cls, budget: timedelta) -> timedelta:
        if not timedelta(milliseconds=50) <= budget <= timedelta(minutes=1):
            raise ValueError("a budget lies between 50ms and 1m; 2s suits scrapes every 5 s and more")
        return budget

    @field_validator("databases")
    @classmethod
    def _distinct_databases(cls, databases: tuple[DatabaseConfig, ...]) -> tuple[DatabaseConfig, ...]:
        _distinct("database", [database.key for database in databases])
        _distinct("set of labels", [str(sorted(database.series_labels().items())) for database in databases])
        return databases


def load(path: Path) -> CollectorConfig:
    """Read and check a file.

    Raises:
        ConfigError: it can't be read, is not YAML, or says something unusable; one line per problem.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}; check --config") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    try:
        return CollectorConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error, path))) from None


def _sentences(error: ValidationError, path: Path) -> list[str]:
    """One line per problem. The values are left out: one may be a password."""
    lines = []
    for problem in error.errors(include_input=False):
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        lines.append(f"{path}: {where}: {problem['msg'].removeprefix('Value error, ')}")
    return lines


def _distinct(what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {', '.join(twice)} stands there more than once; each needs its own")


def _read(path: Path | None) -> str:
    assert path is not None
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CredentialError(f"{path} can't be read ({reason}); check the mounted Secret") from None
