"""A log in Grafana Loki, page by page (https://grafana.com/docs/loki/latest/reference/loki-http-api/, query_range)."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import aiohttp
import orjson

from kintsugi.engines.postgresql.logs.line import Line
from kintsugi.shell.logs.source import Batch, LogError, NewDecoder, Position, known_from
from kintsugi.shell.logs.stamped import NANOSECONDS, Entry, Stream
from kintsugi.shell.prometheus import Endpoint

TIMEOUT: Final = 5.0
LAG: Final = 3.0
"""Seconds that a line may take to get into Loki."""
ENTRIES: Final = 2000
"""Asked for at once; Loki's own limit is 5000 unless set otherwise."""
PAGES: Final = 4
BODY_BYTES: Final = 4 << 20
MOST_STREAMS: Final = 64
WHOLE_STREAMS: Final = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
"""Else Loki counts the level that it guesses of each line among the labels, and takes an error's lines apart."""


class Loki:
    """What a stream selector finds: `{namespace="shop", app="orders"}`."""

    every = 5.0

    def __init__(self, endpoint: Endpoint, query: str, tenant: str | None, new_decoder: NewDecoder) -> None:
        self.endpoint = endpoint
        self._query = query
        self._tenant = tenant
        self._new = new_decoder
        self._session: aiohttp.ClientSession | None = None
        self._streams: dict[str, Stream] = {}
        self._position: Position | None = None

    async def read(self, since: Position) -> Batch:
        """What was logged since, up to a few seconds ago.

        Raises:
            LogError: Loki can't be asked or refuses.
        """
        end = int((time.time() - LAG) * NANOSECONDS)
        if since != self._position:
            self._streams = {key: Stream(self._new(since.since), mark) for key, mark in since.marks.items()}
        self._position = None  # until this batch is whole: what fails is read again
        junk = -sum(stream.decoder.junk for stream in self._streams.values())
        for stream in self._streams.values():
            stream.decoder.zone = ""
        lines, more, begins = await self._pages(since, end)
        zone = next((stream.decoder.zone for stream in self._streams.values() if stream.decoder.zone), "")
        junk += sum(stream.decoder.junk for stream in self._streams.values())
        self._position = Position(since.since, {key: stream.mark for key, stream in self._streams.items()})
        until = end / NANOSECONDS
        if more:
            until = min(until, max((line.time for line in lines), default=since.since))
        begins = known_from(begins, (stream.decoder for stream in self._streams.values()))
        return Batch(tuple(lines), self._position, until, more, begins, max(junk, 0), zone)

    async def close(self) -> None:
        """Give the connections back."""
        if self._session:
            await self._session.close()

    async def _pages(self, since: Position, end: int) -> tuple[list[Line], bool, float | None]:
        lines: list[Line] = []
        begins = None
        for _ in range(PAGES):
            start = max([int(since.since * NANOSECONDS), *(stream.stamp for stream in self._streams.values())])
            if start >= end:
                return lines, False, begins
            page, limit = await self._page(start, end)
            found, news, count = await asyncio.to_thread(self._taken, page, since.since)
            lines += found
            if count < limit:
                return lines + self._idle(news), False, begins
            if not news:
                # More with one stamp than can be had at once: they are left out.
                for stream in self._streams.values():
                    stream.stamp, stream.same = start + 1, 0
                begins = (start + 1) / NANOSECONDS
        return lines, True, begins

    def _taken(self, page: Mapping[str, list[Entry]], since: float) -> tuple[list[Line], bool, int]:
        lines: list[Line] = []
        news, count = False, 0
        for key, entries in page.items():
            stream = self._streams.get(key) or Stream(self._new(since))
            self._streams[key] = stream
            found, new = stream.take(entries)
            lines += found
            news |= new
            count += len(entries)
        for key in sorted(self._streams, key=lambda key: self._streams[key].stamp)[:-MOST_STREAMS]:
            lines += self._streams.pop(key).decoder.end()
        return lines, news, count

    def _idle(self, news: bool) -> list[Line]:
        return [] if news else [line for stream in self._streams.values() for line in stream.decoder.idle()]

    async def _page(self, start: int, end: int) -> tuple[dict[str, list[Entry]], int]:
        """The first entries from `start` (ns, included) to `end`, by stream, and how many were asked for."""
        limit = ENTRIES
        while True:
            body = await self._asked(start, end, limit)
            if body is not None:
                return dict(_streams(self.endpoint.url, body)), limit
            if limit == 1:
                raise LogError(
                    "LogLineTooLarge", f"one line of {self._query} is larger than {BODY_BYTES >> 20} MiB; exclude it"
                )
            limit = max(1, limit // 8)

    async def _asked(self, start: int, end: int, limit: int) -> bytes | None:
        """Loki's answer; None when it is too large."""
        url = self.endpoint.url.rstrip("/") + "/loki/api/v1/query_range"
        query = {"query": self._query, "start": start, "end": end, "limit": limit, "direction": "forward"}
        try:
            async with self._http().get(url, params={key: str(value) for key, value in query.items()}) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > BODY_BYTES:
                        return None
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self.endpoint.url, error) from error
        _check(self.endpoint.url, status, bytes(body))
        return bytes(body)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=_context(self.endpoint), limit=2),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                headers=self._headers(),
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = dict(WHOLE_STREAMS)
        if self._tenant:
            headers["X-Scope-OrgID"] = self._tenant
        if self.endpoint.token:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        elif self.endpoint.basic:
            login = base64.b64encode(":".join(self.endpoint.basic).encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        return headers


def _context(endpoint: Endpoint) -> ssl.SSLContext | bool:
    if not endpoint.ca:
        return True
    try:
        return ssl.create_default_context(cadata=endpoint.ca)
    except (ssl.SSLError, ValueError) as error:
        raise LogError(
            "LokiTLS",
            f"the CA for Loki at {endpoint.url} is no certificate in PEM ({error}); correct ca.crt in the Secret that "
            "logs.loki.caSecretRef names",
        ) from error


def _check(url: str, status: int, body: bytes) -> None:
    if status in (401, 403):
        raise LogError(
            "LokiUnauthorized",
            f"Loki at {url} refused the credentials (HTTP {status}); check logs.loki.auth, its Secret, and the tenant",
        )
    if status == 400:
        said = body[:200].decode(errors="replace")
        raise LogError("LokiRefused", f"Loki at {url} refused the query: {said}; correct logs.loki.query")
    if status != 200:
        raise LogError("LokiFailing", f"Loki at {url} failed (HTTP {status}); see its log")


def _streams(url: str, body: bytes) -> Iterator[tuple[str, list[Entry]]]:
    try:
        data: Any = orjson.loads(body)["data"]
        if data["resultType"] != "streams":
            raise ValueError("not streams")
        for stream in data["result"]:
            entries = [(int(stamp), str(text).encode()) for stamp, text, *_ in stream["values"]]
            yield json.dumps(stream["stream"], sort_keys=True), sorted(entries, key=lambda entry: entry[0])
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(
            "LokiNonsense",
            f"{url} does not answer like Loki, or the query gives numbers; check logs.loki.url and that "
            "logs.loki.query is a stream selector",
        ) from error


def _unreachable(url: str, error: Exception) -> LogError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return LogError(
            "LokiTLS",
            f"the certificate of Loki at {url} is not trusted; put its CA as ca.crt into a Secret and name it in "
            "logs.loki.caSecretRef",
        )
    what = "did not answer in time" if isinstance(error, TimeoutError) else "can't be reached"
    return LogError(
        "LokiUnreachable",
        f"Loki at {url} {what} ({type(error).__name__}); check logs.loki.url, that it runs, and the network",
    )
