"""A real PostgreSQL as a local process: any version from 13 on, with replicas, TLS and crashes.

All that is particular to one server stands in files outside its data directory (`postgresql.conf`, `pg_hba.conf`), so
a replica inherits nothing by copy, and `ALTER SYSTEM` still works as it does for a user.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import quote, urlencode

import asyncpg

from kintsugi_dev.servers import replicas, roles
from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.binaries import postgres_binaries
from kintsugi_dev.servers.certificates import Certificates
from kintsugi_dev.servers.directories import cache_directory, filling, hand_over, prepare, write
from kintsugi_dev.servers.errors import ServerError, StartError
from kintsugi_dev.servers.process import HOST, Process, free_port, run_as, server_user

T = TypeVar("T")
Settings = Mapping[str, str | int | float | bool]

SUPERUSER = "postgres"
PASSWORD = "kintsugi-superuser"
SOCKET_PATH = 107 - len("/.s.PGSQL.65535.lock")
"""The longest directory that a Unix socket fits in; in longer ones the server listens on TCP only."""

STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# Small, because many of these share one machine; durable (fsync, full_page_writes on), because faults must be real.
DEFAULT_SETTINGS: Settings = {
    "shared_buffers": "32MB",
    "max_connections": 60,
    "shared_preload_libraries": "pg_stat_statements",
    "password_encryption": "scram-sha-256",
    "max_wal_size": "512MB",
    "wal_keep_size": "128MB",
    "wal_log_hints": True,
    "track_io_timing": True,
    "hot_standby": True,
    # A replica that lost its primary looks again after 1 s instead of 5: promotion may have to wait for that look.
    "wal_retrieve_retry_interval": "1s",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_lock_waits": True,
    "timezone": "UTC",
}

ACCESS = """\
local all all scram-sha-256
{kind} all all 127.0.0.1/32 scram-sha-256
{kind} replication all 127.0.0.1/32 scram-sha-256
"""


class PostgreSQL(LocalServer):
    """A PostgreSQL server on 127.0.0.1; use `start` or `replica`, and as a context manager it stops at the end."""

    kind: ClassVar[str] = "PostgreSQL"
    ready_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = 30.0

    def __init__(
        self, directory: Path, *, version: int, port: int, settings: Settings, tls: Certificates | None
    ) -> None:
        super().__init__(directory, port)
        self.version = version
        self.password = PASSWORD
        self.tls = tls
        self.settings: dict[str, str | int | float | bool] = {**DEFAULT_SETTINGS, **settings}

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        version: int = 15,
        settings: Settings | None = None,
        port: int | None = None,
        tls: Certificates | None = None,
    ) -> Self:
        """Make a new, empty server in `directory` and return it once it takes connections.

        `settings` go over the defaults into postgresql.conf. With `tls`, TCP connections must use TLS.
        """
        server = cls(prepare(directory), version=version, port=port or free_port(), settings=settings or {}, tls=tls)
        _copy_tree(_template(version), server.data)
        server.launch()
        return server

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def dsn(
        self,
        database: str = "postgres",
        user: str = SUPERUSER,
        password: str | None = None,
        *,
        host: str | None = None,
        **parameters: str,
    ) -> str:
        """A connection URL; the superuser's password is known, other users' must be given (none: without).

        `parameters` go into the query part (`sslmode="verify-full"`, `application_name=…`). With TLS the default is
        `verify-full` against the test authority.
        """
        if password is None and user == SUPERUSER:
            password = PASSWORD
        if self.tls is not None:
            parameters = {"sslmode": "verify-full", "sslrootcert": str(self.tls.authority), **parameters}
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"postgresql://{login}@{host or self.host}:{self.port}/{quote(database, safe='')}{query}"

    def _start_process(self) -> Process:
        self._write_files()
        command: list[str | Path] = [postgres_binaries(self.version) / "postgres", "-D", self.data]
        command += ["-c", f"config_file={self.directory / 'postgresql.conf'}"]
        name = f"PostgreSQL {self.version} on port {self.port}"
        # SIGQUIT is an immediate shutdown: the postmaster takes its children with it.
        return Process.start(name, command, log=self.log, user=server_user(), death_signal=signal.SIGQUIT)

    def _ready(self) -> bool:
        """Whether postmaster.pid, whose eighth line is the status, says that this postmaster takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("immediate")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut down as `pg_ctl stop -m mode` does; killed when that takes longer than 30 s. Nothing when stopped."""
        if self._process is not None:
            self._process.stop(STOP_SIGNALS[mode], timeout=self.stop_seconds)

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop (when it runs) and start again on the same data and port."""
        self.stop(mode)
        self.launch()

    def configure(self, **settings: str | int | float | bool) -> None:
        """Change postgresql.conf and reload; settings that need a restart wait for `restart()`."""
        self.settings.update(settings)
        self._write_files()
        if self.running:
            self.execute("SELECT pg_reload_conf()")

    def execute(
        self, sql: str, *arguments: Any, database: str = "postgres", user: str = SUPERUSER, password: str | None = None
    ) -> str:
        """Run SQL (several statements when there are no arguments), return the command tag; may be called anywhere."""

        async def work(connection: asyncpg.Connection) -> str:
            return await connection.execute(sql, *arguments)

        return self.run(work, dsn=self.dsn(database, user, password))

    def fetch(
        self, sql: str, *arguments: Any, database: str = "postgres", user: str = SUPERUSER, password: str | None = None
    ) -> list[dict[str, Any]]:
        """The rows of one statement as dictionaries; may be called anywhere (it blocks)."""

        async def work(connection: asyncpg.Connection) -> list[dict[str, Any]]:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]

        return self.run(work, dsn=self.dsn(database, user, password))

    def value(self, sql: str, *arguments: Any, database: str = "postgres") -> Any:
        """The first column of the first row; None when there is no row."""
        rows = self.fetch(sql, *arguments, database=database)
        return next(iter(rows[0].values())) if rows else None

    def create_roles(
        self,
        database: str = "postgres",
        *,
        monitor_password: str = "monitor",
        healer_password: str = "healer",
        owner: str | None = None,
    ) -> None:
        """Make `kintsugi_monitor` and `kintsugi_healer` as documented; the healer may act as `owner` of the tables."""
        self.execute(roles.EXTENSIONS, database=database)
        self.execute(roles.ROLES, database=database)
        self.execute(f"ALTER ROLE {roles.MONITOR} PASSWORD '{monitor_password}'")
        self.execute(f"ALTER ROLE {roles.HEALER} PASSWORD '{healer_password}'")
        if owner is not None:
            self.execute(roles.grant_ownership(owner))

    def replica(
        self,
        directory: Path,
        *,
        name: str = "replica",
        synchronous: bool = False,
        settings: Settings | None = None,
        port: int | None = None,
    ) -> PostgreSQL:
        """A streaming replica called `name`, with its own slot, returned once it streams.

        Also how a failed primary comes back: stop it, then `new_primary.replica(old.directory, port=old.port, …)`.
        With `synchronous`, this primary waits for it; the setting is the primary's own, so a promoted replica has none.
        """
        standby = PostgreSQL(
            prepare(directory),
            version=self.version,
            port=port or free_port(),
            settings={**self.settings, "synchronous_standby_names": "", **(settings or {}), "cluster_name": name},
            tls=self.tls,
        )
        replicas.copy(self, standby.data, name)
        standby.launch()
        try:
            replicas.wait_streaming(self, name, standby)
        except StartError:
            standby.kill()
            raise
        if synchronous:
            self.configure(synchronous_standby_names=f'"{name}"')
        return standby

    def is_standby(self) -> bool:
        """Whether the server is in recovery."""
        return bool(self.value("SELECT pg_is_in_recovery()"))

    def promote(self, *, timeout: int = 30) -> None:
        """Promote this replica and return once it takes writes; ServerError when that takes longer than `timeout` s."""
        if not self.value("SELECT pg_promote(true, $1)", timeout):
            raise ServerError(f"the replica on port {self.port} was not promoted within {timeout} s; see {self.log}")

    def run(self, work: Callable[[asyncpg.Connection], Awaitable[T]], *, dsn: str | None = None) -> T:
        """Run `work` in one session (the superuser's by default) and return what it returns; may be called anywhere."""

        async def session() -> T:
            connection = await asyncpg.connect(dsn or self.dsn(), timeout=10)
            try:
                return await work(connection)
            finally:
                await connection.close()

        return run_in_thread(session)

    def _write_files(self) -> None:
        settings: dict[str, str | int | float | bool] = {
            **self.settings,
            "port": self.port,
            "listen_addresses": HOST,
            "unix_socket_directories": str(self.directory) if len(str(self.directory)) <= SOCKET_PATH else "",
            "hba_file": str(self.directory / "pg_hba.conf"),
        }
        if self.tls is not None:
            settings |= {"ssl": True, "ssl_cert_file": str(self.tls.certificate), "ssl_key_file": str(self.tls.key)}
        lines = [f"{name} = {_setting(value)}\n" for name, value in settings.items()]
        write(self.directory / "postgresql.conf", "".join(lines))
        write(self.directory / "pg_hba.conf", ACCESS.format(kind="hostssl" if self.tls else "host"))


