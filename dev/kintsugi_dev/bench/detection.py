"""How long after a fault shows in Prometheus the incident is open.

The operator only observes here. "Shows" is the time of the first scrape whose sample has a session waiting for a lock.
The target is two scrape intervals and one cycle (issue 3), so 3 s at 1 s.
"""

from __future__ import annotations

import statistics
import time
from datetime import datetime
from typing import Any

from rich.console import Console

from kintsugi_dev.demo.world import APP, APP_PASSWORD, DATABASE, NAMESPACE, World
from kintsugi_dev.faults import BlockingTransaction
from kintsugi_dev.servers import eventually

TARGET = 3.0
WAITERS = "kintsugi_pg_lock_waiters"
HELD = 12.0
APART = 15.0


def measure(world: World, repeat: int, console: Console) -> dict[str, Any]:
    """Inject the same fault some times and compare the clocks."""
    world.cluster.kubectl(
        "-n", NAMESPACE, "patch", "hp", "critical", "--type=merge", "-p", '{"spec":{"mode":"Observe"}}'
    )
    if not eventually(lambda: world.database().get("status", {}).get("phase") == "Healthy", timeout=120):
        raise TimeoutError("the database did not become Healthy; see operator.log in the world's directory")
    delays = [delay for _ in range(repeat) if (delay := _one(world)) is not None]
    found = {
        "injected": repeat,
        "detected": len(delays),
        "median_s": round(statistics.median(delays), 2) if delays else None,
        "worst_s": round(max(delays), 2) if delays else None,
        "target_s": TARGET,
    }
    console.print(
        f"detection after the effect shows in the metrics: {found['detected']} of {repeat} found, "
        f"median {found['median_s']} s, worst {found['worst_s']} s (target: {TARGET:.0f} s = 2 scrapes + 1 cycle)"
    )
    return found


def _one(world: World) -> float | None:
    fault = BlockingTransaction(world.primary.dsn(DATABASE, APP, APP_PASSWORD))
    began = time.time()
    fault.inject()
    try:
        opened = _opened(world, began)
    finally:
        fault.lift()
    shown = _shown(world, began)
    time.sleep(APART)
    eventually(lambda: world.database()["status"].get("incident") is None, timeout=60)
    return None if opened is None or shown is None else opened - shown


def _opened(world: World, began: float) -> float | None:
    while time.time() < began + HELD:
        incident = world.database().get("status", {}).get("incident")
        if incident:
            return datetime.fromisoformat(incident["openedAt"]).timestamp()
        time.sleep(0.2)
    return None


def _shown(world: World, began: float) -> float | None:
    """The time of the first raw sample after `began` with somebody waiting."""
    for series in world.prometheus.query(f'{WAITERS}{{role="primary"}}[60s]'):
        for at, value in series["values"]:
            if at >= began and float(value) > 0:
                return float(at)
    return None
