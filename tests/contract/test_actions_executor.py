"""Carrying out steps on a real PostgreSQL: what each failure is called, and that nothing is guessed or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kintsugi.domain.actions import Step, StepKind
from kintsugi.engines.postgresql.identifiers import quote_identifier, quote_literal
from kintsugi.shell import sql
from kintsugi.shell.errors import ConflictError, UnavailableError
from kintsugi.shell.execute import ADVISORY_LOCK, ProbeAnswer, StepResult, StepState, Targets, run_probe, run_step
from kintsugi_dev.patient import Patient, RecordedWorkloads, patient
from kintsugi_dev.relay import relay
from kintsugi_dev.servers import Certificates, Database, PostgreSQL, server_directory
from kintsugi_dev.servers.roles import HEALER

SECRET = "s3cret-passw0rd"


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Patient]:
    async with patient(database, schema="CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)") as care:
        yield care


@pytest.fixture
def own_server(server_dir: Path) -> Iterator[PostgreSQL]:
    """A server that the test may kill."""
    with PostgreSQL.start(server_dir / "own") as server:
        yield server


def step(command: str, target: str = "primary", kind: StepKind = StepKind.SQL, **more: Any) -> Step:
    return Step(kind, target, command, **{"timeout": 5.0, **more})


async def run(shop: Patient, command: str, **more: Any) -> StepResult:
    return await run_step(step(command, **more), shop.targets, "test")


def at(server: PostgreSQL, **more: Any) -> Targets:
    given = {"user": "postgres", "password": server.password, "database": "postgres", "tls": "disable", **more}
    return Targets({"primary": sql.Endpoint(host=server.host, port=server.port, **given)})


# --- what a step is ---


async def test_a_step_runs_under_its_actions_name_with_limits_and_the_catalogues_search_path(shop: Patient) -> None:
    question = "SELECT concat_ws(' ', " + ", ".join(
        f"current_setting('{name}')"
        for name in ("application_name", "search_path", "statement_timeout", "lock_timeout", "timezone")
    )

    result = await run(shop, question + ")")

    assert result.output == "kintsugi/test pg_catalog 5s 2s UTC"


@pytest.mark.parametrize("answer", ["false", "NULL", "1", "'true'"])
async def test_an_expectation_is_met_by_true_and_nothing_else(shop: Patient, answer: str) -> None:
    assert (await run(shop, "SELECT true", expect=True)).state is StepState.DONE
    assert (await run(shop, f"SELECT {answer}", expect=True)).state is StepState.SUPERSEDED
    assert (await run(shop, "SELECT true WHERE false", expect=True)).state is StepState.SUPERSEDED


async def test_two_statements_in_one_step_are_refused(shop: Patient) -> None:
    result = await run(shop, "SELECT 1; DROP TABLE public.t")

    assert result.state is StepState.FAILED
    assert shop.database.value("SELECT count(*) FROM public.t") == 1


async def test_nothing_of_ours_stays_behind_after_a_step(shop: Patient) -> None:
    await run(shop, "SELECT 1")
    await asyncio.sleep(0.1)

    assert shop.database.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []
    assert shop.database.fetch("SELECT 1 FROM pg_stat_activity WHERE application_name = 'kintsugi/test'") == []


# --- failures by name ---


async def test_a_wrong_password_is_named_and_never_shown(own_server: PostgreSQL) -> None:
    targets = at(own_server, password=SECRET)

    result = await run_step(step("SELECT 1"), targets, "test")

    assert result.state is StepState.FAILED
    assert "refused user postgres" in result.error
    assert "check username and password in the Secret" in result.error
    assert SECRET not in str(result) + repr(targets) + str(targets)


async def test_a_refused_connection_is_named(own_server: PostgreSQL) -> None:
    own_server.stop()

    result = await run_step(step("SELECT 1"), at(own_server), "test")

    assert result.state is StepState.FAILED
    assert "connection refused" in result.error


async def test_a_host_that_does_not_exist_is_named(own_server: PostgreSQL) -> None:
    targets = Targets({"primary": replace(at(own_server).endpoints["primary"], host="no-such-host.invalid")})

    result = await run_step(step("SELECT 1"), targets, "test")

    assert result.state is StepState.FAILED
    assert "can't be reached" in result.error


async def test_a_database_that_does_not_exist_is_named(own_server: PostgreSQL) -> None:
    result = await run_step(step("SELECT 1"), at(own_server, database="nowhere"), "test")

    assert "correct spec.connection.database" in result.error


async def test_a_missing_right_is_named_with_where_to_get_it(shop: Patient) -> None:
    result = await run(shop, "SELECT pg_read_file('/etc/passwd')")

    assert result.state is StepState.FAILED
    assert "docs/database-role.sql" in result.error


async def test_a_server_that_is_not_in_the_spec_is_named(shop: Patient) -> None:
    result = await run(shop, "SELECT 1", target="orders-7")

    assert result.error.startswith("no server is called orders-7")


async def test_a_statement_over_its_time_changed_nothing(shop: Patient) -> None:
    result = await run(shop, "INSERT INTO public.t SELECT 2 FROM pg_sleep(5)", timeout=0.3)

    assert result.state is StepState.FAILED
    assert "took too long" in result.error
    assert shop.database.value("SELECT count(*) FROM public.t") == 1


async def test_a_lock_is_not_waited_for_longer_than_two_seconds(shop: Patient) -> None:
    session = await shop.session()
    await session.execute("BEGIN; LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE")

    result = await run(shop, "INSERT INTO public.t VALUES (2)", timeout=30.0)

    assert result.state is StepState.FAILED
    assert "lock timeout" in result.error
    await session.close()


async def test_the_servers_detail_with_a_users_row_is_never_shown(shop: Patient) -> None:
    shop.database.execute("CREATE UNIQUE INDEX ON public.t (id)")

    result = await run(shop, "INSERT INTO public.t VALUES (1)")

    assert result.state is StepState.FAILED
    assert "(id)=(1)" not in result.error


# --- TLS ---


@pytest.fixture(scope="module")
def tls_server() -> Iterator[PostgreSQL]:
    with server_directory() as folder:
        certificates = Certificates.make(folder / "certificates")
        with PostgreSQL.start(folder / "server", tls=certificates) as server:
            yield server


async def try_tls(server: PostgreSQL, **more: Any) -> StepResult:
    return await run_step(step("SELECT 1"), at(server, **more), "test")


async def test_a_private_authority_from_the_secret_is_trusted_and_no_other(tls_server: PostgreSQL) -> None:
    assert tls_server.tls is not None
    authority = tls_server.tls.authority.read_text()

    assert (await try_tls(tls_server, tls="verify-full", ca=authority)).ok
    unknown = await try_tls(tls_server, tls="verify-full")

    assert "put its CA into the Secret's ca.crt" in unknown.error


async def test_a_certificate_for_another_name_is_refused_unless_only_the_authority_counts(
    tls_server: PostgreSQL,
) -> None:
    assert tls_server.tls is not None
    authority = tls_server.tls.authority.read_text()
    async with relay(tls_server.port, host="127.0.0.2") as elsewhere:
        direct = at(tls_server, tls="verify-full", ca=authority).endpoints["primary"]
        other = replace(direct, host="127.0.0.2", port=elsewhere.port)
        strict = await run_step(step("SELECT 1"), Targets({"primary": other}), "test")
        lenient = await run_step(step("SELECT 1"), Targets({"primary": replace(other, tls="verify-ca")}), "test")

    assert "connect by a name that the certificate holds" in strict.error
    assert lenient.ok, lenient.error


async def test_tls_without_verification_encrypts_only(tls_server: PostgreSQL) -> None:
    assert (await try_tls(tls_server, tls="require")).ok


async def test_a_server_without_tls_is_named(own_server: PostgreSQL) -> None:
    result = await try_tls(own_server, tls="verify-full")

    assert result.state is StepState.FAILED
    assert "offers no TLS" in result.error


async def test_a_ca_that_is_no_certificate_is_named(tls_server: PostgreSQL) -> None:
    result = await try_tls(tls_server, tls="verify-full", ca="not a certificate")

    assert "is not a PEM certificate" in result.error


# --- the connection breaks in the middle ---


async def test_a_killed_connection_means_unknown_and_nothing_is_sent_again(shop: Patient) -> None:
    task = asyncio.create_task(run(shop, "INSERT INTO public.t SELECT 2 FROM pg_sleep(20)", timeout=30.0))
    await asyncio.sleep(0.5)
    shop.database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    result = await task

    assert result.state is StepState.UNKNOWN
    assert "ask the action's probe" in result.error
    assert shop.database.value("SELECT count(*) FROM public.t") == 1


async def test_a_killed_server_means_unknown(own_server: PostgreSQL) -> None:
    task = asyncio.create_task(run_step(step("SELECT pg_sleep(20)", timeout=30.0), at(own_server), "test"))
    await asyncio.sleep(0.5)
    own_server.kill()

    assert (await task).state is StepState.UNKNOWN


async def test_a_frozen_server_means_unknown_within_the_steps_time(own_server: PostgreSQL) -> None:
    task = asyncio.create_task(run_step(step("SELECT pg_sleep(20)", timeout=1.0), at(own_server), "test"))
    await asyncio.sleep(0.5)
    frozen = [process for process in psutil.Process(own_server.pid).children() if "SELECT" in process.cmdline()[0]]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    try:
        result = await asyncio.wait_for(task, 8)
    finally:
        for process in frozen:
            process.send_signal(signal.SIGCONT)

    assert frozen
    assert result.state is StepState.UNKNOWN


async def test_an_optional_step_never_holds_the_plan_up(own_server: PostgreSQL) -> None:
    task = asyncio.create_task(run_step(step("SELECT pg_sleep(9)", optional=True), at(own_server), "test"))
    await asyncio.sleep(0.5)
    own_server.kill()

    assert (await task).state is StepState.FAILED


# --- one executor at a time ---


async def test_a_second_executor_does_nothing_while_the_first_is_at_work(shop: Patient) -> None:
    first = asyncio.create_task(run(shop, "SELECT pg_sleep(1)"))
    await asyncio.sleep(0.4)

    second = await run(shop, "INSERT INTO public.t VALUES (2)")

    assert second.state is StepState.BUSY
    assert (await first).ok
    assert shop.database.value("SELECT count(*) FROM public.t") == 1


async def test_a_probe_waits_for_the_executor_and_is_unknown_when_that_lasts(shop: Patient) -> None:
    holder = await asyncpg.connect(shop.database.dsn())
    await holder.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    probe = step("SELECT 'done'", timeout=1.0)

    assert (await run_probe(probe, shop.targets, "test")).answer is ProbeAnswer.UNKNOWN
    asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(holder.close()))

    assert (await run_probe(replace(probe, timeout=3.0), shop.targets, "test")).answer is ProbeAnswer.DONE


async def test_a_probe_that_says_nonsense_or_fails_is_unknown(shop: Patient) -> None:
    for command in ("SELECT 'perhaps'", "SELECT 1/0", "SELECT NULL", "SELECT 'done' WHERE false"):
        found = await run_probe(step(command), shop.targets, "test")
        assert found.answer is ProbeAnswer.UNKNOWN
        assert found.reason


# --- Kubernetes ---


class Failing(RecordedWorkloads):
    """Workloads whose patches end in an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(service__orders={"metadata": {"resourceVersion": "1"}, "spec": {"a": "1"}})
        self.error = error

    async def patch(self, kind: str, name: str, body: Mapping[str, Any], resource_version: str | None) -> Any:
        raise self.error


