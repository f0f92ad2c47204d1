"""`make lab`: carry out what of the plan is not there yet, block by block, and write each run as it ends.

Interrupted anywhere it goes on where it stopped: a run is there when its JSON file is. A void run (too much foreign
CPU) and one in which a server crashed are kept, marked, and repeated. When all that is planned is there, classes that
still have too few runs get some of the spare ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import signal
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from kintsugi_dev.servers.errors import ServerError
from kintsugi_ml.lab import classes, dataset, needs, recording, run
from kintsugi_ml.lab.cpu import accounted
from kintsugi_ml.lab.faults.base import LOST
from kintsugi_ml.lab.manifest import Entry
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.plan import blocks
from kintsugi_ml.lab.recording import State, Verdict
from kintsugi_ml.lab.run import Draw, Timing
from kintsugi_ml.lab.start import existing_world, world
from kintsugi_ml.lab.truth.sampler import TruthSampler
from kintsugi_ml.lab.world import World

ATTEMPTS = 3
"""How often a run that was void or crashed is tried in all."""
SETTLED_SECONDS = 3.0
RETURN_SECONDS = 25.0
REPLAY_BYTES = 4 * 2**20
"""A replica no further behind than this has caught up; in normal parts it is within .2 MB."""
BEHIND = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) AS behind FROM pg_stat_replication"
WARM_SECONDS = 12.0
"""What a server that has just started needs until its caches are warm and its clients' pools filled."""
FREE_BYTES = 4 * 2**30


class LabError(Exception):
    """The lab can't go on: what happened, and what to do."""


@dataclass
class Session:
    """One call of `make lab`. `say` prints a line; `until` is a Unix time after which no run is begun.

    `written` is called with each run that was written, whatever became of it.

    `spare` are more runs of the same classes, for those of which too few come to count.
    """

    directory: Path
    planned: Sequence[Planned]
    say: Callable[[str], None]
    spare: Sequence[Planned] = ()
    until: float = float("inf")
    url: str | None = None
    owned: bool = False
    draw: Draw = Timing.draw
    written: Callable[[Entry], None] = lambda _: None
    took: list[float] = field(default_factory=list)
    _failures: int = 0

    def go(self) -> int:
        """Carry out what is missing; returns how many runs that count there are now."""
        _enough_disk()
        with only_one(self.directory), accounted(), _stoppable():
            # More than once: what was void or crashed is missing again, as often as ATTEMPTS says.
            while (missing := self.missing()) and time.time() < self.until:
                for block in blocks(missing):
                    self._block(block)
        return sum(state.status == "counts" for state in recording.states(self.directory).values())

    def missing(self) -> list[Planned]:
        """What of the plan is not recorded; a repeated run gets a number, so that the earlier one stays."""
        known = recording.states(self.directory)
        return self._absent(self.planned, known) or self._absent(self._needed(), known)

    def _needed(self) -> list[Planned]:
        return needs.spare_needed(self.spare, dataset.entries(self.directory))

    @staticmethod
    def _absent(wanted: Sequence[Planned], known: Mapping[str, State]) -> list[Planned]:
        missing = []
        for planned in wanted:
            names = [planned.id, *(f"{planned.id}.{number}" for number in range(2, ATTEMPTS + 1))]
            free = next((name for name in names if name not in known or not known[name].repeat), None)
            if free is not None and free not in known:
                missing.append(replace(planned, id=free))
        return missing

    def _block(self, block: list[Planned]) -> None:
        """Runs that share a world, until one leaves it dirty; the rest then get a new one."""
        left = block
        while left and time.time() < self.until:
            first = left[0]
            directory = Path(tempfile.mkdtemp(prefix="kintsugi-lab-"))
            directory.chmod(0o755)
            try:
                with self._world(directory, first) as made:
                    left = self._in_world(made, left)
                self._failures = 0
            except ServerError as error:
                self._failures += 1
                self.say(f"  the servers of {first.workload} did not start: {error}")
                if self._failures == ATTEMPTS:
                    raise LabError(
                        f"the servers did not start {ATTEMPTS} times in a row; mend this first: {error}"
                    ) from error
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _world(self, directory: Path, first: Planned) -> AbstractContextManager[World]:
        if self.url is None:
            return world(directory, first.workload, first.level, server=first.server, seed=first.seed)
        return existing_world(
            directory, first.workload, first.level, url=self.url, owned=self.owned, seed=first.seed, say=self.say
        )

    def _in_world(self, made: World, left: list[Planned]) -> list[Planned]:
        """Carry out runs in this world; returns those that are left when it is dirty or time is up."""
        with TruthSampler.start(made) as sampler:
            time.sleep(WARM_SECONDS)
            while left and time.time() < self.until:
                planned, left = left[0], left[1:]
                if (reason := classes.unavailable(planned, made)) is not None:
                    recording.write_skipped(self.directory, planned, reason)
                    self.say(f"  {planned.fault} is skipped: {reason}")
                    continue
                began = time.time()
                verdict, dirty = asyncio.run(self._one(planned, made, sampler))
                self.took.append(time.time() - began)
                self._report(verdict)
                if dirty:
                    break
        return left

    async def _one(self, planned: Planned, made: World, sampler: TruthSampler) -> tuple[Verdict, bool]:
        try:
            known = dataset.entries(self.directory)
            tried = needs.tried(planned, known)
            planned = needs.remedied(planned, self.missing(), known)
            course = await run.carry_out(planned, made, self.draw, tried)
            verdict = await recording.record(self.directory, course, made, sampler)
        except Exception as error:  # noqa: BLE001 – a mistake of ours in one run must not end hours of recording
            self.say(traceback.format_exc())
            entry = recording.write_crashed(self.directory, planned, f"{type(error).__name__}: {error}")
            return Verdict(entry), True
        return verdict, course.dirty or not await settled(made)

    def _report(self, verdict: Verdict) -> None:
        done = sum(not state.repeat for state in recording.states(self.directory).values())
        missing = len(self.missing())
        left = missing * statistics.fmean(self.took[-10:])
        self.say(f"{done:3}/{done + missing} {verdict.line()} · {left / 3600:.1f} h left")
        self.written(verdict.entry)


async def settled(made: World) -> bool:
    """Whether the clients are served again, for three seconds on end, and the replica has replayed what there was.

    The next run needs a world that is well: a replica that is still at the last run's WAL would tell which one it was.
    """
    deadline = time.time() + RETURN_SECONDS
    while time.time() < deadline:
        await asyncio.sleep(1)
        if made.primary.running and recording.served(made, SETTLED_SECONDS) and await _replayed(made):
            return True
    return False


async def _replayed(made: World) -> bool:
    if made.replica is None:
        return True
    if not made.replica.running:
        return False
    try:
        rows = await made.sql(BEHIND)
    except LOST:
        return False
    return bool(rows) and all(row["behind"] is not None and row["behind"] < REPLAY_BYTES for row in rows)


def _enough_disk() -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < FREE_BYTES:
        raise LabError(
            f"{tempfile.gettempdir()} has {free / 2**30:.1f} GiB left and the servers need 4; make room or set TMPDIR"
        )


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Nobody else records into `directory` meanwhile; LabError when somebody does."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another lab is recording into {directory}; let it end, or stop it") from None
        yield


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C does: servers stopped, what is recorded kept."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
