"""What can be done to a PostgreSQL: one action a file, each a pure pair of `propose` and `compile`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kintsugi.engines.engine import Action
from kintsugi.engines.postgresql.actions.terminate_blocker import TerminateBlocker

_ALL: tuple[Action, ...] = (TerminateBlocker(),)

ACTIONS: Mapping[str, Action] = MappingProxyType({action.name: action for action in _ALL})
