"""Whatever is wrong with what a user wrote, or with what it names: a condition says what and what to do; nothing acts.

All of them are watched by one operator at once, together with a healthy database that they must not disturb.
"""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from kintsugi_dev.faults import BlockingTransaction
from kintsugi_dev.people import RefusedError
from kintsugi_dev.servers import free_port
from kintsugi_dev.servers.http import get
from kintsugi_dev.servers.prometheus import BearerProxy
from kintsugi_dev.stand import ACTIONS, DATABASES, POLICIES, Case, Json, Lane, Operator, Stand


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a database's spec, and the condition that says so."""

    name: str
    spec: Callable[[Stand, Lane, dict[str, str]], dict[str, Any]]
    condition: str
    reason: str
    says: str
    status: str = "False"
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)


def _connection(**changes: Any) -> Callable[[Stand, Lane, dict[str, str]], dict[str, Any]]:
    def spec(stand: Stand, lane: Lane, _: dict[str, str]) -> dict[str, Any]:
        whole = {
            "host": lane.server.host,
            "port": lane.server.port,
            "database": "shop",
            "secretRef": "database",
            "tls": "disable",
        }
        return {"connection": whole | changes}

    return spec


def _metrics(**changes: Any) -> Callable[[Stand, Lane, dict[str, str]], dict[str, Any]]:
    """`prometheus` names one of the wrong servers of `_servers`."""

    def spec(stand: Stand, lane: Lane, servers: dict[str, str]) -> dict[str, Any]:
        whole = {"prometheus": stand.prometheus.url, "matchers": lane.matchers, "scrapeInterval": "1s"} | changes
        whole["prometheus"] = servers.get(str(whole["prometheus"]), whole["prometheus"])
        return {"metrics": whole}

    return spec


BEARER = {"type": "bearer", "secretRef": "prometheus"}
HEALER = {"username": "kintsugi_healer", "password": "healer"}

