"""The local servers are real: they start, crash, replicate and stop as their kind does, and end with us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from kintsugi_dev.servers import (
    Certificates,
    ClosedDirectoryError,
    Database,
    PostgreSQL,
    StartError,
    eventually,
)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_each_version_serves_with_pg_stat_statements(database_of_each_version: Database) -> None:
    database = database_of_each_version
    database.execute("CREATE TABLE t AS SELECT 1 AS one")
    assert database.value("SELECT one FROM t") == 1
    assert database.value("SELECT calls FROM pg_stat_statements WHERE query LIKE 'CREATE TABLE t%'") == 1
    assert database.value("SHOW server_version_num").startswith(str(database.server.version))


def test_a_wrong_password_is_refused(postgres: PostgreSQL) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        postgres.fetch("SELECT 1", password="wrong")


async def test_sql_may_be_run_from_within_an_event_loop(postgres: PostgreSQL) -> None:
    assert postgres.value("SELECT $1::int + 1", 41) == 42


@pytest.mark.parametrize("version", [13, 15, 18])
def test_a_replica_streams_and_promotes_after_a_crash(server_dir: Path, version: int) -> None:
    with (
        PostgreSQL.start(server_dir / "primary", version=version) as primary,
        primary.replica(server_dir / "replica", name="orders-1", synchronous=True) as replica,
    ):
        primary.execute("CREATE TABLE t AS SELECT 1 AS n")
        states = primary.fetch("SELECT application_name, sync_state FROM pg_stat_replication")
        assert states == [{"application_name": "orders-1", "sync_state": "sync"}]
        assert replica.is_standby()
        members = [primary.pid, *(child.pid for child in psutil.Process(primary.pid).children(recursive=True))]

        primary.kill()

        assert all(gone(pid) for pid in members)
        replica.promote()
        replica.execute("INSERT INTO t VALUES (2)")  # would hang, had it inherited synchronous_standby_names
        assert replica.value("SELECT sum(n) FROM t") == 3

        with replica.replica(primary.directory, name="orders-0", port=primary.port) as returned:
            assert returned.is_standby()
            assert eventually(lambda: returned.value("SELECT sum(n) FROM t") == 3)


def test_a_crashed_server_recovers_what_was_committed(server_dir: Path) -> None:
    with PostgreSQL.start(server_dir / "p") as server:
        server.execute("CREATE TABLE t AS SELECT 1 AS n")
        server.kill()
        assert not server.running
        server.launch()
        assert server.value("SELECT n FROM t") == 1
        assert "was not properly shut down" in server.log.read_text()


def test_alter_system_and_configure_both_take_effect(server_dir: Path) -> None:
    with PostgreSQL.start(server_dir / "p", settings={"work_mem": "1MB"}) as server:
        assert server.value("SHOW work_mem") == "1MB"
        server.configure(work_mem="2MB")
        assert eventually(lambda: server.value("SHOW work_mem") == "2MB")
        server.execute("ALTER SYSTEM SET work_mem = '3MB'")
        server.restart()
        assert server.value("SHOW work_mem") == "3MB"


def test_tls_verifies_the_server_against_the_private_authority(server_dir: Path) -> None:
    certificates = Certificates.make(server_dir / "tls")
    stranger = Certificates.make(server_dir / "other")
    with PostgreSQL.start(server_dir / "p", tls=certificates) as server:
        assert server.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            server.run(_ping, dsn=server.dsn(sslrootcert=str(stranger.authority)))
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
            server.run(_ping, dsn=server.dsn(sslmode="disable"))


async def _ping(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT 1"))


def test_the_monitor_sees_others_statements_and_may_not_signal(database: Database) -> None:
    database.execute("DO $$ BEGIN CREATE ROLE shop_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    database.create_roles(owner="shop_owner")
    database.execute(
        "GRANT CREATE ON SCHEMA public TO shop_owner; CREATE TABLE t (n int); ALTER TABLE t OWNER TO shop_owner"
    )

    async def sees_all(connection: asyncpg.Connection) -> bool:
        return bool(await connection.fetchval("SELECT pg_has_role('pg_read_all_stats', 'USAGE')"))

    async def index(connection: asyncpg.Connection) -> None:
        await connection.execute("CREATE INDEX CONCURRENTLY ON t (n)")

    async def signal_others(connection: asyncpg.Connection) -> bool:
        return bool(await connection.fetchval("SELECT pg_has_role('pg_signal_backend', 'USAGE')"))

    server = database.server
    monitor, healer = database.dsn("kintsugi_monitor", "monitor"), database.dsn("kintsugi_healer", "healer")
    assert server.run(sees_all, dsn=monitor)
    assert not server.run(signal_others, dsn=monitor)
    assert server.run(signal_others, dsn=healer)
    server.run(index, dsn=healer)
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
        server.run(index, dsn=monitor)


def test_a_server_that_cannot_start_says_why(server_dir: Path) -> None:
    with pytest.raises(StartError, match="nonsense_setting"):
        PostgreSQL.start(server_dir / "p", settings={"nonsense_setting": 1})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_a_directory_closed_to_the_servers_user_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ClosedDirectoryError, match="server_directory"):
        PostgreSQL.start(tmp_path / "p")


def test_servers_end_when_their_parent_is_killed(server_dir: Path) -> None:
    program = f"""
import asyncio, pathlib, time
from kintsugi_dev.servers import PostgreSQL
server = asyncio.run(asyncio.to_thread(PostgreSQL.start, pathlib.Path({str(server_dir)!r}) / "p"))
print(server.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    postmaster = int(parent.stdout.readline())
    members = [postmaster, *(child.pid for child in psutil.Process(postmaster).children(recursive=True))]
    assert not any(gone(pid) for pid in members)  # alive although the thread that started it has ended
    with contextlib.suppress(ProcessLookupError):
        os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: all(gone(pid) for pid in members))
