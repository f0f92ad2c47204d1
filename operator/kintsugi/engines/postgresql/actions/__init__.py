"""What can be done to a PostgreSQL: one action a file, each a pure pair of `propose` and `compile`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kintsugi.engines.engine import Action
from kintsugi.engines.postgresql.actions.analyze_table import AnalyzeTable
from kintsugi.engines.postgresql.actions.create_index import CreateIndex
from kintsugi.engines.postgresql.actions.failover import Failover
from kintsugi.engines.postgresql.actions.resize_pool import ResizePool
from kintsugi.engines.postgresql.actions.restart_workload import RestartWorkload
from kintsugi.engines.postgresql.actions.terminate_blocker import TerminateBlocker
from kintsugi.engines.postgresql.actions.terminate_idle import TerminateIdleInTransaction

_ALL: tuple[Action, ...] = (
    TerminateBlocker(),
    TerminateIdleInTransaction(),
    CreateIndex(),
    AnalyzeTable(),
    ResizePool(),
    Failover(),
    RestartWorkload(),
)

ACTIONS: Mapping[str, Action] = MappingProxyType({action.name: action for action in _ALL})