async def patched(workloads: RecordedWorkloads | None, command: str, **more: Any) -> StepResult:
    target = step(command, target="service/orders", kind=StepKind.KUBERNETES, **more)
    return await run_step(target, Targets({}, workloads=workloads), "test")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConflictError("the object has been modified (HTTP 409)"), StepState.FAILED),
        (UnavailableError("the Kubernetes API server does not answer"), StepState.UNKNOWN),
        (TimeoutError(), StepState.UNKNOWN),
    ],
    ids=["conflict", "unavailable", "timeout"],
)
async def test_a_patch_that_failed_is_told_from_one_whose_answer_was_lost(error: Exception, state: StepState) -> None:
    result = await patched(Failing(error), '{"spec": {"a": "2"}}')

    assert result.state is state
    assert result.error


async def test_a_patch_that_would_change_nothing_is_not_sent() -> None:
    workloads = Failing(ConflictError("must not be called"))

    assert (await patched(workloads, '{"spec": {"a": "1", "b": null}}')).ok


async def test_an_expected_object_is_looked_at_and_not_patched() -> None:
    workloads = Failing(ConflictError("must not be called"))

    assert (await patched(workloads, '[{"spec": {"a": "9"}}, {"spec": {"a": "1"}}]', expect=True)).ok
    assert (await patched(workloads, '{"spec": {"a": "2"}}', expect=True)).state is StepState.SUPERSEDED
    assert (await patched(workloads, '{"spec": {"a": null}}', expect=True)).state is StepState.SUPERSEDED


