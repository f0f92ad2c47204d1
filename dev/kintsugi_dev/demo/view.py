"""What a person sees while the demo runs: a calm panel repainted in place, or plain lines without a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kintsugi.domain.text import human
from kintsugi_dev.demo import measures
from kintsugi_dev.demo.record import Event, Second, State

STYLES = {
    "title": "bold",
    "inject": "bold red",
    "person": "yellow",
    "good": "bold green",
    "bad": "bold red",
    "end": "bold",
    "quiet": "dim",
    "": "",
}
PHASES = {
    "Healthy": "green",
    "Degraded": "red",
    "Healing": "yellow",
    "Learning": "cyan",
    "Blind": "magenta",
    "Paused": "magenta",
}
BARS = "▁▂▃▄▅▆▇█"
FLOOR_MS, CEILING_MS = 2.0, 5000.0


@dataclass(frozen=True)
class Moment:
    """All that is shown of one moment."""

    now: float
    state: State
    seconds: Sequence[Second]
    events: Sequence[Event]
    stage: str
    problem: str = ""
    injected_at: float | None = None


class View(Protocol):
    """Where the demo speaks: `say` stays, `show` is the present."""

    def say(self, line: str, *, style: str = "") -> None:
        """A line that stays."""

    def show(self, moment: Moment) -> None:
        """The present moment."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


class PlainView:
    """Lines with the time since the start; the present only where it changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._shown = ("", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def say(self, line: str, *, style: str = "") -> None:
        """Print it."""
        stamp = f"{time.monotonic() - self._start:6.1f} s  " if line else ""
        self._console.print(stamp + line, style=STYLES[style] or None, markup=False, highlight=False, soft_wrap=True)

    def show(self, moment: Moment) -> None:
        """Print the status where its phase or what it is doing has changed."""
        state = moment.state
        if (state.phase, _steady(state.doing)) != self._shown and state.phase:
            self._shown = (state.phase, _steady(state.doing))
            self.say(f"  {state.phase}, risk {state.risk}, soon {state.soon}: {state.doing}", style="quiet")


class LiveView:
    """A panel at the bottom of the terminal, repainted with each moment; lines that stay go above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str, *, style: str = "") -> None:
        """Print it above the panel."""
        self._console.print(Text(line, style=STYLES[style]), soft_wrap=False)

    def show(self, moment: Moment) -> None:
        """Repaint the panel."""
        self._live.update(panel(moment, width=self._console.width), refresh=True)


def panel(moment: Moment, *, width: int = 100) -> Panel:
    """The panel of one moment."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True, min_width=10)
    rows.add_column(overflow="ellipsis", no_wrap=True)
    state = moment.state
    rows.add_row("database", _phase(state))
    rows.add_row("doing", Text(state.doing or "–"))
    rows.add_row("soon", Text(state.soon or "–"))
    rows.add_row("client p99", latency(moment, bars=max(10, min(60, width - 45))))
    for event in [*moment.events[-4:], *[None] * (4 - len(moment.events[-4:]))]:
        rows.add_row("" if event is None else f"{human(max(0.0, moment.now - event.at))} ago", _event(event))
    title = escape(moment.stage)
    if moment.injected_at is not None:
        title += f" · {moment.now - moment.injected_at:.0f} s"
    bottom = escape(moment.problem) if moment.problem else None
    return Panel(Group(rows), title=title, subtitle=bottom, title_align="left", box=box.ROUNDED, border_style="dim")


def latency(moment: Moment, *, bars: int) -> Text:
    """The newest p99, and a bar per second on a logarithmic scale; seconds that have no answer yet are dotted."""
    if not moment.seconds:
        return Text("–")
    newest = moment.seconds[-1]
    waiting = max(0, min(6, int(moment.now) - newest.second - 2))
    text = Text(f"{measures.felt_ms(newest):>7,.1f} ms  ")
    for second in moment.seconds[-(bars - waiting) :]:
        felt = measures.felt_ms(second)
        text.append(bar(felt), style="red" if felt >= 1000 else "yellow" if felt >= 100 else "green")
    text.append("·" * waiting, style="dim")
    if waiting > 1:
        text.append(f"  no answer for {waiting} s", style="red")
    return text


def bar(milliseconds: float) -> str:
    """One character for a latency, logarithmic from 2 ms to 5 s."""
    share = math.log(max(milliseconds, FLOOR_MS) / FLOOR_MS) / math.log(CEILING_MS / FLOOR_MS)
    return BARS[min(len(BARS) - 1, int(share * len(BARS)))]


def _phase(state: State) -> Text:
    if not state.phase:
        return Text("not seen by the operator", style="dim")
    return Text.assemble((state.phase, f"bold {PHASES.get(state.phase, 'white')}"), f"   risk {state.risk}")


def _event(event: Event | None) -> Text:
    if event is None:
        return Text("")
    return Text.assemble((event.reason, "yellow" if event.warning else "bold"), f"  {event.note}")


def _steady(doing: str) -> str:
    """What is being done without its numbers, which change every second."""
    return "".join(character for character in doing if not character.isdigit() and character != ".")


def view_for(console: Console) -> PlainView | LiveView:
    """The panel where there is a terminal, else lines."""
    return LiveView(console) if console.is_terminal else PlainView(console)
