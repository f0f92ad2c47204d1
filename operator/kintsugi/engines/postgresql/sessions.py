"""Sessions as diagnostics report them, whom nobody may terminate, and who blocks whom.

A session is named by pid *and* backend_start, role, database and the start of its transaction: a pid alone soon belongs
to someone else, and the same session may have gone on to other work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from kintsugi.api.meta import Model
from kintsugi.domain.text import human
from kintsugi.engines.engine import Row
from kintsugi.engines.postgresql.identifiers import TIMESTAMP, quote_literal, quote_timestamp

CLIENT = "client backend"
BACKUPS = (
    "pg_dump|pg_dumpall|pg_restore|pg_basebackup|pg_receivewal|pg_recvlogical|pg_verifybackup|pg_upgrade|pg_repack"
    "|pgbackrest|barman|wal-g|wal-e|pg_probackup|cloudnativepg"
)
OURS = "kintsugi"
_UNTOUCHABLE = f"^({BACKUPS}|{OURS})"

Instant = Annotated[str, Field(pattern=f"^{TIMESTAMP.pattern}$")]
RoleName = Annotated[str, Field(min_length=1, max_length=63)]


class SessionParameters(Model):
    """Exactly one session in exactly one transaction."""

    pid: Annotated[int, Field(gt=0, lt=2**31)]
    backend_start: Instant
    xact_start: Instant
    role: RoleName
    database: RoleName


def parameters_of(row: Row) -> dict[str, Any]:
    """The parameters that name the session of a diagnostic row."""
    return {
        "pid": row["pid"],
        "backendStart": row["backend_start"],
        "xactStart": row["xact_start"],
        "role": row["usename"],
        "database": row["datname"],
    }


def identity(session: SessionParameters, alias: str = "a") -> str:
    """The SQL condition that is true of this session in this transaction only."""
    return (
        f"{alias}.pid = {session.pid}"
        f" AND {alias}.backend_start = {quote_timestamp(session.backend_start)}"
        f" AND {alias}.xact_start = {quote_timestamp(session.xact_start)}"
        f" AND {alias}.usename = {quote_literal(session.role)}"
        f" AND {alias}.datname = {quote_literal(session.database)}"
    )


def terminable(alias: str = "a") -> str:
    """The SQL condition that keeps backups, senders, other databases, superusers and ourselves out of every plan."""
    return (
        f"{alias}.backend_type = {quote_literal(CLIENT)}"
        f" AND {alias}.datname = current_database()"
        f" AND {alias}.pid <> pg_backend_pid()"
        f" AND {alias}.application_name !~* {quote_literal(_UNTOUCHABLE)}"
        f" AND NOT EXISTS (SELECT FROM pg_roles r"
        f" WHERE r.rolname = {alias}.usename AND (r.rolsuper OR r.rolreplication))"
    )


def gone(session: SessionParameters) -> str:
    """The probe: `done` once the session or its transaction has ended; `unknown` when we may not look."""
    return (
        "SELECT CASE WHEN NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN 'unknown'"
        f" WHEN EXISTS (SELECT FROM pg_stat_activity a WHERE {identity(session)}) THEN 'not-done'"
        " ELSE 'done' END"
    )


def untouchable(row: Row) -> str | None:
    """Why this session must be left alone, in words; None when it may be terminated."""
    application = str(row["application_name"] or "").lower()
    if row["backend_type"] != CLIENT:
        return f"it is a {row['backend_type']}, not a client's session"
    if not row["in_this_database"]:
        return f"it belongs to another database ({row['datname']})"
    if application.startswith(OURS):
        return "it is Kintsugi's own"
    if application.startswith(tuple(BACKUPS.split("|"))):
        return f"it is a backup or maintenance tool ({row['application_name']})"
    if row["superuser"]:
        return f"it belongs to {row['usename']}, a superuser or replication role: a person must decide"
    if row["xact_start"] is None:
        return "it is in no transaction"
    return None


def touches(row: Row) -> tuple[str, ...]:
    """The identities that protections are checked against."""
    found = [f"role:{row['usename']}", f"database:{row['datname']}", f"client:{row['backend_type']}"]
    if row["application_name"]:
        found.append(f"application:{row['application_name']}")
    return tuple(found)


def describe(row: Row) -> str:
    """`pid 4711 (app on orders, psql, idle in transaction for 3 m 10 s)`."""
    who = [f"{row['usename']} on {row['datname']}"]
    if row["application_name"]:
        who.append(str(row["application_name"]))
    who.append(f"{row['state']} for {human(row['state_age'])}")
    return f"pid {row['pid']} ({', '.join(who)})"


LOOK_AGAIN = 10.0
"""Seconds after which a look at who blocks whom is too long ago to say that nothing changed since."""

Transaction = tuple[int, str, str | None]


def blocking_since(rows: Iterable[Row], known: Mapping[Transaction, float], now: float) -> dict[Transaction, float]:
    """Since when (on `now`'s clock) each transaction has blocked somebody in every look; `known` is the last answer.

    Clients that give up after a few seconds never wait long for anybody, yet nobody gets past the transaction: a lock
    is held until its end, so whoever blocks in every look has blocked all the time between.
    """
    rows = tuple(rows)
    blockers = {pid for row in rows for pid in row["blocked_by"]}
    named = (transaction_of(row) for row in rows if row["pid"] in blockers)
    return {transaction: known.get(transaction, now) for transaction in named}


def transaction_of(row: Row) -> Transaction:
    """Which transaction of which session a diagnostic row speaks of."""
    return row["pid"], row["backend_start"], row["xact_start"]


@dataclass(frozen=True, slots=True)
class Root:
    """A session that blocks others and waits for nobody itself.

    `longest_wait`: seconds that somebody who waits now has waited; `blocked_for`: that it has blocked somebody.
    """

    row: Row
    direct: int
    transitive: int
    longest_wait: float
    blocked_for: float


def roots(rows: Iterable[Row]) -> tuple[Root, ...]:
    """The roots of the blocking trees, the one with the most victims first.

    `rows` are those of the `blocking` query. A prepared transaction blocks as pid 0, which has no session and so no
    root here.
    """
    by_pid: dict[int, Row] = {row["pid"]: row for row in rows}
    victims: dict[int, set[int]] = {}
    for row in by_pid.values():
        for blocker in row["blocked_by"]:
            victims.setdefault(blocker, set()).add(row["pid"])
    found = [_root(row, victims, by_pid) for pid, row in by_pid.items() if victims.get(pid) and not row["blocked_by"]]
    return tuple(sorted(found, key=lambda root: (-root.transitive, -root.longest_wait, root.row["pid"])))


def _root(row: Row, victims: Mapping[int, set[int]], by_pid: Mapping[int, Row]) -> Root:
    reached: set[int] = set()
    frontier = {row["pid"]}
    while frontier:
        frontier = {victim for pid in frontier for victim in victims.get(pid, ())} - reached - {row["pid"]}
        reached |= frontier
    longest = max((by_pid[pid]["wait"] or 0.0 for pid in reached), default=0.0)
    return Root(row, len(victims[row["pid"]]), len(reached), longest, max(longest, row.get("blocks_for", 0.0)))
