"""The stimuli. Each acts on a world until the given time of the event loop, and takes back what would outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import asyncpg

from kintsugi_dev.stimuli.world import DATABASE, World

Act = Callable[[World, float], Awaitable[None]]


def now() -> float:
    """The event loop's time."""
    return asyncio.get_running_loop().time()


async def rest(until: float) -> None:
    """Wait until then."""
    await asyncio.sleep(max(0.0, until - now()))


async def repeat(world: World, until: float, statement: str, pause: float = 0.02, **settings: str) -> None:
    """Run a statement again and again; its errors are meant."""
    async with world.session(settings=settings) as session:
        while now() < until:
            with contextlib.suppress(asyncpg.PostgresError):
                await session.execute(statement)
            await asyncio.sleep(pause)


# ------------------------------------------------------------------------------------------------------ waits and work


async def lock_tree(world: World, until: float) -> None:
    """One session holds a row and an old snapshot, a second waits for it, a third for the second; then all go on."""
    async with (
        world.session() as holder,
        world.session() as second,
        world.session() as third,
        world.session() as fourth,
    ):
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE pairs SET value = 1 WHERE id = 1")
        await second.execute("BEGIN; UPDATE pairs SET value = 1 WHERE id = 2")
        waiting = [asyncio.create_task(second.execute("UPDATE pairs SET value = 1 WHERE id = 1"))]
        await asyncio.sleep(0.2)
        waiting += [
            asyncio.create_task(third.execute("UPDATE pairs SET value = 1 WHERE id = 2")),
            asyncio.create_task(fourth.execute("UPDATE pairs SET value = 1 WHERE id = 2")),
        ]
        await rest(until)
        await holder.execute("ROLLBACK")
        await waiting[0]
        await second.execute("ROLLBACK")
        await asyncio.gather(*waiting)


async def transactions(world: World, until: float) -> None:
    """Thousands of small transactions, so that the snapshot held meanwhile grows old."""
    work = "DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$"
    await repeat(world, until, work, pause=0.1, synchronous_commit="off")


async def long_query(world: World, until: float) -> None:
    """One statement that takes long without doing anything."""
    async with world.session() as session:
        with contextlib.suppress(asyncpg.PostgresError):
            await session.execute(f"SELECT pg_sleep({until - now()})")


async def computing(world: World, until: float) -> None:
    """One session that computes all the time."""
    async with world.session() as session:
        await session.execute(f"SET statement_timeout = {max(1, int(1000 * (until - now())))}")
        with contextlib.suppress(asyncpg.QueryCanceledError):
            await session.execute("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")


async def prepared_transaction(world: World, until: float) -> None:
    """A two-phase transaction that nobody finishes."""
    async with world.session() as session:
        await session.execute("BEGIN; UPDATE pairs SET value = 1 WHERE id = 50; PREPARE TRANSACTION 'forgotten'")
        await rest(until)
        await session.execute("ROLLBACK PREPARED 'forgotten'")


async def deadlocks(world: World, until: float) -> None:
    """Two sessions that take two rows in opposite order."""
    async with (
        world.session(settings={"deadlock_timeout": "50ms"}) as one,
        world.session(settings={"deadlock_timeout": "50ms"}) as other,
    ):
        while now() < until:
            await one.execute("BEGIN; UPDATE pairs SET value = 1 WHERE id = 60")
            await other.execute("BEGIN; UPDATE pairs SET value = 1 WHERE id = 61")
            ends = (
                one.execute("UPDATE pairs SET value = 1 WHERE id = 61"),
                other.execute("UPDATE pairs SET value = 1 WHERE id = 60"),
            )
            await asyncio.gather(*ends, return_exceptions=True)
            await one.execute("ROLLBACK")
            await other.execute("ROLLBACK")
            await asyncio.sleep(0.5)


async def failing(world: World, until: float) -> None:
    """Statements that fail, so that their transactions are rolled back."""
    await repeat(world, until, "SELECT 1 / 0")


async def spilling(world: World, until: float) -> None:
    """Sorts that do not fit into work_mem."""
    await repeat(world, until, "SELECT id FROM wide ORDER BY filler, id DESC OFFSET 99999", work_mem="64kB")


async def scanning(world: World, until: float) -> None:
    """Sequential scans of a table that does not fit into shared buffers, and everything about reading blocks."""
    await repeat(world, until, "SELECT count(filler) FROM wide", max_parallel_workers_per_gather="0")


async def looking_up(world: World, until: float) -> None:
    """Hundreds of index scans in each statement."""
    work = "SELECT count(*) FROM generate_series(1, 300) n, LATERAL (SELECT 1 FROM pairs WHERE id = n % 100 LIMIT 1) p"
    await repeat(world, until, work, pause=0.2, enable_seqscan="off", enable_hashjoin="off", enable_mergejoin="off")


