"""Run the benchmarks and print them with the machine's size; they assert nothing."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import psutil
from rich.console import Console

from kintsugi_dev.bench import cost, detection, reading
from kintsugi_dev.demo.world import start_operator, world
from kintsugi_dev.servers import server_directory

OUT = Path("out/bench/summary.json")


def main() -> int:
    """Everything, or the parts that are named."""
    parser = argparse.ArgumentParser(prog="kintsugi_dev.bench", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="faults injected to time detection")
    options = parser.parse_args()
    console = Console(highlight=False)
    machine = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }
    console.print(f"machine: {machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}")
    with server_directory("kintsugi-bench-") as directory, world(directory) as running:
        operator = start_operator(running)
        try:
            found = {
                "machine": machine,
                "detection": detection.measure(running, options.repeat, console),
                "cost": cost.measure(running, operator.pid, console),
                "reading": reading.measure(running, console),
            }
        finally:
            operator.stop()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"written: {OUT}; the same faults without the operator: make demo OPERATOR=off")
    return 0


if __name__ == "__main__":
    sys.exit(main())
