"""Valid objects of the three kinds, and one change at a time to them: what the tests of the API are made of."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from kintsugi.api.meta import API_VERSION

OPERATOR = "system:serviceaccount:kintsugi-system:kintsugi"
Object = dict[str, Any]
GONE: Any = object()
"""As a value: the field is not there."""


def a_database(**changes: Any) -> Object:
    """A `MonitoredDatabase` that uses most fields."""
    spec = {
        "engine": "postgresql",
        "connection": {"host": "orders-rw", "database": "orders", "secretRef": "orders-kintsugi"},
        "metrics": {"prometheus": "http://prometheus:9090", "matchers": {"service": "orders"}},
        "slo": {"signal": "client_latency_p99", "target": "50ms"},
        "pooler": {"pgbouncer": {"host": "orders-pooler", "secretRef": "orders-pooler-admin"}},
        "replication": {
            "streaming": {
                "service": "orders-rw",
                "members": [{"name": "orders-0", "host": "orders-0"}, {"name": "orders-1", "host": "orders-1"}],
            }
        },
        "workloadRef": {"kind": "StatefulSet", "name": "orders"},
        "dependsOn": [{"name": "customers"}],
    }
    return changed(_whole("MonitoredDatabase", "orders", spec), changes)


def a_policy(**changes: Any) -> Object:
    """A `HealingPolicy` that uses most fields."""
    spec = {
        "selector": {"matchLabels": {"tier": "critical"}, "matchExpressions": [{"key": "lab", "operator": "Exists"}]},
        "mode": "Approve",
        "objectives": {"latency": 4, "throughput": 3, "consistency": 2, "resources": 1},
        "constraints": {"maxDataLoss": "0B", "maxReplicationLag": "10s", "protected": ["public.ledger"]},
        "actions": [{"name": "create-index", "mode": "Recommend", "protectRoles": ["backup"]}],
        "limits": {"perHour": 4, "cooldown": "3m", "concurrent": 1},
        "windows": [
            {
                "name": "nights",
                "schedule": "0 1 * * *",
                "duration": "4h",
                "timeZone": "Europe/Berlin",
                "actions": ["create-index"],
            }
        ],
        "approval": {"expiresAfter": "30m", "approvers": 1},
        "verification": {"window": "2m"},
        "escalation": {"maxAttempts": 2},
        "rollout": {"maxHarmRate": "10%"},
    }
    return changed(_whole("HealingPolicy", "critical", spec), changes)


def an_action(**changes: Any) -> Object:
    """A `HealingAction` as the operator would create it."""
    spec = {
        "database": {"name": "orders", "uid": "5a6f3f9e-8f0e-4f5c-9d52-0f1f6f3f2b10"},
        "incident": "orders-1402",
        "action": "terminate-blocker",
        "parameters": {"pid": 4711, "user": "app", "deep": {"list": [1, 2]}},
        "touches": ["role:app"],
        "plan": [{"kind": "sql", "target": "primary", "command": "SELECT 1", "timeout": "10s"}],
        "undo": {"kind": "Impossible", "note": "a terminated session is gone"},
        "risk": "medium",
        "evidence": {"summary": "one session blocks 14 others"},
        "forecast": {"root": "locks"},
        "expected": {"latency": 0.8, "throughput": 0.6, "resources": 0.0, "consistency": -0.1},
        "expiresAt": "2026-11-22T14:32:11.000Z",
        "policies": [{"name": "critical", "uid": "0f4b9c1e", "generation": 3}],
        "approval": {"required": True, "approvers": 1},
        "verification": {"window": "2m", "revertOnFailure": True},
        "planHash": "09e455fecb9e",
    }
    return changed(_whole("HealingAction", "orders-7c1f2b90", spec), changes)


def changed(whole: Object, changes: dict[str, Any]) -> Object:
    """A copy in which the fields at paths such as `spec.windows[0].schedule` have other values, or are GONE."""
    result = copy.deepcopy(whole)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
        here: Any = result
        for part in parents:
            here = here[part]
        if value is GONE:
            del here[last]
        else:
            here[last] = value
    return result


def text(whole: Object) -> str:
    """As kubectl reads it."""
    return json.dumps(whole)


def _whole(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
