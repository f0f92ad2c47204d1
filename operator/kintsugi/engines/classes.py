"""The fault class that each action is evidence of when it heals: what a verified outcome is an example of.

Names are those of the laboratory's faults. An action that heals several kinds of trouble is evidence of none.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "analyze-table": "stale-statistics",
        "create-index": "missing-index",
        "resize-pool": "pool-exhaustion",
        "terminate-blocker": "lock-contention",
        "terminate-idle-in-transaction": "idle-in-transaction",
        "failover": "",
        "restart-workload": "",
    }
)
