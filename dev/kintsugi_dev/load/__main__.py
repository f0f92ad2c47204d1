"""`python -m kintsugi_dev.load [run|init|lost] --dsn …`: send requests, make the tables, count lost writes."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

import prometheus_client

from kintsugi_dev.load import schema
from kintsugi_dev.load.client import Clients, Options
from kintsugi_dev.load.measure import Journal, Samples, lost_writes


def main() -> None:
    """Run the command line."""
    arguments = _parser().parse_args()
    match arguments.command:
        case "init":
            asyncio.run(schema.create_schema(arguments.dsn, lines=arguments.lines))
        case "lost":
            print(asyncio.run(lost_writes(arguments.journal, arguments.dsn)))
        case _:
            asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(end, stop.set)
    if arguments.listen:
        host, _, port = arguments.listen.rpartition(":")
        prometheus_client.start_http_server(int(port), host)
    options = Options(
        arguments.dsn, arguments.rate, arguments.connections, schema.customers(arguments.lines), arguments.seed
    )
    await Clients(options, Samples(arguments.samples), Journal(arguments.journal)).run(stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kintsugi_dev.load", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "init", "lost"], default="run")
    parser.add_argument("--dsn", default=os.environ.get("LOAD_DSN"), help="default: $LOAD_DSN")
    parser.add_argument("--rate", type=float, default=Options.rate, help="requests per second")
    parser.add_argument("--connections", type=int, default=Options.connections, help="at most so many at once")
    parser.add_argument("--lines", type=int, default=schema.LINES, help="order lines that init makes (run must know)")
    parser.add_argument("--seed", type=int, help="draw the same requests again")
    parser.add_argument("--listen", metavar="HOST:PORT", help="serve /metrics for Prometheus")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="append one JSON line per second")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="append acknowledged ledger entries")
    return parser


if __name__ == "__main__":
    main()
