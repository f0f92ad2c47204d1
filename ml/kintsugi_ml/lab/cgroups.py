"""Control groups (v1): a disk, a memory and CPUs as small as a cloud's, and who used how much CPU.

A fast NVMe disk hides what checkpoints, WAL flushes and a cold cache cost; a limit on the group gives the database a
disk like the ones it has in production. https://docs.kernel.org/admin-guide/cgroup-v1/blkio-controller.html
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "memory", "blkio", "freezer")
PARENT = f"kintsugi-lab/{os.getpid()}"
"""Each process has groups of its own: whoever ends his kills nobody else's."""


def unavailable() -> str | None:
    """Why this machine can't limit a process group's disk, memory and CPU; None where it can."""
    if os.geteuid() != 0:
        return "control groups need root"
    missing = [name for name in CONTROLLERS if not (ROOT / name / "cgroup.procs").exists()]
    if missing:
        return f"this kernel offers no cgroup v1 controller {', '.join(missing)} under {ROOT}"
    return None


@dataclass(frozen=True, slots=True)
class Disk:
    """What a disk does at most; bytes and operations per second."""

    read_bytes: float
    write_bytes: float
    read_operations: float
    write_operations: float

    def times(self, factor: float) -> Disk:
        """A disk `factor` times as fast."""
        return Disk(
            self.read_bytes * factor,
            self.write_bytes * factor,
            self.read_operations * factor,
            self.write_operations * factor,
        )


@dataclass(frozen=True, slots=True)
class Group:
    """One control group in every controller; `name` is `kintsugi-lab/<pid>/<something>`."""

    name: str

    @classmethod
    def make(cls, name: str) -> Group:
        """Make it (fine when it is there)."""
        for controller in CONTROLLERS:
            (ROOT / controller / PARENT / name).mkdir(parents=True, exist_ok=True)
        return cls(f"{PARENT}/{name}")

    def add(self, pid: int) -> None:
        """Move a process; its later children are born in the group."""
        for controller in CONTROLLERS:
            self._write(controller, "cgroup.procs", pid)

    def disk(self, disk: Disk, device: str) -> None:
        """Limit reads and writes of `device` ("254:0"); writes count when they are flushed by the group's processes."""
        for operation in ("read", "write"):
            for kind, value in (("bps", f"{operation}_bytes"), ("iops", f"{operation}_operations")):
                name = f"blkio.throttle.{operation}_{kind}_device"
                self._write("blkio", name, f"{device} {max(1, int(getattr(disk, value)))}")

    def memory(self, limit: int) -> None:
        """Limit memory, page cache included, to so many bytes; -1 for none."""
        self._write("memory", "memory.limit_in_bytes", limit)

    def memory_used(self) -> int:
        """Bytes in use, page cache included."""
        return int((ROOT / "memory" / self.name / "memory.usage_in_bytes").read_text())

    @property
    def memory_statistics(self) -> Path:
        """The kernel's file on what the memory is used for."""
        return ROOT / "memory" / self.name / "memory.stat"

    def memory_fixed(self) -> int:
        """Bytes in use that can't be reclaimed here, without swap: processes' own and shared memory."""
        lines = self.memory_statistics.read_text().splitlines()
        statistics = {name: int(value) for name, value in (line.split() for line in lines)}
        return statistics["total_rss"] + statistics["total_shmem"]

    def process_files(self) -> list[Path]:
        """What a process writes its number to, to enter the group; see `add`."""
        return [ROOT / controller / self.name / "cgroup.procs" for controller in CONTROLLERS]

    def drop_page_cache(self) -> None:
        """Reclaim all page cache of the group that can be reclaimed."""
        with contextlib.suppress(OSError):  # EBUSY: something stayed, which is as good as it gets
            self._write("memory", "memory.force_empty", 0)

    def cpu_shares(self, shares: int) -> None:
        """Weight against other groups when CPUs are short; 1024 is the default."""
        self._write("cpu", "cpu.shares", shares)

    def cpu_quota(self, cpus: float | None) -> None:
        """At most so many CPUs; None for no limit."""
        self._write("cpu", "cpu.cfs_quota_us", -1 if cpus is None else max(1000, int(cpus * 100_000)))

    def cpu_used(self) -> float:
        """CPU seconds since the group was made, its ended processes included."""
        return int((ROOT / "cpuacct" / self.name / "cpuacct.usage").read_text()) / 1e9

    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(pid) for pid in (ROOT / "cpu" / self.name / "cgroup.procs").read_text().split()]

    def kill(self) -> None:
        """SIGKILL everything in it, and wait until it is gone."""
        deadline = time.monotonic() + 10
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def remove(self) -> None:
        """Kill what is left and remove the group."""
        self.kill()
        for controller in CONTROLLERS:
            with contextlib.suppress(OSError):  # a zombie may hold it; an empty group harms nobody
                (ROOT / controller / self.name).rmdir()

    def _write(self, controller: str, name: str, value: object) -> None:
        (ROOT / controller / self.name / name).write_text(str(value))


def device_of(path: Path) -> str:
    """The disk that holds `path`, as `major:minor`; a partition's whole disk."""
    number = path.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    for disk in Path("/sys/block").iterdir():
        if (disk / "dev").read_text().strip() == name or any(
            (part / "dev").read_text().strip() == name for part in disk.glob(f"{disk.name}*") if (part / "dev").exists()
        ):
            return (disk / "dev").read_text().strip()
    # The root file system of a virtual machine may report another number than its only disk.
    disks = [disk for disk in Path("/sys/block").iterdir() if disk.name.startswith(("vd", "sd", "nvme", "xvd"))]
    return (disks[0] / "dev").read_text().strip() if disks else name


def forget_files(directory: Path) -> None:
    """Drop the cached pages of all files below `directory`, whichever group they count for; unsaved ones stay.

    A page counts for the group of who read or wrote it first, until it is dropped.
    """
    for path in directory.rglob("*"):
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # a link, or gone meanwhile
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            continue  # not a file that has pages
        finally:
            os.close(file)


def busy_seconds() -> float:
    """CPU seconds that this machine has been busy since it started, all processes and the kernel."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def parent_used() -> float:
    """CPU seconds of all the lab's groups together."""
    return int((ROOT / "cpuacct" / PARENT / "cpuacct.usage").read_text()) / 1e9


def remove_parent() -> None:
    """Remove this process' own parent group, once all in it are gone."""
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):
            (ROOT / controller / PARENT).rmdir()


@contextlib.contextmanager
def group(name: str) -> Iterator[Group]:
    """A group for as long as it is needed."""
    made = Group.make(name)
    try:
        yield made
    finally:
        made.remove()
