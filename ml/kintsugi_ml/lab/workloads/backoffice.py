"""The side service that every workload has: a job queue, an overview, a report, a search, and a ledger.

Faults act on it (bloat in the queue, stale statistics under the overview, spilling reports, a search without its
index), so it is there in normal time, too. The statements stand here exactly as they are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import asyncpg

from kintsugi_dev.load.measure import Journal

if TYPE_CHECKING:
    from kintsugi_ml.lab.workloads.base import Connection, Work

JOBS: Final = 200
TASKS: Final = 40_000
PARTS: Final = 200_000
DOCUMENTS: Final = 150_000
REPORT_PARTS: Final = 20_000
"""Rows that one report sorts: some 1.5 MB, which fits the default work_mem of 4 MB and spills at 64 kB."""
BALANCES: Final = 3000
BALANCE_BYTES: Final = 3500
HEAVY: Final = 997
"""Parts weigh 0–999; the overview asks for heavier ones than this, one in five hundred."""

BATCH_TABLES: Final = f"""
CREATE TABLE balances (id integer PRIMARY KEY, amount integer NOT NULL, note text NOT NULL)
    WITH (fillfactor = 50, autovacuum_enabled = off);
ALTER TABLE balances ALTER note SET STORAGE plain;
INSERT INTO balances SELECT n, 0, repeat('x', {BALANCE_BYTES}) FROM generate_series(1, {BALANCES}) n;

