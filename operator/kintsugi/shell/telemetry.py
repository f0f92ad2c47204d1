"""What the operator says of itself: JSON logs that carry the incident, Prometheus metrics, liveness and readiness.

Liveness answers from the age of the last finished cycle, not from the process being up: a loop that hangs is restarted.
"""

from __future__ import annotations

import contextvars
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

incident: contextvars.ContextVar[str] = contextvars.ContextVar("incident", default="")
database: contextvars.ContextVar[str] = contextvars.ContextVar("database", default="")

STALE_AFTER = 30.0  # seconds without a finished cycle until the process counts as dead


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the incident and database at hand."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if name := database.get():
            line["database"] = name
        if name := incident.get():
            line["incident"] = name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_json(level: int = logging.INFO) -> None:
    """Send all logs to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("kopf", "kopf.objects", "aiohttp.access", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class OperatorMetrics:
    """The operator's own metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.cycles = Counter("kintsugi_cycles_total", "Finished cycles of all databases.", registry=self.registry)
        self.cycle_seconds = Histogram(
            "kintsugi_cycle_seconds",
            "Wall time of one cycle over all databases that were due.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.cycle_cpu_seconds = Histogram(
            "kintsugi_cycle_cpu_seconds",
            "CPU time of the process during one such cycle.",
            buckets=tuple(round(0.0025 * 1.25**step, 5) for step in range(24)),
            registry=self.registry,
        )
        self.cycle_failures = Counter(
            "kintsugi_cycle_failures_total", "Cycles that ended in an unexpected error.", registry=self.registry
        )
        self.databases = Gauge("kintsugi_databases", "Databases by phase.", ["phase"], registry=self.registry)
        self.risk = Gauge(
            "kintsugi_database_risk", "Anomaly score, 0 to 1.", ["namespace", "database"], registry=self.registry
        )
        self.refusals = Counter(
            "kintsugi_refusals_total",
            "Times that a boundary held an action back.",
            ["namespace", "database", "action", "reason"],
            registry=self.registry,
        )
        self.actions = Counter(
            "kintsugi_actions_total",
            "Transitions of healing actions.",
            ["namespace", "database", "action", "phase"],
            registry=self.registry,
        )
        self.missed = Counter(
            "kintsugi_watch_missed_total",
            "Changes that a listing found and the watch had not said: a dead watch.",
            ["kind"],
            registry=self.registry,
        )
        self.watch_age = Gauge(
            "kintsugi_list_age_seconds", "Age of the last complete listing of our objects.", registry=self.registry
        )


class Pulse:
    """When the last cycle finished, and whether the operator is ready."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self.ready = False

    def beat(self) -> None:
        """A cycle has finished."""
        self._last = self._clock()

    @property
    def age(self) -> float:
        """Seconds since a cycle finished."""
        return self._clock() - self._last

    @property
    def alive(self) -> bool:
        """Whether a cycle finished lately."""
        return self.age < STALE_AFTER


async def serve(host: str, port: int, metrics: OperatorMetrics, pulse: Pulse) -> tuple[web.AppRunner, int]:
    """Serve `/metrics`, `/healthz` and `/readyz`; the port is the one really taken (0 asks for a free one)."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8")

    async def healthz(_: web.Request) -> web.Response:
        text = f"last cycle finished {pulse.age:.1f} s ago\n"
        return web.Response(text=text, status=200 if pulse.alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(
            text="ready\n" if pulse.ready else "not every object has been listed yet\n",
            status=200 if pulse.ready else 503,
        )

    application = web.Application()
    application.add_routes(
        [web.get("/metrics", show_metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, int(runner.addresses[0][1])
