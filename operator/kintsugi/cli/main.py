"""`kintsugi run | collect`: the operator, and the collector."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["collect"]:
        from kintsugi.collector import main as collect

        return collect(arguments[1:])
    parser = argparse.ArgumentParser(prog="kintsugi", description="Heals databases, within the boundaries you set.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("collect", help="serve the signals of databases to Prometheus", add_help=False)
    operator = commands.add_parser("run", help="run the operator")
    operator.add_argument("--config", type=Path, default=os.environ.get("KINTSUGI_CONFIG"), help="configuration (YAML)")
    operator.add_argument("--kubeconfig", help="instead of the pod's ServiceAccount or $KUBECONFIG")
    operator.add_argument("--port-file", type=Path, help="write the HTTP port here once it is taken")
    return _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    # Before numpy is imported. Its matrices are small here: with a thread per core they mostly wait for each other, and
    # a database with examples cost 25 ms of CPU a cycle instead of 3.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from kintsugi.app import ConfigError, load_config, run

    try:
        config = load_config(Path(options.config) if options.config else None)
        asyncio.run(run(config, kubeconfig=options.kubeconfig, port_file=options.port_file))
    except ConfigError as error:
        print(f"kintsugi: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
