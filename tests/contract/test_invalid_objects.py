"""What is wrong is refused by the API server itself, with a sentence that names the field and says what to write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kintsugi_dev.cluster import Cluster, CommandError
from kintsugi_dev.objects import GONE, Object, a_database, a_policy, an_action, text
from kintsugi_dev.rest import RefusedError, Rest

SCHEMAS_S = 90.0
STEP = {"kind": "sql", "target": "primary", "command": "SELECT 1", "timeout": "10s"}
MEMBER = {"name": "orders-0", "host": "orders-0"}
WINDOW = {"name": "nights", "schedule": "0 1 * * *", "duration": "4h", "actions": ["create-index"]}


@dataclass(frozen=True)
class Wrong:
    """An object with one mistake, and what the refusal must contain: the field, and the remedy."""

    what: str
    spoiled: Object
    field: str
    remedy: str


def database(what: str, path: str, value: object, remedy: str, *, field: str | None = None) -> Wrong:
    return Wrong(f"database: {what}", a_database(**{path: value}), field or path, remedy)


def log(what: str, change: dict[str, object], remedy: str, field: str) -> Wrong:
    """Of a log in a file, changed."""
    whole = {"file": {"path": "/logs/orders.json"}} | change
    kept = {name: value for name, value in whole.items() if value is not GONE}
    return database(f"a log with {what}", "spec.logs", kept, remedy, field=f"spec.logs.{field}")


def policy(what: str, path: str, value: object, remedy: str, *, field: str | None = None) -> Wrong:
    return Wrong(f"policy: {what}", a_policy(**{path: value}), field or path, remedy)


def action(what: str, path: str, value: object, remedy: str, *, field: str | None = None) -> Wrong:
    return Wrong(f"action: {what}", an_action(**{path: value}), field or path, remedy)


def schedule(what: str, value: str, remedy: str) -> Wrong:
    return policy(f"a schedule with {what}", "spec.windows[0].schedule", value, remedy)


DATABASES = [
    database("no spec", "spec", GONE, "Required value"),
    database("a misspelt field", "spec.conection", {}, "unknown field"),
    database("no engine", "spec.engine", GONE, "Required value"),
    database("an unknown engine", "spec.engine", "postgres", 'supported values: "postgresql"'),
    database("no connection", "spec.connection", GONE, "Required value"),
    database("no Secret", "spec.connection.secretRef", GONE, "Required value"),
    database("a Secret that can't exist", "spec.connection.secretRef", "Orders Login", "must be the name of an object"),
    database("a host with its port", "spec.connection.host", "orders:5432", "move the port to its own field"),
    database("a URL for a host", "spec.connection.host", "postgres://orders", "leave out scheme and path"),
    database("an empty host", "spec.connection.host", "", "should be at least 1 chars long"),
    database("a port as text", "spec.connection.port", "5432", "must be of type integer"),
    database("port 70000", "spec.connection.port", 70000, "should be less than or equal to 65535"),
    database("a long database name", "spec.connection.database", "d" * 64, "may not be more than 63 bytes"),
    database("an unknown sslmode", "spec.connection.tls", "prefer", '"require", "verify-ca", "verify-full"'),
    database("no metrics", "spec.metrics", GONE, "Required value"),
    database(
        "no scheme", "spec.metrics.prometheus", "prometheus:9090", "write it like http://prometheus.monitoring:9090"
    ),
    database("a query in the URL", "spec.metrics.prometheus", "http://p:9090/?a=b", "base URL without query"),
    database("no matchers", "spec.metrics.matchers", GONE, "Required value"),
    database("empty matchers", "spec.metrics.matchers", {}, "should have at least 1 properties"),
    database("an impossible label", "spec.metrics.matchers", {"pod-name": "x"}, "must be Prometheus labels"),
    database("a matcher on the metric's name", "spec.metrics.matchers", {"__name__": "up"}, "correct the label's name"),
    database("an empty matcher", "spec.metrics.matchers", {"service": ""}, "write its value or remove it"),
    database("a slow scrape interval", "spec.metrics.scrapeInterval", "10m", "must be from 1s to 5m"),
    database("a fast scrape interval", "spec.metrics.scrapeInterval", "500ms", "must be from 1s to 5m"),
    database("an interval without unit", "spec.metrics.scrapeInterval", "15", "write it like 500ms, 30s, 5m or 1h30m"),
    database(
        "an unknown authentication", "spec.metrics.auth", {"type": "oauth", "secretRef": "s"}, '"bearer", "basic"'
    ),
    database("authentication without Secret", "spec.metrics.auth", {"type": "basic"}, "secretRef: Required value"),
    database("no log in logs", "spec.logs", {"format": "csvlog"}, "exactly one of file, pods and loki"),
    database(
        "two logs in one",
        "spec.logs",
        {"file": {"path": "/logs"}, "pods": {"selector": {"app": "orders"}}},
        "exactly one of file, pods and loki",
    ),
    log("an unknown format", {"format": "syslog"}, '"jsonlog", "csvlog", "stderr"', "format"),
    log("a prefix without stderr", {"linePrefix": "%m "}, "must be absent unless format is stderr", "linePrefix"),
    log("a prefix without time", {"format": "stderr", "linePrefix": "[%p] "}, "with %m in it", "linePrefix"),
    log("a prefix of no escapes", {"format": "stderr", "linePrefix": "%m %z "}, "does not know", "linePrefix"),
    log("a relative path", {"file": {"path": "logs/x.json"}}, "write it like /logs/*.json", "file.path"),
    log("a path upwards", {"file": {"path": "/logs/../etc/x"}}, "without . and .. as parts", "file.path"),
    log("a pattern for a folder", {"file": {"path": "/*/x.json"}}, "only after the last /", "file.path"),
    log("no label", {"file": GONE, "pods": {"selector": {}}}, "at least 1 properties", "pods.selector"),
    log("a label of spaces", {"file": GONE, "pods": {"selector": {"a": "b c"}}}, "label values", "pods.selector"),
    log("a query of words", {"file": GONE, "loki": {"url": "http://l", "query": "orders"}}, "selector", "loki.query"),
    log("Loki without scheme", {"file": GONE, "loki": {"url": "l:3100", "query": '{a="b"}'}}, "base URL", "loki.url"),
    database(
        "two SLOs in one",
        "spec.slo.latencyQuery",
        "vector(1)",
        "exactly one of signal and latencyQuery",
        field="spec.slo",
    ),
    database("an SLO of nothing", "spec.slo", {"target": "50ms"}, "exactly one of signal and latencyQuery"),
    database("an SLO on no latency", "spec.slo.signal", "deadlocks", '"client_latency_p99", "longest_query_age"'),
    database("an SLO of 0 s", "spec.slo.target", "0s", "must be from 1ms to 1h"),
    database("an SLO without target", "spec.slo.target", GONE, "Required value"),
    database(
        "to learn longer than the window",
        "spec.reference",
        {"minimum": "1h", "window": "30m"},
        "lower minimum or raise window",
        field="spec.reference.minimum",
    ),
    database(
        "a reference of days",
        "spec.reference",
        {"window": "2d"},
        "must be a duration in h, m, s and ms",
        field="spec.reference.window",
    ),
    database("a dependency on itself", "spec.dependsOn", [{"name": "orders"}], "remove its own name"),
    database(
        "a dependency twice",
        "spec.dependsOn",
        [{"name": "a"}, {"name": "a"}],
        "Duplicate value",
        field="spec.dependsOn[1]",
    ),
    database("a single member", "spec.replication.streaming.members", [MEMBER], "should have at least 2 items"),
    database("a member twice", "spec.replication.streaming.members[1]", MEMBER, "Duplicate value"),
    database(
        "two members on one server",
        "spec.replication.streaming.members[1].host",
        "orders-0",
        "give each its own host or port",
        field="spec.replication.streaming.members",
    ),
    database("a workload of another kind", "spec.workloadRef.kind", "DaemonSet", '"StatefulSet", "Deployment"'),
    database("a pooler without address", "spec.pooler", {}, "Required value", field="spec.pooler.pgbouncer"),
    database("a pool of none", "spec.pooler.pgbouncer.maxPoolSize", 0, "should be greater than or equal to 1"),
]

POLICIES = [
    policy("no selector", "spec.selector", GONE, "selector: {} to select every database"),
    policy("a misspelt field", "spec.pause", True, "unknown field"),
    policy("an unknown mode", "spec.mode", "Auto", '"AutoLowRisk", "AutoMediumRisk"'),
    policy(
        "an action looser than the mode",
        "spec.actions[0].mode",
        "AutoLowRisk",
        "use a stricter one or raise spec.mode",
        field="spec.actions",
    ),
    policy(
        "a looser action under the default mode", "spec.mode", GONE, "is looser than mode Observe", field="spec.actions"
    ),
    policy("an action that doesn't exist", "spec.actions[0].name", "create-indexes", '"create-index", "failover"'),
    policy("an action twice", "spec.actions", [{"name": "failover"}] * 2, "Duplicate value", field="spec.actions[1]"),
    policy(
        "a role twice",
        "spec.actions[0].protectRoles",
        ["a", "a"],
        "Duplicate value",
        field="spec.actions[0].protectRoles[1]",
    ),
    policy("a bad operator", "spec.selector.matchExpressions[0].operator", "in", '"NotIn", "Exists"'),
    policy(
        "In without values",
        "spec.selector.matchExpressions[0].operator",
        "In",
        "list at least one",
        field="spec.selector.matchExpressions[0].values",
    ),
    policy("Exists with values", "spec.selector.matchExpressions[0].values", ["a"], "remove them, or use In or NotIn"),
    policy("an impossible label", "spec.selector.matchLabels", {"tier": "not this"}, "correct the value"),
    policy(
        "objectives without weight",
        "spec.objectives",
        dict.fromkeys(["latency", "throughput", "consistency", "resources"], 0),
        "give at least one a weight",
    ),
    policy("a negative weight", "spec.objectives.latency", -1, "should be greater than or equal to 0"),
    policy("a size without unit", "spec.constraints.maxDataLoss", "16", "write it like 0B, 512KiB or 16MB"),
    policy("a lag of hours", "spec.constraints.maxReplicationLag", "2h", "must be from 0s to 1h"),
    policy(
        "a table without schema",
        "spec.constraints.protected",
        ["ledger"],
        "write it like public.ledger",
        field="spec.constraints.protected[0]",
    ),
    policy(
        "a quote without end",
        "spec.constraints.protected",
        ['"shop.orders'],
        "write it like public.ledger",
        field="spec.constraints.protected[0]",
    ),
    policy(
        "an unknown protection",
        "spec.constraints.protected",
        ["user:x"],
        "role:NAME, database:NAME or application:NAME",
        field="spec.constraints.protected[0]",
    ),
    policy("actions a negative number of times", "spec.limits.perHour", -1, "should be greater than or equal to 0"),
    policy("a limit in words", "spec.limits.perHour", "four", "must be of type integer"),
    policy("a duration in words", "spec.limits.cooldown", "3 min", "write it like 500ms, 30s, 5m or 1h30m"),
    policy("an empty duration", "spec.limits.cooldown", "", "write it like 500ms, 30s, 5m or 1h30m"),
    policy("no action at a time", "spec.limits.concurrent", 0, "should be greater than or equal to 1"),
    schedule("four fields", "0 1 * *", "must have five fields"),
    schedule("two spaces", "0  1 * * *", "one space between"),
    schedule("minute 60", "60 1 * * *", "field 1, the minute, must be 0 to 59"),
    schedule("hour 25", "0 25 * * *", "field 2, the hour, must be 0 to 23"),
    schedule("day 0", "0 1 0 * *", "field 3, the day of the month, must be 1 to 31"),
    schedule("month 13", "0 1 * 13 *", "field 4, the month, must be 1 to 12"),
    schedule("weekday 8", "0 1 * * 8", "field 5, the day of the week, must be 0 to 7"),
    schedule("a step of 0", "*/0 1 * * *", "write it like 5, 1-5, 1,3 or */5"),
    schedule("an @-word", "@daily", "write it like 0 1 * * *"),
    policy("an unknown time zone", "spec.windows[0].timeZone", "Europe/Berln", "write it like UTC or Europe/Berlin"),
    policy(
        "no time zone's name", "spec.windows[0].timeZone", "Central European Time", "write it like UTC or Europe/Berlin"
    ),
    policy("the machine's time zone", "spec.windows[0].timeZone", "Local", "write it like UTC or Europe/Berlin"),
    policy("a window that never opens", "spec.windows[0].duration", "0s", "must be from 1m to 168h"),
    policy("a window of nothing", "spec.windows[0].actions", [], "should have at least 1 items"),
    policy(
        "a window of an unknown action",
        "spec.windows[0].actions",
        ["vacuum"],
        'supported values: "analyze-table"',
        field="spec.windows[0].actions[0]",
    ),
    policy("a window twice", "spec.windows", [WINDOW, WINDOW], "Duplicate value", field="spec.windows[1]"),
    policy("approval in seconds", "spec.approval.expiresAfter", "10s", "must be from 1m to 24h"),
    policy("three approvers", "spec.approval.approvers", 3, "should be less than or equal to 2"),
    policy("verification in a second", "spec.verification.window", "1s", "must be from 5s to 1h"),
    policy("no attempt", "spec.escalation.maxAttempts", 0, "should be greater than or equal to 1"),
    policy("harm that can't be ruled out", "spec.rollout.maxHarmRate", "0%", "use mode Approve to be asked always"),
    policy("more than everything", "spec.rollout.maxHarmRate", "101%", "must be a percentage from 0% to 100%"),
    policy("a priority beyond bounds", "spec.priority", 5000, "should be less than or equal to 1000"),
]

ACTIONS = [
    action("an action that doesn't exist", "spec.action", "drop-database", '"create-index", "failover"'),
    action("less risk than the table's", "spec.risk", "low", "must be at least medium; raise it"),
    action(
        "high risk that asks nobody",
        "spec",
        an_action()["spec"] | {"risk": "high", "approval": {"required": False}},
        "set approval.required",
        field="spec.approval.required",
    ),
    action("an unknown risk", "spec.risk", "extreme", '"low", "medium", "high"'),
    action("no hash", "spec.planHash", GONE, "Required value"),
    action("something else as a hash", "spec.planHash", "09E455FECB9E", "must be 12 hexadecimal digits"),
    action("nothing to run", "spec.plan", [], "set runnable to false for a recommendation"),
    action("an endless plan", "spec.plan", [STEP] * 17, "must have at most 16 items"),
    action("a step of another kind", "spec.plan[0].kind", "shell", '"sql", "pooler", "kubernetes"'),
    action("a step without end", "spec.plan[0].timeout", "24h", "must be from 1ms to 12h"),
    action(
        "an undo without steps",
        "spec.undo.kind",
        "Steps",
        "list them, or set kind to Nothing or Impossible",
        field="spec.undo.steps",
    ),
    action("steps of an impossible undo", "spec.undo.steps", [STEP], "remove them, or set kind to Steps"),
    action("an effect beyond bounds", "spec.expected.latency", 2, "should be less than or equal to 1"),
    action("a probability beyond bounds", "spec.propensity", 1.5, "should be less than or equal to 1"),
    action("an end that is no time", "spec.expiresAt", "tomorrow", "must be of type date-time"),
    action("nobody to approve", "spec.approval.approvers", 0, "should be greater than or equal to 1"),
    action("a long verification", "spec.verification.window", "2h", "must be from 5s to 1h"),
]


@pytest.fixture(scope="module")
def rest(cluster: Cluster) -> Iterator[Rest]:
    with Rest(cluster.kubeconfig) as connection:
        yield connection


@pytest.mark.parametrize("wrong", [*DATABASES, *POLICIES, *ACTIONS], ids=lambda wrong: wrong.what)
def test_a_wrong_object_is_refused_with_its_field_and_the_remedy(wrong: Wrong, rest: Rest) -> None:
    with pytest.raises(RefusedError) as refused:
        rest.create(wrong.spoiled, dry_run=True)

    fitting = [s for s in refused.value.sentences if wrong.field in s and wrong.remedy in s]
    assert fitting, f"no sentence names {wrong.field} and says {wrong.remedy!r}:\n{refused.value}"


@pytest.mark.parametrize("whole", [a_database(), a_policy(), an_action()], ids=lambda whole: str(whole["kind"]))
def test_the_object_that_was_spoiled_is_accepted(whole: Object, rest: Rest) -> None:
    assert rest.create(whole, dry_run=True)["metadata"]["name"] == whole["metadata"]["name"]


def test_kubectl_shows_every_mistake_at_once(cluster: Cluster) -> None:
    spoiled = a_policy(**{"spec.limits.cooldown": "3 min", "spec.windows[0].timeZone": "Local", "spec.selector": GONE})

    said = _refusal(cluster, text(spoiled))

    for sentence in (
        "spec.selector: Invalid value: selector is required; write matchLabels, or selector: {}",
        'spec.limits.cooldown: Invalid value: "3 min": cooldown must be a duration in h, m, s and ms; write it like',
        'spec.windows[0].timeZone: Invalid value: "Local": timeZone must be a name of the time zone database',
    ):
        assert sentence in said


def _refusal(cluster: Cluster, manifest: str) -> str:
    """What kubectl says of an object that is wrong.

    kubectl adds an annotation, so that the stamping policy looks at the object; for up to a minute after an API server
    was started (another test may just have done so) that plug-in does not know our kinds and says 503.
    """
    deadline = time.monotonic() + SCHEMAS_S
    while True:
        with pytest.raises(CommandError) as refused:
            cluster.kubectl("apply", "--dry-run=server", "--filename=-", input=manifest)
        if "ServiceUnavailable" not in refused.value.output or time.monotonic() > deadline:
            return refused.value.output
        time.sleep(1)