async def slow_statements(world: World, until: float) -> None:
    """Statements that take 300 ms each and return many rows."""
    tasks = [repeat(world, until, "SELECT pg_sleep(0.3), n FROM generate_series(1, 1) n") for _ in range(3)]
    await asyncio.gather(*tasks, repeat(world, until, "SELECT generate_series(1, 20000)", pause=0.2))


async def changing_rows(world: World, until: float) -> None:
    """A table changes and is not analyzed, another one fills and never was."""
    async with world.session() as session:
        await session.execute("ANALYZE changing")
        await session.execute("DELETE FROM changing WHERE id % 2 = 0")
        await session.execute("CREATE TABLE unknown (id int) WITH (autovacuum_enabled = off)")
        await session.execute("INSERT INTO unknown SELECT generate_series(1, 20000)")
        await rest(until)


async def vacuuming(world: World, until: float) -> None:
    """Two tables that autovacuum takes long to clean."""
    async with world.session() as session:
        await session.execute("DELETE FROM littered; DELETE FROM scattered")
        await world.configure(autovacuum_naptime="1s")
        await rest(until)
        await world.configure(autovacuum_naptime="1d")


async def writing(world: World, until: float) -> None:
    """Whole tables rewritten between forced checkpoints: WAL, full page images, flushes, dirty blocks to write."""
    async with world.session() as session:
        while now() < until:
            await session.execute("UPDATE wide SET id = id + 1 WHERE id < 30000")
            await session.execute("CHECKPOINT")
            await asyncio.sleep(0.2)


async def failing_archive(world: World, until: float) -> None:
    """An archive command that fails."""
    await world.configure(archive_command="false")
    async with world.session() as session:
        await session.execute("SELECT pg_switch_wal()")
        await rest(until)
    await world.configure(archive_command="true")


async def flushing(world: World, until: float) -> None:
    """Commits that wait for each other to flush the WAL; the delay stands for a slow disk."""
    settings = {"commit_delay": "100000", "commit_siblings": "0", "synchronous_commit": "local"}
    await asyncio.gather(
        *(
            repeat(world, until, f"UPDATE pairs SET value = value + 1 WHERE id = {70 + n}", 0.0, **settings)
            for n in range(4)
        )
    )


async def waiting_for_a_replica(world: World, until: float) -> None:
    """Two commits that wait for a synchronous replica that does not exist."""
    async with (
        world.session(settings={"synchronous_commit": "on"}) as one,
        world.session(settings={"synchronous_commit": "on"}) as other,
    ):
        commits = [
            asyncio.create_task(session.execute(f"UPDATE pairs SET value = 1 WHERE id = {row}"))
            for session, row in ((one, 90), (other, 91))
        ]
        await rest(until)
        for commit in commits:
            commit.cancel()
        await asyncio.gather(*commits, return_exceptions=True)


# ------------------------------------------------------------------------ connections, pooler, replication, client


async def idle_sessions(world: World, until: float) -> None:
    """Clients that connect and do nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(15):
            await stack.enter_async_context(world.session())
        await rest(until)


async def short_sessions(world: World, until: float) -> None:
    """Clients that connect for each request, and an administrator who ends some of them."""
    while now() < until:
        async with world.session() as one, world.session() as other:
            pid = await other.fetchval("SELECT pg_backend_pid()")
            await one.execute(f"SELECT pg_terminate_backend({pid})")
        await asyncio.sleep(0.2)


async def queueing_at_the_pooler(world: World, until: float) -> None:
    """Six clients for a pool of two."""
    dsn = world.pooler.dsn(DATABASE, "postgres")

    async def client() -> None:
        connection = await asyncpg.connect(dsn, timeout=30, statement_cache_size=0)
        while now() < until:
            await connection.execute("SELECT pg_sleep(0.4)")
            for _ in range(20):
                await connection.execute("SELECT 1")
        connection.terminate()

    await asyncio.gather(*(client() for _ in range(6)))


async def locked_shop(world: World, until: float) -> None:
    """The shop's tables locked for a while: its clients wait, and give up after 5 s."""
    async with world.session() as session:
        await session.execute("BEGIN; LOCK TABLE orders, order_lines, ledger")
        await rest(until)


async def paused_replay(world: World, until: float) -> None:
    """A replica that receives what is written meanwhile and does not replay it."""
    async with world.session(world.replica) as replica:
        await replica.execute("SELECT pg_wal_replay_pause()")
        await rest(until)
        await replica.execute("SELECT pg_wal_replay_resume()")


async def conflicting_with_replay(world: World, until: float) -> None:
    """Queries on the replica that read a table which the primary empties."""
    async with world.session() as session, world.session(world.replica) as replica:
        while now() < until:
            query = asyncio.create_task(replica.execute("SELECT count(*), pg_sleep(2) FROM snapshot_of"))
            await asyncio.sleep(0.2)
            await session.execute("TRUNCATE snapshot_of")
            await asyncio.gather(query, return_exceptions=True)


async def silent_receiver(world: World, until: float) -> None:
    """A replica's WAL receiver frozen, so that it reports nothing."""
    async with world.session(world.replica) as replica:
        pid = await replica.fetchval("SELECT pid FROM pg_stat_wal_receiver")
    with frozen([pid]):
        await rest(until)


