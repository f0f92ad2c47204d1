"""What every workload brings: its tables, its requests, and what in it a fault can be aimed at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import asyncpg

Work = Callable[[asyncpg.pool.PoolConnectionProxy, Random], Awaitable[object]]
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
    """One kind of application. Its main requests make up nine tenths; the back office (backoffice.py) the rest."""

    name: ClassVar[str]
    title: ClassVar[str]
    rates: ClassVar[Mapping[str, float]]
    """Requests per second at level `low` and `high`."""
    targets: ClassVar[Targets]
    version: ClassVar[int] = 1
    """Counted up when `create` makes something else, so that no filled server of before is used again."""

    @abstractmethod
    async def create(self, connection: asyncpg.Connection) -> None:
        """Make and fill the tables (deterministic, at most some 200 MB), with their indexes, ending in ANALYZE."""

    @abstractmethod
    def work(self) -> Mapping[str, Work]:
        """The requests by kind; kinds are what `kintsugi_client_request_seconds` calls `statement`."""

    @abstractmethod
    def shares(self) -> Mapping[str, float]:
        """How often each kind comes, summing to 1."""
