"""Helpers of the faults around the database: processes that use up what it needs."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kintsugi_dev.servers.process import Process
from kintsugi_ml.lab import cgroups
from kintsugi_ml.lab.cgroups import Group

if TYPE_CHECKING:
    from kintsugi_ml.lab.world import World

SCRIPT: Final = Path(__file__).with_name("hog_process.py")


class Hogs:
    """Processes of `hog_process.py` in one control group; they end with `kill`, or with us."""

    def __init__(self, group: Group, directory: Path) -> None:
        self._group = group
        self._directory = directory
        self._processes: list[Process] = []

    def __len__(self) -> int:
        return sum(process.running for process in self._processes)

    async def start(self, *arguments: str | float | Path, source: Sequence[str | Path] = ()) -> None:
        """One more, with the script's arguments; `source` is a command whose output, again and again, is its input."""
        command = [str(part) for part in (sys.executable, "-I", "-S", SCRIPT, *arguments)]
        if source:
            endless = f"while :; do {shlex.join(map(str, source))}; done | {shlex.join(command)}"
            command = ["sh", "-c", endless]
        # The group is entered before anything is done, so that no process and no page is counted elsewhere.
        enter = "".join(f"echo $$ > {file}; " for file in self._group.process_files())
        command = ["sh", "-c", f'{enter}exec "$@"', "hog", *command]
        name = f"hog {arguments[0]}"
        self._processes.append(await asyncio.to_thread(Process.start, name, command, log=self._directory / "hogs.log"))

    async def kill(self) -> None:
        """End them all."""
        processes, self._processes = self._processes, []
        for process in processes:
            await asyncio.to_thread(process.kill)


def without_groups(world: World) -> str | None:
    """Why this world can't have a fault that needs control groups; None where it can."""
    if world.groups is not None:
        return None
    reason = cgroups.unavailable() or "this server was not started by the lab"
    return f"this fault needs limits on CPU, memory and disk, but {reason}"