# -------------------------------------------------------------------------------------------------------- disturbances


@contextlib.contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Processes stopped in the middle of whatever they do."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def frozen_in_a_read(world: World, until: float) -> None:
    """A session stopped while it reads a file, as on a disk that hangs; on fast ones nobody is ever seen waiting."""
    await _freeze(world, until, ["SELECT count(filler) FROM wide"], "wait_event_type = 'IO' AND pid = {pid}")


async def frozen_in_a_flush(world: World, until: float) -> None:
    """A session stopped while it flushes the WAL, for which others wait."""
    works = [f"UPDATE pairs SET value = value + 1 WHERE id = {n}" for n in (80, 81)]
    await _freeze(world, until, works, "wait_event ~* 'walsync' AND pid = {pid}")


async def slow_index_insert(world: World, until: float) -> None:
    """An index whose comparison sleeps, so that its block stays locked (a lightweight lock) while others need it."""
    insert = "INSERT INTO sorted VALUES (1)"
    slow = repeat(world, until, insert, pause=0.1, **{"stimuli.slow": "on"})
    await asyncio.gather(slow, repeat(world, until, insert), repeat(world, until, insert))


async def _freeze(
    world: World,
    until: float,
    works: Sequence[str],
    state: str,
) -> None:
    """Stop workers at random until one is stopped in the wanted state, and leave that one for a while.

    The state is a condition on pg_stat_activity, `{pid}` who was stopped.
    """
    async with contextlib.AsyncExitStack() as stack:
        watcher = await stack.enter_async_context(world.session())
        workers = [await stack.enter_async_context(world.session()) for _ in works]
        pids = [await worker.fetchval("SELECT pg_backend_pid()") for worker in workers]
        tasks = [asyncio.create_task(_loop(worker, work, until)) for worker, work in zip(workers, works, strict=True)]
        turn = 0
        while now() < until:
            turn += 1
            pid = pids[turn % len(pids)]
            with frozen([pid]):
                question = f"SELECT count(*) FROM pg_stat_activity WHERE {state.format(pid=pid)}"
                await asyncio.sleep(0.005)
                with contextlib.suppress(TimeoutError):
                    if await asyncio.wait_for(watcher.fetchval(question), 1):
                        await asyncio.sleep(1.5)
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)


async def _loop(session: asyncpg.Connection, statement: str, until: float) -> None:
    while now() < until:
        await session.execute(statement)


async def locked_catalogue(world: World, until: float) -> None:
    """A system catalogue locked again and again, which the collector has to wait for."""
    async with world.session() as session:
        await asyncio.sleep(1)
        while now() < until:
            await session.execute("BEGIN; LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(1.2)
            await session.execute("COMMIT")
            await asyncio.sleep(0.3)


async def all_connections_taken(world: World, until: float) -> None:
    """Clients that connect until the server refuses them."""
    async with contextlib.AsyncExitStack() as stack:
        user = "postgresql://hog:hog@" + world.primary.dsn(DATABASE).rpartition("@")[2]
        await asyncio.to_thread(world.primary.execute, "CREATE ROLE hog LOGIN PASSWORD 'hog'")
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                connection = await asyncpg.connect(user, timeout=10)
                stack.callback(connection.terminate)
        await rest(until)


# ---------------------------------------------------------------------------------------------------------------- down


async def replica_and_pooler_gone(world: World, until: float) -> None:
    """The replica and the pooler killed; the primary goes on writing."""
    await asyncio.to_thread(world.replica.kill)
    await asyncio.to_thread(world.pooler.kill)
    async with world.session() as session:
        for _ in range(2):
            await session.execute("UPDATE wide SET id = id")
    await rest(until)


async def primary_gone(world: World, until: float) -> None:
    """The primary killed."""
    await asyncio.to_thread(world.primary.kill)
    await rest(until)


PHASES: Final[Sequence[tuple[float, Sequence[Act]]]] = (
    (
        10.0,
        (
            lock_tree,
            transactions,
            long_query,
            computing,
            prepared_transaction,
            deadlocks,
            failing,
            waiting_for_a_replica,
            looking_up,
            slow_statements,
            changing_rows,
            vacuuming,
        ),
    ),
    (
        9.0,
        (
            spilling,
            scanning,
            writing,
            failing_archive,
            flushing,
            idle_sessions,
            short_sessions,
            queueing_at_the_pooler,
            locked_shop,
            paused_replay,
        ),
    ),
    (7.0, (conflicting_with_replay, frozen_in_a_read, slow_index_insert)),
    (6.0, (silent_receiver, frozen_in_a_flush)),
    (5.0, (all_connections_taken, locked_catalogue)),
    (5.0, (replica_and_pooler_gone,)),
    (4.0, (primary_gone,)),
)
"""Seconds, and what happens at once for so long. What is gone after the last two stays gone."""
