"""A log in files: rotated in every way, cut, huge, gone, and read on after a restart without a loss or a repetition."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kintsugi.engines.postgresql.logs.formats import decoder
from kintsugi.shell.logs import file as module
from kintsugi.shell.logs.file import FileLog
from kintsugi.shell.logs.source import Batch, LogError, Position

NOW = time.time()


def a_line(word: str, *, age: float = 0.0, zone: str = "UTC") -> bytes:
    when = datetime.fromtimestamp(NOW - age, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    fields = {
        "timestamp": f"{when} {zone}",
        "error_severity": "LOG",
        "state_code": "00000",
        "message": f"statement: SELECT {word}",
    }
    return json.dumps(fields).encode() + b"\n"


def said(batch: Batch) -> list[str]:
    return [line.template.removeprefix("statement: SELECT ") for line in batch.lines]


class Reader:
    """A source and where it stands."""

    def __init__(self, path: Path, root: str | None = None, since: float = NOW - 600) -> None:
        self.path, self.root = path, root
        self.position = Position(since)
        self.restart()

    def restart(self) -> None:
        """As after a restart of the operator: only the position's text is left."""
        self.source = FileLog(str(self.path), "jsonlog", lambda since: decoder("jsonlog", None, since), self.root)
        self.position = Position.load(self.position.dump())

    async def batch(self) -> Batch:
        batch = await self.source.read(self.position)
        self.position = batch.position
        return batch

    async def words(self) -> list[str]:
        return said(await self.batch())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "server.json"
    path.write_bytes(a_line("one"))
    return path


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def append(path: Path, *words: str) -> None:
    with path.open("ab") as file:
        file.write(b"".join(a_line(word) for word in words))


@pytest.mark.parametrize("restart", [False, True])
async def test_only_what_is_new_is_read(log: Path, restart: bool) -> None:
    reader = Reader(log)
    assert await reader.words() == ["one"]
    append(log, "two", "three")
    if restart:
        reader.restart()
    assert await reader.words() == ["two", "three"]
    assert await reader.words() == []


@pytest.mark.parametrize("restart", [False, True])
async def test_half_a_line_is_given_out_when_its_end_is_written(log: Path, restart: bool) -> None:
    reader, whole = Reader(log), a_line("two")
    with log.open("ab") as file:
        file.write(whole[:20])
    assert await reader.words() == ["one"]
    if restart:
        reader.restart()
    with log.open("ab") as file:
        file.write(whole[20:])
    assert await reader.words() == ["two"]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_file_that_is_renamed_is_read_to_its_end_and_then_the_new_one(log: Path, restart: bool) -> None:
    reader = Reader(log)
    await reader.batch()
    append(log, "two")
    os.rename(log, log.with_name("server.json.1"))  # noqa: PTH104
    os.utime(log.with_name("server.json.1"), (NOW - 1, NOW - 1))
    write(log, a_line("three"))
    if restart:
        reader.restart()
    assert await reader.words() == ["two", "three"]


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_truncated_file_is_read_from_its_beginning(log: Path, restart: bool, longer: bool) -> None:
    reader = Reader(log)
    await reader.batch()
    write(log, a_line("anew", age=-1) * (5 if longer else 1))
    if restart:
        reader.restart()
    assert await reader.words() == ["anew"] * (5 if longer else 1)


async def test_a_directory_is_followed_from_one_days_file_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "postgresql-Sat.json").write_bytes(a_line("one"))
    reader = Reader(tmp_path)
    await reader.batch()
    (tmp_path / "postgresql-Sun.json").write_bytes(a_line("two"))
    (tmp_path / "postgresql-Sun.log").write_text("not this one")
    assert await reader.words() == ["two"]


async def test_a_pattern_picks_files(tmp_path: Path) -> None:
    for name in ("a-1.json", "a-2.json", "b-1.json"):
        (tmp_path / name).write_bytes(a_line(name))
    assert sorted(await Reader(tmp_path / "a-*.json").words()) == ["a-#", "a-#"]


async def test_a_packed_file_is_not_read(log: Path) -> None:
    log.with_name("server.json.1.gz").write_bytes(a_line("packed"))
    assert await Reader(log).words() == ["one"]


async def test_old_lines_and_old_files_are_left_out(log: Path) -> None:
    append(log, "two")
    old = log.with_name("server.json.1")
    write(old, a_line("old", age=5))
    os.utime(old, (NOW - 9999, NOW - 9999))
    write(log, a_line("before", age=900) + a_line("within", age=300))
    assert await Reader(log).words() == ["within"]


