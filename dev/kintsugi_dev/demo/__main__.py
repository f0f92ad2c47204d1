"""`python -m kintsugi_dev.demo [run|report|screenshot]`: run the demo, render a recorded run, take its picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from rich.console import Console

from kintsugi_dev.cluster import ClusterError, chosen_runtime
from kintsugi_dev.cluster.cluster import Runtime
from kintsugi_dev.demo import record, report
from kintsugi_dev.demo.browser import BrowserError, screenshot
from kintsugi_dev.demo.run import OUT, Options, run
from kintsugi_dev.demo.scenario import FAULTS
from kintsugi_dev.servers import ServerError

WIDTH = 140
"""Columns where the output is not a terminal."""


def main() -> int:
    """Do what the arguments say; trouble becomes one line on standard error and exit status 1."""
    arguments = _parser().parse_args()
    try:
        if arguments.verb == "report":
            return _report(arguments)
        if arguments.verb == "screenshot":
            screenshot(
                arguments.page,
                arguments.picture,
                width=arguments.width,
                dark=arguments.dark,
                element=arguments.element,
                height=arguments.height,
            )
            return 0
        return _run(arguments)
    except (ClusterError, ServerError, BrowserError, TimeoutError) as trouble:
        print(f"kintsugi: {trouble}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    options = Options(
        faults=arguments.faults or list(FAULTS),
        operator=arguments.operator == "on",
        runtime=arguments.cluster or chosen_runtime(),
        keep=arguments.keep,
        out=arguments.out,
    )
    console = Console()
    return run(options, console if console.is_terminal else Console(width=WIDTH))


def _report(arguments: argparse.Namespace) -> int:
    target = arguments.target or arguments.run.with_name("report.html")
    target.write_text(report.page(record.read(arguments.run)), encoding="utf-8")
    print(target)
    return 0


def _faults(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"{name} is not a fault; known are {', '.join(FAULTS)}")
    return sorted(names, key=list(FAULTS).index)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kintsugi_dev.demo", description=__doc__)
    parser.add_argument("--operator", choices=["on", "off"], default="on", help="off: nothing heals (default: on)")
    parser.add_argument("--cluster", choices=get_args(Runtime), help="default: $CLUSTER, else kwok")
    parser.add_argument("--faults", type=_faults, metavar="A,B", help=f"of {', '.join(FAULTS)} (default: all)")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Ctrl-C")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results go (default: out/demo)")
    verbs = parser.add_subparsers(dest="verb")
    rendered = verbs.add_parser("report", help="render a recorded run again")
    rendered.add_argument("run", type=Path, help="out/demo/run.json")
    rendered.add_argument("target", type=Path, nargs="?", help="default: report.html beside it")
    picture = verbs.add_parser("screenshot", help="take a picture of a page with chromium")
    picture.add_argument("page", type=Path)
    picture.add_argument("picture", type=Path)
    picture.add_argument("--width", type=int, default=1280)
    picture.add_argument("--element", default="html", metavar="CSS", help="only this element: #killed-primary")
    picture.add_argument("--height", type=float, help="only so many px of it")
    picture.add_argument("--dark", action="store_true", help="as a browser in dark mode shows it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
