"""Prometheus, asked for all databases at once: ten signals in one request, only the newest samples.

The hot path is aiohttp and orjson straight to numpy (DESIGN §11 has the measurements); free queries go through
prometheus-api-client. Databases that share an address, credentials, matcher labels and scrape interval form a `Group`
and are read together: each signal is one expression grouped by the matcher labels, and ten expressions travel in one
request as a union, told apart by a label.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException

from kintsugi.domain.frame import Floats
from kintsugi.domain.signals import Catalogue, Signal
from kintsugi.engines.catalogue import render
from kintsugi.shell.errors import PrometheusError

TIMEOUT = 5.0
SIGNALS_PER_REQUEST = 10
SIGNAL_LABEL = "kintsugi_signal"
DISCOVERY_INTERVAL = 120.0  # seconds; signals are looked for as if scraped this seldom, so in the last five minutes

Offers = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Per database key, per signal: the exporters that offer it, preferred one first."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Prometheus, with credentials already resolved. Its representation never shows them."""

    url: str
    token: str | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """Databases that are read together, because all of this is the same for them."""

    endpoint: Endpoint
    labels: tuple[str, ...]
    interval: float
    engine: str
    catalogue: Catalogue = field(compare=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """One database to read: its key, and its matchers' values in the order of the group's labels."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """What was read for one database: `times` `[T]` on the grid, and per signal values `[T]`, NaN where missing."""

    times: Floats
    columns: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class _Expression:
    signal: Signal
    source: str
    promql: str

    @property
    def name(self) -> str:
        return f"{self.signal.name}/{self.source}"


class Prometheus:
    """One Prometheus server; every method raises `PrometheusError` when it can't be asked or refuses."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self._ordinary: PrometheusConnect | None = None
        self._ca_file: Path | None = None

    async def read(
        self, group: Group, subjects: Sequence[Subject], offers: Offers, *, start: float, end: float
    ) -> dict[str, Samples]:
        """The samples of all subjects on the grid from `start` to `end`, both included."""
        wanted = [
            (signal, source)
            for signal in group.catalogue
            for source in signal.exporters
            if any(source in offers.get(subject.key, {}).get(signal.name, ()) for subject in subjects)
        ]
        times = np.arange(start, end + group.interval / 2, group.interval)
        columns: dict[str, dict[str, Floats]] = {subject.key: {} for subject in subjects}
        for key, signal, source, points in await self._series(group, subjects, wanted, start, end, group.interval):
            preferred = offers.get(key, {}).get(signal, ())
            if source in preferred[:1] or (source in preferred and signal not in columns[key]):
                columns[key][signal] = _column(points, times, group.interval)
        return {key: Samples(times, found) for key, found in columns.items()}

    async def discover(self, group: Group, subjects: Sequence[Subject], now: float) -> Offers:
        """Which signals each database offers, and from where: what had samples in the last five minutes."""
        wanted = [(signal, source) for signal in group.catalogue for source in signal.exporters]
        found: dict[str, dict[str, list[str]]] = {subject.key: {} for subject in subjects}
        order = {(signal.name, source): i for signal in group.catalogue for i, source in enumerate(signal.exporters)}
        for key, signal, source, _ in await self._series(group, subjects, wanted, now, now, DISCOVERY_INTERVAL):
            found[key].setdefault(signal, []).append(source)
        return {
            key: {name: tuple(sorted(sources, key=lambda s: order[name, s])) for name, sources in signals.items()}
            for key, signals in found.items()
        }

    async def value(self, query: str) -> float | None:
        """The single number that a free query gives now; None when it gives nothing, several, or no number."""
        try:
            answer = await asyncio.to_thread(self._connection().custom_query, query, None, TIMEOUT)
        except PrometheusApiClientException as error:
            raise PrometheusError(
                "QueryRefused", f"Prometheus at {self.endpoint.url} refused the query {query!r}: {error}; correct it"
            ) from error
        except (requests.RequestException, OSError) as error:
            raise _unreachable(self.endpoint.url, error) from error
        try:
            number = float(answer[0]["value"][1]) if len(answer) == 1 else np.nan
        except (KeyError, IndexError, TypeError, ValueError):  # a range, a string, a histogram
            return None
        return number if np.isfinite(number) else None

    async def close(self) -> None:
        """Give connections and temporary files back."""
        if self._session:
            await self._session.close()
        if self._ca_file:
            self._ca_file.unlink(missing_ok=True)

    async def _series(
        self,
        group: Group,
        subjects: Sequence[Subject],
        wanted: Sequence[tuple[Signal, str]],
        start: float,
        end: float,
        window: float,
    ) -> list[tuple[str, str, str, list[Any]]]:
        """Every series of the wanted expressions as (database key, signal, exporter, points)."""
        selector = _selector(group.labels, subjects)
        expressions = [
            _Expression(signal, source, render(signal, source, group.labels, selector, window))
            for signal, source in wanted
        ]
        answers = await asyncio.gather(
            *(self._union(batch, start, end, group.interval) for batch in _batched(expressions))
        )
        keys: dict[tuple[str, ...], list[str]] = defaultdict(list)  # several databases may be described twice
        for subject in subjects:
            keys[subject.values].append(subject.key)
        result = []
        for series in (series for answer in answers for series in answer):
            metric = series["metric"]
            signal, _, source = metric[SIGNAL_LABEL].partition("/")
            these = keys.get(tuple(metric.get(label, "") for label in group.labels), ())
            result += [(key, signal, source, series["values"]) for key in these]
        return result

    async def _union(self, batch: Sequence[_Expression], start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of several expressions in one request; one by one when Prometheus refuses them together."""
        query = " or ".join(f'label_replace({e.promql}, "{SIGNAL_LABEL}", "{e.name}", "", "")' for e in batch)
        try:
            return await self._range(query, start, end, step)
        except PrometheusError as error:
            if not isinstance(error, QueryRefusedError) or len(batch) == 1:
                raise
        found: list[dict[str, Any]] = []
        for expression in batch:
            # One signal whose series do not fit its expression must not cost the others.
            with contextlib.suppress(QueryRefusedError):
                found += await self._union([expression], start, end, step)
        return found

    async def _range(self, query: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        url = self.endpoint.url.rstrip("/") + "/api/v1/query_range"
        data = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        try:
            async with self._http().post(url, data=data) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self.endpoint.url, error) from error
        return _parsed(self.endpoint.url, status, body)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            endpoint = self.endpoint
            context = _trusting(endpoint) if endpoint.ca else True
            headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
            if endpoint.basic:
                login = base64.b64encode(":".join(endpoint.basic).encode()).decode()
                headers = {"Authorization": f"Basic {login}"}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=8),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                headers=headers,
            )
        return self._session

    def _connection(self) -> PrometheusConnect:
        if self._ordinary is None:
            session = requests.Session()
            if self.endpoint.ca:
                with tempfile.NamedTemporaryFile("w", suffix=".crt", delete=False) as file:
                    file.write(self.endpoint.ca)
                self._ca_file = Path(file.name)
                session.verify = file.name
            if self.endpoint.token:
                session.headers["Authorization"] = f"Bearer {self.endpoint.token}"
            self._ordinary = PrometheusConnect(self.endpoint.url, auth=self.endpoint.basic, session=session)
        return self._ordinary


class QueryRefusedError(PrometheusError):
    """Prometheus answered that an expression can't be evaluated."""


def _batched(expressions: Sequence[_Expression]) -> Iterator[Sequence[_Expression]]:
    for first in range(0, len(expressions), SIGNALS_PER_REQUEST):
        yield expressions[first : first + SIGNALS_PER_REQUEST]


def _selector(labels: Sequence[str], subjects: Sequence[Subject]) -> str:
    """Label matchers that select all subjects, and perhaps combinations that nobody asked for (those are ignored)."""
    parts = []
    for index, label in enumerate(labels):
        values = sorted({subject.values[index] for subject in subjects})
        escaped = "|".join(re.escape(value) for value in values).replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'{label}=~"{escaped}"')
    return ",".join(parts)


def _column(points: Sequence[Sequence[Any]], times: Floats, interval: float) -> Floats:
    column = np.full(len(times), np.nan)
    for at, text in points:
        index = round((at - times[0]) / interval)
        if 0 <= index < len(times):
            column[index] = _number(text)
    return column


def _number(text: Any) -> float:
    """A sample's value; NaN for what is none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return float(np.nan)
    return value if np.isfinite(value) else float(np.nan)


def _trusting(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=endpoint.ca)
    except (ssl.SSLError, ValueError) as error:
        raise PrometheusError(
            "PrometheusTLS",
            f"the CA for Prometheus at {endpoint.url} is no certificate in PEM ({error}); correct ca.crt in the Secret "
            "that metrics.caSecretRef names",
        ) from error


def _parsed(url: str, status: int, body: bytes) -> list[dict[str, Any]]:
    if status in (401, 403):
        raise PrometheusError(
            "PrometheusUnauthorized",
            f"Prometheus at {url} refused the credentials (HTTP {status}); check metrics.auth and its Secret",
        )
    try:
        answer = orjson.loads(body)
        if answer["status"] == "success":
            return _matrix(answer["data"])
        message = str(answer.get("error", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise PrometheusError(
            "PrometheusNonsense",
            f"{url} does not answer like Prometheus (HTTP {status}); check metrics.prometheus",
        ) from error
    if status in (400, 422):
        raise QueryRefusedError("QueryRefused", f"Prometheus at {url} refused a query: {message}")
    raise PrometheusError("PrometheusFailing", f"Prometheus at {url} failed (HTTP {status}): {message}; see its log")


def _matrix(data: Any) -> list[dict[str, Any]]:
    """The series of a range query.

    Raises:
        ValueError: it is something else.
    """
    series: list[dict[str, Any]] = data["result"]
    if data["resultType"] != "matrix" or not all(
        isinstance(one["values"], list) and SIGNAL_LABEL in one["metric"] for one in series
    ):
        raise ValueError("not the series that were asked for")
    return series


def _unreachable(url: str, error: Exception) -> PrometheusError:
    if isinstance(
        error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | requests.exceptions.SSLError
    ):
        return PrometheusError(
            "PrometheusTLS",
            f"the certificate of Prometheus at {url} is not trusted; put its CA as ca.crt into a Secret and name it "
            "in metrics.caSecretRef",
        )
    what = "did not answer in time" if isinstance(error, TimeoutError) else "can't be reached"
    return PrometheusError(
        "PrometheusUnreachable",
        f"Prometheus at {url} {what} ({type(error).__name__}); check metrics.prometheus, that it runs, and the network",
    )
