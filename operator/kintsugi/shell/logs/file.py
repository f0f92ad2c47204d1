"""A log in files: one, those of a pattern, or a directory's; rotated by renaming, truncating or a new name.

A file is known by its inode, and by its first bytes, since a truncated file keeps its inode.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.engines.postgresql.logs.records import Decoder
from kintsugi.shell.logs.source import Batch, LogError, Mark, NewDecoder, Position, known_from

READ_BYTES: Final = 1 << 20
"""Read at once at most; what is left comes with the next batch."""
CHUNK: Final = 256 << 10
HISTORY_BYTES: Final = 8 << 20
"""Of a file that was never read before, its end."""
MOST_BEHIND: Final = 32 << 20
"""Who is further behind leaves lines out, and says so."""
MOST_FILES: Final = 32
"""Of more files the newest."""
HEAD: Final = 512
"""Bytes that a file is known by: several lines, so that two files don't begin alike."""
TOLD: Final = 64
"""Of a smaller file that was truncated so many are enough: time and process of its first line."""
PACKED: Final = (".gz", ".xz", ".zst", ".bz2", ".lz4", ".zip")
SUFFIXES: Final[Mapping[str, str]] = {"jsonlog": ".json", "csvlog": ".csv", "stderr": ".log"}
"""What PostgreSQL's logging collector calls its files."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    key: str
    size: int
    changed: int


@dataclass(slots=True)
class _Tail:
    """One file being read.

    `fed` bytes were given to the decoder, or skipped, which `skipped` says until the next line. `head` is the checksum
    of the first `headed` bytes, `seen` size and time when it was last read.
    """

    decoder: Decoder
    fed: int
    head: int = 0
    headed: int = 0
    seen: tuple[int, int] = (-1, -1)
    skipped: bool = False

    def begins(self, head: bytes) -> bool:
        """Whether a file with these first bytes begins as this one did when it was read."""
        return self.headed <= len(head) and zlib.crc32(head[: self.headed]) == self.head

    @property
    def mark(self) -> Mark:
        return (self.fed - self.decoder.pending, self.head, self.headed)


@dataclass(slots=True)
class _Reading:
    """One batch being put together."""

    budget: int
    lines: list[Line] = field(default_factory=list)
    more: bool = False
    begins: float | None = None


class FileLog:
    """The log at `path`: a file (with what it is rotated to), a pattern in its last part, or a directory."""

    every = 0.0

    def __init__(self, path: str, format_: str, new_decoder: NewDecoder, root: str | None = None) -> None:
        self._path = Path(path)
        self._suffix = SUFFIXES[format_]
        self._new = new_decoder
        self._root = Path(root or self._path.anchor)
        self._tails: dict[str, _Tail] = {}
        self._position: Position | None = None

    async def read(self, since: Position) -> Batch:
        """What was written since.

        Raises:
            LogError: there is no such file, or it may not be read.
        """
        return await asyncio.to_thread(self._read, since)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, since: Position) -> Batch:
        began = time.time()
        try:
            files = self._files()
            self._follow(since, files)
            self._position = None  # until this batch is whole: what fails is read again
            reading = _Reading(READ_BYTES)
            junk = -sum(tail.decoder.junk for tail in self._tails.values())
            for tail in self._tails.values():
                tail.decoder.zone = ""
            for file in files:
                if file.key in self._tails:
                    self._read_on(file, reading)
            zone = next((tail.decoder.zone for tail in self._tails.values() if tail.decoder.zone), "")
            junk += sum(tail.decoder.junk for tail in self._tails.values())
            self._forget({file.key for file in files}, reading)
        except OSError as error:
            raise LogError(
                "LogUnreadable", f"{self._path} can't be read ({error.strerror}); check the path and its permissions"
            ) from error
        lines = reading.lines
        self._position = Position(since.since, {key: tail.mark for key, tail in self._tails.items()})
        until = began if not reading.more else max((line.time for line in lines), default=since.since)
        begins = known_from(reading.begins, (tail.decoder for tail in self._tails.values()))
        return Batch(tuple(lines), self._position, min(until, began), reading.more, begins, max(junk, 0), zone)

    def _files(self) -> list[_File]:
        """The regular files, oldest first.

        Raises:
            LogError: there are none.
        """
        found = [file for path in self._candidates() if (file := _looked_at(path, self._root))]
        if not found:
            raise LogError(
                "NoLogFile",
                f"there is no readable log at {self._path}; check spec.logs.file.path, that logging_collector is on, "
                "and that the volume is mounted into the operator's pod",
            )
        return sorted(found, key=lambda file: file.changed)[-MOST_FILES:]

    def _candidates(self) -> Iterator[Path]:
        if self._path.is_dir():
            yield from self._path.glob(f"*{self._suffix}")
        elif any(sign in self._path.name for sign in "*?["):
            yield from self._path.parent.glob(self._path.name)
        else:
            yield from self._path.parent.glob(_literal(self._path.name) + "*")

    def _follow(self, since: Position, files: Sequence[_File]) -> None:
        """A tail for each file: where it was, or where a new one begins."""
        if since != self._position:
            self._tails = {
                key: _Tail(self._new(since.since), mark[0], mark[1], mark[2]) for key, mark in since.marks.items()
            }
        first = not self._tails
        for file in files:
            if file.key in self._tails or (not first and self._copied(file, files, since.since)):
                continue
            start, skipped = _history(file, since.since) if first else (0, False)
            self._tails[file.key] = _Tail(self._new(since.since), start, skipped=skipped)

    def _copied(self, file: _File, files: Sequence[_File], since: float) -> bool:
        """Whether a file that was not there before begins as another one does: it is a copy of that.

        A copy is left alone until the other one is truncated (logrotate's copytruncate), and then read on in its place.
        So is one that is only being made, and an empty file, which may become one.
        """
        head, present = _beginning(file), {one.key: one for one in files}
        for key, tail in self._tails.items():
            original = present.get(key)
            began = _beginning(original) if original else b""
            if original and original.size >= tail.fed and tail.begins(began):
                if began.startswith(head):
                    return True
            elif tail.headed >= TOLD and tail.begins(head):
                self._tails[file.key] = replace(tail, fed=min(tail.fed, file.size), seen=(-1, -1))
                self._tails[key] = _Tail(self._new(since), 0)
                return True
        return False

    def _read_on(self, file: _File, reading: _Reading) -> None:
        tail = self._tails[file.key]
        if tail.seen == (file.size, file.changed) and tail.fed == file.size:
            reading.lines += tail.decoder.idle()
            return
        with os.fdopen(os.open(file.path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as opened:
            head = opened.read(HEAD) or b""
            if file.size < tail.fed or (tail.headed and zlib.crc32(head[: tail.headed]) != tail.head):
                tail = self._anew(file, 0, reading)
            elif file.size - tail.fed > MOST_BEHIND:
                tail = self._anew(file, file.size - READ_BYTES, reading)
            tail.head, tail.headed, tail.seen = zlib.crc32(head), len(head), (file.size, file.changed)
            opened.seek(tail.fed)
            while reading.budget > 0 and (chunk := opened.read(min(CHUNK, reading.budget))):
                reading.budget -= len(chunk)
                tail.fed += len(chunk)
                _take(tail, tail.decoder.feed(chunk), reading)
        reading.more |= tail.fed < file.size

    def _anew(self, file: _File, start: int, reading: _Reading) -> _Tail:
        """Read a file from another place on; what its end began is all there was."""
        old = self._tails[file.key]
        _take(old, old.decoder.end(), reading)
        tail = self._tails[file.key] = _Tail(self._new(old.decoder.since), start, skipped=start > 0)
        return tail

    def _forget(self, present: set[str], reading: _Reading) -> None:
        """Files that are gone: what they began is all there is."""
        for key in set(self._tails) - present:
            reading.lines += self._tails.pop(key).decoder.end()


def _take(tail: _Tail, lines: list[Line], reading: _Reading) -> None:
    if tail.skipped and lines:
        reading.begins = max(reading.begins or 0.0, lines[0].time)
        tail.skipped = False
    reading.lines += lines


def _looked_at(path: Path, root: Path) -> _File | None:
    """A file that may be read; None for anything else, and for what links out of `root`."""
    if path.name.endswith(PACKED) or not path.resolve().is_relative_to(root.resolve()):
        return None
    try:
        known = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(known.st_mode):
        return None
    return _File(path, f"{known.st_dev}:{known.st_ino}", known.st_size, known.st_mtime_ns)


def _beginning(file: _File) -> bytes:
    """The first bytes of a file; none of one that is gone by now."""
    try:
        with os.fdopen(os.open(file.path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as opened:
            return opened.read(HEAD) or b""
    except FileNotFoundError:
        return b""


def _history(file: _File, since: float) -> tuple[int, bool]:
    """Where the first read of a file begins, and whether wanted lines may stand before."""
    if file.changed / 1e9 < since:
        return file.size, False
    start = max(0, file.size - HISTORY_BYTES)
    return start, start > 0


def _literal(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