WRONG = (
    Wrong(
        "wrong-password",
        _connection(secretRef="wrong"),
        "Connected",
        "WrongPassword",
        r"refused user kintsugi_healer .*check username and password in the Secret",
        secrets={"wrong": HEALER | {"password": "no"}},
    ),
    Wrong("refused", _connection(port=1), "Connected", "Unreachable", r"127\.0\.0\.1:1/shop can't be reached.*check"),
    Wrong(
        "unknown-host",
        _connection(host="no-such-host.invalid"),
        "Connected",
        "Unreachable",
        r"no-such-host\.invalid.*can't be reached.*check that it runs and its host",
    ),
    Wrong("unknown-database", _connection(database="nowhere"), "Connected", "NoSuchDatabase", r"correct spec\.conn"),
    Wrong("no-tls", _connection(tls="verify-full"), "Connected", "Tls", r"offers no TLS; set spec\.connection\.tls"),
    Wrong("no-secret", _connection(secretRef="absent"), "Connected", "SecretMissing", r"no Secret absent in .*create"),
    Wrong(
        "half-a-secret",
        _connection(secretRef="half"),
        "Connected",
        "SecretIncomplete",
        r"Secret half has no password; add it \(kubectl",
        secrets={"half": {"username": "kintsugi_healer"}},
    ),
    Wrong(
        "prometheus-down",
        _metrics(prometheus="http://127.0.0.1:1"),
        "MetricsAvailable",
        "PrometheusUnreachable",
        r"http://127\.0\.0\.1:1 can't be reached.*check metrics\.prometheus",
    ),
    Wrong(
        "prometheus-empty",
        _metrics(matchers={"service": "nobody"}),
        "MetricsAvailable",
        "NoSeries",
        r"no known series with \{service=\"nobody\"\}; check metrics\.matchers and that the collector",
    ),
    Wrong(
        "prometheus-hangs",
        _metrics(prometheus="hanging"),
        "MetricsAvailable",
        "PrometheusUnreachable",
        r"did not answer in time.*check",
    ),
    Wrong(
        "prometheus-is-a-web-page",
        _metrics(prometheus="web-page"),
        "MetricsAvailable",
        "PrometheusNonsense",
        r"does not answer like Prometheus.*check metrics\.prometheus",
    ),
    Wrong(
        "prometheus-talks-nonsense",
        _metrics(prometheus="nonsense"),
        "MetricsAvailable",
        "PrometheusNonsense",
        r"does not answer like Prometheus.*check metrics\.prometheus",
    ),
    Wrong(
        "no-token",
        _metrics(prometheus="guarded"),
        "MetricsAvailable",
        "PrometheusUnauthorized",
        r"refused the credentials \(HTTP 401\); check metrics\.auth",
    ),
    Wrong(
        "wrong-token",
        _metrics(prometheus="guarded", auth=BEARER),
        "MetricsAvailable",
        "PrometheusUnauthorized",
        r"refused the credentials \(HTTP 401\); check metrics\.auth and its Secret",
        secrets={"prometheus": {"token": "stale"}},
    ),
    Wrong(
        "no-token-secret",
        _metrics(auth={"type": "bearer", "secretRef": "nowhere"}),
        "MetricsAvailable",
        "SecretMissing",
        r"there is no Secret nowhere in .*create it",
    ),
    Wrong(
        "bad-ca",
        _metrics(prometheus="https://127.0.0.1:1", caSecretRef="ca"),
        "MetricsAvailable",
        "PrometheusTLS",
        r"no certificate in PEM.*correct ca\.crt in the Secret that metrics\.caSecretRef names",
        secrets={"ca": {"ca.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}},
    ),
    Wrong(
        "slo-query-refused",
        lambda *_: {"slo": {"latencyQuery": "histogram_quantile(0.99, nothing", "target": "1s"}},
        "SloMeasured",
        "QueryRefused",
        r"refused the query .*correct it",
    ),
    Wrong(
        "slo-query-of-nothing",
        lambda *_: {"slo": {"latencyQuery": "no_such_metric", "target": "1s"}},
        "SloMeasured",
        "NoData",
        r"gives no single number; try it in Prometheus",
    ),
)


class _Says(http.server.BaseHTTPRequestHandler):
    """Answers everything with the server's own text."""

    def do_POST(self) -> None:
        body = str(self.server.says).encode()  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _saying(text: str) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), _Says)
    server.says = text  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _servers(stand: Stand) -> Iterator[dict[str, str]]:
    """Prometheus servers that are none, hang, or refuse: name → URL."""
    vector = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "1"]}]}}
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        guarded = stack.enter_context(
            BearerProxy.start(stand.directory / "bearer", upstream=stand.prometheus.url, token="the-token")
        )
        yield {
            "hanging": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "web-page": stack.enter_context(_saying("<html>Sign in</html>")),
            "nonsense": stack.enter_context(_saying(json.dumps(vector))),
            "guarded": guarded.url,
        }


@pytest.fixture(scope="module")
def lane(the_stand: Stand) -> Lane:
    lane = the_stand.calmest_lane()
    lane.wait_calm()
    return lane


@pytest.fixture(scope="module")
def ward(the_stand: Stand, one_operator: Operator, lane: Lane) -> Iterator[str]:
    """A namespace with everything that is wrong in it, and one healthy database; a policy lets all of it be healed."""
    space = the_stand.namespace("ward")
    the_stand.policy(space)
    with _servers(the_stand) as servers:
        for each in WRONG:
            for name, values in each.secrets.items():
                the_stand.secret(space, name, **values)
            the_stand.database(space, lane, each.name, **each.spec(the_stand, lane, servers))
        one_operator.start()
        try:
            yield space
        finally:
            the_stand.close_namespace(space)


@pytest.mark.parametrize("wrong", WRONG, ids=[each.name for each in WRONG])
def test_what_is_wrong_stands_in_a_condition_that_says_what_to_do(
    wrong: Wrong, ward: str, the_stand: Stand, one_operator: Operator
) -> None:
    def said() -> Json:
        conditions = the_stand.get(DATABASES, ward, wrong.name).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == wrong.condition), {})

    one_operator.wait(
        lambda: said().get("reason") == wrong.reason, f"{wrong.name}: {wrong.reason} (it says {said()})", 40
    )

    found = said()
    assert found["status"] == wrong.status
    assert re.search(wrong.says, found["message"]), found["message"]
    assert "healer" not in found["message"].replace("kintsugi_healer", "")  # the password


