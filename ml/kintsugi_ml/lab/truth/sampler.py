"""The sampler as a local process beside the servers, and reading what it wrote.

Its file holds one JSON line per sample: first `["time", <columns>]`, then numbers in that order, null for what could
not be had in time. A restart appends, with the columns anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict

from kintsugi_dev.servers.base import LocalServer
from kintsugi_dev.servers.pgbouncer import ADMIN, ADMIN_PASSWORD
from kintsugi_dev.servers.process import Process
from kintsugi_ml.lab import cgroups
from kintsugi_ml.lab.truth.measures import Samples

if TYPE_CHECKING:
    from kintsugi_ml.lab.world import World


class Pooler(BaseModel):
    """PgBouncer's console."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: int
    username: str = ADMIN
    password: str = ADMIN_PASSWORD


class Config(BaseModel):
    """What is sampled. `device` is a disk as `major:minor`, `group` the primary's control group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary: str
    version: int
    device: str
    replica: str | None = None
    pooler: Pooler | None = None
    group: str | None = None


class TruthSampler(LocalServer):
    """`python -m kintsugi_ml.lab.truth`; it serves nothing, so its port means nothing."""

    kind: ClassVar[str] = "Truth sampler"

    def __init__(self, directory: Path, config: Config) -> None:
        super().__init__(directory, 0)
        self.config = config

    @classmethod
    def start(cls, world: World) -> Self:
        """Sample all of a world from now on, into its directory."""
        return cls.begin(
            world.directory / "truth",
            Config(
                primary=world.direct_dsn("postgres"),
                version=world.primary.version,
                device=cgroups.device_of(world.directory),
                replica=None if world.replica is None else world.replica.dsn(world.database),
                pooler=Pooler(host=world.pooler.host, port=world.pooler.port),
                group=None if world.groups is None else world.groups.primary.name,
            ),
        )

    @classmethod
    def begin(cls, directory: Path, config: Config) -> Self:
        """Sample what `config` says, into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        sampler = cls(directory, config)
        sampler.launch()
        return sampler

    @property
    def file(self) -> Path:
        """What it writes; see the module."""
        return self.directory / "truth.jsonl"

    def _start_process(self) -> Process:
        self._size = self.file.stat().st_size if self.file.exists() else 0
        config = self.directory / "truth.json"
        config.write_text(self.config.model_dump_json())
        command: list[str | Path] = [sys.executable, "-m", "kintsugi_ml.lab.truth"]
        return Process.start(self.kind, [*command, "--config", config, "--out", self.file], log=self.log)

    def _ready(self) -> bool:
        return self.file.exists() and self.file.stat().st_size > self._size


def read(path: Path, start: float, end: float) -> Samples:
    """The samples of `start <= t < end` (Unix s); a last line that is still being written is left out."""
    names: list[str] = []
    rows: list[dict[str, float]] = []
    with path.open("rb") as file:
        for line in file:
            row = _row(line)
            if row and row[0] == "time":
                names = [str(name) for name in row]
            elif row and start <= row[0] < end:
                rows.append(dict(zip(names, row, strict=False)))
    rows.sort(key=lambda row: row["time"])
    times = np.array([row["time"] for row in rows], dtype=np.float64)
    columns = sorted({name for row in rows for name in row} - {"time"})
    return Samples(times, {name: _column(rows, name) for name in columns})


def _row(line: bytes) -> list[Any] | None:
    try:
        row = orjson.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, list) else None


def _column(rows: Sequence[dict[str, float]], name: str) -> np.typing.NDArray[np.float64]:
    return np.array([np.nan if (value := row.get(name)) is None else value for row in rows], dtype=np.float64)


__all__ = ["Config", "Pooler", "TruthSampler", "read"]
