"""What an engine has to bring: signals, topology, diagnostic queries and actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kintsugi.api.database import DatabaseSpec
from kintsugi.domain.actions import NotProposed, Plan, Proposal
from kintsugi.domain.signals import Catalogue
from kintsugi.domain.topology import Topology

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A read-only diagnostic query; `$1`-style arguments are not used.

    `sql` maps the lowest server version (15, 17, …) to its text; the highest one not above the server's is run.
    `baseline` queries also run every half minute while the database is healthy, so that a diagnosis can show what
    changed: their earlier rows appear in the diagnosis under `<name>_before`.
    """

    name: str
    sql: Mapping[int, str]
    timeout: float = 2.0
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class MemberView:
    """What one replication member says of itself when asked directly; None where it could not be reached.

    `wal_receiver_age` is seconds since its WAL receiver last heard from the primary; LSNs are absolute byte positions.
    """

    name: str
    reachable: bool
    error: str = ""
    in_recovery: bool | None = None
    timeline: int | None = None
    replay_lsn: int | None = None
    receive_lsn: int | None = None
    wal_receiver_streaming: bool | None = None
    wal_receiver_age: float | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the database itself, its pooler and its replicas said when an anomaly was flagged.

    `rows` are the answers by query name; `errors` name the queries that failed and why. `pooler` holds PgBouncer's
    `pools`, `databases` and `config` rows, None without a pooler or when it could not be reached (then see `errors`).
    `primary_reachable` is a direct connection just now; `unreachable_for` the seconds since one last succeeded.
    `metrics_down` is whether Prometheus, too, sees the database down (None: it says nothing).
    `primary_member` is the member that the replication Service's selector names.
    """

    rows: Mapping[str, tuple[Row, ...]]
    errors: Mapping[str, str]
    server_version: int
    primary_reachable: bool
    unreachable_for: float = 0.0
    metrics_down: bool | None = None
    pooler: Mapping[str, tuple[Row, ...]] | None = None
    members: tuple[MemberView, ...] = ()
    primary_member: str | None = None
    last_known_primary_lsn: int | None = None
    workload: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Action(Protocol):
    """One kind of remedy. Pure: it reads a diagnosis and composes commands; it never runs them."""

    @property
    def name(self) -> str:
        """As in policies and plans, `terminate-blocker` for example."""

    def propose(self, diagnosis: Diagnosis, spec: DatabaseSpec) -> Sequence[Proposal | NotProposed]:
        """What this action could do about what the diagnosis shows, or in a sentence why it can't."""

    def compile(self, parameters: Mapping[str, Any]) -> Plan:
        """The plan for these parameters, and only these: the same parameters give the same plan, always.

        Raises:
            BadParametersError: a parameter is missing, unknown or malformed; it names which.
        """


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything the loops need to know about one kind of database.

    `surrounded` adds the databases around one to its topology: those that it depends on, and those that depend on it.
    """

    name: str
    catalogue: Catalogue
    topology: Topology
    queries: tuple[Query, ...]
    actions: Mapping[str, Action]
    surrounded: Callable[[Topology, Sequence[str], Sequence[str]], Topology]


class BadParametersError(ValueError):
    """An action was asked to compile parameters that it can't: what, and what they should be."""
