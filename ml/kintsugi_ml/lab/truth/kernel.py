"""What the kernel knows: pressure, CPUs, the disk, and the primary's control group, as raw counters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from kintsugi_ml.lab.cgroups import ROOT

TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
MILLISECOND: Final = 1e-3
MICROSECOND: Final = 1e-6
NANOSECOND: Final = 1e-9

Values = Mapping[str, float]


class Kernel:
    """Reads all there is in well under a millisecond; a file that is not there leaves its columns out."""

    def __init__(self, device: str, group: str | None, proc: Path = Path("/proc"), root: Path = ROOT) -> None:
        """`device` is the disk ("254:0"), `group` the primary's control group ("kintsugi-lab/primary")."""
        self._device = device.split(":")
        self._proc = proc
        self._root, self._group = root, group
        readers: list[Callable[[], Iterator[tuple[str, float]]]] = [self._pressure, self._cpu, self._disk]
        readers += [self._group_cpu, self._group_memory, self._group_io] if group is not None else [self._memory]
        self._readers = readers

    def read(self) -> dict[str, float]:
        """All raw columns, now."""
        values: dict[str, float] = {}
        for reader in self._readers:
            try:
                values.update(reader())
            except FileNotFoundError:  # no such controller, or the group is being removed: missing
                continue
        return values

    def _pressure(self) -> Iterator[tuple[str, float]]:
        for name in ("cpu", "memory", "io"):
            some = (self._proc / "pressure" / name).read_text().split("\n", 1)[0]
            yield f"{name}_pressure", int(some.rpartition("total=")[2]) * MICROSECOND

    def _cpu(self) -> Iterator[tuple[str, float]]:
        with (self._proc / "stat").open() as file:
            spent = [int(field) for field in file.readline().split()[1:9]]
        yield "cpu_all", sum(spent) * TICK
        yield "cpu_busy", (sum(spent) - spent[3] - spent[4]) * TICK  # all but idle and waiting for I/O

    def _disk(self) -> Iterator[tuple[str, float]]:
        for line in (self._proc / "diskstats").read_text().splitlines():
            fields = line.split()
            if fields[:2] == self._device:
                # https://docs.kernel.org/admin-guide/iostats.html: reads, writes, their milliseconds, milliseconds busy
                yield "disk_operations", float(int(fields[3]) + int(fields[7]))
                yield "disk_seconds", (int(fields[6]) + int(fields[10])) * MILLISECOND
                yield "disk_busy", int(fields[12]) * MILLISECOND

    def _memory(self) -> Iterator[tuple[str, float]]:
        known = _pairs((self._proc / "meminfo").read_text())
        yield "memory_taken", 1 - known["MemAvailable:"] / known["MemTotal:"]

    def _group_cpu(self) -> Iterator[tuple[str, float]]:
        yield "group_cpu", int((self._at("cpuacct") / "cpuacct.usage").read_text()) * NANOSECOND
        yield "cpu_throttled", _pairs((self._at("cpu") / "cpu.stat").read_text())["throttled_time"] * NANOSECOND

    def _group_memory(self) -> Iterator[tuple[str, float]]:
        known = _pairs((self._at("memory") / "memory.stat").read_text())
        yield "cache_refaults", known.get("total_workingset_refault_file", float("nan"))
        yield "memory_taken", known["total_rss"] / known["hierarchical_memory_limit"]

    def _group_io(self) -> Iterator[tuple[str, float]]:
        text = (self._at("blkio") / "blkio.throttle.io_service_bytes").read_text()
        yield "group_io", float(text.rpartition("Total")[2])

    def _at(self, controller: str) -> Path:
        return self._root / controller / str(self._group)


def _pairs(text: str) -> dict[str, int]:
    return {fields[0]: int(fields[1]) for line in text.splitlines() if len(fields := line.split()) >= 2}
