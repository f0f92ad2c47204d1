"""What a hog does, as a process of its own: run by path, with the standard library only, so that it is tiny.

hog_process.py burn                        use one CPU
hog_process.py memory BYTES BYTES/S        take so much memory, at that pace, then give back and take
hog_process.py copy FILE BYTES/S RAMP JOBS write standard input to FILE in so many threads, past the page cache, at a
pace that is reached after RAMP seconds; FILE stays below 256 MB
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from pathlib import Path

BLOCK = 256 * 1024
FILE_BLOCKS = 1024
TICK_SECONDS = 0.05


def burn() -> None:
    """Use one CPU until killed."""
    while True:
        pass


def take_memory(statistics: Path, limit: int, left: int, pace: float) -> None:
    """Take memory at `pace` bytes per second until its group has `left` bytes of `limit` for cached blocks.

    What other processes of the group need comes first: the hog gives back what they take, so that nobody is killed.
    """
    # Should memory run out all the same, this process is the one to go.
    Path("/proc/self/oom_score_adj").write_text("1000")
    memory = mmap.mmap(-1, limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held = 0
    while True:
        wanted = max(0, held + limit - left - _fixed(statistics)) // BLOCK * BLOCK
        grown = min(wanted, held + max(BLOCK, int(pace * TICK_SECONDS) // BLOCK * BLOCK), limit // BLOCK * BLOCK)
        for start in range(held, grown, BLOCK):
            memory[start : start + BLOCK] = b"x" * BLOCK
        if grown < held:
            memory.madvise(mmap.MADV_DONTNEED, grown, held - grown)
        held = grown
        time.sleep(TICK_SECONDS)


def _fixed(statistics: Path) -> int:
    """Bytes of the group that can't be reclaimed: processes' own, ours among them, and shared ones."""
    values = dict(line.split() for line in statistics.read_text().splitlines())
    return int(values["total_rss"]) + int(values["total_shmem"])


class Copy:
    """Standard input, written by several threads in blocks of 256 kB, each on the disk before the thread's next."""

    def __init__(self, path: Path, pace: float, ramp: float, jobs: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        self._pace, self._ramp, self._jobs = pace, ramp, jobs
        self._reading = threading.Lock()
        self._started = time.monotonic()
        self._due = self._started
        self._number = 0

    def run(self) -> None:
        """Copy until the input ends."""
        threads = [threading.Thread(target=self._work) for _ in range(self._jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        block = mmap.mmap(-1, BLOCK)
        while (number := self._fill(block)) is not None:
            os.pwritev(self._file, [block], number % FILE_BLOCKS * BLOCK)

    def _fill(self, block: mmap.mmap) -> int | None:
        """Read the next block when it is due; its number, or None at the end (a last part of a block is left out)."""
        with self._reading:
            now = time.monotonic()
            level = min(1.0, (now - self._started + 1) / self._ramp) if self._ramp > 0 else 1.0
            # A disk that is too slow for the pace is not caught up with later.
            self._due = max(self._due + BLOCK / (self._pace * level), now - 0.1)
            time.sleep(max(0.0, self._due - now))
            block.seek(0)
            while (left := BLOCK - block.tell()) > 0:
                data = os.read(0, left)  # a pipe gives 64 kB at a time
                if not data:
                    return None
                block.write(data)
            self._number += 1
            return self._number


def main() -> None:
    """Be the hog that the command line names, until killed."""
    kind, *arguments = sys.argv[1:]
    if kind == "burn":
        burn()
    elif kind == "memory":
        take_memory(Path(arguments[0]), int(arguments[1]), int(arguments[2]), float(arguments[3]))
    else:
        Copy(Path(arguments[0]), float(arguments[1]), float(arguments[2]), int(arguments[3])).run()


if __name__ == "__main__":
    main()
