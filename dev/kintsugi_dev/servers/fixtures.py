"""pytest fixtures for the servers; each starts when a test first asks for it. Registered in tests/conftest.py."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kintsugi_dev.servers import Database, PostgreSQL, Prometheus, fresh_database, server_directory

VERSIONS = (13, 15, 18)


class PostgresServers:
    """One PostgreSQL per version for the whole run, each started when it is first asked for."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._servers: dict[int, PostgreSQL] = {}

    def version(self, version: int) -> PostgreSQL:
        """The run's server of this major version; started again when a test left it stopped."""
        if version not in self._servers:
            server = PostgreSQL.start(self._directory / f"postgres-{version}", version=version)
            self._servers[version] = self._stack.enter_context(server)
        server = self._servers[version]
        server.launch()
        return server


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[PostgresServers]:
    """The run's PostgreSQL servers by version."""
    with server_directory("kintsugi-tests-") as directory, ExitStack() as stack:
        yield PostgresServers(directory, stack)


@pytest.fixture(scope="session")
def postgres(postgres_servers: PostgresServers) -> PostgreSQL:
    """The run's PostgreSQL 15 with pg_stat_statements. Shared: change nothing that outlives a test but databases."""
    return postgres_servers.version(15)


@pytest.fixture(scope="session")
def postgres13(postgres_servers: PostgresServers) -> PostgreSQL:
    """The run's PostgreSQL 13."""
    return postgres_servers.version(13)


@pytest.fixture(scope="session")
def postgres18(postgres_servers: PostgresServers) -> PostgreSQL:
    """The run's PostgreSQL 18."""
    return postgres_servers.version(18)


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"postgres{version}")
def postgres_of_each_version(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> PostgreSQL:
    """The test runs once per version: 13, 15 and 18."""
    return postgres_servers.version(request.param)


@pytest.fixture
def database(postgres: PostgreSQL) -> Iterator[Database]:
    """A fresh database in the run's PostgreSQL 15, dropped afterwards."""
    with fresh_database(postgres) as fresh:
        yield fresh


@pytest.fixture
def database_of_each_version(postgres_of_each_version: PostgreSQL) -> Iterator[Database]:
    """A fresh database; the test runs once per version."""
    with fresh_database(postgres_of_each_version) as fresh:
        yield fresh


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """A temporary directory that servers can use (pytest's tmp_path is closed to the servers' user)."""
    with server_directory("kintsugi-test-") as directory:
        yield directory


@pytest.fixture
def start_prometheus(server_dir: Path) -> Iterator[Callable[..., Prometheus]]:
    """Start a Prometheus for this test: `start_prometheus({job: Scrape(…)}, …)`, arguments as `Prometheus.start`."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            Prometheus.start(server_dir / f"prometheus-{secrets.token_hex(3)}", *arguments, **options)
        )
