"""A session carries out what is missing, repeats what was spoilt, and begins nothing that can't end well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kintsugi_dev.servers.errors import StartError
from kintsugi_ml.lab import dataset, session
from kintsugi_ml.lab.manifest import Entry
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.session import LabError, Session


def planned(id: str) -> Planned:
    return Planned(id, "deadlocks", "abrupt", "keyvalue", "low", "steady", 0.5, 3, "right", 15)


def test_a_spoilt_run_is_repeated_under_a_number_of_its_own_and_given_up_after_three(
    tmp_path: Path, entry: Callable[..., Entry]
) -> None:
    wanted = Session(tmp_path, [planned("a"), planned("b")], print)
    dataset.write_entry(tmp_path, entry("a", status="void"))
    dataset.write_entry(tmp_path, entry("b", status="gate-failed"))
    assert [one.id for one in wanted.missing()] == ["a.2"]
    dataset.write_entry(tmp_path, entry("a.2", status="crashed"))
    assert [one.id for one in wanted.missing()] == ["a.3"]
    dataset.write_entry(tmp_path, entry("a.3", status="void"))
    assert wanted.missing() == []


def test_two_sessions_do_not_record_into_the_same_place(tmp_path: Path) -> None:
    with session.only_one(tmp_path), pytest.raises(LabError, match="another lab is recording"):
        Session(tmp_path, [], print).go()


def test_without_room_for_the_servers_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FREE_BYTES", 2**60)
    with pytest.raises(LabError, match="make room or set TMPDIR"):
        Session(tmp_path, [planned("a")], print).go()
    assert not dataset.entries(tmp_path)


def test_servers_that_never_start_end_the_session_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def refuse(*_: object, **__: object) -> object:
        nonlocal tries
        tries += 1
        raise StartError("there is no PostgreSQL 15; install Debian's postgresql-15")

    monkeypatch.setattr(session, "world", refuse)
    with pytest.raises(LabError, match="install Debian's postgresql-15"):
        Session(tmp_path, [planned("a"), planned("b")], print).go()
    assert tries == session.ATTEMPTS
    assert dataset.entries(tmp_path) == []
