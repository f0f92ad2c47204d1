"""What a cycle costs for one database, and what the process' memory is made of."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from kintsugi_dev.demo.world import World

SECONDS = 60.0
LAYERS = (
    ("Python alone", ""),
    ("numpy", "numpy"),
    ("pydantic models", "kintsugi.api.action"),
    ("asyncpg", "asyncpg"),
    ("aiohttp", "aiohttp"),
    ("prometheus-api-client", "prometheus_api_client"),
    ("kubernetes", "kubernetes"),
    ("kopf", "kopf"),
)
PROBE = "import sys, psutil; [__import__(m) for m in sys.argv[1:]]; print(psutil.Process().memory_info().rss)"


def measure(world: World, pid: int, console: Console) -> dict[str, Any]:
    """CPU per cycle over a minute of a healthy database, and resident memory."""
    before = _cycles(world)
    time.sleep(SECONDS)
    after = _cycles(world)
    median = _median(before, after)
    cycles = after["count"] - before["count"]
    mean = (after["sum"] - before["sum"]) / cycles
    memory = psutil.Process(pid).memory_info().rss
    layers = _layers()
    console.print(
        f"a cycle for one database: median ≤ {median * 1000:.0f} ms of CPU, mean {mean * 1000:.0f} ms "
        f"({cycles:.0f} cycles; target: median under 50 ms)"
    )
    console.print(f"operator memory with one database: {memory / 2**20:.0f} MiB resident, of which")
    for name, added in layers:
        console.print(f"    {added / 2**20:5.0f} MiB  {name}")
    held = sum(added for _, added in layers)
    console.print(f"    {(memory - held) / 2**20:5.0f} MiB  our code, its buffers, connections and threads")
    return {
        "cycles": cycles,
        "cpu_ms": {"median": round(median * 1000, 1), "mean": round(mean * 1000, 1)},
        "memory_mib": round(memory / 2**20, 1),
        "layers_mib": {name: round(added / 2**20, 1) for name, added in layers},
    }


def _cycles(world: World) -> dict[str, float]:
    """The histogram of CPU seconds per cycle: cumulative counts by upper bound, `count` and `sum`."""
    port = (world.directory / "operator.port").read_text()
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name != "kintsugi_cycle_cpu_seconds":
            continue
        for sample in family.samples:
            key = sample.labels["le"] if sample.name.endswith("_bucket") else sample.name.rsplit("_", 1)[1]
            found[key] = sample.value
    return found


def _median(before: dict[str, float], after: dict[str, float]) -> float:
    """The upper bound of the bucket that the median cycle fell into."""
    half = (after["count"] - before["count"]) / 2
    bounds = sorted((float(key), key) for key in after if key not in ("count", "sum", "created"))
    return next(bound for bound, key in bounds if after[key] - before.get(key, 0.0) >= half)


def _layers() -> list[tuple[str, int]]:
    """What each library adds to a process that has imported those before it."""
    found, loaded, last = [], [], 0
    for name, module in LAYERS:
        loaded += [module] if module else []
        answer = subprocess.run([sys.executable, "-c", PROBE, *loaded], capture_output=True, text=True, check=True)
        size = int(answer.stdout)
        found.append((name, size - last))
        last = size
    return found
