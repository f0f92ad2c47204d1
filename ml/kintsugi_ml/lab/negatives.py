"""Hard negatives: what looks like trouble, is part of ordinary operation, and must not lead to an action.

Each begins like a fault (`inject`), ends by itself or by `lift`, and the clients must not suffer: the gate is reversed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import ClassVar, Final

import asyncpg

from kintsugi_dev.servers.binaries import postgres_binaries
from kintsugi_dev.servers.process import Process, server_user
from kintsugi_ml.lab.cgroups import Group
from kintsugi_ml.lab.faults.base import Effect, Fault, Trial
from kintsugi_ml.lab.faults.parameters import CHECKPOINT, analyze_table, resize_pool, tune_setting
from kintsugi_ml.lab.noise import IDLE_SERVICE, IDLE_SESSIONS
from kintsugi_ml.lab.workloads.process import base_rates
from kintsugi_ml.lab.world import DATABASE, World

MINUTE: Final = 60.0
TASKS: Final = 40_000
BLOCK_BYTES: Final = 8192
DELAY_MS: Final = 10
MISS_COST: Final = 2
"""vacuum_cost_page_miss, PostgreSQL's default from 14 on; pages in the buffer pool cost half."""


class Negative(Fault):
    """Something that happens on any day. Its root is where a person would look first."""

    negative: ClassVar[bool] = True
    forms: ClassVar[tuple[str, ...]] = ("abrupt",)
    application: ClassVar[str] = "planned"

    _process: Process | None = None

    def failed(self) -> str | None:
        """A tool of its own may have ended with an error, too."""
        if self._process is not None and (status := self._process.popen.poll()):
            return f"{self._process.name} ended with status {status}"
        return super().failed()

    def pids(self) -> list[int]:
        """The server processes of its sessions."""
        return [session.get_server_pid() for session in self._sessions if not session.is_closed()]

    def cancel(self) -> Trial:
        """What somebody might do who sees a long statement."""
        return Trial("cancel-query", False, {"pids": self.pids()})

    def end_idle(self) -> Trial:
        """What somebody might do who sees many sessions."""
        return Trial("terminate-idle-sessions", False, {"application": self.application})


class PlannedVacuum(Negative):
    """Severity: how soon it is done, in 90 to 45 s."""

    name: ClassVar[str] = "planned-vacuum"
    title: ClassVar[str] = "the nightly VACUUM (ANALYZE) of the largest table, with a cost delay"
    root: ClassVar[str] = "autovacuum"
    effect: ClassVar[Effect] = Effect(client=None)
    application: ClassVar[str] = "nightly-vacuum"

    async def inject(self, ramp: float) -> None:
        """One VACUUM that looks at every page at an even pace."""
        del ramp
        table = self.world.targets.big_table
        (row,) = await self.world.sql("SELECT pg_relation_size($1::text::regclass) AS bytes", table)
        pages, rounds = row["bytes"] / BLOCK_BYTES, self.scaled(90, 45) * 1000 / DELAY_MS
        limit = max(1, round(pages * MISS_COST / rounds))
        session = await self.session(
            self.application, vacuum_cost_delay=str(DELAY_MS), vacuum_cost_limit=str(limit), statement_timeout="0"
        )
        self.background(_run(session, f"VACUUM (ANALYZE, DISABLE_PAGE_SKIPPING, TRUNCATE false) {table}"))

    def trials(self) -> Sequence[Trial]:
        """Cancelled, it has to be done again."""
        return [self.cancel(), CHECKPOINT, analyze_table(self.world, self.world.targets.big_table)]