CREATE TABLE imports (id bigserial PRIMARY KEY, reference text, payload text) WITH (autovacuum_enabled = off);
CREATE INDEX imports_reference ON imports (reference);
"""
"""What large updates and imports act on; `balances` has one row a page, two versions of which fill it. They are there
in every run, so that nothing about them gives such a fault away before it begins."""

TABLES: Final = f"""
CREATE TABLE jobs (
    id bigserial PRIMARY KEY,
    state text NOT NULL,
    payload text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO jobs (state, payload) SELECT 'ready', md5(n::text) FROM generate_series(1::bigint, {JOBS}) n;
CREATE INDEX jobs_state_id ON jobs (state, id);

-- Whoever changes many tasks has to analyze them: autovacuum leaves this table alone.
CREATE TABLE tasks (
    id bigint PRIMARY KEY,
    state text NOT NULL,
    owner bigint NOT NULL,
    title text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_enabled = off, fillfactor = 50);
INSERT INTO tasks (id, state, owner, title)
    SELECT n, 'done', n * 7919 % 500, md5(n::text) FROM generate_series(1::bigint, {TASKS}) n;
CREATE INDEX tasks_state ON tasks (state);

CREATE TABLE task_parts (id bigint PRIMARY KEY, task_id bigint NOT NULL, weight integer NOT NULL);
INSERT INTO task_parts (id, task_id, weight)
    SELECT n, 1 + n * 7919 % {TASKS}, n * 6089 % 1000 FROM generate_series(1::bigint, {PARTS}) n;
CREATE INDEX task_parts_weight ON task_parts (weight);

CREATE TABLE documents (
    id bigint PRIMARY KEY,
    email text NOT NULL,
    title text NOT NULL,
    body text NOT NULL
);
INSERT INTO documents (id, email, title, body)
    SELECT n, md5(n::text) || '@example.org', 'document ' || n,
        (SELECT string_agg(md5((n * 10 + part)::text), ' ') FROM generate_series(0, 7) part)
    FROM generate_series(1::bigint, {DOCUMENTS}) n;
CREATE INDEX documents_email ON documents (email);

CREATE TABLE acknowledged (
    client text NOT NULL,
    number bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, number)
);
{BATCH_TABLES}"""

ENQUEUE: Final = "INSERT INTO jobs (state, payload) VALUES ('ready', md5($1::bigint::text))"
DEQUEUE: Final = """
UPDATE jobs SET state = 'done', updated_at = now()
WHERE id = (SELECT id FROM jobs WHERE state = 'ready' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
"""
JANITOR: Final = """
DELETE FROM jobs WHERE id IN
    (SELECT id FROM jobs WHERE state = 'done' ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED)
"""
OVERVIEW: Final = f"""
SELECT t.owner, count(*), sum(p.weight) FROM tasks t JOIN task_parts p ON p.task_id = t.id
WHERE t.state = 'pending' AND p.weight > {HEAVY} GROUP BY t.owner ORDER BY 3 DESC LIMIT 20
"""
"""Normally nothing is pending and the parts are not even looked at. With many pending tasks that the statistics don't
know of, the heavy parts are read again for each of them; after ANALYZE, once."""
REPORT: Final = f"""
SELECT count(*), max(gap) FROM (
    SELECT weight - lag(weight) OVER (ORDER BY weight, task_id, id) AS gap
    FROM task_parts WHERE id BETWEEN $1::bigint AND $1::bigint + {REPORT_PARTS} - 1) gaps
"""
SEARCH: Final = "SELECT id, title, body FROM documents WHERE email = md5($1::bigint::text) || '@example.org'"
ENTER: Final = "INSERT INTO acknowledged (client, number) VALUES ($1, $2)"
ENTERED: Final = "SELECT number FROM acknowledged WHERE client = $1"

RATES: Final[Mapping[str, float]] = {
    "enqueue": 2.0,
    "dequeue": 2.2,
    "janitor": 0.3,
    "overview": 1.0,
    "report": 1.0,
    "search": 2.0,
    "enter_ledger": 2.0,
}
"""Requests per second of each kind, at level `high`; at `low` half of it. More jobs are asked for than come in."""
LEVELS: Final[Mapping[str, float]] = {"low": 0.5, "high": 1.0}


async def enqueue(connection: Connection, random: Random) -> None:
    """A new job at the end of the queue."""
    await connection.execute(ENQUEUE, random.randrange(10**6))


async def dequeue(connection: Connection, random: Random) -> None:
    """The oldest ready job is done."""
    del random
    await connection.execute(DEQUEUE)


async def janitor(connection: Connection, random: Random) -> None:
    """Jobs that are done are deleted."""
    del random
    await connection.execute(JANITOR)


async def overview(connection: Connection, random: Random) -> None:
    """Who has pending tasks with heavy parts."""
    del random
    await connection.fetch(OVERVIEW)


async def report(connection: Connection, random: Random) -> None:
    """The largest gap between weights, by sorting a tenth of the parts."""
    await connection.fetch(REPORT, random.randint(1, PARTS - REPORT_PARTS))


async def search(connection: Connection, random: Random) -> None:
    """The document of one address."""
    await connection.fetch(SEARCH, random.randint(1, DOCUMENTS))


class Ledger:
    """Numbers its entries and writes the acknowledged ones into a journal."""

    def __init__(self, client: str, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._number = 0

    async def enter(self, connection: Connection, random: Random) -> None:
        """One entry; once acknowledged it goes into the journal."""
        del random
        self._number += 1
        number = self._number
        await connection.execute(ENTER, self._client, number)
        self._journal.acknowledged(self._client, number)


def work(ledger: Ledger) -> Mapping[str, Work]:
    """The requests by kind."""
    return {
        "enqueue": enqueue,
        "dequeue": dequeue,
        "janitor": janitor,
        "overview": overview,
        "report": report,
        "search": search,
        "enter_ledger": ledger.enter,
    }


def rates(level: str) -> dict[str, float]:
    """Requests per second of each kind."""
    return {kind: rate * LEVELS[level] for kind, rate in RATES.items()}


async def lost_writes(journal: Path, dsn: str) -> int:
    """How many acknowledged ledger entries the database behind `dsn` does not have."""
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    try:
        lost = 0
        for client, numbers in Journal.read(journal).items():
            rows = await connection.fetch(ENTERED, client)
            lost += len(numbers - {row["number"] for row in rows})
        return lost
    finally:
        await connection.close()
