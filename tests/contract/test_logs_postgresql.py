"""A real PostgreSQL's log in three formats at once: they say the same, and what was done is there without its data."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import asyncpg
import pytest

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.shell.logs.file import FileLog
from kintsugi.shell.logs.source import Position
from kintsugi_dev.servers import server_directory
from kintsugi_dev.servers.postgresql import PostgreSQL

FORMATS = ("jsonlog", "csvlog", "stderr")
PREFIX = "%m [%p] %q%u@%d %e "
SETTINGS = {
    "logging_collector": "on",
    "log_destination": "stderr,csvlog,jsonlog",
    "log_directory": "log",
    "log_filename": "server.log",
    "log_line_prefix": PREFIX,
    "log_timezone": "UTC",
    "log_lock_waits": "on",
    "deadlock_timeout": "200ms",
    "log_checkpoints": "on",
    "log_temp_files": "0",
    "log_min_duration_statement": "50ms",
    "log_connections": "on",
    "work_mem": "64kB",
}
DONE = ("deadlock", "lock_wait", "checkpoint", "temp_file", "slow_statement", "connection", "error_22", "error_42")


@pytest.fixture(scope="module")
def logged() -> Iterator[dict[str, list[Line]]]:
    with server_directory() as directory:
        server = PostgreSQL.start(directory, version=15, settings=SETTINGS)
        began = time.time()
        try:
            yield asyncio.run(_found(server, began))
        finally:
            server.stop()


async def _found(server: PostgreSQL, began: float) -> dict[str, list[Line]]:
    await _trouble(server.dsn())
    await asyncio.sleep(1)
    return {name: await _read(server, name, began) for name in FORMATS}


async def _read(server: PostgreSQL, name: str, since: float) -> list[Line]:
    prefix = PREFIX if name == "stderr" else None
    source = FileLog(str(server.data / "log"), name, lambda start: decoder(name, prefix, start))
    first = await source.read(Position(since))
    second = await source.read(first.position)
    return [*first.lines, *second.lines]


async def _trouble(dsn: str) -> None:
    one, two = [await asyncpg.connect(dsn) for _ in range(2)]
    try:
        await one.execute("CREATE TABLE tills (id int PRIMARY KEY, owner text); INSERT INTO tills VALUES (1), (2)")
        await one.execute("BEGIN; UPDATE tills SET owner = 'SECRET' WHERE id = 1")
        await two.execute("BEGIN; UPDATE tills SET owner = 'SECRET' WHERE id = 2")
        crossed = (
            one.execute("UPDATE tills SET owner = 'SECRET' WHERE id = 2"),
            two.execute("UPDATE tills SET owner = 'SECRET' WHERE id = 1"),
        )
        results = await asyncio.gather(*crossed, return_exceptions=True)
        assert any(isinstance(result, asyncpg.DeadlockDetectedError) for result in results)
        await one.execute("ROLLBACK")
        await two.execute("ROLLBACK")
        await one.execute("BEGIN; UPDATE tills SET owner = 'SECRET' WHERE id = 1")
        waiting = asyncio.create_task(two.execute("UPDATE tills SET owner = 'SECRET' WHERE id = 1"))
        await asyncio.sleep(0.5)  # longer than deadlock_timeout, after which a wait is logged
        await one.execute("ROLLBACK")
        await waiting
        await one.execute("CHECKPOINT")
        await one.fetch("SELECT n, 'SECRET' || n FROM generate_series(1, 200000) n ORDER BY 2 DESC")
        await one.execute("SET log_statement = 'all'")
        await one.execute('SET app.token = "SECRET"')
        for wrong in WRONG:
            with pytest.raises(asyncpg.PostgresError):
                await one.execute(wrong)
        for user, database in (("SECRET", None), (None, "SECRET")):
            with pytest.raises(asyncpg.PostgresError):
                await asyncpg.connect(dsn, user=user, database=database)
    finally:
        await one.close()
        await two.close()


RAISE = "DO $$ BEGIN RAISE EXCEPTION 'SECRET is over the limit' USING ERRCODE = '22000'; END $$"
WRONG = (
    "SELECT 'SECRET'::int",
    "SELECT secret_column\n, 'SECRET'\nFROM tills",
    'SELECT "SECRET" FROM tills',
    'SELECT tills."SECRET" FROM tills',
    'SELECT "SECRET"(1)',
    'SELECT * FROM "SECRET"',
    'SELECT a.b.c.d."SECRET" FROM tills',
    'SET ROLE "SECRET"',
    "SELECT is_normalized('x', 'SECRET')",
    RAISE,
)


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_done_is_in_its_class(logged: dict[str, list[Line]], name: str) -> None:
    counts = Counter(line.kind for line in logged[name])
    assert [kind for kind in DONE if not counts[kind]] == []
    assert counts["deadlock"] >= 1
    assert counts["error_22"] == 4


def test_the_three_formats_say_the_same(logged: dict[str, list[Line]]) -> None:
    said = {name: Counter((line.kind, line.state, line.template) for line in logged[name]) for name in FORMATS}
    assert said["jsonlog"] == said["csvlog"] == said["stderr"]


def test_the_servers_own_words_are_known_as_such(logged: dict[str, list[Line]]) -> None:
    lines = [line for name in ("jsonlog", "csvlog") for line in logged[name]]
    assert [line for line in lines if "may be the application's" in line.template] == []


def test_nobodys_data_is_kept(logged: dict[str, list[Line]]) -> None:
    assert [line for lines in logged.values() for line in lines if "SECRET" in str(line)] == []
    assert "secret_column" not in str([line for lines in logged.values() for line in lines if line.kind == "error_42"])
