"""`MonitoredDatabase`: a database to watch, and what Kintsugi knows about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kintsugi.api.meta import Condition, Duration, Model, Name, ObjectMeta, Port, Status, Time


class Connection(Model):
    """How to reach the database. The Secret holds `username` and `password`, and `ca.crt` for a private CA."""

    host: str = Field(min_length=1, max_length=253, description="Host name or address of the primary (its Service).")
    port: Port = 5432
    database: str = Field(min_length=1, max_length=63)
    secret_ref: Name = Field(description="Secret with username and password, and ca.crt for a private CA.")
    tls: Literal["disable", "require", "verify-ca", "verify-full"] = Field(
        default="verify-full", description="As libpq's sslmode."
    )


class PrometheusAuth(Model):
    """Credentials for Prometheus: a Secret with `token`, or with `username` and `password`."""

    type: Literal["bearer", "basic"]
    secret_ref: Name


class Metrics(Model):
    """Where the database's metrics are. `matchers` select exactly this database's series."""

    prometheus: str = Field(
        pattern=r"^https?://[^\s/]+.*$", max_length=2048, description="Base URL, http://host:9090 for example."
    )
    matchers: Mapping[str, str] = Field(
        min_length=1, max_length=8, description="Label names and values that all of this database's series carry."
    )
    scrape_interval: Duration = Field(default=timedelta(seconds=15), description="As in Prometheus; 1s to 5m.")
    auth: PrometheusAuth | None = None
    ca_secret_ref: Name | None = Field(default=None, description="Secret with ca.crt for a private CA.")


class Slo(Model):
    """What the users of the database are promised: a signal of the catalogue, or a free query run every 30 s."""

    signal: str | None = Field(default=None, max_length=63, description="A latency signal of the engine's catalogue.")
    latency_query: str | None = Field(default=None, max_length=4096, description="PromQL giving one number in seconds.")
    target: Duration


class Reference(Model):
    """The window of fault-free samples that the present is compared with."""

    minimum: Duration = Field(default=timedelta(minutes=5), description="How long to learn before judging.")
    window: Duration = Field(default=timedelta(minutes=30), description="How far back the reference reaches.")


class PgBouncer(Model):
    """PgBouncer's admin console. The Secret holds `username` and `password` of a user in `admin_users`."""

    host: str = Field(min_length=1, max_length=253)
    port: Port = 6432
    secret_ref: Name
    max_pool_size: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=100, description="resize-pool never goes above this."
    )


class Pooler(Model):
    """The connection pooler in front of the database."""

    pgbouncer: PgBouncer


class Member(Model):
    """One PostgreSQL server of a streaming replication set; `name` is its pod's."""

    name: Name
    host: str = Field(min_length=1, max_length=253)
    port: Port = 5432


class Streaming(Model):
    """PostgreSQL's own streaming replication, without another failover manager."""

    service: Name = Field(description="The Service whose selector names the primary's pod; failover patches it.")
    members: tuple[Member, ...] = Field(min_length=2, max_length=16)


class Replication(Model):
    """Who replicates from whom."""

    streaming: Streaming


class WorkloadRef(Model):
    """The workload that runs the database, in the same namespace."""

    kind: Literal["StatefulSet", "Deployment"]
    name: Name


class Dependency(Model):
    """Another MonitoredDatabase in the same namespace whose trouble reaches this one."""

    name: Name


class DatabaseSpec(Model):
    """What to watch and how to reach it."""

    engine: str = Field(min_length=1, max_length=63, json_schema_extra={"enum": ["postgresql"]})
    connection: Connection
    metrics: Metrics
    slo: Slo | None = None
    reference: Reference = Reference()
    pooler: Pooler | None = None
    replication: Replication | None = None
    workload_ref: WorkloadRef | None = None
    depends_on: tuple[Dependency, ...] = Field(default=(), max_length=32)


class ComponentStatus(Status):
    """One component's risk, 0 to 1, and when it is expected to degrade (seconds; 0 is now)."""

    name: str
    risk: float
    degraded: bool = False
    eta_seconds: float | None = None


class SignalsStatus(Status):
    """What discovery found in Prometheus."""

    found: int
    expected: int
    missing: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ()


class IncidentStatus(Status):
    """The anomaly being handled. `tried` are the actions already taken or proposed for it, in order."""

    id: str
    opened_at: Time
    root: str = ""
    tried: tuple[str, ...] = ()
    summary: str = ""
    acknowledged: bool = False


class TrackRecord(Status):
    """How an action type has done on this database; rollout is earned from it."""

    action: str
    succeeded: int = 0
    harmed: int = 0
    failed_in_a_row: int = 0


class Budget(Status):
    """What the limits are counted from; here so that they survive a restart."""

    started_at: tuple[Time, ...] = Field(default=(), description="Starts of actions in the last hour.")
    last_ended_at: Time | None = None


class DatabaseStatus(Status):
    """What Kintsugi sees and decides, readable without anything else."""

    observed_generation: int = 0
    phase: str = ""
    risk: str = ""
    soon: str = ""
    doing: str = ""
    conditions: tuple[Condition, ...] = ()
    components: tuple[ComponentStatus, ...] = ()
    signals: SignalsStatus | None = None
    incident: IncidentStatus | None = None
    effective_mode: str = ""
    policies: tuple[str, ...] = ()
    not_proposed: tuple[str, ...] = ()
    budget: Budget = Budget()
    track_record: tuple[TrackRecord, ...] = ()
    server_version: str = ""


class MonitoredDatabase(Model):
    """The whole object as read from the API server."""

    KIND: ClassVar[str] = "MonitoredDatabase"
    PLURAL: ClassVar[str] = "monitoreddatabases"

    metadata: ObjectMeta
    spec: DatabaseSpec
    status: DatabaseStatus = DatabaseStatus()
