"""What every workload brings: its tables, its requests, and what in it a fault can be aimed at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import asyncpg

from kintsugi_ml.lab.workloads import backoffice

Connection = asyncpg.pool.PoolConnectionProxy
Work = Callable[[Connection, Random], Awaitable[object]]
"""One request: everything it does on one connection, its parameters drawn from the given randomness."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What a fault can be aimed at; all in schema `public`, all owned by the application's role.

    `hot_table`: rows with `hot_key` 1–10 (bigint, primary key) are updated most; adding 0 to `hot_number` (an integer
    or numeric column) changes nothing that anybody relies on.
    `lookup_table`, `lookup_column`: the commonest read needs the index `lookup_index` on this column.
    `write_table`: most rows are inserted or updated there; `write_columns` are not indexed yet.
    `big_table`: the largest; reading all of it pushes everything else out of shared buffers.
    """

    hot_table: str
    hot_key: str
    hot_number: str
    lookup_table: str
    lookup_column: str
    lookup_index: str
    write_table: str
    write_columns: tuple[str, ...]
    big_table: str


class Workload(ABC):
    """One kind of application: its main requests. The back office (backoffice.py) comes on top, the same in all."""

    name: ClassVar[str]
    title: ClassVar[str]
    rates: ClassVar[Mapping[str, float]]
    """Main requests per second at level `low` and `high`: some 15 % and 35 % of a core for servers and clients."""
    targets: ClassVar[Targets]
    buffered: ClassVar[bool] = False
    """Whether what it reads is in shared buffers: some 50 blocks a second are read in, elsewhere 500 to 5,000."""
    tables: ClassVar[str]
    """SQL that makes and fills the tables; the same rows each time, no randomness."""
    version: ClassVar[int] = 2
    """Counted up when `create` makes something else, so that no filled server of before is used again."""

    async def create(self, connection: asyncpg.Connection) -> None:
        """Make and fill the workload's and the back office's tables, with their indexes, ending in ANALYZE."""
        await connection.execute(self.tables)
        await connection.execute(backoffice.TABLES)
        await connection.execute("ANALYZE")

    @abstractmethod
    def work(self) -> Mapping[str, Work]:
        """The requests by kind; kinds are what `kintsugi_client_request_seconds` calls `statement`."""

    @abstractmethod
    def shares(self) -> Mapping[str, float]:
        """How often each kind comes, summing to 1."""


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """One transaction, committed at the end.

    Unlike asyncpg's, a failed one is not rolled back here: whoever gives the connection back does that beside the
    request, whose timeout must not wait for a server that no longer answers.
    """
    await connection.execute("BEGIN")
    yield
    await connection.execute("COMMIT")


def skewed(random: Random, rows: int) -> int:
    """A row number 1…`rows`, log-uniform: like Zipf's law with exponent 1, so 1–10 are the hottest."""
    return min(rows, int((rows + 1) ** random.random()))
