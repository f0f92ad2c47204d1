"""Reading all signals of a cycle: our union of expressions beside prometheus-api-client, one expression a request."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from prometheus_api_client import PrometheusConnect
from rich.console import Console

from kintsugi.engines.catalogue import render
from kintsugi.engines.registry import ENGINES
from kintsugi.shell.prometheus import Endpoint, Group, Prometheus, Subject
from kintsugi_dev.demo.world import LABELS, World

ROUNDS = 10


def measure(world: World, console: Console) -> dict[str, Any]:
    """CPU of this process for one cycle's reading, both ways, in turns."""
    found = asyncio.run(_measure(world))
    console.print(
        f"reading {found['signals']} signals once: {found['ours_ms']} ms of CPU; prometheus-api-client, one request a "
        f"signal: {found['baseline_ms']} ms, ×{found['ratio']}"
    )
    return found


async def _measure(world: World) -> dict[str, Any]:
    labels = tuple(sorted(LABELS))
    catalogue = ENGINES["postgresql"].catalogue
    client = Prometheus(Endpoint(world.prometheus.url))
    group = Group(client.endpoint, labels, 1.0, "postgresql", catalogue)
    subjects = [Subject("shop/orders", tuple(LABELS[label] for label in labels))]
    offers = await client.discover(group, subjects, time.time())
    offered = offers["shop/orders"]
    selector = ",".join(f'{label}="{LABELS[label]}"' for label in labels)
    queries = [render(s, offered[s.name][0], labels, selector, 1.0) for s in catalogue if s.name in offered]
    plain = PrometheusConnect(world.prometheus.url)
    ours, baseline = [], []
    for _ in range(ROUNDS):
        now = float(int(time.time()))
        began = time.process_time()
        await client.read(group, subjects, offers, start=now - 1, end=now)
        ours.append(time.process_time() - began)
        began = time.process_time()
        for query in queries:
            plain.custom_query(query)
        baseline.append(time.process_time() - began)
    await client.close()
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return {
        "signals": len(queries),
        "ours_ms": round(mine * 1000, 1),
        "baseline_ms": round(theirs * 1000, 1),
        "ratio": round(theirs / mine, 1),
    }
