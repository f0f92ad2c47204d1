"""`Cluster`: one development cluster, from its start until nothing of it is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import yaml

from kintsugi_dev.cluster import kind, kwok
from kintsugi_dev.cluster.binaries import binary
from kintsugi_dev.cluster.errors import ClusterError, CommandError, NotReadyError

CHART = kind.REPOSITORY / "charts/kintsugi"
FORGED_ACTION = kind.REPOSITORY / "docs/samples/healing-action.yaml"
"""Valid, and yet refused to everybody but the operator: by it one sees whether the chart's policies are in force."""

NAMESPACE = "kintsugi-system"
"""Where the chart is installed; the operator's ServiceAccount `kintsugi` lives there."""

NODE = "fake-0"
COMMAND_TIMEOUT_S = 120.0
READY_S = 60.0
_FACTS = "cluster.json"
_CONTROLLERS_DONE = {
    "create": "serviceaccount/default",
    "jsonpath={.rules[0].verbs}": "clusterrole/admin",  # which is aggregated from view and edit
    "condition=Ready": f"node/{NODE}",
}
"""What the controllers do to a new cluster: until then it answers, but refuses what it should allow."""


Runtime = Literal["kwok", "kind"]

_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": NODE,
        "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
        "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", "type": "kwok"},
    },
    "status": {
        "allocatable": {"cpu": "32", "memory": "256Gi", "pods": "5000"},
        "capacity": {"cpu": "32", "memory": "256Gi", "pods": "5000"},
    },
}


def chosen_runtime() -> Runtime:
    """What runs clusters after the environment's `CLUSTER`: kwok where it is unset or empty.

    Raises:
        ClusterError: it names something else than kwok or kind.
    """
    chosen = os.environ.get("CLUSTER") or "kwok"
    if chosen not in get_args(Runtime):
        raise ClusterError(f"CLUSTER={chosen} is not known; leave it unset (kwok) or use CLUSTER=kind")
    return cast(Runtime, chosen)


