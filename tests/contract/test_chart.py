"""The chart: what it installs is what the operator needs and no more, wrong values are refused, data outlives it."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from kintsugi.api.policy import Mode
from kintsugi.app import EXPERIENCE_URL, load_config
from kintsugi.collector import config as collector
from kintsugi.engines.risk import RISKS
from kintsugi_dev.cluster import Cluster, CommandError
from kintsugi_dev.cluster.cluster import CHART
from kintsugi_dev.objects import OPERATOR, a_database, a_policy, an_action, text

SYSTEM = "kintsugi-system"
KUBERNETES = "--kube-version=1.36.0"
NEWEST = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
COLLECTOR = [
    "collector.enabled=true",
    "collector.secrets={orders-login}",
    "collector.config.databases[0].name=orders",
    "collector.config.databases[0].namespace=shop",
    "collector.config.databases[0].database=orders",
    "collector.config.databases[0].usernameFile=/etc/kintsugi/secrets/orders-login/username",
    "collector.config.databases[0].passwordFile=/etc/kintsugi/secrets/orders-login/password",
    "collector.config.databases[0].members[0].name=orders-0",
    "collector.config.databases[0].members[0].host=orders-0.shop",
]
VALUES: dict[str, list[str]] = {
    "the defaults": [],
    "the operator off": ["operator.enabled=false"],
    "the collector": COLLECTOR,
    "two namespaces": ["rbac.namespaces={default,kube-public}"],
    "every boundary": [
        "paused=true",
        "ceiling.mode=AutoMediumRisk",
        "ceiling.actions={analyze-table,failover}",
        "ceiling.prometheus={https://prometheus.monitoring:9090/eu}",
        "ceiling.databases={*.shop.svc}",
        "ceiling.loki={https://loki.monitoring:3100}",
        "ceiling.logFiles={/logs}",
        "ceiling.concurrent=3",
    ],
    "experience on a volume": ["experience.persistence.enabled=true", "experience.persistence.storageClass=fast"],
    "experience elsewhere": ["experience.urlSecret.name=experience", "experience.perClass=5"],
    "no experience": ["experience.enabled=false"],
    "logs of pods, and on a volume": [
        "logs.pods=true",
        "logs.volumes[0].name=logs",
        "logs.volumes[0].persistentVolumeClaim.claimName=logs",
        "logs.volumeMounts[0].name=logs",
        "logs.volumeMounts[0].mountPath=/logs",
    ],
    "other models": ["models.detector=Statistical", "models.bundle.persistentVolumeClaim.claimName=models"],
    "nobody's roles": ["rbac.people=false", "prometheusAnnotations=false"],
}
WRONG = {
    "a misspelt value": ("ceilling.mode=Observe", "additional properties 'ceilling' not allowed"),
    "a misspelt part": ("ceiling.mod=Observe", "at '/ceiling': additional properties 'mod' not allowed"),
    "an unknown mode": ("ceiling.mode=Auto", "at '/ceiling/mode': value must be one of 'Observe', 'Recommend'"),
    "an unknown action": ("ceiling.actions={vacuum}", "at '/ceiling/actions/0': value must be one of 'analyze-table'"),
    "a URL without scheme": ("ceiling.prometheus={prometheus:9090}", "at '/ceiling/prometheus/0'"),
    "a URL with a password": ("ceiling.prometheus={http://a:b@prometheus}", "at '/ceiling/prometheus/0'"),
    "a pattern with a path": ("ceiling.databases={shop/orders}", "at '/ceiling/databases/0'"),
    "no action at a time": ("ceiling.concurrent=0", "at '/ceiling/concurrent': minimum: got 0, want 1"),
    "a switch in words": ("paused=perhaps", "at '/paused': got string, want boolean"),
    "one namespace for a list": ("rbac.namespaces=shop", "at '/rbac/namespaces': got string, want array"),
    "a namespace that can't exist": ("rbac.namespaces={Shop}", "at '/rbac/namespaces/0'"),
    "an unknown pull policy": ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of"),
    "a resource that isn't one": ("operator.resources.limits.memry=1Gi", "additional properties 'memry' not allowed"),
    "a collector of nothing": ("collector.enabled=true", "at '/collector/config': missing property 'databases'"),
    "a password in the open": ("experience.url=postgresql://kintsugi:hush@db/x", "at '/experience/url'"),
    "a log folder upwards": ("ceiling.logFiles={/logs/../etc}", "at '/ceiling/logFiles/0'"),
    "a log folder that is no path": ("ceiling.logFiles={logs}", "at '/ceiling/logFiles/0'"),
    "a Loki without scheme": ("ceiling.loki={loki:3100}", "at '/ceiling/loki/0'"),
    "no examples at all": ("experience.perClass=0", "at '/experience/perClass': minimum: got 0, want 1"),
    "an unknown detector": ("models.detector=Magic", "at '/models/detector': value must be one of 'Learned'"),
    "memory in words": ("operator.resources.limits.memory=much", "at '/operator/resources/limits/memory'"),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own, since these tests install, change and remove the chart."""
    cluster = Cluster.up(tmp_path_factory.mktemp("chart"), chart=False)
    try:
        for namespace in ("shop", "billing"):
            cluster.kubectl("create", "namespace", namespace)
        yield cluster
    finally:
        cluster.down()


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_chart_is_in_order_and_the_api_server_takes_all_of_it(values: list[str], cluster: Cluster) -> None:
    settings = [f"--set={value}" for value in values]
    cluster.helm("lint", "--quiet", KUBERNETES, str(CHART), *settings)

    rendered = _render(cluster, *values)

    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-", input=rendered)