async def test_an_object_that_is_gone_or_a_missing_client_is_named() -> None:
    assert "not found" in (await patched(RecordedWorkloads(), '{"spec": {}}')).error
    assert "no Kubernetes client" in (await patched(None, '{"spec": {}}')).error


async def test_a_pooler_step_without_a_pooler_is_named(shop: Patient) -> None:
    result = await run(shop, "SET default_pool_size = 9", target="pgbouncer", kind=StepKind.POOLER)

    assert "name it in spec.pooler" in result.error


# --- quoting, by the server's own rules ---


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1)
)
def test_the_server_reads_every_quoted_name_and_literal_as_it_was_meant(postgres: PostgreSQL, names: list[str]) -> None:
    usable = [name for name in dict.fromkeys(names) if len(name.encode()) <= 63]
    if not usable:
        return
    columns = ", ".join(f"{quote_literal(name)} AS {quote_identifier(name)}" for name in usable)

    async def ask(connection: asyncpg.Connection) -> None:
        for standard in ("on", "off"):
            await connection.execute(f"SET standard_conforming_strings = {standard}; SET escape_string_warning = off")
            assert list((await connection.fetchrow(f"SELECT {columns}") or {}).items()) == [(n, n) for n in usable]
        for name in usable:
            server = await connection.fetchval("SELECT quote_ident($1)", name)
            assert quote_identifier(name) in (server, f'"{server}"')

    postgres.run(ask)


async def test_the_healer_is_no_superuser_in_these_tests(shop: Patient) -> None:
    assert (await run(shop, f"SELECT rolsuper FROM pg_roles WHERE rolname = '{HEALER}'")).output == "False"
