"""`kintsugi collect`: an HTTP server with /metrics, whose every request is a scrape, and /healthz."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiohttp import web

from kintsugi.collector.config import ConfigError, load
from kintsugi.collector.scrape import DatabaseCollector
from kintsugi.shell.telemetry import log_json

TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
TIMEOUT_SHARE = 0.8
"""Of Prometheus' own timeout: what is late is left out, so that the rest still arrives."""

COLLECTOR = web.AppKey("collector", DatabaseCollector)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the collector until SIGTERM or SIGINT; status 2 when the configuration can't be used."""
    parser = argparse.ArgumentParser(
        prog="kintsugi collect",
        description="Serve the signals of PostgreSQL databases to Prometheus (scrape it with honor_labels: true).",
    )
    parser.add_argument("--config", type=Path, required=True, help="collector.yaml; docs/collector.md describes it")
    parser.add_argument("--listen", default="127.0.0.1:9187", metavar="HOST:PORT", help="default %(default)s")
    chosen = parser.parse_args(arguments)
    host, _, port = chosen.listen.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--listen {chosen.listen} is not HOST:PORT; write 0.0.0.0:9187 for example")
    try:
        config = load(chosen.config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    log_json()
    try:
        web.run_app(
            application(DatabaseCollector(config)), host=host.strip("[]"), port=int(port), print=None, access_log=None
        )
    except OSError as error:
        sys.stderr.write(f"can't listen on {chosen.listen}: {error.strerror}; choose another --listen\n")
        return 1
    return 0


def application(collector: DatabaseCollector) -> web.Application:
    """The web application around a collector; it closes the collector when it ends."""
    app = web.Application()
    app[COLLECTOR] = collector
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    app.cleanup_ctx.append(_closing)
    return app


async def _metrics(request: web.Request) -> web.Response:
    text = await request.app[COLLECTOR].scrape(_budget(request.headers.get(TIMEOUT_HEADER)))
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _budget(header: str | None) -> float | None:
    """What Prometheus allows, as the header says; None when it says nothing usable."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return TIMEOUT_SHARE * seconds if seconds > 0 else None


async def _closing(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[COLLECTOR].close()
