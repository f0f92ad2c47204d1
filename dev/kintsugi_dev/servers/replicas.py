"""How a streaming replica is made: pg_basebackup where the server has its own, else the low-level backup functions.

npm's packages bring no pg_basebackup. Another version's does not do: it refuses newer servers, and for older ones it
writes connection options that they do not know (`sslsni`).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from kintsugi_dev.servers.binaries import postgres_binaries
from kintsugi_dev.servers.directories import hand_over, write
from kintsugi_dev.servers.errors import StartError
from kintsugi_dev.servers.process import Command, run_as, server_user

if TYPE_CHECKING:
    from kintsugi_dev.servers.postgresql import PostgreSQL

BACKUP = ("SELECT pg_backup_start('kintsugi', true)", "pg_backup_stop(false)")
BACKUP_BEFORE_15 = ("SELECT pg_start_backup('kintsugi', true, false)", "pg_stop_backup(false, false)")


def slot_name(name: str) -> str:
    """The replication slot of the replica called `name`."""
    return "kintsugi_" + "".join(c if c.isalnum() else "_" for c in name.lower())


def copy(primary: PostgreSQL, data: Path, name: str) -> None:
    """Make `data` a standby's data directory, copied from `primary`, with a slot of its own; earlier ones go first."""
    shutil.rmtree(data, ignore_errors=True)
    drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"
    primary.execute(drop, slot_name(name))
    tool = postgres_binaries(primary.version) / "pg_basebackup"
    if tool.exists():
        _copy_by_basebackup(tool, primary, data, name)
    else:
        _copy_by_functions(primary, data, name)


def wait_streaming(primary: PostgreSQL, name: str, standby: PostgreSQL, *, timeout: float = 30.0) -> None:
    """Return once `primary` reports the replica `name` as streaming; StartError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    question = "SELECT state FROM pg_stat_replication WHERE application_name = $1"
    while (state := primary.value(question, name)) != "streaming":
        if time.monotonic() > deadline:
            raise StartError(f"replica {name} does not stream after {timeout:.0f} s (state {state}); {standby.tail()}")
        time.sleep(0.1)


def _copy_by_basebackup(tool: Path, primary: PostgreSQL, data: Path, name: str) -> None:
    options = ["--create-slot", f"--slot={slot_name(name)}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    command: Command = [tool, "-d", primary.dsn(application_name=name), "-D", data, *options]
    done = run_as(server_user(), command)
    if done.returncode != 0:
        raise StartError(f"pg_basebackup from port {primary.port} to {data} failed: {done.stderr.strip()}")


def _copy_by_functions(primary: PostgreSQL, data: Path, name: str) -> None:
    """Copy the files between backup start and stop, in one session as PostgreSQL asks for."""
    slot = slot_name(name)
    start, stop = BACKUP if primary.version >= 15 else BACKUP_BEFORE_15
    primary.execute("SELECT pg_create_physical_replication_slot($1, true)", slot)

    async def work(connection: asyncpg.Connection) -> str:
        await connection.execute(start)
        _copy_files(primary.data, data)
        label = await connection.fetchval(f"SELECT labelfile FROM {stop}")
        return str(label)

    label = primary.run(work)
    write(data / "backup_label", label)
    write(data / "standby.signal", "")
    conninfo = (
        f"host={primary.host} port={primary.port} user=postgres password={primary.password} application_name={name}"
    )
    if primary.tls is not None:
        conninfo += f" sslmode=verify-full sslrootcert={primary.tls.authority}"
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = '{conninfo}'\nprimary_slot_name = '{slot}'\n")


def _copy_files(source: Path, target: Path) -> None:
    """Copy a running server's data directory without what belongs to the running one (files may vanish meanwhile)."""
    target.mkdir(mode=0o700)
    hand_over(target)
    left_out = ["postmaster.pid", "postmaster.opts", "pg_replslot/*", "pg_stat_tmp/*", "pg_subtrans/*", "pg_notify/*"]
    pack = ["tar", "-C", str(source), "--warning=no-file-changed", "--warning=no-file-removed", "--ignore-failed-read"]
    pack += [f"--exclude=./{pattern}" for pattern in left_out]
    reader = subprocess.Popen([*pack, "-cf", "-", "."], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-C", str(target), "-xpf", "-"], stdin=reader.stdout, check=True)
    if reader.wait() > 1:  # 1: a file changed while it was read, which the backup's WAL repairs
        raise StartError(f"the files of {source} could not be copied; tar ended with {reader.returncode}")
