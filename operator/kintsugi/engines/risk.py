"""The one table of risks (DESIGN §4). An action that is not in it does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kintsugi.domain.actions import Risk

RISKS: Mapping[str, Risk] = MappingProxyType(
    {
        "analyze-table": Risk.LOW,
        "resize-pool": Risk.LOW,
        "terminate-blocker": Risk.MEDIUM,
        "terminate-idle-in-transaction": Risk.MEDIUM,
        "create-index": Risk.MEDIUM,
        "failover": Risk.HIGH,
        "restart-workload": Risk.HIGH,
    }
)
