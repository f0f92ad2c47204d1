"""A whole run, from an empty directory to its results; nothing of it is left running."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from kintsugi.api.meta import parse_duration
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.cluster.cluster import Runtime
from kintsugi_dev.demo import measures, record, report, results
from kintsugi_dev.demo.approval import interactive
from kintsugi_dev.demo.record import FaultRecord, Machine, Run
from kintsugi_dev.demo.scenario import Scenario
from kintsugi_dev.demo.view import View, view_for
from kintsugi_dev.demo.watch import Watcher
from kintsugi_dev.demo.world import DATABASE, MAX_DATA_LOSS, NAMESPACE, RATE, SLO, World, start_operator, world
from kintsugi_dev.servers import ServerError, server_directory
from kintsugi_dev.servers.process import Process

REPOSITORY = Path(__file__).resolve().parents[3]
OUT = REPOSITORY / "out/demo"
SHARED_CLUSTER = REPOSITORY / "out/cluster"
LEARNED_WITHIN = 120.0
CODA_SECONDS = 4.0
"""So long everything is left alone at the end, so that one sees how it stays."""
LOGS = {
    "operator.log": "operator.log",
    "collector.log": "collector.log",
    "pgbouncer.log": "pgbouncer/pgbouncer.log",
    "orders-0.log": "orders-0/postgresql.log",
    "orders-1.log": "orders-1/postgresql.log",
    "load.log": "load/load.log",
    "load-samples.jsonl": "load/samples.jsonl",
}


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    faults: Sequence[str]
    operator: bool = True
    runtime: Runtime = "kwok"
    keep: bool = False
    out: Path = OUT


class Stopped(BaseException):
    """Ctrl-C or SIGTERM."""


def run(options: Options, console: Console) -> int:
    """Run the demo; the exit status: 0 when it passed, 1 when not, 130 when it was stopped."""
    options.out.mkdir(parents=True, exist_ok=True)
    before = {each: signal.signal(each, _stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server_directory("kintsugi-demo-") as directory, view_for(console) as view:
            try:
                return _through(options, directory, view, console)
            finally:
                _keep_logs(directory, options.out / "logs")
    except Stopped:
        console.print("stopped; nothing is left running")
        return 130
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _stop(*_: object) -> None:
    """End the demo; what comes after the first signal must not interrupt the cleaning up."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped


def _through(options: Options, directory: Path, view: View, console: Console) -> int:
    """Start everything, show everything, say what came of it; the exit status."""
    own = Cluster.find(SHARED_CLUSTER) is not None
    with ExitStack() as stack:
        view.say("starting what the operator will meet", style="title")
        running = stack.enter_context(
            world(
                directory,
                cluster_directory=None if own else SHARED_CLUSTER,
                runtime=options.runtime,
                say=lambda line: view.say(f"  {line}"),
            )
        )
        watcher = stack.enter_context(Watcher(running.cluster.kubeconfig, NAMESPACE, DATABASE))
        prefix = f"kubectl --kubeconfig={running.cluster.kubeconfig}" if own else "make kubectl"
        scenario = Scenario(running, watcher, view, options.operator, interactive(), prefix)
        if options.operator:
            _learn(running, scenario, stack)
        else:
            view.say("the operator stays off: nothing will heal", style="title")
        status = _finish(_faults(options, running, scenario), options, console)
        if options.keep:
            _hold(running, view)
        view.say("ending what was started", style="quiet")
    return status


def _learn(running: World, scenario: Scenario, stack: ExitStack) -> Process:
    scenario.view.say("the operator, under its own ServiceAccount; it learns what is normal", style="title")
    operator = start_operator(running)
    stack.callback(operator.stop)
    scenario.wait_learned(LEARNED_WITHIN, _alive(operator))
    scenario.view.say(f"  {DATABASE} is Healthy: the reference is learned")
    return operator


def _alive(operator: Process) -> Callable[[], None]:
    def check() -> None:
        if not operator.running:
            raise ServerError(f"the operator ended with status {operator.popen.returncode}; {operator.tail()}")

    return check


def _faults(options: Options, running: World, scenario: Scenario) -> Run:
    started_at = time.time()
    machine = _machine(running)
    faults: list[FaultRecord] = []
    for number, name in enumerate(options.faults, 1):
        faults.append(scenario.run(name, number, len(options.faults)))
    scenario.rest(CODA_SECONDS)
    ended_at = time.time()
    seconds = tuple(s for s in running.seconds() if s.second >= started_at - 1)
    acknowledged, lost = running.count_writes()
    return Run(
        operator=options.operator,
        started_at=started_at,
        ended_at=ended_at,
        machine=machine,
        rate=RATE,
        slo_ms=parse_duration(SLO).total_seconds() * 1000,
        timeout_ms=measures.TIMEOUT_MS,
        max_data_loss=MAX_DATA_LOSS,
        faults=tuple(faults),
        seconds=seconds,
        states=scenario.watcher.states,
        events=scenario.watcher.events,
        lost_writes=lost,
        acknowledged_writes=acknowledged,
        bound_s=None if options.operator else scenario.bound_s,
    )


def _machine(running: World) -> Machine:
    return Machine(
        cpus=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        python=platform.python_version(),
        postgresql=str(running.primary.value("SHOW server_version")).split()[0],
        kubernetes=running.cluster.kubectl("version", "-o", "yaml").split("gitVersion: ")[-1].split()[0],
    )


def _hold(running: World, view: View) -> None:
    view.say(f"kept running, as asked; Ctrl-C ends it. Its files: {running.directory}", style="title")
    view.say(f"  export KUBECONFIG={running.cluster.kubeconfig}   then: kubectl get mdb,hp,ha -n {NAMESPACE} -o wide")
    with suppress(Stopped):
        while True:
            time.sleep(1)


def _keep_logs(directory: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, path in LOGS.items():
        if (directory / path).exists():
            shutil.copyfile(directory / path, target / name)


def _finish(found: Run, options: Options, console: Console) -> int:
    record.write(found, options.out / "run.json")
    results.write_summary(found, options.out / "summary.json")
    (options.out / "report.html").write_text(report.page(found), encoding="utf-8")
    console.print()
    console.print(results.shown(found, console.width))
    style = "bold green" if found.passed else "bold red"
    console.print(results.headline(found), style=style if found.operator else "bold", highlight=False)
    for reason in results.why_not(found):
        console.print(f"  {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    shown = options.out.relative_to(Path.cwd()) if options.out.is_relative_to(Path.cwd()) else options.out
    console.print(f"report: {shown}/report.html   summary: {shown}/summary.json   logs: {shown}/logs", highlight=False)
    return 0 if found.passed else 1
