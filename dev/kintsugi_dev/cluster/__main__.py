"""`python -m kintsugi_dev.cluster build|up|down|kubectl`: the development cluster from the command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from kintsugi_dev.cluster import binaries, kind
from kintsugi_dev.cluster.cluster import NAMESPACE, Cluster, chosen_runtime
from kintsugi_dev.cluster.errors import ClusterError

DIRECTORY = kind.REPOSITORY / "out/cluster"


def main() -> int:
    """Do what the arguments say; trouble becomes one line on standard error and exit status 1."""
    arguments = _parser().parse_args()
    try:
        return {"build": _build, "up": _up, "down": _down, "kubectl": _kubectl}[arguments.verb](arguments)
    except ClusterError as trouble:
        print(f"kintsugi: {trouble}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kintsugi_dev.cluster", description=__doc__)
    parser.add_argument(
        "--directory", type=Path, default=DIRECTORY, help="where the cluster lives (default: out/cluster)"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="build the cluster's programs, once")
    build.add_argument("--check", action="store_true", help="only tell, by the exit status, whether all are built")
    up = verbs.add_parser("up", help="start the cluster and install the chart, the operator itself off")
    up.add_argument("--no-chart", action="store_true", help="don't install charts/kintsugi")
    verbs.add_parser("down", help="end the cluster; nothing is left of it")
    kubectl = verbs.add_parser("kubectl", help="kubectl as the cluster's admin")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _build(arguments: argparse.Namespace) -> int:
    if arguments.check:
        return 1 if binaries.missing() else 0
    binaries.build()
    return 0


def _up(arguments: argparse.Namespace) -> int:
    cluster = Cluster.find(arguments.directory)
    if cluster is not None:
        print(f"a cluster already runs in {arguments.directory}")
        if not arguments.no_chart:
            cluster.install_chart()
    else:
        cluster = Cluster.up(arguments.directory, chart=not arguments.no_chart, runtime=chosen_runtime())
    if not arguments.no_chart:
        print(f"the chart is installed in {NAMESPACE}, the operator itself off")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    Cluster.of(arguments.directory).down()
    return 0


def _kubectl(arguments: argparse.Namespace) -> int:
    kubeconfig = Cluster.of(arguments.directory).kubeconfig
    if not kubeconfig.exists():
        raise ClusterError(f"no cluster in {arguments.directory}: {kubeconfig} does not exist; run `make cluster-up`")
    command = [str(binaries.binary("kubectl")), f"--kubeconfig={kubeconfig}", *arguments.arguments]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
