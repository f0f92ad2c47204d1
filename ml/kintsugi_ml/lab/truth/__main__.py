"""`python -m kintsugi_ml.lab.truth --config truth.json --out truth.jsonl`: sample at 8 Hz until ended."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from kintsugi.shell.pgbouncer import PgBouncerLogin
from kintsugi_ml.lab.truth import queries
from kintsugi_ml.lab.truth.kernel import Kernel
from kintsugi_ml.lab.truth.onset import RATE
from kintsugi_ml.lab.truth.sampler import Config
from kintsugi_ml.lab.truth.sources import Console, Question, Source

PATIENCE_SECONDS = 0.1
"""An answer later than this is not of this sample any more."""
POOLER_EVERY = 2
TABLES_EVERY = 4
"""Every so many samples; their answers hold until the next."""
FLUSH_EVERY = 8


class Sampler:
    """All sources, sample by sample."""

    def __init__(self, config: Config) -> None:
        self._primary = Question(config.primary, queries.primary(config.version), queries.PRIMARY_COLUMNS)
        self._sources: list[Source[Any]] = [
            self._primary,
            Question(config.primary, queries.TABLES, queries.TABLES_COLUMNS, TABLES_EVERY),
        ]
        if config.replica is not None:
            self._sources.append(Question(config.replica, queries.REPLICA, queries.REPLICA_COLUMNS))
        if (pooler := config.pooler) is not None:
            login = PgBouncerLogin(pooler.host, pooler.port, pooler.username, pooler.password)
            self._sources.append(Console(login, POOLER_EVERY))
        self._kernel = Kernel(config.device, config.group)
        asked = tuple(column for source in self._sources for column in source.columns)
        self.columns = ("answer_time", *asked, *self._kernel.read())

    async def sample(self, tick: int) -> list[float | None]:
        """One row in the order of `columns`; takes a tenth of a second at most."""
        known: dict[str, float | None] = {**self._kernel.read()}
        asked = [task for source in self._sources if (task := source.ask(tick)) is not None]
        if asked:
            await asyncio.wait(asked, timeout=PATIENCE_SECONDS)
        for source in self._sources:
            known.update(source.values(tick))
        known["answer_time"] = self._primary.seconds
        return _row(self.columns, known)


def _row(columns: tuple[str, ...], known: Mapping[str, float | None]) -> list[float | None]:
    return [None if (value := known.get(name)) is None else float(f"{value:.9g}") for name in columns]


async def record(config: Config, out: BinaryIO) -> None:
    """Append samples to `out` until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    sampler = Sampler(config)
    out.write(orjson.dumps(["time", *sampler.columns]) + b"\n")
    start = loop.time()
    while not ended.is_set():
        tick = round((loop.time() - start) * RATE)
        now = time.time()
        out.write(orjson.dumps([round(now, 4), *await sampler.sample(tick)]) + b"\n")
        if tick % FLUSH_EVERY == 0:
            out.flush()
        # From the clock, not from the last sample: a late one is made up for, a lost one is not.
        await asyncio.sleep(max(0.0, start + (tick + 1) / RATE - loop.time()))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    gc.freeze()
    with arguments.out.open("ab") as out:
        asyncio.run(record(Config.model_validate_json(arguments.config.read_text()), out))


if __name__ == "__main__":
    main()