class GentleBackup(Negative):
    """Severity: how fast it reads, 2 to 5 MB/s."""

    name: ClassVar[str] = "gentle-backup"
    title: ClassVar[str] = "a base backup, limited to a rate that the disk does not feel"
    root: ClassVar[str] = "host-io"
    effect: ClassVar[Effect] = Effect(client=None)
    application: ClassVar[str] = "pg_basebackup"

    async def inject(self, ramp: float) -> None:
        """Start the tool; the checkpoint before it is spread over half a minute instead of five."""
        del ramp
        await self.world.configure(checkpoint_completion_target=0.1)
        tool = postgres_binaries(self.world.primary.version) / "pg_basebackup"
        rate = f"{round(self.scaled(2048, 5120))}k"
        dsn = self.world.primary.dsn(DATABASE, application_name=self.application)
        command = ["sh", "-c", 'exec "$0" "$@" > /dev/null', str(tool), "-d", dsn, "-D", "-", "-Ft", "-X", "none"]
        self._process = await asyncio.to_thread(
            Process.start,
            "backup",
            [*command, "-r", rate, "--checkpoint=spread", "--no-manifest"],
            log=self.world.directory / "backup.log",
            user=server_user(),
        )
        _move(self._process, self.world.groups.hogs if self.world.groups is not None else None)

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """Npm's PostgreSQL has no pg_basebackup."""
        return _without(world, "pg_basebackup")

    async def lift(self) -> None:
        """Stop the tool."""
        if self._process is not None:
            await asyncio.to_thread(self._process.stop)
            # The server's side waits for a checkpoint and does not notice.
            end = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = $1"
            await self.world.sql(end, self.application)
        await self.world.reset("checkpoint_completion_target")
        await super().lift()

    def trials(self) -> Sequence[Trial]:
        """A backup is never a reason for any of these."""
        return [CHECKPOINT, Trial("scale", False, {"disk": 2.0}), resize_pool(self.world)]


class Deploy(Negative):
    """Severity: how many instances the application has, 8 to 13, each with one connection of its own."""

    name: ClassVar[str] = "deploy"
    title: ClassVar[str] = "a rolling update: new instances connect, prepare and are probed, the old ones go"
    root: ClassVar[str] = "connections"
    effect: ClassVar[Effect] = Effect(client=None, signal="sessions_opened")
    application: ClassVar[str] = IDLE_SERVICE
    idle_service: ClassVar[bool] = True
    prepared: ClassVar[int] = 8

    async def prepare(self) -> None:
        """The instances of the old version, idle."""
        for _ in range(round(self.scaled(*IDLE_SESSIONS))):
            await self.session(self.application)

    async def inject(self, ramp: float) -> None:
        """Replace one instance after the other, and probe them."""
        del ramp
        self.background(self._roll())
        self.background(self._probe())

    async def _roll(self) -> None:
        to = self.world.targets
        for old in list(self._sessions):
            new = await self.session(self.application)
            for _ in range(self.prepared):
                await new.prepare(f"SELECT * FROM {to.hot_table} WHERE {to.hot_key} = $1")
            # Only the end of a statement makes a session idle again.
            await new.execute("SELECT 1")
            await asyncio.sleep(self.random.uniform(0.5, 1.5))
            await old.close()
            self._sessions.remove(old)

    async def _probe(self) -> None:
        """A readiness probe connects for every look, four times a second in all."""
        for _ in range(100):
            connection = await asyncpg.connect(
                self.world.direct_dsn(), timeout=5, server_settings={"application_name": "readiness-probe"}
            )
            await connection.execute("SELECT 1")
            await connection.close()
            await asyncio.sleep(0.25)

    def trials(self) -> Sequence[Trial]:
        """Sessions are not a leak because they are new."""
        return [self.end_idle(), resize_pool(self.world), Trial("restart-workload", False)]


class PoolWarmUp(Negative):
    """Severity: how often the connections are renewed, 6 to 14 times."""

    name: ClassVar[str] = "pool-warm-up"
    title: ClassVar[str] = "the pooler renews all its server connections; their caches are cold"
    root: ClassVar[str] = "pooler"
    effect: ClassVar[Effect] = Effect(client=None)

    async def inject(self, ramp: float) -> None:
        """Some rounds, two seconds apart, as when many poolers are updated one after the other."""
        del ramp
        self.background(self._rounds())

    async def _rounds(self) -> None:
        for _ in range(round(self.scaled(6, 14))):
            await asyncio.to_thread(self.world.pooler.admin, "RECONNECT")
            await asyncio.sleep(2)

    def trials(self) -> Sequence[Trial]:
        """It is warm again before any of these would have helped."""
        return [resize_pool(self.world), Trial("discard-plans", False), CHECKPOINT]


