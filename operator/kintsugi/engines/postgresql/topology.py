"""PostgreSQL's components, and how trouble travels between them.

An edge says: trouble in its source reaches its target after about `delay` seconds, with probability `gain`. Orders and
delays come from faults injected at a scrape interval of 1 s (`lab/FACTS.md`: lock waits at .3 s, active sessions 1.6 s,
connections 2.3–7.6 s, rollbacks 5.3–8.6 s; stale statistics: CPU 2.6 s, connections 4.6 s); gains are a DBA's judgement
until the learned model replaces them with frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kintsugi.domain.topology import Edge, EdgeType, Topology

TITLES: Final[Mapping[str, str]] = {
    "query-engine": "query engine",
    "planner-statistics": "planner statistics",
    "lock-manager": "lock manager",
    "buffer-pool": "buffer pool",
    "storage": "storage",
    "wal": "WAL",
    "autovacuum": "autovacuum",
    "connections": "connections",
    "pooler": "pooler",
    "replication": "replication",
    "host-cpu": "host CPU",
    "host-memory": "host memory",
    "host-io": "host I/O",
    "client": "client",
}

_WAITS, _SHARES, _FEEDS, _HOLDS = EdgeType.WAITS_ON, EdgeType.SHARES, EdgeType.FEEDS, EdgeType.HOLDS

EDGES: Final[tuple[Edge, ...]] = (
    Edge("lock-manager", "connections", _HOLDS, 5, 0.85, "sessions that wait for a lock keep their connections"),
    Edge("lock-manager", "query-engine", _WAITS, 2, 0.55, "statements wait for locks, so more of them run at once"),
    Edge("lock-manager", "client", _WAITS, 2, 0.8, "requests wait for the blocked rows or tables"),
    Edge("lock-manager", "autovacuum", _HOLDS, 120, 0.3, "an old transaction keeps dead rows from being removed"),
    Edge("connections", "pooler", EdgeType.POOLED_BY, 3, 0.8, "the pooler's clients queue for a server connection"),
    Edge("connections", "client", _WAITS, 5, 0.7, "new clients are refused or wait"),
    Edge("pooler", "client", _WAITS, 2, 0.9, "clients wait in the pooler's queue"),
    Edge("query-engine", "client", _WAITS, 1, 0.85, "slow statements are slow requests"),
    Edge("query-engine", "connections", _HOLDS, 4, 0.75, "slow statements occupy their connections for longer"),
    Edge("query-engine", "host-cpu", _SHARES, 2, 0.6, "scans and bad plans compute"),
    Edge("query-engine", "buffer-pool", _SHARES, 3, 0.45, "large scans push hot blocks out of shared buffers"),
    Edge("query-engine", "lock-manager", _HOLDS, 10, 0.4, "long transactions hold their row locks for longer"),
    Edge("query-engine", "host-memory", _SHARES, 10, 0.25, "sorts and hashes of many sessions use work_mem each"),
    Edge("planner-statistics", "query-engine", _FEEDS, 2, 0.85, "plans follow estimates"),
    Edge("buffer-pool", "storage", _FEEDS, 2, 0.75, "what is not in shared buffers is read from files"),
    Edge("buffer-pool", "query-engine", _WAITS, 3, 0.5, "statements wait for blocks"),
    Edge("storage", "query-engine", _WAITS, 1, 0.8, "statements wait for reads and temporary files"),
    Edge("storage", "wal", _SHARES, 2, 0.6, "data files and WAL often share a disk"),
    Edge("host-io", "storage", _FEEDS, 1, 0.85, "a busy disk slows every file"),
    Edge("host-io", "wal", _FEEDS, 1, 0.8, "commits wait for the WAL to reach the disk"),
    Edge("wal", "client", _WAITS, 2, 0.7, "every commit waits for its WAL flush"),
    Edge("wal", "connections", _HOLDS, 5, 0.55, "sessions that wait for a commit keep their connections"),
    Edge("wal", "replication", EdgeType.REPLICA_OF, 3, 0.5, "a replica replays no faster than WAL arrives"),
    Edge("wal", "host-io", _SHARES, 2, 0.5, "full page images and checkpoints fill the disk's queue"),
    Edge("replication", "connections", _HOLDS, 5, 0.4, "commits wait for a synchronous replica"),
    Edge("replication", "client", _WAITS, 5, 0.4, "synchronous commits and reads from replicas are late"),
    Edge("replication", "autovacuum", _HOLDS, 120, 0.2, "a slot or a standby's feedback keeps dead rows"),
    Edge("replication", "wal", _HOLDS, 300, 0.3, "a lagging slot keeps WAL until the disk is full"),
    Edge("autovacuum", "query-engine", _FEEDS, 60, 0.45, "dead rows are read and skipped by every scan"),
    Edge("autovacuum", "planner-statistics", _FEEDS, 60, 0.4, "tables that are not vacuumed are not analyzed either"),
    Edge("autovacuum", "storage", _SHARES, 10, 0.3, "vacuum reads and writes whole tables"),
    Edge("host-cpu", "query-engine", _SHARES, 1, 0.8, "statements wait for a CPU"),
    Edge("host-cpu", "pooler", _SHARES, 2, 0.3, "the pooler runs on one thread"),
    Edge("host-memory", "host-io", _FEEDS, 5, 0.7, "without page cache everything is read from the disk"),
    Edge("host-memory", "query-engine", _SHARES, 5, 0.5, "swapping stops whatever touches its memory"),
    Edge("client", "connections", _FEEDS, 10, 0.2, "clients that time out connect again and retry"),
)

TOPOLOGY: Final = Topology(tuple(TITLES), tuple(TITLES.values()), EDGES)

_FROM_DEPENDENCY: Final = (15.0, 0.5)
_TO_DEPENDENT: Final = (10.0, 0.6)


def with_neighbours(
    topology: Topology, dependencies: Sequence[str] = (), dependents: Sequence[str] = (), replicas: Sequence[str] = ()
) -> Topology:
    """One database's topology with the databases around it, each one node called `namespace/name`.

    Args:
        topology: the engine's.
        dependencies: databases that this one depends on (`spec.dependsOn`): their trouble reaches its sessions.
        dependents: databases that depend on this one: its clients' trouble reaches them.
        replicas: databases that replicate from this one.
    """
    edges = [
        *(
            Edge(name, "connections", EdgeType.DEPENDS_ON, *_FROM_DEPENDENCY, f"sessions wait for answers of {name}")
            for name in dependencies
        ),
        *(
            Edge("client", name, EdgeType.DEPENDS_ON, *_TO_DEPENDENT, f"{name} waits for answers of this database")
            for name in dependents
        ),
        *(
            Edge("replication", name, EdgeType.REPLICA_OF, 5, 0.7, f"{name} replays this database's WAL")
            for name in replicas
        ),
    ]
    return _extended(topology, (*dependencies, *dependents, *replicas), edges)


def fleet(
    depends_on: Mapping[str, Sequence[str]],
    pooled_by: Mapping[str, str] | None = None,
    replica_of: Mapping[str, str] | None = None,
) -> Topology:
    """The graph between databases: every node is a database `namespace/name` or a pooler.

    Args:
        depends_on: each database, and the ones it depends on.
        pooled_by: a pooler that several databases share, by database.
        replica_of: the database that it replicates from, by database.
    """
    pools, origins = pooled_by or {}, replica_of or {}
    edges = [
        *(
            Edge(source, name, EdgeType.DEPENDS_ON, *_TO_DEPENDENT, f"{name} waits for answers of {source}")
            for name, sources in depends_on.items()
            for source in sources
        ),
        *(
            edge
            for name, pool in pools.items()
            for edge in (
                Edge(name, pool, EdgeType.POOLED_BY, 5, 0.5, f"{name}'s clients fill the queue of {pool}"),
                Edge(pool, name, EdgeType.POOLED_BY, 2, 0.8, f"{name} is reached through {pool}"),
            )
        ),
        *(
            Edge(source, name, EdgeType.REPLICA_OF, 5, 0.7, f"{name} replays the WAL of {source}")
            for name, source in origins.items()
        ),
    ]
    return _extended(Topology((), (), ()), (*depends_on, *(e.source for e in edges), *(e.target for e in edges)), edges)


def _extended(topology: Topology, names: Sequence[str], edges: Sequence[Edge]) -> Topology:
    new = tuple(dict.fromkeys(name for name in names if name not in topology.components))
    return Topology((*topology.components, *new), (*topology.titles, *new), (*topology.edges, *edges))