def test_databases_without_metrics_are_blind_and_not_healthy(ward: str, the_stand: Stand) -> None:
    blind = [each.name for each in WRONG if each.condition == "MetricsAvailable"]

    phases = {name: the_stand.get(DATABASES, ward, name)["status"]["phase"] for name in blind}

    assert set(phases.values()) == {"Blind"}, phases


def test_one_that_hangs_does_not_delay_the_others(ward: str, one_operator: Operator) -> None:
    def cycles() -> float:
        text = get(f"{one_operator.url}/metrics")[1].decode()
        return float(re.search(r"^kintsugi_cycles_total (\S+)", text, re.M)[1])  # type: ignore[index]

    before, began = cycles(), time.monotonic()
    time.sleep(8)

    seconds_per_cycle = (time.monotonic() - began) / max(1.0, cycles() - before)
    assert seconds_per_cycle < 3  # a hanging Prometheus takes 5 s to give up


def test_a_fault_that_all_of_them_could_see_is_acted_on_by_none(
    ward: str, the_stand: Stand, one_operator: Operator, lane: Lane
) -> None:
    space = the_stand.namespace("no-policy")
    case = Case(the_stand, one_operator, lane, space)
    the_stand.database(space, lane, case.name)  # nobody wrote a policy: Observe
    try:
        case.until_phase("Healthy")
        assert case.condition("PolicyFound")["status"] == "False"
        assert case.condition("PolicyFound")["reason"] == "NoPolicy"
        assert "HealingPolicy" in case.condition("PolicyFound")["message"]

        with lane.fault(BlockingTransaction(lane.dsn)):
            case.until_phase("Degraded")
            one_operator.wait(lambda: case.condition("ActionsAllowed").get("reason") == "HeldBack", "held back")
            time.sleep(5)
            assert "Observe" in case.condition("ActionsAllowed")["message"]
            assert the_stand.actions(space) == []
            mine = {action["spec"]["database"]["name"] for action in the_stand.actions(ward)}
    finally:
        the_stand.close_namespace(space)

    seeing = {each.name for each in WRONG if each.condition == "SloMeasured"}
    assert mine <= seeing  # those are whole but for the SLO: they may heal it


def test_an_action_made_by_hand_is_refused(the_stand: Stand, space: str) -> None:
    body = {
        "apiVersion": "kintsugi.dev/v1alpha1",
        "kind": "HealingAction",
        "metadata": {"name": "mine"},
        "spec": _spec_of_an_action(),
    }

    with pytest.raises(RefusedError, match="only the operator creates"):
        the_stand.admin.create(ACTIONS, space, body)


def _spec_of_an_action() -> dict[str, Any]:
    from kintsugi_dev.people.objects import an_action

    return dict(an_action("mine")["spec"])


def test_a_policy_that_names_an_unknown_action_is_refused_and_one_that_got_past_lets_nothing_run(case: Case) -> None:
    typo = {"actions": [{"name": "terminate-blokker", "mode": "Observe"}]}
    with pytest.raises(RefusedError, match=r"spec\.actions.*terminate-blokker.*terminate-blocker"):
        case.stand.policy(case.namespace, "typo", **typo)

    with _anything_goes(case.stand, POLICIES):
        case.stand.policy(case.namespace, "typo", **typo)
        case.stand.database(case.namespace, case.lane, case.name)
        ready = case.operator.wait(lambda: _of_policy(case, "typo", "Ready"), "a condition")
        case.until_phase("Healthy")

        assert (ready["status"], ready["reason"]) == ("False", "UnknownAction")
        assert "no action terminate-blokker; until the name is corrected nothing runs" in ready["message"]
        assert "terminate-blocker" in ready["message"]  # the known ones are listed
        assert case.database["status"]["effectiveMode"] == "Recommend"