class WorkloadShift(Negative):
    """Severity: which part of the requests becomes of another kind, .15 to .35."""

    name: ClassVar[str] = "workload-shift"
    title: ClassVar[str] = "the same number of requests, but more of one kind and fewer of the others"
    root: ClassVar[str] = "client"
    effect: ClassVar[Effect] = Effect(client=None)
    least_share: ClassVar[float] = 0.08
    """Of all requests: a kind that hardly ever came would change what the median request is."""

    async def inject(self, ramp: float) -> None:
        """Lower everything, and add one kind to make up for it."""
        rates = base_rates(self.world.workload, self.world.level)
        total = sum(rates.values())
        kind = self.random.choice(sorted(name for name, rate in rates.items() if rate >= self.least_share * total))
        self.background(self._shift(kind, total, ramp))

    async def _shift(self, kind: str, total: float, ramp: float) -> None:
        async for level in self.grow(ramp):
            part = self.scaled(0.15, 0.35) * level
            await self.world.load.control(rate_factor=1 - part, extra={kind: part * total})

    async def lift(self) -> None:
        """The shares of before."""
        await super().lift()
        await self.world.load.control(rate_factor=1.0, extra={})

    def trials(self) -> Sequence[Trial]:
        """Nothing is slow."""
        return [analyze_table(self.world, self.world.targets.lookup_table), Trial("discard-plans", False), CHECKPOINT]


class ShortLockWait(Negative):
    """Severity: how long the lock is held each time, 1 to 2.5 s."""

    name: ClassVar[str] = "short-lock-wait"
    title: ClassVar[str] = "somebody edits one row now and then, and another waits for it for a second or two"
    root: ClassVar[str] = "lock-manager"
    effect: ClassVar[Effect] = Effect(client=None, signal="lock_waiters")
    application: ClassVar[str] = "back-office-form"

    async def inject(self, ramp: float) -> None:
        """An editor and a colleague who wants the same row, again and again."""
        del ramp
        holder, waiter = [await self.session(self.application) for _ in range(2)]
        self.background(self._edit(holder, waiter))

    async def _edit(self, holder: asyncpg.Connection, waiter: asyncpg.Connection) -> None:
        row = "SELECT 1 FROM tasks WHERE id = $1 FOR NO KEY UPDATE"
        while True:
            key = self.random.randint(1, TASKS)
            async with holder.transaction():
                await holder.fetch(row, key)
                waiting = asyncio.create_task(waiter.fetch(row, key))
                await asyncio.sleep(self.scaled(1.0, 2.5))
            await waiting
            await asyncio.sleep(self.random.uniform(2, 4))

    def trials(self) -> Sequence[Trial]:
        """It is over before anybody could do anything."""
        return [self.end_idle(), tune_setting("deadlock_timeout", "1s"), Trial("restart-workload", False)]


class HarmlessIdleTransaction(Negative):
    """Severity: how many sessions do so, 2 to 5."""

    name: ClassVar[str] = "harmless-idle-transaction"
    title: ClassVar[str] = "consoles that read something and leave the transaction open for some seconds"
    root: ClassVar[str] = "lock-manager"
    effect: ClassVar[Effect] = Effect(client=None, signal="idle_in_transaction_age")
    application: ClassVar[str] = "console"

    async def inject(self, ramp: float) -> None:
        """Open them; each begins anew after 6 to 14 s."""
        del ramp
        for _ in range(round(self.scaled(2, 5))):
            self.background(self._read(await self.session(self.application)))

    async def _read(self, session: asyncpg.Connection) -> None:
        to = self.world.targets
        while True:
            async with session.transaction(readonly=True):
                await session.fetch(f"SELECT * FROM {to.hot_table} WHERE {to.hot_key} = 1")
                await asyncio.sleep(self.random.uniform(6, 14))
            await asyncio.sleep(self.random.uniform(0.2, 2))

    def trials(self) -> Sequence[Trial]:
        """They block nobody."""
        named = [Trial("terminate-idle-in-transaction", False, {"pid": pid}) for pid in self.pids()[:1]]
        return [*named, CHECKPOINT, resize_pool(self.world)]


class LongReport(Negative):
    """Severity: how much it reads at a time; it takes a minute or more in any case."""

    name: ClassVar[str] = "long-report"
    title: ClassVar[str] = "a long read of the largest table that stops for breath and harms nobody"
    root: ClassVar[str] = "query-engine"
    effect: ClassVar[Effect] = Effect(client=None, signal="longest_query_age")
    application: ClassVar[str] = "monthly-report"
    pause: ClassVar[float] = 0.25

    async def inject(self, ramp: float) -> None:
        """One statement; a pause after each batch of rows."""
        del ramp
        table = self.world.targets.big_table
        (row,) = await self.world.sql("SELECT greatest(reltuples, 1) AS rows FROM pg_class WHERE relname = $1", table)
        batch = max(1, round(row["rows"] / self.scaled(6, 3) / MINUTE))
        session = await self.session(self.application, statement_timeout="0")
        numbered = f"SELECT t::text AS line, row_number() OVER () AS n FROM {table} t"
        self.background(
            _run(
                session,
                f"SELECT sum(length(line)), count(CASE WHEN n % {batch} = 0 THEN pg_sleep({self.pause}) END)"
                f" FROM ({numbered}) numbered",
            )
        )

    def trials(self) -> Sequence[Trial]:
        """Somebody waits for this report."""
        return [self.cancel(), analyze_table(self.world, self.world.targets.big_table), CHECKPOINT]


