"""The engines that Kintsugi knows, by the name in `spec.engine`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kintsugi.engines.catalogue import load
from kintsugi.engines.engine import Engine
from kintsugi.engines.postgresql.actions import ACTIONS
from kintsugi.engines.postgresql.diagnostics import QUERIES
from kintsugi.engines.postgresql.topology import TOPOLOGY, with_neighbours

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "postgresql": Engine(
            name="postgresql",
            catalogue=load("postgresql"),
            topology=TOPOLOGY,
            queries=QUERIES,
            actions=ACTIONS,
            surrounded=with_neighbours,
        )
    }
)
