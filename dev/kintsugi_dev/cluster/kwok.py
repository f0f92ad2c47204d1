"""The control plane as plain processes on 127.0.0.1, started by kwokctl, ended and started again by ourselves.

kwokctl ends processes by pid files alone, which may name somebody else's process by then, and its free ports are not
safe when several clusters start at once. So ports are chosen here, and processes are known by an inherited mark.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

import yaml

from kintsugi_dev.cluster import processes
from kintsugi_dev.cluster.binaries import binary
from kintsugi_dev.cluster.errors import CommandError, NotReadyError
from kintsugi_dev.cluster.processes import Process

MARK = "KINTSUGI_CLUSTER"
"""The environment variable by which a cluster's processes are known; its value is the cluster's directory."""

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller")
READY_S = 60
PORTS = range(20_000, 32_000)
"""Where free ports are looked for: below the range from which the kernel takes those of outgoing connections."""


def start(directory: Path, name: str, kubeconfig: Path) -> None:
    """Start a control plane in `directory`, admin credentials in `kubeconfig`; returns when the API server is ready.

    Raises:
        NotReadyError: it did not start, or not within a minute.
        MissingToolError: a program has not been built.
    """
    config = directory / "kwokctl.yaml"
    config.write_text(yaml.safe_dump(_configuration()), encoding="utf-8")
    command = [str(binary("kwokctl")), "create", "cluster", "--name", name, "--config", str(config)]
    command += ["--kubeconfig", str(kubeconfig), "--wait", f"{READY_S}s"]
    environment = os.environ | {"KWOK_WORKDIR": str(directory / "kwok"), MARK: str(directory)}
    done = subprocess.run(
        command,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * READY_S,
        check=False,
    )
    (directory / "kwokctl.log").write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0 or "not ready yet" in done.stdout:
        raise NotReadyError(
            f"no control plane came up in {directory}: {done.stdout.strip()}; see the logs in {_home(directory)}"
        )
    commands = {component: running(directory, component).command for component in COMPONENTS}
    (directory / "commands.json").write_text(json.dumps(commands, indent=1), encoding="utf-8")


def running(directory: Path, component: str) -> Process:
    """The process of one component.

    Raises:
        NotReadyError: it does not run.
    """
    for process in processes.marked(MARK, str(directory)):
        if Path(process.command[0]).name == component:
            return process
    raise NotReadyError(f"{component} of the cluster in {directory} does not run; see {_log(directory, component)}")


def stop(directory: Path, component: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End one component, or with SIGSTOP freeze it; returns when it is gone.

    Raises:
        NotReadyError: it does not run.
    """
    process = running(directory, component)
    process.signal(number)
    if number is signal.SIGKILL:
        processes.end([process])


def start_missing(directory: Path) -> None:
    """Start each component that does not run, with the command it was first started with."""
    commands: dict[str, list[str]] = json.loads((directory / "commands.json").read_text(encoding="utf-8"))
    alive = {Path(process.command[0]).name for process in processes.marked(MARK, str(directory))}
    for component, command in commands.items():
        if component not in alive:
            _start_detached(directory, component, command)


def end(directory: Path) -> None:
    """End every process of the cluster in `directory`, whoever started it."""
    while remaining := processes.marked(MARK, str(directory)):
        processes.end(remaining)


def _configuration() -> dict[str, object]:
    etcd, peer, apiserver, manager, scheduler, kwok = _free_ports(6)
    return {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokctlConfiguration",
        "options": {
            "runtime": "binary",
            "bindAddress": "127.0.0.1",  # its default listens everywhere, etcd without TLS
            "kubeAuthorization": True,
            "kubeAdmission": True,
            "enableCRDs": ["Logs"],  # a test says what a container has written: the kubelet's part, by kwok
            "heartbeatFactor": 1,  # 5 by default: a dead node would be noticed after 200 s
            "etcdPort": etcd,
            "etcdPeerPort": peer,
            "kubeApiserverPort": apiserver,
            "kubeControllerManagerPort": manager,
            "kubeSchedulerPort": scheduler,
            "kwokControllerPort": kwok,
            "etcdBinary": str(binary("etcd")),
            "kubeApiserverBinary": str(binary("kube-apiserver")),
            "kubeControllerManagerBinary": str(binary("kube-controller-manager")),
            "kubeSchedulerBinary": str(binary("kube-scheduler")),
            "kwokControllerBinary": str(binary("kwok")),
            "kubectlBinary": str(binary("kubectl")),
        },
        "componentsPatches": [
            _patch("etcd", {"unsafe-no-fsync": "true"}, memory="100MiB"),
            _patch("kube-apiserver", {"profiling": "false"}, memory="400MiB"),
            # Without a lease to lose they live through the API server's absence, as their counterparts elsewhere would.
            _patch("kube-controller-manager", {"leader-elect": "false"}, memory="100MiB"),
            _patch("kube-scheduler", {"leader-elect": "false"}, memory="60MiB"),
            _patch("kwok-controller", {}, memory="60MiB"),
        ],
    }


def _patch(component: str, arguments: dict[str, str], *, memory: str) -> dict[str, object]:
    return {
        "name": component,
        "extraArgs": [{"key": key, "value": value} for key, value in arguments.items()],
        "extraEnvs": [{"name": "GOMEMLIMIT", "value": memory}],  # a soft limit: collect garbage earlier, never fail
    }


def _free_ports(count: int) -> list[int]:
    """Ports on which nobody listens; each is held until all are found, so that they differ."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            try:
                candidate.bind(("127.0.0.1", random.choice(PORTS)))
            except OSError:
                candidate.close()
            else:
                held.append(candidate)
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _start_detached(directory: Path, component: str, command: list[str]) -> None:
    """Start a component that outlives this process, its messages appended to the log that kwokctl began."""
    environment = os.environ | {MARK: str(directory)}
    with _log(directory, component).open("ab") as log:
        done = subprocess.run(
            ["setsid", "--fork", *command],
            cwd=_home(directory),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode != 0:
        raise CommandError(command, done.returncode, f"see {_log(directory, component)}")


def _home(directory: Path) -> Path:
    """The folder in which kwokctl keeps its one cluster."""
    return next((directory / "kwok/clusters").iterdir())


def _log(directory: Path, component: str) -> Path:
    return _home(directory) / "logs" / f"{component}.log"
