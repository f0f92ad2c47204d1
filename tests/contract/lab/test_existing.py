"""The lab on a PostgreSQL that somebody else runs: it takes nothing that is not its own, and leaves no door open."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import quote

import asyncpg
import pytest

from kintsugi_dev.servers import PostgreSQL, server_directory
from kintsugi_ml.lab import dataset, session
from kintsugi_ml.lab.existing import ExistingError, claimed
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.run import Timing
from kintsugi_ml.lab.session import Session

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """Somebody's server."""
    with server_directory() as directory, PostgreSQL.start(directory, settings={"max_connections": 60}) as running:
        yield running


def test_a_database_that_the_lab_did_not_make_is_refused_untouched(server: PostgreSQL, tmp_path: Path) -> None:
    server.execute("CREATE DATABASE lab")
    with (
        pytest.raises(ExistingError, match=r"the database lab at .* was not made by the lab.*--i-own-this-database"),
        claimed(tmp_path / "ours", server.dsn(), "lab", "app", owned=False),
    ):
        pytest.fail("it was claimed")
    assert server.value("SELECT count(*) FROM pg_roles WHERE rolname = 'app'") == 0


def test_a_role_that_the_lab_did_not_make_is_refused_and_its_password_stays(server: PostgreSQL, tmp_path: Path) -> None:
    server.execute("CREATE ROLE app LOGIN PASSWORD 'theirs'")
    before = server.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    with (
        pytest.raises(ExistingError, match="the role app"),
        claimed(tmp_path / "ours", server.dsn(), "lab", "app", owned=False),
    ):
        pytest.fail("it was claimed")
    assert server.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'") == before
    assert server.value("SELECT count(*) FROM pg_database WHERE datname = 'lab'") == 0


def test_its_owner_may_say_that_it_can_be_taken(server: PostgreSQL, tmp_path: Path) -> None:
    server.execute("CREATE DATABASE lab")
    with claimed(tmp_path / "ours", server.dsn(), "lab", "app", owned=True) as taken:
        assert taken.value("SELECT count(*) FROM pg_database WHERE datname = 'lab'") == 1


def test_what_the_lab_made_it_takes_again_and_between_two_calls_nobody_can_log_in(
    server: PostgreSQL, tmp_path: Path
) -> None:
    for _ in range(2):
        with claimed(tmp_path / "ours", server.dsn(), "lab", "app", owned=False) as taken:
            taken.execute("ALTER ROLE app LOGIN PASSWORD 'app'")
            assert taken.fetch("SELECT 1 AS one", database="lab", user="app", password="app") == [{"one": 1}]
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="not permitted to log in"):
            server.fetch("SELECT 1", database="lab", user="app", password="app")
    assert server.running


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://root@127.0.0.1/x", "no URL like"),
        ("postgresql:///postgres", "no URL like"),
        ("postgresql://postgres:secret@127.0.0.1:1/postgres", "127.0.0.1:1 can't be used"),
    ],
)
def test_a_url_that_leads_nowhere_says_so_without_the_password(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExistingError, match=message) as refused, claimed(tmp_path, url, "lab", "app", owned=False):
        pytest.fail("it was claimed")
    assert "secret" not in str(refused.value)


def test_a_login_that_is_no_superuser_is_refused(server: PostgreSQL, tmp_path: Path) -> None:
    server.execute("CREATE ROLE somebody LOGIN PASSWORD 'p:w'")
    url = server.dsn("postgres", "somebody", "p:w").replace(quote("p:w"), quote("p:w", safe=""))
    with pytest.raises(ExistingError, match="no superuser"), claimed(tmp_path, url, "lab", "app", owned=False):
        pytest.fail("it was claimed")


@pytest.mark.slow
def test_a_fault_is_recorded_on_it_and_what_needs_its_files_is_skipped_with_the_reason(
    server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(random: Random, form: str) -> Timing:
        del random, form
        return Timing(settle=2.0, normal=10.0, fault=8.0, ramp=0.0, after=6.0)

    monkeypatch.setattr(session, "WARM_SECONDS", 2.0)
    monkeypatch.setattr("kintsugi_ml.lab.recording.VOID_SHARE", math.inf)
    server.stop()
    server.settings["shared_preload_libraries"] = "pg_stat_statements"
    server.launch()
    runs = [
        Planned(name, name, "abrupt", "keyvalue", "low", "steady", 0.6, 1, "right", 15)
        for name in ("lock-contention", "cold-cache", "replica-lost")
    ]

    Session(tmp_path / "set", runs, print, url=server.dsn(), draw=short).go()

    found = {entry.id: entry for entry in dataset.entries(tmp_path / "set")}
    assert found["lock-contention"].status == "counts"
    assert found["cold-cache"].reason is not None
    assert "this server was not started by the lab" in found["cold-cache"].reason
    assert (found["replica-lost"].status, found["replica-lost"].onsets) == ("skipped", {})
    assert server.running
