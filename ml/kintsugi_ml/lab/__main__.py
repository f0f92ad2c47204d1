"""`python -m kintsugi_ml.lab`: record the data set, check one fault against it, list the plan, fill the card."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from kintsugi_ml.lab import classes
from kintsugi_ml.lab.parts import Planned
from kintsugi_ml.lab.plan import NULL, plan
from kintsugi_ml.lab.session import LabError, Session

DATA_SET = Path(__file__).resolve().parents[3] / "data" / "lab-v1"
PASSES = 7
SEED = 1
SERVERS = (15, 18)


def main() -> int:
    """Run the command line; the exit status says whether all went well."""
    arguments = _parser().parse_args()
    try:
        status: int = arguments.run(arguments)
        return status
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: stopped; what is recorded is kept, and the same command goes on from there", file=sys.stderr)
        return 130


def _plan(arguments: argparse.Namespace) -> list[Planned]:
    wanted = set(arguments.fault or ())
    for name in wanted - {NULL}:
        try:
            classes.kind_of(name)
        except KeyError as error:
            raise LabError(str(error.args[0])) from None
    runs = plan(classes.known(), passes=arguments.passes, seed=SEED, servers=SERVERS)
    return [planned for planned in runs if not wanted or planned.fault in wanted]


def _run(arguments: argparse.Namespace) -> int:
    until = time.time() + 60 * arguments.minutes if arguments.minutes else float("inf")
    session = Session(arguments.directory, _plan(arguments), _say, until=until)
    counts = session.go()
    print(f"{counts} runs count in {arguments.directory}; `make lab-card` assembles the manifest and the card")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for planned in _plan(arguments):
        extras = " ".join(f"+ {name}" for name in (planned.second, planned.noise) if name)
        print(
            f"{planned.id:34} {planned.form:7} {planned.workload:9} {planned.level:4} {planned.pattern:6} "
            f"severity {planned.severity:.2f} {planned.remedy:7} PostgreSQL {planned.server} {extras}"
        )
    return 0


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kintsugi_ml.lab", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, run, about in (("run", _run, "record what of the plan is missing"), ("plan", _list, "list the plan")):
        command = commands.add_parser(name, help=about)
        command.set_defaults(run=run)
        command.add_argument("--directory", type=Path, default=DATA_SET, help=f"the data set (default {DATA_SET})")
        command.add_argument("--passes", type=int, default=PASSES, help="how often each class comes")
        command.add_argument("--fault", action="append", help="only this class (may be repeated)")
        if name == "run":
            command.add_argument("--minutes", type=float, help="begin no run after so many minutes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