def run_in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine to its end in an event loop of its own, also when the caller's thread already runs one."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    async def main() -> None:
        outcome.append(await work())

    def body() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 – handed to the caller's thread, where it is raised
            errors.append(error)

    thread = threading.Thread(target=body, name="postgresql-client", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def _setting(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "'" + str(value).replace("'", "''") + "'"


def _template(version: int) -> Path:
    """An initialised data directory of this version, made once per machine."""
    binaries = postgres_binaries(version)
    release = subprocess.run([binaries / "postgres", "-V"], capture_output=True, text=True, check=True).stdout.split()[
        2
    ]
    target = cache_directory() / f"initdb-{release}"
    if not target.exists():
        _initdb(binaries / "initdb", target)
    return target / "data"


def _initdb(initdb: Path, target: Path) -> None:
    with filling(target) as folder:
        hand_over(folder)
        password = write(folder / "password", PASSWORD)
        command: list[str | Path] = [
            initdb,
            "-D",
            folder / "data",
            "-U",
            SUPERUSER,
            "-A",
            "scram-sha-256",
            "--pwfile",
            password,
        ]
        done = run_as(server_user(), [*command, "-E", "UTF8", "--locale=C.UTF-8", "-N"])
        if done.returncode != 0:
            raise StartError(f"initdb failed in {folder}: {done.stderr.strip() or done.stdout.strip()}")


def _copy_tree(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
