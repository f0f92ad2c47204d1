"""What the end-to-end tests share: one stand (`kintsugi_dev.stand`), and one operator that every test may kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kintsugi_dev.servers import server_directory
from kintsugi_dev.stand import Case, Operator, Stand, stand


@pytest.fixture(scope="session")
def the_stand() -> Iterator[Stand]:
    """Everything that runs, without the operator."""
    with server_directory("kintsugi-e2e-") as directory, stand(directory) as running:
        yield running


@pytest.fixture(scope="session")
def one_operator(the_stand: Stand) -> Iterator[Operator]:
    """The run's operator, not started yet."""
    operator = Operator(the_stand)
    try:
        yield operator
    finally:
        operator.kill()


@pytest.fixture
def operator(one_operator: Operator) -> Operator:
    """The running operator; a test may kill it, the next one finds it running again."""
    one_operator.start()
    return one_operator


@pytest.fixture
def space(the_stand: Stand, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace; its databases are gone before the next test begins."""
    readable = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    name = the_stand.namespace(readable.removeprefix("test-"))
    try:
        yield name
    finally:
        the_stand.close_namespace(name)


@pytest.fixture
def case(the_stand: Stand, operator: Operator, space: str) -> Case:
    """A lane and a namespace, the operator running; `case.watched()` waits for calm and puts a database under care."""
    return Case(the_stand, operator, the_stand.calmest_lane(), space)
