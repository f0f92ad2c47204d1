"""`python -m kintsugi_ml.lab.workloads --workload …`: the clients, their metrics and their controls on one port.

The DSN comes in LOAD_DSN, because it holds a password.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import time
from pathlib import Path
from random import Random

import prometheus_client
from aiohttp import web

from kintsugi_dev.load.measure import Journal
from kintsugi_ml.lab.workloads import WORKLOADS, backoffice
from kintsugi_ml.lab.workloads.clients import Clients, Demand, RequestLog
from kintsugi_ml.lab.workloads.patterns import PATTERNS
from kintsugi_ml.lab.workloads.process import base_rates


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.lab.workloads", description=__doc__)
    parser.add_argument("--workload", choices=list(WORKLOADS), required=True)
    parser.add_argument("--level", choices=["low", "high"], required=True)
    parser.add_argument("--pattern", choices=list(PATTERNS), default="steady")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listen", metavar="HOST:PORT", required=True)
    parser.add_argument("--requests", type=Path, metavar="FILE", required=True)
    parser.add_argument("--journal", type=Path, metavar="FILE", required=True)
    asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(end, stop.set)
    random = Random(arguments.seed)
    workload = WORKLOADS[arguments.workload]()
    # A name of its own for each process, so that numbers never meet again after a restart.
    ledger = backoffice.Ledger(secrets.token_hex(6), Journal(arguments.journal))
    demand = Demand(base_rates(workload, arguments.level), random)
    demand.begin(arguments.pattern, time.monotonic())
    work = {**workload.work(), **backoffice.work(ledger)}
    clients = Clients(os.environ["LOAD_DSN"], work, demand, RequestLog(arguments.requests), random)
    runner = web.AppRunner(_application(demand), access_log=None)
    await runner.setup()
    host, _, port = arguments.listen.rpartition(":")
    await web.TCPSite(runner, host, int(port)).start()
    try:
        await clients.run(stop)
    finally:
        await runner.cleanup()


def _application(demand: Demand) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=prometheus_client.generate_latest(), content_type="text/plain", charset="utf-8")

    async def control(request: web.Request) -> web.Response:
        try:
            wanted = await request.json()
        except json.JSONDecodeError:
            wanted = None
        if not isinstance(wanted, dict):
            return web.Response(status=400, text="the body must be a JSON object")
        refusal = demand.refusal(wanted)
        if refusal is not None:
            return web.Response(status=400, text=refusal)
        demand.rate_factor = wanted.get("rate_factor", demand.rate_factor)
        demand.extra = wanted.get("extra", demand.extra)
        if "pattern" in wanted:
            demand.begin(wanted["pattern"], time.monotonic())
        return web.json_response({"rates": demand.at(time.monotonic())})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    application.router.add_post("/control", control)
    return application


if __name__ == "__main__":
    main()
