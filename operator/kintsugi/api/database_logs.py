"""Where a database's server log is, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from kintsugi.api.meta import HttpAuth, Model, Name


class LogFile(Model):
    """Files in the operator's own file system: a volume that is mounted there."""

    path: str = Field(
        min_length=2,
        max_length=1024,
        description="A file (with what it is rotated to), a pattern such as /logs/orders-*.json, or a directory.",
    )


class LogPods(Model):
    """The output of the database's pods, through the Kubernetes API."""

    selector: Mapping[str, Annotated[str, Field(min_length=1, max_length=63)]] = Field(
        min_length=1, max_length=8, description="Labels of the database's pods."
    )
    container: Name | None = Field(default=None, description="The container, where a pod has several.")


class LokiAuth(HttpAuth):
    """Credentials for Loki: a Secret with `token`, or with `username` and `password`."""


class LogLoki(Model):
    """Grafana Loki."""

    url: str = Field(
        pattern=r"^https?://[^\s/]+.*$",
        max_length=2048,
        description="Base URL, http://loki.monitoring:3100 for example.",
    )
    query: str = Field(
        min_length=3, max_length=4096, description='A stream selector: {namespace="shop", pod=~"orders-.*"}.'
    )
    tenant: str | None = Field(default=None, min_length=1, max_length=253, description="X-Scope-OrgID.")
    auth: LokiAuth | None = None
    ca_secret_ref: Name | None = Field(default=None, description="Secret with ca.crt for a private CA.")


class Logs(Model):
    """The server's log: exactly one of file, pods and loki."""

    format: Literal["jsonlog", "csvlog", "stderr"] = Field(
        default="jsonlog", description="As the server's log_destination; CloudNativePG's pods write jsonlog."
    )
    line_prefix: str | None = Field(
        default=None,
        min_length=2,
        max_length=253,
        description="log_line_prefix of stderr; left out, PostgreSQL's own default and Debian's are understood.",
    )
    file: LogFile | None = None
    pods: LogPods | None = None
    loki: LogLoki | None = None
