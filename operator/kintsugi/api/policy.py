"""`HealingPolicy`: what Kintsugi may do to which databases, and where it must stop."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kintsugi.api.meta import Condition, Duration, Model, Name, ObjectMeta, Percent, Size, Status


class Mode(StrEnum):
    """What Kintsugi may do by itself; each mode includes the ones before it."""

    OBSERVE = "Observe"
    RECOMMEND = "Recommend"
    APPROVE = "Approve"
    AUTO_LOW_RISK = "AutoLowRisk"
    AUTO_MEDIUM_RISK = "AutoMediumRisk"

    @property
    def rank(self) -> int:
        """0 for Observe, 4 for AutoMediumRisk."""
        return list(Mode).index(self)


class Expression(Model):
    """One requirement of a label selector."""

    key: str = Field(min_length=1, max_length=317)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = Field(default=(), max_length=64)


class Selector(Model):
    """A Kubernetes label selector over databases in the policy's namespace; `{}` selects all of them."""

    match_labels: Mapping[str, Annotated[str, Field(max_length=63)]] = Field(default_factory=dict, max_length=32)
    match_expressions: tuple[Expression, ...] = Field(default=(), max_length=32)


class ObjectiveWeights(Model):
    """How much each objective counts, relative to the others."""

    latency: Annotated[int, Field(ge=0, le=100)] = 1
    throughput: Annotated[int, Field(ge=0, le=100)] = 1
    consistency: Annotated[int, Field(ge=0, le=100)] = 1
    resources: Annotated[int, Field(ge=0, le=100)] = 1


class Constraints(Model):
    """Hard limits; no weight can buy them."""

    max_data_loss: Size = Field(default=0, description="Failover is refused when more than this could be lost.")
    max_replication_lag: Duration = timedelta(seconds=10)
    protected: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(),
        max_length=256,
        description="schema.table, role:NAME, database:NAME or application:NAME that no action may touch.",
    )


class ActionOverride(Model):
    """A boundary for one action, stricter than the policy's own."""

    name: Name
    mode: Mode | None = None
    protect_roles: tuple[Annotated[str, Field(min_length=1, max_length=63)], ...] = Field(default=(), max_length=64)


class Limits(Model):
    """How often."""

    per_hour: Annotated[int, Field(ge=0, le=1000)] = 4
    cooldown: Duration = timedelta(minutes=3)
    concurrent: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        description="Actions at work at once over all matched databases; one per database always.",
    )


class Window(Model):
    """When the named actions may run; outside of it they may not. Cron syntax, with its own time zone."""

    name: Name
    schedule: str = Field(pattern=r"^\S+ \S+ \S+ \S+ \S+$", max_length=128)
    duration: Duration
    time_zone: str = Field(default="UTC", max_length=64)
    actions: tuple[Name, ...] = Field(min_length=1, max_length=64)


class Approval(Model):
    """Who must say yes, and for how long the question stands."""

    expires_after: Duration = timedelta(minutes=30)
    approvers: Annotated[int, Field(ge=1, le=2)] = 1


class Verification(Model):
    """How an action is judged."""

    window: Duration = Field(default=timedelta(minutes=2), description="How long it may take until the effect shows.")
    revert_on_failure: bool = True


class Escalation(Model):
    """When to stop trying and ask a person."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=2, description="Actions tried for one incident before a person is asked."
    )


class Rollout(Model):
    """Trust is earned: an action type asks until its harm rate is proven to be below this."""

    max_harm_rate: Percent = 0.1


class PolicySpec(Model):
    """The boundaries. Where several policies match a database, the strictest value of each boundary wins."""

    selector: Selector
    mode: Mode = Mode.OBSERVE
    priority: Annotated[int, Field(ge=-1000, le=1000)] = Field(
        default=0, description="Only the objectives come from the policy with the highest priority."
    )
    paused: bool = Field(default=False, description="Stops every action on the matched databases.")
    objectives: ObjectiveWeights = ObjectiveWeights()
    constraints: Constraints = Constraints()
    actions: tuple[ActionOverride, ...] = Field(default=(), max_length=64)
    limits: Limits = Limits()
    windows: tuple[Window, ...] = Field(default=(), max_length=32)
    approval: Approval = Approval()
    verification: Verification = Verification()
    escalation: Escalation = Escalation()
    rollout: Rollout | None = None


class MatchedDatabase(Status):
    """One database under this policy."""

    name: str
    effective_mode: str
    actions_last_hour: int = 0
    blocked: tuple[str, ...] = ()


class ActionMode(Status):
    """What a mode means for one action."""

    name: str
    risk: str
    mode: str


class PolicyStatus(Status):
    """What the policy does in practice."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    matched: int = 0
    databases: tuple[MatchedDatabase, ...] = ()
    actions: tuple[ActionMode, ...] = ()


class HealingPolicy(Model):
    """The whole object as read from the API server."""

    KIND: ClassVar[str] = "HealingPolicy"
    PLURAL: ClassVar[str] = "healingpolicies"

    metadata: ObjectMeta
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
