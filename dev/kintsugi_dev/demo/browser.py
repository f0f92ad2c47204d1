"""A headless Chromium that opens one local page: its picture, what its scripts complained about, what it asked for."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from kintsugi_dev.servers.process import Process

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
READY_SECONDS = 30.0
ANSWER_SECONDS = 30.0
QUIET_SECONDS = 0.5
"""So long a loaded page is left alone for what its scripts may still ask for."""

Json = dict[str, Any]


class BrowserError(Exception):
    """Chromium is missing, did not start or did not answer; the message says which and what to do."""


@dataclass
class Page:
    """An open page: `errors` of its scripts and the console, `requests` for all that it asked for, itself included."""

    socket: aiohttp.ClientWebSocketResponse
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _answers: dict[int, asyncio.Future[Json]] = field(default_factory=dict)
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, method: str, **parameters: Any) -> Json:
        """One DevTools command and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
        try:
            answer = await asyncio.wait_for(self._answers[number], ANSWER_SECONDS)
        except TimeoutError as trouble:
            raise BrowserError(
                f"Chromium did not answer {method} within {ANSWER_SECONDS:.0f} s; try again"
            ) from trouble
        finally:
            del self._answers[number]
        if "error" in answer:
            raise BrowserError(f"Chromium refused {method}: {answer['error'].get('message')}")
        result: Json = answer["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression yields in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression!r} failed in the page: {answer['exceptionDetails'].get('text')}")
        return answer["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key where the focus is."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def picture(self, element: str = "html", height: float | None = None) -> bytes:
        """An element by its CSS selector as PNG, or its upper `height` px.

        Raises:
            BrowserError: the page has no such element.
        """
        box = await self.evaluate(f"document.querySelector({json.dumps(element)})?.getBoundingClientRect().toJSON()")
        if box is None:
            raise BrowserError(f"the page has no element {element!r}; correct the selector")
        clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": height or box["height"], "scale": 1}
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])

    async def listen(self) -> None:
        """Hear what the page says, until it is closed."""
        async for message in self.socket:
            told: Json = json.loads(message.data)
            if told.get("id") in self._answers:
                self._answers[told["id"]].set_result(told)
            else:
                self._hear(told.get("method", ""), told.get("params", {}))

    def _hear(self, method: str, what: Json) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(what["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(what["exceptionDetails"].get("exception", {}).get("description", "exception"))
            case "Runtime.consoleAPICalled" if what["type"] in ("error", "assert", "warning"):
                self.errors.append(" ".join(str(part.get("value")) for part in what["args"]))
            case "Log.entryAdded" if what["entry"]["level"] in ("error", "warning"):
                self.errors.append(what["entry"]["text"])

    async def load(self, url: str) -> None:
        """Go to a page; returns when it is loaded and quiet."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), ANSWER_SECONDS)
        await asyncio.sleep(QUIET_SECONDS)


@asynccontextmanager
async def opened(path: Path, *, width: int = 1280, height: int = 800, dark: bool = False) -> AsyncIterator[Page]:
    """The page of a local file in a browser of its own, which ends with the block.

    Raises:
        BrowserError: Chromium is missing, or did not start.
    """
    program = shutil.which("chromium")
    if program is None:
        raise BrowserError("chromium is not installed; run `make setup`, or apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="kintsugi-browser-", ignore_cleanup_errors=True) as name:
        profile = Path(name)
        command = [program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        process = Process.start("chromium", command, log=profile / "chromium.log")
        try:
            port = await _port(profile, process)
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(await _page_socket(session, port), max_msg_size=0) as socket,
            ):
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                try:
                    await _prepare(page, width, height, dark=dark)
                    await page.load(_url(path))
                    yield page
                finally:
                    listening.cancel()
                    with suppress(asyncio.CancelledError):
                        await listening
        finally:
            await asyncio.to_thread(process.stop)


def _url(path: Path) -> str:
    return path.resolve().as_uri()


async def _prepare(page: Page, width: int, height: int, *, dark: bool) -> None:
    for domain in ("Page", "Network", "Runtime", "Log"):
        await page.call(f"{domain}.enable")
    await page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await page.call("Emulation.setEmulatedMedia", features=[scheme])


async def _port(profile: Path, process: Process) -> int:
    """The port that Chromium has chosen, once it has written it down."""
    written = profile / "DevToolsActivePort"
    await _until(lambda: written.exists() and bool(written.read_text().strip()), process)
    return int(written.read_text().split()[0])


async def _page_socket(session: aiohttp.ClientSession, port: int) -> str:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        targets = await answer.json(content_type=None)
    return next(str(target["webSocketDebuggerUrl"]) for target in targets if target["type"] == "page")


async def _until(ready: Callable[[], bool], process: Process) -> None:
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while not ready():
        if not process.running or asyncio.get_running_loop().time() > deadline:
            raise BrowserError(f"chromium did not start within {READY_SECONDS:.0f} s; {process.tail()}")
        await asyncio.sleep(0.05)


def screenshot(
    page: Path,
    picture: Path,
    *,
    width: int = 1280,
    dark: bool = False,
    element: str = "html",
    height: float | None = None,
) -> None:
    """Write a page as a picture: all of it, one element, or the upper `height` px of either.

    Raises:
        BrowserError: Chromium is missing, or did not start or answer.
    """

    async def take() -> bytes:
        async with opened(page, width=width, dark=dark) as found:
            return await found.picture(element, height)

    if not page.exists():
        raise BrowserError(f"{page} does not exist; run the demo first, or `python -m kintsugi_dev.demo report`")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(asyncio.run(take()))
