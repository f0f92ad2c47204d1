"""`python -m kintsugi_ml.lab`: record the data set, list what is planned, check one fault against what is recorded."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from kintsugi_ml.lab import classes
from kintsugi_ml.lab.card import DATA_SET
from kintsugi_ml.lab.check import check
from kintsugi_ml.lab.existing import ExistingError
from kintsugi_ml.lab.manifest import DatasetError
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.plan import NULL, plan
from kintsugi_ml.lab.session import LabError, Session
from kintsugi_ml.lab.workloads import WORKLOADS

PASSES = 6
SPARE_PASSES = 8
"""From which classes with too few runs that count get more."""
SEED = 1
SERVERS = (15, 18)


def main() -> int:
    """Run the command line; the exit status says whether all went well."""
    arguments = _parser().parse_args()
    try:
        status: int = arguments.run(arguments)
        return status
    except (LabError, DatasetError, ExistingError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: stopped; what is recorded is kept, and the same command goes on from there", file=sys.stderr)
        return 130


def _plan(arguments: argparse.Namespace, passes: int) -> list[Planned]:
    wanted = set(arguments.fault or ())
    for name in wanted - {NULL}:
        try:
            classes.kind_of(name)
        except KeyError as error:
            raise LabError(str(error.args[0])) from None
    runs = plan(classes.known(), passes=passes, seed=SEED, servers=SERVERS)
    return [planned for planned in runs if not wanted or planned.fault in wanted]


def _run(arguments: argparse.Namespace) -> int:
    until = time.time() + 60 * arguments.minutes if arguments.minutes else float("inf")
    planned = _plan(arguments, arguments.passes)
    session = Session(
        arguments.directory,
        planned,
        _say,
        spare=_plan(arguments, arguments.passes + SPARE_PASSES)[len(planned) :],
        until=until,
        url=arguments.url,
        owned=arguments.i_own_this_database,
    )
    counts = session.go()
    print(f"{counts} runs count in {arguments.directory}; `make lab-card` assembles the manifest and the card")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for planned in _plan(arguments, arguments.passes):
        extras = " ".join(f"+ {name}" for name in (planned.second, planned.noise) if name)
        print(
            f"{planned.id:34} {planned.form:7} {planned.workload:9} {planned.level:4} {planned.pattern:6} "
            f"severity {planned.severity:.2f} {planned.remedy:7} PostgreSQL {planned.server} {extras}"
        )
    return 0


def _check(arguments: argparse.Namespace) -> int:
    for name, value, there in (
        ("--fault", arguments.fault, ["all", *classes.FAULTS, *classes.NEGATIVES]),
        ("--workload", arguments.workload or None, list(WORKLOADS)),
    ):
        if value is not None and value not in there:
            raise LabError(f"{name} must be one of {', '.join(there)}; {value or 'nothing'!r} was given")
    fault = None if arguments.fault == "all" else arguments.fault
    return check(arguments.directory, fault, arguments.workload or None, _say)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.lab", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DATA_SET, help="the data set (default data/lab-v1)")
    commands = parser.add_subparsers(required=True)
    record = commands.add_parser("run", help="record what of the plan is missing")
    record.set_defaults(run=_run)
    record.add_argument("--minutes", type=float, help="begin no run after so many minutes")
    record.add_argument("--url", help="record on this PostgreSQL (a superuser's URL) instead of starting one")
    record.add_argument(
        "--i-own-this-database",
        action="store_true",
        help="with --url: use its database `lab` and its roles although the lab did not make them",
    )
    planned = commands.add_parser("plan", help="list what is planned")
    planned.set_defaults(run=_list)
    for command in (record, planned):
        command.add_argument("--passes", type=int, default=PASSES, help="how often each class comes")
        command.add_argument("--fault", action="append", help="only this class (may be repeated)")
    one = commands.add_parser("check", help="one fault from scratch (or all), compared with the recorded runs")
    one.set_defaults(run=_check)
    one.add_argument("--fault", required=True, help="a class, or `all` fault classes")
    one.add_argument("--workload", help="default: that of a typical recorded run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