@pytest.mark.parametrize(("value", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_refused_by_name(value: str, says: str, bare: Cluster) -> None:
    with pytest.raises(CommandError) as refused:
        _render(bare, value)

    assert says in refused.value.output


def test_a_cluster_that_is_too_old_is_refused(bare: Cluster) -> None:
    with pytest.raises(CommandError, match=r"chart requires kubeVersion: >=1\.30"):
        bare.helm("template", "kintsugi", str(CHART), "--kube-version=1.29.0")


def test_stamps_are_written_by_the_api_server_only_where_it_can(bare: Cluster) -> None:
    old = bare.helm("template", "kintsugi", str(CHART), "--kube-version=1.35.0")

    assert "kind: MutatingAdmissionPolicy" not in old
    assert "kind: ValidatingAdmissionPolicy" in old
    assert "kind: MutatingAdmissionPolicy" in _render(bare)


def test_the_version_and_the_vocabulary_are_those_of_the_code() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ceiling = schema["properties"]["ceiling"]["properties"]

    assert chart["appVersion"] == project["version"]
    assert ceiling["mode"]["enum"] == [mode.value for mode in Mode]
    assert ceiling["actions"]["items"]["enum"] == sorted(RISKS)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_operator_reads_the_configuration_that_the_chart_writes(
    values: list[str], bare: Cluster, tmp_path: Path
) -> None:
    written = _one(_render(bare, *values), "ConfigMap", "kintsugi-config")["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(written, encoding="utf-8")

    config = load_config(tmp_path / "config.yaml")

    everything = "paused=true" in values
    assert config.paused is everything
    assert config.ceiling.mode is (Mode.AUTO_MEDIUM_RISK if everything else Mode.APPROVE)
    assert config.ceiling.concurrent == (3 if everything else None)
    assert config.ceiling.log_files == (("/logs",) if everything else ())
    assert config.ceiling.actions == (("analyze-table", "failover") if everything else ())
    if "experience.enabled=false" in values:
        assert config.experience is None
    else:
        elsewhere = "experience.perClass=5" in values
        assert config.experience is not None
        assert config.experience.url == ("" if elsewhere else "sqlite:////var/lib/kintsugi/experience.db")
        assert config.experience.per_class == (5 if elsewhere else 10)
    others = "models.detector=Statistical" in values
    assert config.models.detector == ("Statistical" if others else "Learned")
    assert config.models.bundle == (Path("/etc/kintsugi-models") if others else None)
    assert config.namespaces == (
        ("default", "kube-public") if "rbac.namespaces={default,kube-public}" in values else ()
    )


def test_the_collector_reads_the_configuration_that_the_chart_writes(bare: Cluster, tmp_path: Path) -> None:
    written = _one(_render(bare, *COLLECTOR), "ConfigMap", "kintsugi-collector")["data"]["collector.yaml"]
    (tmp_path / "collector.yaml").write_text(written, encoding="utf-8")

    config = collector.load(tmp_path / "collector.yaml")

    assert [database.key for database in config.databases] == ["shop/orders"]


MAY = [
    ("list", "monitoreddatabases.kintsugi.dev"),
    ("watch", "healingpolicies.kintsugi.dev"),
    ("get", "healingactions.kintsugi.dev"),
    ("create", "healingactions.kintsugi.dev"),
    ("delete", "healingactions.kintsugi.dev"),
    ("patch", "healingactions.kintsugi.dev/status"),
    ("update", "monitoreddatabases.kintsugi.dev/status"),
    ("patch", "healingpolicies.kintsugi.dev/status"),
    ("create", "events.events.k8s.io"),
    ("patch", "events.events.k8s.io"),
    ("create", "subjectaccessreviews.authorization.k8s.io"),
    ("get", "secrets"),
]
MAY_NOT = [
    ("patch", "healingactions.kintsugi.dev"),
    ("update", "healingactions.kintsugi.dev"),
    ("deletecollection", "healingactions.kintsugi.dev"),
    ("patch", "monitoreddatabases.kintsugi.dev"),
    ("update", "monitoreddatabases.kintsugi.dev"),
    ("create", "monitoreddatabases.kintsugi.dev"),
    ("delete", "monitoreddatabases.kintsugi.dev"),
    ("create", "healingpolicies.kintsugi.dev"),
    ("patch", "healingpolicies.kintsugi.dev"),
    ("update", "healingactions.kintsugi.dev/approve-low"),
    ("update", "healingactions.kintsugi.dev/approve-high"),
    ("update", "healingactions.kintsugi.dev/reject"),
    ("update", "monitoreddatabases.kintsugi.dev/pause"),
    ("update", "monitoreddatabases.kintsugi.dev/label"),
    ("update", "healingpolicies.kintsugi.dev/automate"),
    ("list", "secrets"),
    ("watch", "secrets"),
    ("create", "secrets"),
    ("patch", "secrets"),
    ("create", "pods"),
    ("delete", "pods"),
    ("create", "pods/exec"),
    ("get", "pods/log"),
    ("create", "statefulsets.apps"),
    ("delete", "statefulsets.apps"),
    ("list", "statefulsets.apps"),
    ("update", "statefulsets.apps"),
    ("delete", "services"),
    ("get", "configmaps"),
    ("create", "persistentvolumeclaims"),
    ("get", "nodes"),
    ("create", "serviceaccounts/token"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
    ("update", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io"),
    ("list", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("impersonate", "users"),
    ("*", "*"),
]
READS = [("list", "pods"), ("get", "services"), ("get", "statefulsets.apps"), ("get", "deployments.apps")]
PATCHES = [("patch", "services"), ("patch", "statefulsets.apps"), ("patch", "deployments.apps")]


def test_the_operator_has_the_rights_that_it_needs_and_no_others(cluster: Cluster) -> None:
    assert [right for right in MAY if not _may(cluster, OPERATOR, [right])[0]] == []
    answers = _may(cluster, OPERATOR, MAY_NOT)
    assert [right for right, allowed in zip(MAY_NOT, answers, strict=True) if allowed] == []


@pytest.mark.parametrize(
    ("mode", "reads", "patches"),
    [
        ("Observe", False, False),
        ("Recommend", True, False),
        ("AutoMediumRisk", True, True),
    ],
)
def test_rights_over_workloads_come_with_the_ceiling(mode: str, reads: bool, patches: bool, bare: Cluster) -> None:
    bare.install_chart(f"ceiling.mode={mode}")

    assert set(_may(bare, OPERATOR, READS)) == {reads}
    assert set(_may(bare, OPERATOR, PATCHES)) == {patches}


@pytest.mark.parametrize("mode", ["Observe", "Approve"])
@pytest.mark.parametrize("reads", [False, True])
def test_the_logs_of_pods_are_read_only_where_the_values_say_so(mode: str, reads: bool, bare: Cluster) -> None:
    bare.install_chart(f"ceiling.mode={mode}", f"logs.pods={str(reads).lower()}")

    assert set(_may(bare, OPERATOR, [("get", "pods/log")])) == {reads}
    assert set(_may(bare, OPERATOR, [("list", "pods")])) == {reads or mode != "Observe"}
    assert set(_may(bare, OPERATOR, [("create", "pods/exec"), ("delete", "pods")])) == {False}


def test_with_namespaces_given_secrets_and_workloads_elsewhere_are_out_of_reach(bare: Cluster) -> None:
    bare.install_chart("rbac.namespaces={shop}")
    rights = [("get", "secrets"), *READS, *PATCHES]

    assert set(_may(bare, OPERATOR, rights, "shop")) == {True}
    assert set(_may(bare, OPERATOR, rights, "billing")) == {False}
    assert set(_may(bare, OPERATOR, rights, SYSTEM)) == {False}


def test_the_operator_has_no_right_that_nothing_uses(cluster: Cluster) -> None:
    rights = [("create", "leases.coordination.k8s.io"), ("update", "leases.coordination.k8s.io")]

    assert set(_may(cluster, OPERATOR, rights, SYSTEM)) == {False}


APPROVE = [("update", f"healingactions.kintsugi.dev/approve-{risk}") for risk in ("low", "medium", "high")]
PEOPLE = {
    "kintsugi-viewer": (
        [("list", "healingactions.kintsugi.dev")],
        [("create", "healingpolicies.kintsugi.dev"), *APPROVE],
    ),
    "kintsugi-editor": (
        [("create", "monitoreddatabases.kintsugi.dev"), ("patch", "healingpolicies.kintsugi.dev")],
        [*APPROVE, ("create", "healingactions.kintsugi.dev"), ("update", "healingpolicies.kintsugi.dev/automate")],
    ),
    "kintsugi-approver": (
        [
            *APPROVE,
            ("patch", "healingactions.kintsugi.dev"),
            ("update", "healingactions.kintsugi.dev/reject"),
            ("update", "monitoreddatabases.kintsugi.dev/label"),
        ],
        [
            ("create", "healingactions.kintsugi.dev"),
            ("patch", "healingactions.kintsugi.dev/status"),
            ("update", "healingpolicies.kintsugi.dev/automate"),
        ],
    ),
    "kintsugi-owner": (
        [("update", "healingpolicies.kintsugi.dev/automate")],
        [*APPROVE, ("update", "monitoreddatabases.kintsugi.dev/label")],
    ),
    "view": ([("get", "monitoreddatabases.kintsugi.dev")], [("patch", "monitoreddatabases.kintsugi.dev"), *APPROVE]),
    "edit": (
        [("create", "monitoreddatabases.kintsugi.dev")],
        [
            *APPROVE,
            ("update", "healingpolicies.kintsugi.dev/automate"),
            ("update", "monitoreddatabases.kintsugi.dev/label"),
        ],
    ),
    "admin": (
        [("create", "healingpolicies.kintsugi.dev")],
        [*APPROVE, ("update", "healingpolicies.kintsugi.dev/automate"), ("create", "healingactions.kintsugi.dev")],
    ),
}


@pytest.mark.parametrize("role", PEOPLE)
def test_people_get_what_their_role_says(role: str, cluster: Cluster, namespace: str) -> None:
    may, may_not = PEOPLE[role]
    user = f"a-{role}"
    cluster.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "--namespace", namespace)

    assert set(_may(cluster, user, may, namespace)) == {True}
    assert set(_may(cluster, user, may_not, namespace)) == {False}
    assert set(_may(cluster, user, may, "default")) == {False}


def test_the_pods_run_where_only_restricted_ones_may(bare: Cluster) -> None:
    bare.kubectl("create", "secret", "generic", "orders-login", "--namespace", SYSTEM, "--from-literal=password=x")
    bare.install_chart("operator.enabled=true", *COLLECTOR)
    bare.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    bare.kubectl("delete", "pods", "--all", "--namespace", SYSTEM, "--now")

    for name in ("kintsugi", "kintsugi-collector"):
        bare.kubectl("rollout", "status", f"deployment/{name}", "--namespace", SYSTEM, "--timeout=30s")


def test_the_operators_pod_says_how_it_is_and_can_write_nothing(bare: Cluster) -> None:
    pod = _one(_render(bare), "Deployment", "kintsugi")["spec"]["template"]["spec"]
    container = pod["containers"][0]

    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["serviceAccountName"] == "kintsugi"


@pytest.mark.parametrize(
    ("values", "volume"),
    [
        ((), {"emptyDir": {"sizeLimit": "1Gi"}}),
        (("experience.persistence.enabled=true",), {"persistentVolumeClaim": {"claimName": "kintsugi-experience"}}),
        (
            ("experience.persistence.enabled=true", "experience.persistence.existingClaim=mine"),
            {"persistentVolumeClaim": {"claimName": "mine"}},
        ),
    ],
    ids=["until the pod goes", "on a claim of the chart's", "on a claim of yours"],
)
def test_experience_is_kept_where_the_values_say(
    values: tuple[str, ...], volume: dict[str, Any], bare: Cluster
) -> None:
    rendered = _render(bare, *values)
    pod = _one(rendered, "Deployment", "kintsugi")["spec"]["template"]["spec"]

    assert {"name": "experience"} | volume in pod["volumes"]
    assert {"name": "experience", "mountPath": "/var/lib/kintsugi"} in pod["containers"][0]["volumeMounts"]
    assert ("kind: PersistentVolumeClaim" in rendered) is (
        volume.get("persistentVolumeClaim") is not None and len(values) == 1
    )


def test_the_url_with_a_password_comes_from_a_secret_and_stands_nowhere_else(bare: Cluster) -> None:
    rendered = _render(bare, "experience.urlSecret.name=experience")
    container = _one(rendered, "Deployment", "kintsugi")["spec"]["template"]["spec"]["containers"][0]

    source = {"valueFrom": {"secretKeyRef": {"name": "experience", "key": "url"}}}
    assert {"name": EXPERIENCE_URL} | source in container["env"]
    assert (
        "url" not in yaml.safe_load(_one(rendered, "ConfigMap", "kintsugi-config")["data"]["config.yaml"])["experience"]
    )


def test_a_changed_ceiling_restarts_the_operator(bare: Cluster) -> None:
    annotations = [
        _one(_render(bare, value), "Deployment", "kintsugi")["spec"]["template"]["metadata"]["annotations"][
            "kintsugi.dev/config"
        ]
        for value in ("ceiling.mode=Observe", "ceiling.mode=Approve", "image.tag=other")
    ]

    assert annotations[0] != annotations[1] == annotations[2]


def test_an_upgrade_brings_the_newer_crds(bare: Cluster) -> None:
    bare.install_chart()
    crd = "healingpolicies.kintsugi.dev"
    bare.kubectl("patch", "crd", crd, "--type=json", '--patch=[{"op": "remove", "path": "/spec/names/shortNames"}]')

    bare.helm("upgrade", "kintsugi", str(CHART), f"--namespace={SYSTEM}", "--set=operator.enabled=false")

    assert bare.kubectl("get", "crd", crd, "--output=jsonpath={.spec.names.shortNames[0]}") == "hp"


def test_uninstalling_keeps_what_people_wrote_and_takes_the_rest_away(bare: Cluster) -> None:
    bare.install_chart()
    for whole in (a_database(), a_policy(), an_action()):
        by = OPERATOR if whole["kind"] == "HealingAction" else None
        bare.kubectl("create", "--namespace=shop", "--filename=-", input=text(whole), as_user=by)

    bare.helm("uninstall", "kintsugi", f"--namespace={SYSTEM}")

    kept = bare.kubectl("get", "kintsugi", "--namespace=shop", "--output=name").split()
    assert [name.split(".")[0] for name in sorted(kept)] == ["healingaction", "healingpolicy", "monitoreddatabase"]
    rest = "clusterroles,clusterrolebindings,validatingadmissionpolicies,mutatingadmissionpolicies"
    left = bare.kubectl("get", rest, "--output=name").split()
    assert [name for name in left if "kintsugi" in name] == []
    assert "kintsugi" not in bare.kubectl(
        "get", "serviceaccounts,roles,configmaps", f"--namespace={SYSTEM}", "--output=name"
    )

    bare.install_chart()  # finds its own CRDs again
    assert "orders" in bare.kubectl("get", "mdb", "--namespace=shop")
    bare.helm("uninstall", "kintsugi", f"--namespace={SYSTEM}")
    bare.kubectl("delete", "crd", "--selector=app.kubernetes.io/part-of=kintsugi")  # as the chart's notes say
    assert "kintsugi" not in bare.kubectl("get", "crd", "--output=name")


@functools.cache
def _render(cluster: Cluster, *values: str) -> str:
    settings = [f"--set={value}" for value in values]
    return cluster.helm("template", "kintsugi", str(CHART), f"--namespace={SYSTEM}", KUBERNETES, NEWEST, *settings)


def _one(rendered: str, kind: str, name: str) -> dict[str, Any]:
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    found: dict[str, Any] = next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
    return found


def _may(cluster: Cluster, user: str, rights: Sequence[tuple[str, str]], namespace: str = "shop") -> list[bool]:
    """What `kubectl auth can-i --as` would answer for each right, asked at once."""
    reviews = "---\n".join(json.dumps(_review(user, verb, resource, namespace)) + "\n" for verb, resource in rights)
    answer = cluster.kubectl("create", "--filename=-", "--output=jsonpath={.status.allowed} ", input=reviews).split()
    assert len(answer) == len(rights)
    return [word == "true" for word in answer]


def _review(user: str, verb: str, resource: str, namespace: str) -> dict[str, Any]:
    name, _, subresource = resource.partition("/")
    plural, _, group = name.partition(".")
    groups = ["system:authenticated", *(["system:serviceaccounts"] if user.startswith("system:serviceaccount") else [])]
    attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace}
    spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec}
