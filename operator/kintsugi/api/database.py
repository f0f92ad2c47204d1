"""`MonitoredDatabase`: a database to watch, and what Kintsugi knows about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kintsugi.api.database_logs import Logs
from kintsugi.api.meta import Condition, Duration, HttpAuth, Model, Name, ObjectMeta, Port, Status, Time


class Connection(Model):
    """How to reach the database. The Secret holds `username` and `password`, and `ca.crt` for a private CA."""

    host: str = Field(min_length=1, max_length=253, description="Host name or address of the primary (its Service).")
    port: Port = Field(default=5432, description="The server's port.")
    database: str = Field(min_length=1, max_length=63, description="The database to connect to.")
    secret_ref: Name = Field(description="Secret with username and password, and ca.crt for a private CA.")
    tls: Literal["disable", "require", "verify-ca", "verify-full"] = Field(
        default="verify-full", description="As libpq's sslmode."
    )


class PrometheusAuth(HttpAuth):
    """Credentials for Prometheus: a Secret with `token`, or with `username` and `password`."""


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
    target: Duration = Field(description="The latency that users are promised, 50ms for example.")


class Reference(Model):
    """The window of fault-free samples that the present is compared with."""

    minimum: Duration = Field(default=timedelta(minutes=5), description="How long to learn before judging.")
    window: Duration = Field(default=timedelta(minutes=30), description="How far back the reference reaches.")


class PgBouncer(Model):
    """PgBouncer's admin console. The Secret holds `username` and `password` of a user in `admin_users`."""

    host: str = Field(min_length=1, max_length=253, description="Host name or address of PgBouncer.")
    port: Port = Field(default=6432, description="PgBouncer's port.")
    secret_ref: Name = Field(description="Secret with username and password of a user in admin_users.")
    max_pool_size: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=100, description="resize-pool never goes above this."
    )


class Pooler(Model):
    """The connection pooler in front of the database."""

    pgbouncer: PgBouncer


class Member(Model):
    """One PostgreSQL server of a streaming replication set; `name` is its pod's."""

    name: Name = Field(description="The name of the server's pod.")
    host: str = Field(
        min_length=1,
        max_length=253,
        description="Host name or address of this server itself, not of a Service over several.",
    )
    port: Port = Field(default=5432, description="The server's port.")


class Streaming(Model):
    """PostgreSQL's own streaming replication, without another failover manager."""

    service: Name = Field(description="The Service whose selector names the primary's pod; failover patches it.")
    members: tuple[Member, ...] = Field(
        min_length=2, max_length=16, description="Every server of the set, the primary among them."
    )


class Replication(Model):
    """Who replicates from whom."""

    streaming: Streaming


class WorkloadRef(Model):
    """The workload that runs the database, in the same namespace."""

    kind: Literal["StatefulSet", "Deployment"] = Field(description="StatefulSet or Deployment.")
    name: Name = Field(description="The workload's name.")


class Dependency(Model):
    """Another MonitoredDatabase in the same namespace whose trouble reaches this one."""

    name: Name = Field(description="The other MonitoredDatabase's name.")


class DatabaseSpec(Model):
    """What to watch and how to reach it."""

    engine: str = Field(
        min_length=1,
        max_length=63,
        json_schema_extra={"enum": ["postgresql"]},
        description="What kind of database it is.",
    )
    connection: Connection
    metrics: Metrics
    logs: Logs | None = None
    slo: Slo | None = None
    reference: Reference = Reference()
    detector: Literal["Learned", "Statistical"] | None = Field(
        default=None,
        description="Learned also uses the learned model and what was labelled here; Statistical does not. "
        "Unset: as the operator is set (chart value models.detector).",
    )
    pooler: Pooler | None = None
    replication: Replication | None = None
    workload_ref: WorkloadRef | None = None
    depends_on: tuple[Dependency, ...] = Field(
        default=(), max_length=32, description="Databases whose trouble reaches this one."
    )


class ComponentStatus(Status):
    """One component's risk, 0 to 1, and when it is expected to degrade (seconds; 0 is now)."""

    name: str = Field(description="The component, lock-manager for example.")
    risk: float = Field(description="Probability of degrading, 0 to 1.")
    degraded: bool = Field(default=False, description="Whether it is degraded already.")
    eta_seconds: float | None = Field(default=None, description="Seconds until it is expected to degrade; 0 is now.")


class SignalsStatus(Status):
    """What discovery found in Prometheus."""

    found: int = Field(description="Signals of the catalogue that this database's metrics offer.")
    expected: int = Field(description="Signals of the catalogue.")
    missing: tuple[str, ...] = Field(default=(), description="Signals that no exporter offers.")
    exporters: tuple[str, ...] = Field(default=(), description="The exporters whose metrics were found.")


