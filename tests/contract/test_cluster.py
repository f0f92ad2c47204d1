"""The development cluster is a real API server, comes up in seconds, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kintsugi_dev.cluster import Cluster, ClusterError, CommandError, NotReadyError, chosen_runtime, kwok, processes

POD = """
apiVersion: v1
kind: Pod
metadata: {name: sleeper}
spec: {containers: [{name: main, image: none}]}
"""
REFUSE_EVERYTHING = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-configmaps-named-no}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: "object.metadata.name != 'no'", message: "any other name is fine"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-configmaps-named-no}
spec: {policyName: no-configmaps-named-no, validationActions: [Deny]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: stamp-the-caller}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: 'Object{metadata: Object.metadata{annotations: {"caller": request.userInfo.username}}}'
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: stamp-the-caller}
spec: {policyName: stamp-the-caller}
"""
OWNER = """
import pathlib, sys, kintsugi_dev.cluster
kintsugi_dev.cluster.Cluster.up(pathlib.Path(sys.argv[1]), chart=False)
print("up", flush=True)
sys.stdin.read()
"""
READY_WITHIN_S = 30
"""Ten times what it takes on an idle machine of two cores, for one that is busy with other tests."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this file's own, without the chart, that its tests may break."""
    cluster = Cluster.up(tmp_path_factory.mktemp("bare"), chart=False)
    yield cluster
    cluster.down()


def test_a_cluster_is_ready_in_seconds_and_nothing_is_left_of_it_after_down(tmp_path: Path) -> None:
    started = time.monotonic()
    cluster = Cluster.up(tmp_path / "quick", chart=False)
    took = time.monotonic() - started
    try:
        assert cluster.ready()
        assert len(processes.marked(kwok.MARK, str(cluster.directory))) == len(kwok.COMPONENTS)
    finally:
        cluster.down()
    assert took < READY_WITHIN_S
    assert processes.marked(kwok.MARK, str(cluster.directory)) == []
    assert not cluster.directory.exists()
    cluster.down()  # nothing to end is fine


def test_rbac_refuses_an_unbound_user_and_admits_a_bound_one(bare: Cluster) -> None:
    with pytest.raises(CommandError, match=r"Forbidden.*ann"):
        bare.kubectl("get", "secrets", as_user="ann")
    bare.kubectl("create", "clusterrolebinding", "viewers", "--clusterrole=view", "--group=viewers")
    assert bare.kubectl("auth", "can-i", "list", "pods", as_user="ann", as_groups=["viewers"]) == "yes\n"
    with pytest.raises(CommandError, match="Forbidden"):
        bare.kubectl("get", "secrets", as_user="ann", as_groups=["viewers"])


def test_a_service_account_acts_through_its_own_kubeconfig(bare: Cluster, tmp_path: Path) -> None:
    bare.kubectl("create", "serviceaccount", "robot")
    path = bare.service_account_kubeconfig("default", "robot", tmp_path / "robot")
    robot = Cluster(bare.name, path, bare.directory)
    who = json.loads(robot.kubectl("auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(CommandError, match="Forbidden"):
        robot.kubectl("get", "secrets")


def test_admission_policies_refuse_and_stamp(bare: Cluster) -> None:
    bare.kubectl("apply", "-f-", input=REFUSE_EVERYTHING)
    deadline = time.monotonic() + READY_WITHIN_S  # the API server takes a moment to load a new policy
    number = 0
    while True:
        number += 1
        bare.kubectl("create", "configmap", f"probe-{number}", as_user="ben", as_groups=["system:masters"])
        made = json.loads(bare.kubectl("get", "configmap", f"probe-{number}", "-o", "json"))
        if made["metadata"].get("annotations", {}).get("caller") == "ben" and _refused(bare):
            return
        assert time.monotonic() < deadline, f"neither stamped nor refused: {made['metadata']}"
        time.sleep(0.1)


def _refused(cluster: Cluster) -> bool:
    try:
        cluster.kubectl("create", "configmap", "no", "--dry-run=server")
    except CommandError as refusal:
        return "any other name is fine" in refusal.output
    return False


def test_a_fake_pod_runs(bare: Cluster) -> None:
    bare.kubectl("apply", "-f-", input=POD)
    bare.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=30s")


def test_a_deleted_namespace_goes_away(bare: Cluster) -> None:
    bare.kubectl("create", "namespace", "short-lived")
    bare.kubectl("delete", "namespace", "short-lived", "--timeout=30s")
    assert "short-lived" not in bare.kubectl("get", "namespaces")


def test_data_survives_an_api_server_that_is_killed_and_started_again(bare: Cluster) -> None:
    bare.kubectl("create", "configmap", "kept")
    etcd = kwok.running(bare.directory, "etcd")
    bare.stop_apiserver()
    assert not bare.ready()
    with pytest.raises(NotReadyError, match="kube-apiserver"):
        bare.stop_apiserver()
    bare.start_apiserver()
    assert bare.kubectl("get", "configmap", "kept", "-o", "name") == "configmap/kept\n"
    assert etcd.alive(), "more than the API server was ended"


def test_a_frozen_api_server_answers_again_after_thawing(bare: Cluster) -> None:
    bare.freeze_apiserver()
    try:
        assert not bare.ready()
    finally:
        bare.thaw_apiserver()
    assert bare.ready()


def test_two_clusters_at_once_share_nothing(bare: Cluster, tmp_path: Path) -> None:
    other = Cluster.up(tmp_path / "other", chart=False)
    try:
        bare.kubectl("create", "namespace", "only-here")
        assert "only-here" not in other.kubectl("get", "namespaces")
    finally:
        other.down()
    assert bare.ready(), "ending one cluster must not touch another"


def test_up_clears_what_a_killed_process_left_in_the_same_directory(tmp_path: Path) -> None:
    directory = tmp_path / "again"
    command = [sys.executable, "-c", OWNER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        orphans = processes.marked(kwok.MARK, str(directory))
        os.kill(owner.pid, signal.SIGKILL)
    assert any(orphan.alive() for orphan in orphans), "nothing was left, so nothing is proven"
    cluster = Cluster.up(directory, chart=False)
    try:
        assert not any(orphan.alive() for orphan in orphans)
        assert cluster.ready()
    finally:
        cluster.down()


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(ClusterError, match="something else"):
        Cluster.up(tmp_path, chart=False)
    Cluster.of(tmp_path).down()
    assert (tmp_path / "thesis.txt").exists()


def test_an_unknown_kind_of_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "")
    assert chosen_runtime() == "kwok"
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(ClusterError, match="CLUSTER=minikube"):
        chosen_runtime()


def test_the_shared_cluster_has_the_chart_and_the_operators_service_account_but_no_operator(cluster: Cluster) -> None:
    crds = cluster.kubectl("get", "crd", "-o", "name")
    for plural in ("monitoreddatabases", "healingpolicies", "healingactions"):
        assert f"{plural}.kintsugi.dev" in crds
    assert cluster.kubectl("get", "serviceaccount", "kintsugi", "--namespace=kintsugi-system", "-o", "name")
    assert cluster.kubectl("get", "deployments", "--all-namespaces", "-o", "name") == ""


def test_each_test_has_its_own_namespace(cluster: Cluster, namespace: str) -> None:
    assert namespace.startswith("each-test-has-its-own-namespace")
    assert namespace in cluster.kubectl("get", "namespaces", "-o", "name")