async def test_a_large_file_is_read_in_parts_and_memory_stays_small(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_BYTES", 4096)
    monkeypatch.setattr(module, "CHUNK", 512)
    words = [f"w{letter}" for letter in "abcdefghij" * 20]
    write(log, b"".join(a_line(word) for word in words))
    reader, found = Reader(log), list[str]()
    batch = await reader.batch()
    assert batch.more
    while batch.more:
        found += said(batch)
        batch = await reader.batch()
    assert found + said(batch) == words


async def test_who_is_too_far_behind_leaves_out_and_says_from_when_on_it_is_whole(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_BYTES", 1000)
    monkeypatch.setattr(module, "MOST_BEHIND", 2000)
    reader = Reader(log)
    await reader.batch()
    write(log, a_line("one") + b"".join(a_line("many", age=100 - n) for n in range(100)))
    batch = await reader.batch()
    assert 0 < len(batch.lines) < 20
    assert batch.complete_since == batch.lines[0].time > NOW - 20


async def test_of_a_large_file_never_read_only_the_end_is_history(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY_BYTES", 500)
    write(log, b"".join(a_line("many", age=100 - n) for n in range(100)))
    batch = await Reader(log).batch()
    assert 0 < len(batch.lines) < 10
    assert batch.complete_since == batch.lines[0].time


async def test_binary_junk_is_counted_and_survived(log: Path) -> None:
    write(log, b"\x00\xff\xfe\n" * 3 + a_line("one"))
    batch = await Reader(log).batch()
    assert batch.junk == 3
    assert said(batch) == ["one"]


async def test_everything_is_known_up_to_now(log: Path) -> None:
    began = time.time()
    assert began <= (await Reader(log).batch()).until <= time.time()


async def test_a_missing_log_says_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"no readable log at .*; check spec.logs.file.path"):
        await Reader(tmp_path / "server.json").batch()


async def test_an_unknown_time_zone_is_told_and_what_follows_it_is_read(log: Path) -> None:
    with log.open("ab") as file:
        file.write(a_line("two", zone="CEST"))
    reader = Reader(log)
    batch = await reader.batch()
    assert "log_timezone = 'UTC'" in batch.zone
    assert (said(batch), batch.junk) == (["one"], 1)

    append(log, "three")
    batch = await reader.batch()
    assert (batch.zone, said(batch)) == ("", ["three"])


async def test_lines_in_an_unknown_zone_before_others_are_no_trouble_any_more(log: Path) -> None:
    write(log, a_line("old", zone="CEST") * 50 + a_line("new"))
    batch = await Reader(log).batch()
    assert (batch.zone, said(batch), batch.junk) == ("", ["new"], 50)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("seen_before_it_was_truncated", [False, True])
async def test_a_copy_of_a_log_that_is_truncated_is_not_counted_again(
    log: Path, restart: bool, seen_before_it_was_truncated: bool
) -> None:
    """What logrotate does with `copytruncate`, as Debian's rule for PostgreSQL has it."""
    words = [f"{number} of the old ones" for number in range(30)]
    append(log, *words)
    reader = Reader(log)
    assert await reader.words() == ["one", *("# of the old ones" for _ in words)]
    append(log, "written before the copy")
    copy = log.with_name("server.json.1")
    shutil.copy(log, copy)
    found = []
    if seen_before_it_was_truncated:
        found += await reader.words()
    if restart:
        reader.restart()
    write(log, b"")
    append(log, "after it")
    for _ in range(2):
        found += await reader.words()
    assert found.count("after it") == 1
    assert found.count("# of the old ones") == 0
    assert found.count("written before the copy") == 1


async def test_a_copy_that_is_only_being_made_is_not_read(log: Path) -> None:
    whole = b"".join(a_line(f"{number} of the old ones") for number in range(30))
    write(log, whole)
    reader, copy = Reader(log), log.with_name("server.json.1")
    await reader.batch()
    for part in (0, 20, 700, len(whole) - 30, len(whole)):
        write(copy, whole[:part])
        assert await reader.words() == []
    write(log, b"")
    assert await reader.words() == []
    append(log, "after it")
    assert await reader.words() == ["after it"]


async def test_the_copy_of_a_log_with_a_single_line_is_not_counted_again(log: Path) -> None:
    reader = Reader(log)
    assert await reader.words() == ["one"]
    shutil.copy(log, log.with_name("server.json.1"))
    write(log, b"")
    assert await reader.words() == []


async def test_a_copy_that_somebody_keeps_does_not_hide_the_log(log: Path) -> None:
    append(log, *(f"{number} of the old ones" for number in range(30)))
    shutil.copy(log, log.with_name("server.json.kept"))
    reader = Reader(log)
    await reader.batch()
    append(log, "two")
    shutil.copy(log, log.with_name("server.json.later"))
    assert await reader.words() == ["two"]
    append(log, "three")
    assert await reader.words() == ["three"]


async def test_what_was_logged_in_an_unknown_zone_is_a_gap(log: Path) -> None:
    write(log, a_line("old", age=50, zone="CEST") * 50 + a_line("new", age=20) + a_line("newer", age=10))
    batch = await Reader(log).batch()
    assert batch.complete_since == pytest.approx(NOW - 20, abs=0.01)


async def test_what_links_out_of_the_allowed_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "secret.json").write_bytes(a_line("secret"))
    (tmp_path / "logs" / "server.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(LogError, match="no readable log"):
        await Reader(tmp_path / "logs", root=str(tmp_path / "logs")).batch()


async def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "server.json")
    with pytest.raises(LogError, match="no readable log"):
        await Reader(tmp_path / "server.json").batch()


def test_a_position_that_is_none_is_refused() -> None:
    with pytest.raises(LogError, match="no position"):
        Position.load("[1]")