@dataclass(frozen=True)
class Cluster:
    """A running cluster with RBAC on, one fake node whose pods cost nothing, and all ports on 127.0.0.1.

    Attributes:
        name: what kwokctl or kind calls it.
        kubeconfig: credentials of a cluster admin.
        directory: all that the cluster keeps on disk; removed by `down`.
    """

    name: str
    kubeconfig: Path
    directory: Path
    runtime: Runtime = "kwok"

    @classmethod
    def up(cls, directory: Path, *, name: str | None = None, chart: bool = True, runtime: Runtime = "kwok") -> Cluster:
        """Start a cluster in `directory` and return when it is ready; whatever an earlier one left there goes first.

        With `chart`, `charts/kintsugi` is installed, the operator itself off, so that it can run as a local process.

        Raises:
            ClusterError: it could not be started; nothing of it is left then.
        """
        directory = directory.resolve()
        cluster = cls(name or f"kintsugi-{directory.name}", directory / "kubeconfig", directory, runtime)
        cls.of(directory).down()
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ClusterError(
                f"{directory} holds something else than a cluster; name an empty directory, or a new one"
            )
        try:
            cluster._start()
            if chart:
                cluster.install_chart()
        except BaseException:
            cluster.down()
            raise
        return cluster

    @classmethod
    def of(cls, directory: Path) -> Cluster:
        """The cluster that belongs in `directory`, whether or not it runs: enough to end it."""
        directory = directory.resolve()
        facts = {"name": f"kintsugi-{directory.name}", "runtime": "kwok"}
        if (directory / _FACTS).exists():
            facts = json.loads((directory / _FACTS).read_text(encoding="utf-8"))
        return cls(facts["name"], directory / "kubeconfig", directory, cast(Runtime, facts["runtime"]))

    @classmethod
    def find(cls, directory: Path) -> Cluster | None:
        """The cluster that runs in `directory` and answers, or nothing."""
        cluster = cls.of(directory)
        return cluster if cluster.kubeconfig.exists() and cluster.ready() else None

    def down(self) -> None:
        """End every process of this cluster and remove its directory; fine when there is nothing to end."""
        if self.runtime == "kind":
            kind.end(self.name, self.kubeconfig)
        kwok.end(self.directory)
        if (self.directory / _FACTS).exists():
            shutil.rmtree(self.directory, ignore_errors=True)

    def kubectl(
        self, *arguments: str, input: str | None = None, as_user: str | None = None, as_groups: Sequence[str] = ()
    ) -> str:
        """Run kubectl as a cluster admin, or as `as_user` in `as_groups`, and return what it printed.

        Raises:
            CommandError: the API server, or kubectl, refused; `output` has its words.
            NotReadyError: no answer within two minutes.
        """
        impersonation = [f"--as={as_user}"] * bool(as_user) + [f"--as-group={group}" for group in as_groups]
        options = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.directory / 'kubectl-cache'}"]
        return self._run("kubectl", [*options, *impersonation], arguments, input)

    def helm(self, *arguments: str) -> str:
        """Run helm as a cluster admin and return what it printed.

        Raises:
            CommandError: helm ended with a status other than 0; `output` has its words.
        """
        return self._run("helm", [f"--kubeconfig={self.kubeconfig}"], arguments, None)

    def install_chart(self, *values: str) -> None:
        """Install or upgrade the chart with the operator itself off; `values` are `key=value` pairs for helm's `--set`.

        Returns when its admission policies are in force, which is some time after the API server has them.

        Raises:
            CommandError: helm or the API server refused the chart.
            NotReadyError: the policies were not in force within a minute.
        """
        settings = [f"--set={value}" for value in ("operator.enabled=false", *values)]
        self.helm(
            "upgrade", "--install", "kintsugi", str(CHART), f"--namespace={NAMESPACE}", "--create-namespace", *settings
        )
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", f"--timeout={READY_S:.0f}s")
        self._wait(self._refuses_forged_actions, f"the admission policy that refuses {FORGED_ACTION.name}")

    def service_account_kubeconfig(self, namespace: str, name: str, path: Path, *, hours: int = 24) -> Path:
        """Write a kubeconfig that acts as a ServiceAccount, by a token from the TokenRequest API, to `path` (0600).

        Raises:
            CommandError: there is no such ServiceAccount.
        """
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={hours}h").strip()
        config = yaml.safe_load(self.kubectl("config", "view", "--raw", "--flatten", "--minify"))
        config["users"] = [{"name": name, "user": {"token": token}}]
        config["contexts"][0]["context"] |= {"user": name, "namespace": namespace}
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def stop_apiserver(self) -> None:
        """Kill the API server at once; connections to it are reset, everything else of the cluster runs on.

        Raises:
            NotReadyError: it does not run.
        """
        kwok.stop(self._by_kwok(), "kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server again, with the same address and data; returns when it is ready.

        Raises:
            NotReadyError: it did not become ready within a minute.
        """
        kwok.start_missing(self._by_kwok())
        self._wait(lambda: self.ready() or self._started_again(), "the API server")

    def restart_apiserver(self) -> None:
        """Kill the API server and start it again; returns when it is ready."""
        self.stop_apiserver()
        self.start_apiserver()

    def freeze_apiserver(self) -> None:
        """Stop the API server in mid-air: its connections stay open and nothing answers, as when a host hangs."""
        kwok.stop(self._by_kwok(), "kube-apiserver", signal.SIGSTOP)

    def thaw_apiserver(self) -> None:
        """Let a frozen API server go on."""
        kwok.stop(self._by_kwok(), "kube-apiserver", signal.SIGCONT)
        self._wait(self.ready, "the API server")

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self.kubectl("get", "--raw=/readyz", "--request-timeout=2s") == "ok"
        except CommandError:
            return False

    def _start(self) -> None:
        (self.directory / _FACTS).write_text(json.dumps({"name": self.name, "runtime": self.runtime}), encoding="utf-8")
        if self.runtime == "kind":
            kind.start(self.name, self.kubeconfig)
        else:
            kwok.start(self.directory, self.name, self.kubeconfig)
            self.kubectl("create", "-f-", input=json.dumps(_NODE))
            for condition, thing in _CONTROLLERS_DONE.items():
                self.kubectl("wait", f"--for={condition}", thing, f"--timeout={READY_S:.0f}s")

    def _refuses_forged_actions(self) -> bool:
        try:
            self.kubectl("create", "--dry-run=server", "--namespace=default", f"--filename={FORGED_ACTION}")
        except CommandError as refusal:
            return "only the operator creates" in refusal.output
        return False

    def _started_again(self) -> bool:
        """Start what ended at once: a killed server's last threads may hold its port a moment longer than its name."""
        kwok.start_missing(self._by_kwok())
        return False

    def _by_kwok(self) -> Path:
        if self.runtime != "kwok":
            raise ClusterError(
                f"{self.name} is a {self.runtime} cluster, whose API server can't be stopped alone; use kwok"
            )
        return self.directory

    def _run(self, program: str, options: Sequence[str], arguments: Sequence[str], input: str | None) -> str:
        own = {f"HELM_{each}_HOME": str(self.directory / "helm") for each in ("CACHE", "CONFIG", "DATA")}
        command = [str(binary(program)), *options, *arguments]
        try:
            done = subprocess.run(
                command,
                env=os.environ | own,
                input=input or "",
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as trouble:
            message = f"`{program} {' '.join(arguments)}` on {self.name} did not end within {COMMAND_TIMEOUT_S:.0f} s"
            raise NotReadyError(f"{message}; is its API server frozen? See the logs in {self.directory}") from trouble
        if done.returncode != 0:
            raise CommandError([program, *arguments], done.returncode, done.stderr or done.stdout)
        return done.stdout

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            if time.monotonic() > deadline:
                raise NotReadyError(
                    f"{what} of {self.name} was not ready after {READY_S:.0f} s; see the logs in {self.directory}"
                )
            time.sleep(0.1)