def test_policies_that_contradict_each_other_say_so_and_the_strictest_wins(case: Case) -> None:
    nights = {"name": "n", "schedule": "0 1 * * *", "duration": "1h", "actions": ["terminate-blocker"]}
    days = nights | {"schedule": "0 13 * * *"}
    case.stand.policy(case.namespace, "days", windows=[days])
    case.stand.policy(case.namespace, "nights", mode="Recommend", windows=[nights])
    case.stand.database(case.namespace, case.lane, case.name)

    for name in ("days", "nights"):
        case.operator.wait(
            lambda name=name: _of_policy(case, name, "Conflicting").get("status") == "True",  # type: ignore[misc]
            f"{name} Conflicting",
        )
        message = _of_policy(case, name, "Conflicting")["message"]
        assert "windows of days and nights never overlap for terminate-blocker" in message
        assert "change one of them" in message
    case.operator.wait(
        lambda: case.database.get("status", {}).get("effectiveMode") == "Recommend", "the strictest mode"
    )


def test_a_window_in_an_unknown_time_zone_is_refused_and_one_that_got_past_never_opens(case: Case) -> None:
    window = {"name": "w", "schedule": "0 1 * * *", "duration": "1h", "timeZone": "Mars/Phobos"}
    windows = [window | {"actions": ["terminate-blocker"]}]
    with pytest.raises(RefusedError, match="unknown time zone Mars/Phobos"):
        case.stand.policy(case.namespace, "mars", windows=windows)

    with _anything_goes(case.stand, POLICIES):
        case.stand.policy(case.namespace, "mars", windows=windows)
        ready = case.operator.wait(lambda: _of_policy(case, "mars", "Ready"), "a condition")

        assert (ready["status"], ready["reason"]) == ("False", "InvalidWindow")
        assert "Mars/Phobos" in ready["message"]


def test_an_unknown_engine_is_refused_and_one_that_got_past_is_named(case: Case) -> None:
    with pytest.raises(RefusedError, match="postgresql"):
        case.stand.database(case.namespace, case.lane, case.name, engine="oracle")

    with _anything_goes(case.stand, DATABASES):
        case.stand.database(case.namespace, case.lane, case.name, engine="oracle")
        healthy = case.operator.wait(lambda: case.condition("Healthy"), "a condition")

        assert (healthy["status"], healthy["reason"]) == ("Unknown", "UnknownEngine")
        assert "engine oracle is unknown" in healthy["message"]
        assert "it knows postgresql: correct spec.engine" in healthy["message"]
        assert case.phase == "Blind"


def test_an_object_that_this_version_cannot_read_is_named_and_stops_nobody(case: Case) -> None:
    with _anything_goes(case.stand, DATABASES):
        case.stand.database(case.namespace, case.lane, case.name, engine="")
        healthy = case.operator.wait(lambda: case.condition("Healthy"), "a condition")

        assert (healthy["status"], healthy["reason"]) == ("Unknown", "InvalidSpec")
        assert "spec.engine" in healthy["message"]


def _of_policy(case: Case, name: str, type_: str) -> Json:
    conditions = case.stand.get(POLICIES, case.namespace, name).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == type_), {})


@contextmanager
def _anything_goes(stand: Stand, plural: str) -> Iterator[None]:
    """A CRD that checks no values: what was written through another version of it, or before it had its rules."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.kintsugi.dev"
    strict = stand.admin.request("GET", path)["spec"]
    stand.admin.patch_at(path, {"spec": {"versions": [_loose(version) for version in strict["versions"]]}})
    time.sleep(2)  # until the API server has taken it over
    try:
        yield
    finally:
        stand.admin.patch_at(path, {"spec": {"versions": strict["versions"]}})
        time.sleep(2)


def _loose(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_loose(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = ("enum", "minLength", "x-kubernetes-validations")
    return {key: _loose(value) for key, value in schema.items() if key not in dropped}
