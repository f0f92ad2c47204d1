"""Attacks on MonitoredDatabases: others' Secrets, workloads and Services borrowed; pauses, acknowledgements, labels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kintsugi.shell.kube import load_api_client
from kintsugi.stages.labels import read_labels
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people import Handle, Person, RefusedError, Shop
from kintsugi_dev.people.objects import a_database
from kintsugi_dev.people.shop import DATABASES, EDITORS

POLICY = "ValidatingAdmissionPolicy 'kintsugi-databases'"
K = "kintsugi.dev/"

CONNECTION = {"host": "orders-rw", "port": 5432, "database": "orders", "secretRef": "orders", "tls": "verify-full"}
METRICS = {"prometheus": "http://prometheus:9090", "matchers": {"service": "orders"}, "scrapeInterval": "15s"}
POOLER = {"pgbouncer": {"host": "pooler", "secretRef": "pooler-admin"}}
MEMBERS = [{"name": "orders-0", "host": "orders-0"}, {"name": "orders-1", "host": "orders-1"}]
LOKI = {"url": "http://loki:3100", "query": '{app="orders"}'}
REPLICATION = {"streaming": {"service": "orders-rw", "members": MEMBERS}}
WORKLOAD = {"kind": "StatefulSet", "name": "orders"}


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    opened = Shop.opened(load_api_client(str(cluster.kubeconfig)))
    opened.grant(
        "one-secret",
        [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["orders"], "verbs": ["get"]}],
        user="tim",
    )
    yield opened
    opened.close()


def untouched(target: Handle) -> None:
    """As it was made."""


def paused(target: Handle) -> None:
    target.annotate(target.shop.pat, pause="migration until noon")


ANOMALY = "anomaly:lock-contention@2026-01-02T03:04:00Z/PT2M"
NORMAL = "normal:backup@2026-01-02T03:04:00Z/PT2M"


def labelled(target: Handle) -> None:
    target.annotate(target.shop.pat, label=ANOMALY)


def make(person: Person, shop: Shop, **spec: Any) -> object:
    return person.create(DATABASES, shop.namespace, a_database(**spec))


def tim(shop: Shop) -> Person:
    """May read the Secret orders and nothing else."""
    return shop.person("tim", EDITORS)


@dataclass(frozen=True)
class Attack:
    """What somebody does to a database, and the words with which the API server must refuse it."""

    name: str
    strike: Callable[[Shop, Handle], object]
    says: str
    given: Callable[[Handle], object] = untouched


SECRET = "may not read the Secret orders"
STATUS = "only the operator writes the status of a MonitoredDatabase"
STAMPS = "stamps are the API server's"
PAUSE = "may not pause"

ATTACKS = (
    # Borrowing rights
    Attack("an editor names a Secret he may not read", lambda s, t: make(s.eve, s), f"eve {SECRET}"),
    Attack(
        "an editor names it by server-side apply",
        lambda s, t: s.eve.apply(DATABASES, s.namespace, "evil", a_database("evil")),
        f"eve {SECRET}",
    ),
    Attack(
        "an editor changes the Secret to one he may not read",
        lambda s, t: t.spec(tim(s), connection={"secretRef": "customers"}),
        "tim may not read the Secret customers",
    ),
    Attack(
        "an editor keeps the Secret and sends its password to a host of his own",
        lambda s, t: t.spec(s.eve, connection={"host": "10.0.0.66"}),
        f"eve {SECRET}",
    ),
    Attack(
        "an editor has the password sent without TLS",
        lambda s, t: t.spec(s.eve, connection={"tls": "disable"}),
        f"eve {SECRET}",
    ),
    Attack(
        "an editor names another's Prometheus token",
        lambda s, t: make(tim(s), s, metrics=METRICS | {"auth": {"type": "bearer", "secretRef": "token"}}),
        "tim may not read the Secret token",
    ),
    Attack(
        "an editor has the Prometheus token sent elsewhere",
        lambda s, t: t.spec(s.eve, metrics={"prometheus": "http://10.0.0.66:9090"}),
        f"eve {SECRET}",
    ),
    Attack(
        "an editor names another's CA",
        lambda s, t: make(tim(s), s, metrics=METRICS | {"caSecretRef": "ca"}),
        "tim may not read the Secret ca in",
    ),
    Attack(
        "an editor names another's PgBouncer admin",
        lambda s, t: make(tim(s), s, pooler=POOLER),
        "tim may not read the Secret pooler-admin",
    ),
    Attack(
        "an editor names another's Loki password",
        lambda s, t: make(tim(s), s, logs={"loki": LOKI | {"auth": {"type": "basic", "secretRef": "loki"}}}),
        "tim may not read the Secret loki in",
    ),
    Attack(
        "an editor names another's CA for Loki",
        lambda s, t: make(tim(s), s, logs={"loki": LOKI | {"caSecretRef": "ca"}}),
        "tim may not read the Secret ca in",
    ),
    Attack(
        "an editor has the logs of pods read that he may not read",
        lambda s, t: make(tim(s), s, logs={"pods": {"selector": {"app": "payroll"}}}),
        "tim may not read the logs of pods in",
    ),
    Attack(
        "an editor has a StatefulSet restarted that he may not patch",
        lambda s, t: make(tim(s), s, workloadRef=WORKLOAD),
        "tim may not patch the StatefulSet orders",
    ),
    Attack(
        "an editor has a Deployment restarted that he may not patch",
        lambda s, t: t.spec(tim(s), workloadRef=WORKLOAD | {"kind": "Deployment"}),
        "tim may not patch the Deployment orders",
    ),
    Attack(
        "an editor has a Service moved that he may not patch",
        lambda s, t: make(tim(s), s, replication=REPLICATION),
        "tim may not patch the Service orders-rw",
    ),
    Attack(
        "an editor moves a database out of a policy's selector",
        lambda s, t: t.patch(s.eve, {"metadata": {"labels": {"tier": None}}}),
        f"eve {SECRET}",
        given=lambda t: t.patch(t.shop.dora, {"metadata": {"labels": {"tier": "critical"}}}),
    ),
    # The status
    Attack(
        "an editor writes a status", lambda s, t: t.patch(s.eve, {"status": {"phase": "Healthy"}}, "status"), STATUS
    ),
    Attack(
        "the person on call slips a pause in through the status",
        lambda s, t: t.patch(s.pat, {"metadata": {"annotations": {K + "pause": "x"}}}, "status"),
        STATUS,
    ),
    Attack(
        "an editor fakes a track record",
        lambda s, t: t.patch(s.eve, {"status": {"trackRecord": [{"action": "failover", "succeeded": 99}]}}, "status"),
        STATUS,
    ),
    # Pausing, acknowledging, labelling
    Attack("an editor pauses", lambda s, t: t.annotate(s.eve, pause="x"), f"eve {PAUSE}"),
    Attack("an editor unpauses", lambda s, t: t.annotate(s.eve, pause=None), f"eve {PAUSE}", paused),
    Attack(
        "an editor unpauses, stamp included",
        lambda s, t: t.annotate(s.eve, pause=None, paused_by=None),
        f"eve {PAUSE}",
        paused,
    ),
    Attack(
        "an editor unpauses by a replace without annotations",
        lambda s, t: t.replace(s.eve, lambda o: o["metadata"].pop("annotations")),
        f"eve {PAUSE}",
        paused,
    ),
    Attack(
        "an editor unpauses by deleting the database",
        lambda s, t: t.delete(s.eve),
        "is paused, and deleting it",
        paused,
    ),
    Attack(
        "an editor changes the reason of a pause", lambda s, t: t.annotate(s.eve, pause="y"), f"eve {PAUSE}", paused
    ),
    Attack(
        "an editor creates a paused database",
        lambda s, t: s.eve.create(DATABASES, s.namespace, a_database(annotations={K + "pause": "x"})),
        f"eve {PAUSE}",
    ),
    Attack("an editor sets paused-by alone", lambda s, t: t.annotate(s.eve, paused_by="pat"), STAMPS),
    Attack("an editor rewrites paused-by", lambda s, t: t.annotate(s.eve, paused_by="dora"), STAMPS, paused),
    Attack("an editor removes paused-by", lambda s, t: t.annotate(s.eve, paused_by=None), STAMPS, paused),
    Attack(
        "the person on call blames another for the pause",
        lambda s, t: t.annotate(s.pat, paused_by="dora"),
        STAMPS,
        paused,
    ),
    Attack(
        "a database is created with a stamp",
        lambda s, t: s.dora.create(DATABASES, s.namespace, a_database(annotations={K + "paused-by": "pat"})),
        STAMPS,
    ),
    Attack(
        "an editor acknowledges an open circuit",
        lambda s, t: t.annotate(s.eve, acknowledge="i-1"),
        "eve may not acknowledge",
    ),
    Attack("an editor sets acknowledged-by alone", lambda s, t: t.annotate(s.eve, acknowledged_by="pat"), STAMPS),
    Attack("an editor labels an incident", lambda s, t: t.annotate(s.eve, label="disk"), "eve may not label"),
    Attack("an editor sets labelled-by alone", lambda s, t: t.annotate(s.eve, labelled_by="pat"), STAMPS),
    Attack(
        "an editor takes a label back",
        lambda s, t: t.annotate(s.eve, label=None),
        "eve may not label",
        lambda t: t.annotate(t.shop.pat, label="disk"),
    ),
    Attack(
        "an editor changes what a person labelled",
        lambda s, t: t.annotate(s.eve, label=NORMAL),
        "eve may not label",
        labelled,
    ),
    Attack(
        "an editor adds a label of his own to a person's",
        lambda s, t: t.annotate(s.eve, label=f"{ANOMALY};{NORMAL}", labelled_by="pat"),
        "eve may not label",
        labelled,
    ),
    Attack(
        "an editor creates a labelled database",
        lambda s, t: s.eve.create(DATABASES, s.namespace, a_database(annotations={K + "label": NORMAL})),
        "eve may not label",
    ),
    Attack(
        "an editor takes a label back by a replace without annotations",
        lambda s, t: t.replace(s.eve, lambda o: o["metadata"].pop("annotations")),
        "eve may not label",
        labelled,
    ),
    Attack("an editor rewrites labelled-by", lambda s, t: t.annotate(s.eve, labelled_by="dora"), STAMPS, labelled),
    Attack("an editor removes labelled-by", lambda s, t: t.annotate(s.eve, labelled_by=None), STAMPS, labelled),
    Attack(
        "the person on call has another named for the label",
        lambda s, t: t.annotate(s.pat, labelled_by="dora"),
        STAMPS,
        labelled,
    ),
    Attack("who may approve labels all the same", lambda s, t: t.annotate(s.ann, label=NORMAL), "ann may not label"),
    Attack(
        "the person on call slips a label in through the status",
        lambda s, t: t.patch(s.pat, {"metadata": {"annotations": {K + "label": NORMAL}}}, "status"),
        STATUS,
    ),
    Attack(
        "the person on call may pause, and changes the host with it",
        lambda s, t: t.patch(
            s.pat, {"spec": {"connection": {"host": "evil"}}, "metadata": {"annotations": {K + "pause": "x"}}}
        ),
        f"pat {SECRET}",
    ),
    # Others
    Attack(
        "the operator pauses", lambda s, t: t.annotate(s.operator, pause="x"), "the operator approves, rejects, pauses"
    ),
    Attack(
        "the operator acknowledges",
        lambda s, t: t.annotate(s.operator, acknowledge="x"),
        "the operator approves, rejects, pauses",
    ),
    Attack(
        "the operator labels what it was taught by",
        lambda s, t: t.annotate(s.operator, label=NORMAL),
        "the operator approves, rejects, pauses",
    ),
    Attack(
        "the operator changes the database",
        lambda s, t: t.spec(s.operator, connection={"host": "x"}),
        "writes nothing but the status",
    ),
    Attack(
        "an approval on a database", lambda s, t: t.annotate(s.ann, approve="x"), "means nothing on a MonitoredDatabase"
    ),
    Attack("a misspelt pause", lambda s, t: t.annotate(s.pat, paused="x"), "means nothing on a MonitoredDatabase"),
    Attack("a pause in other case", lambda s, t: t.annotate(s.pat, Pause="x"), "means nothing on a MonitoredDatabase"),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_api_server_refuses(shop: Shop, attack: Attack) -> None:
    target = Handle(shop, DATABASES, shop.database())
    attack.given(target)
    before = target.object()

    with pytest.raises(RefusedError) as refused:
        attack.strike(shop, target)

    assert attack.says in str(refused.value)
    assert POLICY in str(refused.value)
    assert "resulted in error" not in str(refused.value)
    assert target.object() == before


@pytest.fixture
def target(shop: Shop) -> Handle:
    return Handle(shop, DATABASES, shop.database())


def test_the_dba_names_every_secret_workload_and_service(shop: Shop) -> None:
    metrics = METRICS | {"auth": {"type": "basic", "secretRef": "token"}, "caSecretRef": "ca"}

    make(shop.dora, shop, metrics=metrics, pooler=POOLER, replication=REPLICATION, workloadRef=WORKLOAD)


@pytest.mark.parametrize(
    "logs",
    [
        {"loki": LOKI | {"auth": {"type": "basic", "secretRef": "loki"}, "caSecretRef": "ca"}},
        {"pods": {"selector": {"app": "orders"}}},
    ],
)
def test_the_dba_names_every_log(shop: Shop, logs: dict[str, Any]) -> None:
    make(shop.dora, shop, logs=logs)


def test_an_editor_names_the_one_secret_that_he_may_read(shop: Shop) -> None:
    make(tim(shop), shop, connection=CONNECTION)


@pytest.mark.parametrize(
    ("key", "stamp"), [("pause", "paused-by"), ("acknowledge", "acknowledged-by"), ("label", "labelled-by")]
)
def test_the_person_on_call_sets_changes_and_withdraws_without_a_right_to_the_secret(
    target: Handle, key: str, stamp: str
) -> None:
    pat = target.shop.pat

    target.annotate(pat, **{key: "one"})
    assert target.ours == {key: "one", stamp: "pat"}

    target.annotate(pat, **{key: "two"})
    assert target.ours == {key: "two", stamp: "pat"}

    target.annotate(pat, **{key: None})
    assert target.ours == {}


def test_the_last_one_to_change_a_pause_is_the_one_named(target: Handle) -> None:
    paused(target)

    target.annotate(target.shop.person("vic", EDITORS, "oncall"), pause="longer")

    assert target.ours["paused-by"] == "vic"


def test_a_name_typed_beside_a_pause_is_overwritten_with_the_true_one(target: Handle) -> None:
    target.annotate(target.shop.pat, pause="x", paused_by="dora")

    assert target.ours == {"pause": "x", "paused-by": "pat"}


def test_a_name_typed_beside_a_label_is_overwritten_with_the_true_one(target: Handle) -> None:
    target.annotate(target.shop.pat, label=ANOMALY, labelled_by="dora")

    assert target.ours == {"label": ANOMALY, "labelled-by": "pat"}


def test_the_last_one_to_change_a_label_is_the_one_named(target: Handle) -> None:
    labelled(target)

    target.annotate(target.shop.person("vic", EDITORS, "oncall"), label=f"{ANOMALY};{NORMAL}")

    assert target.ours["labelled-by"] == "vic"


def test_a_label_sent_with_the_operators_status_is_refused_or_lost(target: Handle) -> None:
    with contextlib.suppress(RefusedError):
        target.patch(target.shop.operator, {"metadata": {"annotations": {K + "label": NORMAL}}}, "status")

    assert target.ours == {}


def test_what_the_api_server_stamped_is_what_the_operator_believes(target: Handle) -> None:
    target.annotate(target.shop.pat, label=f"{ANOMALY};{NORMAL}")

    found = read_labels(target.object()["metadata"]["annotations"])

    assert found.problems == ()
    assert [(label.fault_class, label.who) for label in found.labels] == [("backup", "pat")]  # the last word counts


def test_a_database_is_created_paused_by_somebody_who_may(shop: Shop) -> None:
    sam = shop.person("sam", EDITORS, "dbas", "oncall")

    made = sam.create(DATABASES, shop.namespace, a_database(annotations={K + "pause": "not yet"}))

    assert made["metadata"]["annotations"][K + "paused-by"] == "sam"


def test_a_pause_by_server_side_apply_keeps_its_stamp_when_applied_again(target: Handle) -> None:
    for _ in range(2):
        target.apply(target.shop.pat, pause="x")

    assert target.ours == {"pause": "x", "paused-by": "pat"}


def test_a_pause_survives_an_apply_of_others_who_do_not_mention_it(target: Handle) -> None:
    paused(target)

    target.apply(target.shop.eve, manager="gitops")

    assert target.ours["paused-by"] == "pat"


def test_an_editor_annotates_a_paused_database(target: Handle) -> None:
    paused(target)

    target.shop.eve.annotate(DATABASES, target.shop.namespace, target.name, {"note": "hello"})

    assert target.ours["paused-by"] == "pat"


def test_an_editor_deletes_a_database_that_is_not_paused(target: Handle) -> None:
    target.delete(target.shop.eve)


def test_the_person_on_call_deletes_a_paused_database(target: Handle) -> None:
    paused(target)

    target.delete(target.shop.pat)


def test_the_operator_writes_the_status(target: Handle) -> None:
    target.patch(target.shop.operator, {"status": {"doing": "watching"}}, "status")

    assert target.object()["status"]["doing"] == "watching"