class UnusualStatus(Status):
    """A signal that the learned model finds unusual."""

    signal: str = Field(description="The signal's name.")
    deviation: float = Field(
        description="How far it is from its usual value, in scales of the reference (about a standard deviation, "
        "60 at most); negative is below."
    )


class JudgementStatus(Status):
    """How it is judged, besides its statistics: by the learned model and by this database's own examples."""

    model: str = Field(default="", description="The bundle of learned models, version and hash; empty without one.")
    probability: str = Field(default="", description="The model's probability that something is wrong, 0 to 1.")
    threshold: str = Field(default="", description="The probability that the model alone would alarm from.")
    anomalies: int = Field(default=0, description="Examples of anomalies of this database that are used.")
    normals: int = Field(default=0, description="Examples of normal times of this database that are used.")
    unusual: tuple[UnusualStatus, ...] = Field(
        default=(),
        description="While something is wrong, the signals that the model finds most unusual, strongest first; "
        "from 3 scales on.",
    )
    fault_class: str = Field(default="", description="The kind of fault that it looks like, unknown where none does.")
    nearest_class: str = Field(
        default="", description="The known kind that is nearest: the same, or what comes closest where it is unknown."
    )
    class_probability: str = Field(default="", description="The probability of the nearest kind, 0 to 1.")
    silent_since: Time | None = Field(
        default=None, description="Since when something is silenced by an example that is labelled normal."
    )
    sentence: str = Field(default="", description="All of it in words.")


class IncidentStatus(Status):
    """The anomaly being handled. `tried` are the actions already taken or proposed for it, in order."""

    id: str = Field(description="The incident's id, as in its actions, events and logs.")
    opened_at: Time = Field(description="When the anomaly was first flagged.")
    root: str = Field(default="", description="The component where it started.")
    tried: tuple[str, ...] = Field(default=(), description="Actions already taken or proposed for it, in order.")
    summary: str = Field(default="", description="What is wrong, in a sentence.")


class TrackRecord(Status):
    """How an action type has done on this database; rollout is earned from it."""

    action: str = Field(description="The action.")
    succeeded: int = Field(default=0, description="Verified successes without harm.")
    harmed: int = Field(default=0, description="Runs after which it was worse than before.")
    failed_in_a_row: int = Field(default=0, description="Failures since the last success; two open the circuit.")


class Budget(Status):
    """What the limits are counted from; here so that they survive a restart."""

    started_at: tuple[Time, ...] = Field(default=(), description="Starts of actions in the last hour.")
    last_ended_at: Time | None = Field(
        default=None, description="When the last action ended; the cooldown counts from it."
    )


class DatabaseStatus(Status):
    """What Kintsugi sees and decides, readable without anything else."""

    observed_generation: int = Field(default=0, description="The generation that this status is about.")
    phase: str = Field(default="", description="Learning, Healthy, Degraded, Healing, Blind or Paused.")
    risk: str = Field(
        default="", description="The anomaly's score, 0 to 1; 0.5 is the threshold. ~ while it is still learned."
    )
    soon: str = Field(
        default="", description="The component that is expected to degrade next, with probability and time."
    )
    doing: str = Field(default="", description="What Kintsugi is doing and why, in a sentence.")
    conditions: tuple[Condition, ...] = Field(
        default=(), description="What is in order and what isn't; Healthy sums it up."
    )
    components: tuple[ComponentStatus, ...] = Field(
        default=(), description="Every component at risk, most certain first."
    )
    signals: SignalsStatus | None = None
    judgement: JudgementStatus | None = None
    incident: IncidentStatus | None = None
    effective_mode: str = Field(
        default="", description="The strictest mode of all matching policies and the operator's ceiling."
    )
    policies: tuple[str, ...] = Field(default=(), description="The policies that match.")
    not_proposed: tuple[str, ...] = Field(
        default=(), description="Actions that were considered and left out, each with its reason."
    )
    budget: Budget = Budget()
    track_record: tuple[TrackRecord, ...] = Field(default=(), description="How each action type has done here.")
    acknowledged: str = Field(default="", description="The kintsugi.dev/acknowledge annotation already acted upon.")
    reference_since: Time | None = Field(
        default=None,
        description="Since when the database is as it is, where a person said so (kintsugi.dev/acknowledge).",
    )
    server_version: str = Field(default="", description="The version that the server reports.")


class MonitoredDatabase(Model):
    """The whole object as read from the API server."""

    KIND: ClassVar[str] = "MonitoredDatabase"
    PLURAL: ClassVar[str] = "monitoreddatabases"

    metadata: ObjectMeta
    spec: DatabaseSpec
    status: DatabaseStatus = DatabaseStatus()
