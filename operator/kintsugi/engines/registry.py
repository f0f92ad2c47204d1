"""The engines that Kintsugi knows, by the name in `spec.engine`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kintsugi.domain.signals import Catalogue
from kintsugi.domain.topology import Topology
from kintsugi.engines.engine import Engine
from kintsugi.engines.postgresql.actions import ACTIONS
from kintsugi.engines.postgresql.diagnostics import QUERIES


def _postgresql() -> Engine:
    return Engine(
        name="postgresql",
        catalogue=Catalogue("postgresql", ()),
        topology=Topology((), (), ()),
        queries=QUERIES,
        actions=ACTIONS,
    )


ENGINES: Mapping[str, Engine] = MappingProxyType({"postgresql": _postgresql()})
