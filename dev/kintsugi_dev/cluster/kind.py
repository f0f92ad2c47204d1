"""The same cluster from kind, for machines that have Docker and prefer it (`CLUSTER=kind`)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kintsugi_dev.cluster.errors import CommandError, MissingToolError

REPOSITORY = Path(__file__).parents[3]
CONFIGURATION = REPOSITORY / "kind-config.yaml"
READY = "120s"


def start(name: str, kubeconfig: Path) -> None:
    """Create a kind cluster after `kind-config.yaml` and write its admin credentials.

    Raises:
        MissingToolError: Docker or kind is not installed.
        CommandError: kind could not create it.
    """
    _kind("create", "cluster", "--config", str(CONFIGURATION), "--wait", READY, name=name, kubeconfig=kubeconfig)


def end(name: str, kubeconfig: Path) -> None:
    """Delete a kind cluster; does nothing when there is none of that name."""
    _kind("delete", "cluster", name=name, kubeconfig=kubeconfig)


def _kind(*arguments: str, name: str, kubeconfig: Path) -> None:
    for tool in ("docker", "kind"):
        if shutil.which(tool) is None:
            raise MissingToolError(
                f"CLUSTER=kind needs {tool}, which is not installed; install it or leave CLUSTER unset"
            )
    command = ["kind", *arguments, "--name", name, "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr)
