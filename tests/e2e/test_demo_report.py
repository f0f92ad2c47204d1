"""The demo's report in a real browser: it says nothing to the console, asks for nothing, and works by keyboard.

The run in `data/demo-run.json` was recorded by `make demo`; to renew it, copy `out/demo/run.json` there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kintsugi_dev.demo import record, report
from kintsugi_dev.demo.browser import Page, opened
from kintsugi_dev.demo.record import Run

RECORDED = Path(__file__).parent / "data/demo-run.json"
SMALLEST_TEXT = 9.0
"""Pixels; no text of a picture may be smaller on a laptop."""


@pytest.fixture(scope="module")
def run() -> Run:
    return record.read(RECORDED)


@pytest.fixture(scope="module")
def page_file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.page(run), encoding="utf-8")
    return path


@pytest.fixture
async def page(page_file: Path) -> AsyncIterator[Page]:
    async with opened(page_file, width=1280) as found:
        yield found


async def test_the_report_shows_every_fault_and_leaves_the_page_for_nothing(
    page: Page, page_file: Path, run: Run
) -> None:
    cards = await page.evaluate("[...document.querySelectorAll('article.card')].map(card => card.id)")
    assert cards == [fault.name for fault in run.faults]
    assert await page.evaluate("document.querySelectorAll('article.card svg.graph .node.root').length") == len(
        run.faults
    )
    assert await page.evaluate("document.querySelectorAll('svg.chart').length") == len(run.faults) + 1
    assert await page.evaluate("document.querySelector('h1').textContent") == (
        "4 of 4 faults healed and verified. No acknowledged write was lost."
    )
    assert page.errors == []
    assert page.requests in ([page_file.as_uri()], [page_file.as_uri(), "data:,"])


def with_body(page: Path, addition: str, *, policy: bool) -> Path:
    """A copy of the page with something more in it, with or without its own policy."""
    leaking = page.with_name(f"leaking-{policy}.html")
    body = page.read_text(encoding="utf-8").replace("</body>", f"{addition}</body>")
    leaking.write_text(body if policy else body.replace("Content-Security-Policy", "x-nothing"), encoding="utf-8")
    return leaking


async def test_a_page_that_reaches_out_would_be_noticed(page_file: Path) -> None:
    script = "<script>fetch('http://127.0.0.1:9/x').catch(() => {}); console.error('trouble')</script>"
    async with opened(with_body(page_file, script, policy=False)) as found:
        assert any("127.0.0.1:9" in url for url in found.requests)
        assert "trouble" in " ".join(found.errors)


async def test_the_pages_own_policy_stops_what_reaches_out(page_file: Path) -> None:
    async with opened(with_body(page_file, '<img src="http://127.0.0.1:9/x.png">', policy=True)) as found:
        assert any("Content Security Policy" in error for error in found.errors)


async def test_nothing_is_wider_than_a_laptop(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth") <= 1280
    wide = "[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth).length"
    assert await page.evaluate(wide) == 0


async def test_no_text_in_the_pictures_is_too_small_to_read(page: Page) -> None:
    sizes = """Math.min(...[...document.querySelectorAll('svg text')].map(text =>
        parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
    assert await page.evaluate(sizes) >= SMALLEST_TEXT


async def test_no_text_in_the_graph_is_wider_than_its_box(page: Page) -> None:
    cut = """[...document.querySelectorAll('.graph .node')].filter(node => [...node.querySelectorAll('text')].some(
        text => text.getBBox().width > node.querySelector('rect').getBBox().width - 2)).map(node => node.ariaLabel)"""
    assert await page.evaluate(cut) == []


async def test_a_chart_is_read_second_by_second_with_the_arrow_keys(page: Page, run: Run) -> None:
    name = run.faults[0].name
    await page.evaluate(f"document.querySelector('[data-chart={name}]').focus()")
    output = f"document.querySelector('[data-chart={name}]').closest('figure').querySelector('output').textContent"
    assert await page.evaluate(output) == ""
    await page.press("ArrowRight")
    first = await page.evaluate(output)
    await page.press("ArrowRight")
    assert "p99" in first
    assert await page.evaluate(output) != first


async def test_focusing_a_component_follows_its_path(page: Page) -> None:
    followed = "document.querySelectorAll('.graph .edge.followed').length"
    assert await page.evaluate(followed) == 0
    await page.evaluate(
        "[...document.querySelectorAll('.graph .node')].find(n => n.dataset.path.includes(' ')).focus()"
    )
    assert await page.evaluate(followed) > 0


CONTRAST = """(() => {
    const linear = part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const light = color => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(part => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paint = name => {
        const probe = document.body.appendChild(document.createElement('i'));
        probe.style.color = `var(${name})`;
        const found = light(getComputedStyle(probe).color);
        probe.remove();
        return found;
    };
    return PAIRS.map(pair => pair.split(' on ')).map(([one, two]) => [paint(`--${one}`), paint(`--${two}`), one, two])
        .filter(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5)
        .map(([, , one, two]) => `${one} on ${two}`);
})()"""
PAIRS = (
    *("ink on paper", "quiet on paper", "quiet on surface", "gold on surface", "ink on sunken", "surface on red"),
    *(f"{color} on {color}-fill" for color in ("gold", "red", "green", "amber", "blue", "violet")),
)


@pytest.mark.parametrize("dark", [False, True])
async def test_text_stands_out_from_its_background_in_both_colour_schemes(page_file: Path, dark: bool) -> None:
    async with opened(page_file, dark=dark) as found:
        assert await found.evaluate(CONTRAST.replace("PAIRS", str(list(PAIRS)))) == []
