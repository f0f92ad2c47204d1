"""Reading a run back as production sees it: the catalogue's signals, by production's own reader, at one second."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np

from kintsugi.domain.frame import Frame
from kintsugi.shell.prometheus import Endpoint, Group, Prometheus, Subject
from kintsugi_ml.lab.signals import recorded

INTERVAL = 1.0
SETTLE_SECONDS = 2.5
"""After so long Prometheus has scraped and stored what happened until now."""


async def read(url: str, labels: dict[str, str], start: float, end: float) -> Frame:
    """The metrics from `start` to `end` (Unix seconds), waiting until the last of them has been scraped."""
    await asyncio.sleep(max(0.0, end + SETTLE_SECONDS - time.time()))
    known = recorded()
    group = Group(Endpoint(url), tuple(labels), INTERVAL, known.engine, known)
    subject = Subject("lab", tuple(labels.values()))
    first, last = math.ceil(start), math.floor(end)
    prometheus = Prometheus(group.endpoint)
    try:
        offers = await prometheus.discover(group, [subject], float(last))
        samples = (await prometheus.read(group, [subject], offers, start=float(first), end=float(last)))["lab"]
    finally:
        await prometheus.close()
    values = np.full((len(samples.times), len(known)), np.nan)
    for index, name in enumerate(known.names()):
        if name in samples.columns:
            values[:, index] = samples.columns[name]
    return Frame(known.names(), samples.times, values, ~np.isnan(values), INTERVAL)
