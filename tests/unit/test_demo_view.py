"""What the demo shows while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kintsugi_dev.demo import view
from kintsugi_dev.demo.record import Event, Second, State
from kintsugi_dev.demo.view import Moment, PlainView


def a_moment(now: float = 100.0, *, phase: str = "Healthy", doing: str = "watching", newest: int = 98) -> Moment:
    seconds = [Second(number, 100, 9.0, 9.0, 9.0) for number in range(newest - 20, newest + 1)]
    events = [Event(90.0, "orders", "IncidentOpened", "[bold]lock manager[/]", warning=True)]
    return Moment(now, State(now, phase, "0.10", "-", doing), seconds, events, "a [stage]", injected_at=95.0)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("ms", "bar"), [(0.0, "▁"), (2.0, "▁"), (100.0, "▅"), (4999.0, "█"), (99999.0, "█")])
def test_bars_are_logarithmic_and_bounded(ms: float, bar: str) -> None:
    assert view.bar(ms) == bar


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_the_panel_fits_the_terminal_and_keeps_its_height(width: int) -> None:
    heights = set()
    for moment in (a_moment(), a_moment(doing="verifying orders-1 (create-index) " * 9)):
        console = Console(file=io.StringIO(), width=width)
        console.print(view.panel(moment, width=width))
        lines = printed(console).splitlines()
        assert max(len(line) for line in lines) <= width
        heights.add(len(lines))
    assert len(heights) == 1


def test_what_others_wrote_is_never_taken_for_markup() -> None:
    console = Console(file=io.StringIO(), width=110)
    console.print(view.panel(a_moment(), width=110))
    assert "[bold]lock manager[/]" in printed(console)
    assert "a [stage]" in printed(console)


def test_seconds_without_an_answer_are_told() -> None:
    text = view.latency(a_moment(now=104.0), bars=20).plain
    assert "no answer for 4 s" in text
    assert "no answer" not in view.latency(a_moment(now=100.0), bars=20).plain


def test_plain_lines_tell_a_status_only_when_it_changes() -> None:
    console = Console(file=io.StringIO(), width=200)
    plain = PlainView(console)
    for number in range(5):
        plain.show(a_moment(100.0 + number, phase="Learning", doing=f"{number} s of 25 s learned"))
    plain.show(a_moment(106.0, phase="Healthy", doing="watching"))
    assert printed(console).count("Learning") == 1
    assert printed(console).count("Healthy") == 1
