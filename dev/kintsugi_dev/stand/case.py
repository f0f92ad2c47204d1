"""One database under care of the running operator, and short words for what a test waits for."""

from __future__ import annotations

import secrets
import time
from typing import Any, Self

from kintsugi_dev.people import RefusedError
from kintsugi_dev.stand.operator_process import Operator
from kintsugi_dev.stand.stand import ACTIONS, DATABASES, Json, Lane, Stand


class Case:
    """One database under care in a namespace of its own, on a lane that was calm."""

    def __init__(self, stand: Stand, operator: Operator, lane: Lane, namespace: str) -> None:
        self.stand, self.operator, self.lane, self.namespace = stand, operator, lane, namespace
        self.name = f"db-{secrets.token_hex(2)}"

    def watched(self, policy: dict[str, Any] | None = None, **spec: Any) -> Self:
        """Create policy and database, and wait until the database is healthy."""
        self.lane.wait_calm()
        self.stand.policy(self.namespace, **(policy or {}))
        self.stand.database(self.namespace, self.lane, self.name, **spec)
        self.until_phase("Healthy")
        return self

    @property
    def database(self) -> Json:
        """As it is now."""
        return self.stand.get(DATABASES, self.namespace, self.name)

    @property
    def phase(self) -> str:
        """The database's."""
        return str(self.database.get("status", {}).get("phase", ""))

    def condition(self, type_: str) -> Json:
        """One condition of the database; empty while it has none."""
        conditions = self.database.get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == type_), {})

    def until_phase(self, phase: str, seconds: float = 60.0) -> None:
        """Wait until the database is in this phase."""
        self.operator.wait(lambda: self.phase == phase, lambda: f"{phase} of {self.database}", seconds)

    def action(self, name: str = "") -> Json | None:
        """The newest action, or one by name."""
        found = self.stand.actions(self.namespace)
        return next((each for each in reversed(found) if name in ("", each["metadata"]["name"])), None)

    def proposed(self, action: str, seconds: float = 60.0) -> str:
        """Wait for an action of this kind; its name."""
        found = self.operator.wait(lambda: self.stand.actions(self.namespace, action), f"{action} proposed", seconds)
        return str(found[-1]["metadata"]["name"])

    def action_phase(self, name: str) -> str:
        """An action's."""
        return str(self.stand.get(ACTIONS, self.namespace, name).get("status", {}).get("phase", ""))

    def until_action(self, name: str, *phases: str, seconds: float = 60.0) -> Json:
        """Wait until an action is in one of these phases; the action."""
        self.operator.wait(
            lambda: self.action_phase(name) in phases,
            lambda: f"{phases} of {self.stand.get(ACTIONS, self.namespace, name)}",
            seconds,
        )
        return self.stand.get(ACTIONS, self.namespace, name)

    def approve(self, name: str) -> None:
        """As ann."""
        plan_hash = self.stand.get(ACTIONS, self.namespace, name)["spec"]["planHash"]
        deadline = time.monotonic() + 15
        while True:
            try:
                self.stand.ann.annotate(ACTIONS, self.namespace, name, {"kintsugi.dev/approve": plan_hash})
            except RefusedError as refusal:
                if "There can be a delay" not in str(refusal) or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)  # the API server has just been started, and does not know our kinds yet
            else:
                return