class SlotWithConsumer(Negative):
    """Severity plays no part: it is there or not."""

    name: ClassVar[str] = "slot-with-consumer"
    title: ClassVar[str] = "a WAL archive connects with a replication slot of its own and keeps up"
    root: ClassVar[str] = "replication"
    effect: ClassVar[Effect] = Effect(client=None)
    slot: ClassVar[str] = "archive"

    @classmethod
    def unavailable(cls, world: World) -> str | None:
        """Npm's PostgreSQL has no pg_receivewal."""
        return _without(world, "pg_receivewal")

    async def inject(self, ramp: float) -> None:
        """Make the slot and start the consumer."""
        del ramp
        await self.world.sql("SELECT pg_create_physical_replication_slot($1, true)", self.slot)
        directory = self.world.primary.directory / "archive"
        tool = postgres_binaries(self.world.primary.version) / "pg_receivewal"
        dsn = self.world.primary.dsn(application_name="pg_receivewal")
        receive = 'mkdir -p "$1" && exec "$0" -D "$1" -d "$2" --slot="$3" --no-sync'
        self._process = await asyncio.to_thread(
            Process.start,
            "WAL archive",
            ["sh", "-c", receive, str(tool), str(directory), dsn, self.slot],
            log=self.world.directory / "archive.log",
            user=server_user(),
        )
        _move(self._process, self.world.groups.hogs if self.world.groups is not None else None)

    async def lift(self) -> None:
        """Stop the consumer and drop its slot, once the server has noticed."""
        if self._process is not None:
            await asyncio.to_thread(self._process.stop)
        for _ in range(20):
            with contextlib.suppress(asyncpg.ObjectInUseError):
                await self.world.sql(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
                    self.slot,
                )
                break
            await asyncio.sleep(0.25)
        await super().lift()

    def trials(self) -> Sequence[Trial]:
        """It holds back nothing."""
        return [CHECKPOINT, tune_setting("max_slot_wal_keep_size", "256MB"), resize_pool(self.world)]


class IndexBuild(Negative):
    """Severity: how many indexes are built one after the other, 2 to 4, each in half a second."""

    name: ClassVar[str] = "index-build"
    title: ClassVar[str] = "a planned CREATE INDEX CONCURRENTLY on a small table, a few times"
    root: ClassVar[str] = "query-engine"
    effect: ClassVar[Effect] = Effect(client=None)
    application: ClassVar[str] = "migration"
    table: ClassVar[str] = "task_parts"
    columns: ClassVar[tuple[str, ...]] = ("task_id", "weight, id", "task_id, id", "id, weight")
    drop: ClassVar[str] = "DROP INDEX CONCURRENTLY IF EXISTS planned_{}"

    async def inject(self, ramp: float) -> None:
        """Build them, with a pause between two: together they take less than one second in twenty."""
        del ramp
        session = await self.session(self.application, statement_timeout="0", maintenance_work_mem="16MB")
        self.background(self._build(session))

    async def _build(self, session: asyncpg.Connection) -> None:
        for number, columns in enumerate(self.columns[: round(self.scaled(2, 4))]):
            await session.execute(f"CREATE INDEX CONCURRENTLY planned_{number} ON {self.table} ({columns})")
            await asyncio.sleep(self.random.uniform(7, 10))

    async def repair(self) -> None:
        """Drop them."""
        for number in range(len(self.columns)):
            await self.world.sql(self.drop.format(number))

    def trials(self) -> Sequence[Trial]:
        """Let it build."""
        return [self.cancel(), analyze_table(self.world, self.table), CHECKPOINT]


async def _run(session: asyncpg.Connection, statement: str) -> None:
    await session.execute(statement)


def _move(process: Process, group: Group | None) -> None:
    if group is not None:
        with contextlib.suppress(ProcessLookupError):
            group.add(process.pid)


def _without(world: World, tool: str) -> str | None:
    found = (postgres_binaries(world.primary.version) / tool).exists()
    return None if found else f"PostgreSQL {world.primary.version} is here without {tool}; install Debian's"
