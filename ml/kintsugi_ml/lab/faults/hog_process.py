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
CHURNED = 128 * 2**20
CHURN_SECONDS = 2.0


def burn() -> None:
    """Use one CPU until killed."""
    while True:
        pass


def take_memory(size: int, pace: float) -> None:
    """Touch `size` bytes at `pace` bytes per second; then give a part back and take it again, until killed.

    What is given back fills with cached blocks at once, which have to go again: like a heap that is collected.
    """
    # Should memory run out in spite of all care, this process is the one to go.
    Path("/proc/self/oom_score_adj").write_text("1000")
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _touch(memory, 0, pace)
    kept = max(0, size - CHURNED) // BLOCK * BLOCK
    while True:
        memory.madvise(mmap.MADV_DONTNEED, kept)
        _touch(memory, kept, CHURNED / CHURN_SECONDS)


def _touch(memory: mmap.mmap, first: int, pace: float) -> None:
    started = time.monotonic()
    for start in range(first, len(memory), BLOCK):
        end = min(start + BLOCK, len(memory))
        memory[start:end] = b"x" * (end - start)
        time.sleep(max(0.0, started + (start - first) / pace - time.monotonic()))


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
        take_memory(int(arguments[0]), float(arguments[1]))
    else:
        Copy(Path(arguments[0]), float(arguments[1]), float(arguments[2]), int(arguments[3])).run()


if __name__ == "__main__":
    main()
