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

    key: str = Field(min_length=1, max_length=317, description="The label's name.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="In, NotIn, Exists or DoesNotExist.")
    values: tuple[str, ...] = Field(default=(), max_length=64, description="The label's values, for In and NotIn.")


class Selector(Model):
    """A Kubernetes label selector over databases in the policy's namespace; `{}` selects all of them."""

    match_labels: Mapping[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=32, description="Labels that a database must have, with these values."
    )
    match_expressions: tuple[Expression, ...] = Field(
        default=(), max_length=32, description="Requirements that a database's labels must meet, all of them."
    )


class ObjectiveWeights(Model):
    """How much each objective counts, relative to the others."""

    latency: Annotated[int, Field(ge=0, le=100)] = Field(default=1, description="How much latency counts.")
    throughput: Annotated[int, Field(ge=0, le=100)] = Field(default=1, description="How much throughput counts.")
    consistency: Annotated[int, Field(ge=0, le=100)] = Field(default=1, description="How much consistency counts.")
    resources: Annotated[int, Field(ge=0, le=100)] = Field(default=1, description="How much saving resources counts.")


class Constraints(Model):
    """Hard limits; no weight can buy them."""

    max_data_loss: Size = Field(default=0, description="Failover is refused when more than this could be lost.")
    max_replication_lag: Duration = Field(
        default=timedelta(seconds=10), description="A replica that is further behind is not promoted."
    )
    protected: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(),
        max_length=256,
        description="schema.table, role:NAME, database:NAME or application:NAME that no action may touch.",
    )


class ActionOverride(Model):
    """A boundary for one action, stricter than the policy's own."""

    name: Name = Field(description="The action.")
    mode: Mode | None = Field(default=None, description="A stricter mode for this action.")
    protect_roles: tuple[Annotated[str, Field(min_length=1, max_length=63)], ...] = Field(
        default=(), max_length=64, description="Database roles whose sessions this action may not touch."
    )


class Limits(Model):
    """How often."""

    per_hour: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=4, description="Actions on one database within an hour; 0 means never."
    )
    cooldown: Duration = Field(
        default=timedelta(minutes=3), description="How long a database is left alone after an action on it has ended."
    )
    concurrent: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        description="Actions at work at once over all matched databases; one per database always.",
    )


class Window(Model):
    """When the named actions may run; outside of it they may not. Cron syntax, with its own time zone."""

    name: Name = Field(description="The window's name.")
    schedule: str = Field(
        pattern=r"^\S+ \S+ \S+ \S+ \S+$",
        max_length=128,
        description="When it opens: minute, hour, day of the month, month, day of the week, as in cron.",
    )
    duration: Duration = Field(description="How long it stays open.")
    time_zone: str = Field(
        default="UTC", max_length=64, description="The schedule's time zone, Europe/Berlin for example."
    )
    actions: tuple[Name, ...] = Field(
        min_length=1, max_length=64, description="The actions that may run in this window only."
    )


class Approval(Model):
    """Who must say yes, and for how long the question stands."""

    expires_after: Duration = Field(
        default=timedelta(minutes=30), description="How long a person has to answer; then the action expires."
    )
    approvers: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="How many different people must approve."
    )


class Verification(Model):
    """How an action is judged."""

    window: Duration = Field(default=timedelta(minutes=2), description="How long it may take until the effect shows.")
    revert_on_failure: bool = Field(
        default=True, description="Whether the undo plan is run when the effect does not show."
    )


class Escalation(Model):
    """When to stop trying and ask a person."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=2, description="Actions tried for one incident before a person is asked."
    )


class Rollout(Model):
    """Trust is earned: an action type asks until its harm rate is proven to be below this."""

    max_harm_rate: Percent = Field(
        default=0.1,
        description="The harm rate that must be ruled out (95 %): 29 successes without harm for 10%, 149 for 2%.",
    )


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
    actions: tuple[ActionOverride, ...] = Field(default=(), max_length=64, description="Boundaries for single actions.")
    limits: Limits = Limits()
    windows: tuple[Window, ...] = Field(
        default=(), max_length=32, description="When some actions may run; the others may at any time."
    )
    approval: Approval = Approval()
    verification: Verification = Verification()
    escalation: Escalation = Escalation()
    rollout: Rollout | None = None


class MatchedDatabase(Status):
    """One database under this policy."""

    name: str = Field(description="The database.")
    effective_mode: str = Field(description="Its mode, the strictest of all policies that match it.")
    actions_last_hour: int = Field(default=0, description="Actions begun within the last hour.")
    blocked: tuple[str, ...] = Field(default=(), description="What is blocked here and why.")


class ActionMode(Status):
    """What a mode means for one action."""

    name: str = Field(description="The action.")
    risk: str = Field(description="Its risk.")
    mode: str = Field(description="What the mode means for it: whether it is proposed, asked for, or done.")


class PolicyStatus(Status):
    """What the policy does in practice."""

    observed_generation: int = Field(default=0, description="The generation that this status is about.")
    conditions: tuple[Condition, ...] = Field(
        default=(), description="What is in order and what isn't; Ready sums it up."
    )
    matched: int = Field(default=0, description="How many databases it matches.")
    databases: tuple[MatchedDatabase, ...] = Field(default=(), description="The databases that it matches.")
    actions: tuple[ActionMode, ...] = Field(default=(), description="What its mode means for each action.")


class HealingPolicy(Model):
    """The whole object as read from the API server."""

    KIND: ClassVar[str] = "HealingPolicy"
    PLURAL: ClassVar[str] = "healingpolicies"

    metadata: ObjectMeta
    spec: PolicySpec
    status: PolicyStatus = PolicyStatus()
