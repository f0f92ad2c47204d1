"""From all policies that match a database to the one set of boundaries that holds for it.

For each boundary the strictest value wins, so that nobody can loosen another's; only the objectives come from the
policy with the highest priority. What "strictest" means where it is not obvious:

- `revertOnFailure`: true. What was changed without helping is taken back; leaving it is the looser choice.
- `verification.window`: the longest. Success is said later, and nothing else touches the database meanwhile.
- `rollout`: the smallest rate of those that ask for trust to be earned; policies without one don't loosen it.
- windows: an action must be inside a window of *each* policy that restricts it.
- `limits.concurrent`: each policy's own limit holds over the databases that it matches.
- a policy that names an action which doesn't exist: at most Recommend, because a misspelt boundary must not be ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import Field

from kintsugi.api.action import PolicyRef
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.database_logs import Logs
from kintsugi.api.meta import PAUSE, Model, format_duration
from kintsugi.api.policy import (
    Approval,
    Constraints,
    Expression,
    HealingPolicy,
    Limits,
    Mode,
    PolicySpec,
    Selector,
    Verification,
    Window,
)
from kintsugi.domain.actions import Objectives, Risk
from kintsugi.engines.risk import RISKS

T = TypeVar("T", int, bool, timedelta)


class Ceiling(Model):
    """The boundaries of whoever runs the operator, from the chart's values; they cap every policy in every namespace.

    Empty lists allow everything. `prometheus` are base URLs (`http://prometheus.monitoring:9090`, `https://p/eu`),
    `databases` are host patterns in which `*` stands for anything (`*.shop.svc`), `concurrent` is how many actions may
    be at work at once in the whole fleet (None: no limit), `paused` is the global kill switch. `loki` are base URLs as
    `prometheus`. `log_files` are folders in the operator's own file system: of these, and of no other, logs are read.
    """

    mode: Mode = Mode.AUTO_MEDIUM_RISK
    actions: tuple[str, ...] = ()
    prometheus: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    loki: tuple[str, ...] = ()
    log_files: tuple[str, ...] = ()
    concurrent: int | None = Field(default=None, ge=1)
    paused: bool = False

    def allows_action(self, action: str) -> bool:
        """Whether this action may ever be taken."""
        return not self.actions or action in self.actions

    def allows_prometheus(self, url: str) -> bool:
        """Whether metrics may be read from this URL: scheme, host and port of a listed one, at or below its path."""
        return not self.prometheus or any(_at_or_below(url, base) for base in self.prometheus)

    def allows_loki(self, url: str) -> bool:
        """Whether a log may be read from this URL, as `allows_prometheus`."""
        return not self.loki or any(_at_or_below(url, base) for base in self.loki)

    def log_root(self, path: str) -> str | None:
        """The folder that makes a log's path allowed; None when none does."""
        parts = PurePosixPath(path).parts
        if ".." in parts:
            return None
        return next((folder for folder in self.log_files if PurePosixPath(path).is_relative_to(folder)), None)

    def allows_host(self, host: str) -> bool:
        """Whether a connection may be opened to this host; lists of hosts and socket paths never match a pattern."""
        plain = not any(character in host for character in ",/@\\ ")
        name = host.lower().rstrip(".")
        return not self.databases or (plain and any(fnmatchcase(name, p.lower()) for p in self.databases))

    def problems(self, database: MonitoredDatabase) -> tuple[str, ...]:
        """Every address of `database` that lies outside, as a sentence; nothing may be sent to any of them."""
        spec = database.spec
        hosts = {"connection.host": spec.connection.host}
        if spec.pooler:
            hosts["pooler.pgbouncer.host"] = spec.pooler.pgbouncer.host
        for member in spec.replication.streaming.members if spec.replication else ():
            hosts[f"replication.streaming.members[{member.name}].host"] = member.host
        barred = [
            f"{field} {host} is outside the operator's ceiling; ask whoever runs it to add it to ceiling.databases"
            for field, host in hosts.items()
            if not self.allows_host(host)
        ]
        if not self.allows_prometheus(spec.metrics.prometheus):
            barred.append(
                f"metrics.prometheus {spec.metrics.prometheus} is outside the operator's ceiling; "
                "ask whoever runs it to add it to ceiling.prometheus"
            )
        return (*barred, *self._log_problems(spec.logs))

    def _log_problems(self, logs: Logs | None) -> Iterator[str]:
        if logs and logs.loki and not self.allows_loki(logs.loki.url):
            yield (
                f"logs.loki.url {logs.loki.url} is outside the operator's ceiling; ask whoever runs it to add it to "
                "ceiling.loki"
            )
        if logs and logs.file and self.log_root(logs.file.path) is None:
            yield (
                f"logs.file.path {logs.file.path} is outside the operator's ceiling; ask whoever runs it to mount the "
                "folder and to add it to ceiling.logFiles"
            )


NO_CEILING = Ceiling()


@dataclass(frozen=True, slots=True)
class Restriction:
    """The windows of one policy that name one action: it runs only inside one of them."""

    policy: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """The boundaries that hold for one database, merged from every policy that matches it and the ceiling.

    `overrides` are the strictest mode per action name. `concurrent` maps a policy to how many actions may be at work at
    once over the databases that it matches. `max_harm_rate` is None where no policy wants trust to be earned.
    `notes` say in words what was capped and by whom.
    """

    refs: tuple[PolicyRef, ...]
    mode: Mode
    paused_by: tuple[str, ...]
    overrides: Mapping[str, Mode]
    protect_roles: Mapping[str, frozenset[str]]
    objectives: Objectives
    constraints: Constraints
    limits: Limits
    concurrent: Mapping[str, int]
    windows: tuple[tuple[str, tuple[Window, ...]], ...]
    approval: Approval
    verification: Verification
    max_attempts: int
    max_harm_rate: float | None
    ceiling: Ceiling
    notes: tuple[str, ...]

    def mode_for(self, action: str, risk: Risk) -> Mode:
        """What it comes to for one action: Approve where its risk exceeds an automatic mode, Observe where barred."""
        if not self.ceiling.allows_action(action):
            return Mode.OBSERVE
        mode = self.granted(action)
        return mode if mode.rank < Mode.AUTO_LOW_RISK.rank or automatic(mode, risk) else Mode.APPROVE

    def granted(self, action: str) -> Mode:
        """The strictest mode given for this action, whatever its risk."""
        return _lowest((self.mode, self.overrides.get(action, self.mode)))

    def restrictions(self, action: str) -> tuple[Restriction, ...]:
        """The policies whose windows name this action."""
        named = ((policy, tuple(w for w in windows if action in w.actions)) for policy, windows in self.windows)
        return tuple(Restriction(policy, windows) for policy, windows in named if windows)


def automatic(mode: Mode, risk: Risk) -> bool:
    """Whether an action of this risk runs by itself in this mode. High risk never does."""
    allowed = {Mode.AUTO_LOW_RISK: (Risk.LOW,), Mode.AUTO_MEDIUM_RISK: (Risk.LOW, Risk.MEDIUM)}
    return risk in allowed.get(mode, ())


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a Kubernetes label selector selects these labels; an empty one selects everything."""
    exact = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return exact and all(_holds(expression, labels) for expression in selector.match_expressions)


def applying(policies: Sequence[HealingPolicy], database: MonitoredDatabase) -> tuple[HealingPolicy, ...]:
    """The policies of the database's own namespace that select it, by name."""
    mine = (
        policy
        for policy in policies
        if policy.metadata.namespace == database.metadata.namespace
        and matches(policy.spec.selector, database.metadata.labels)
    )
    return tuple(sorted(mine, key=lambda policy: policy.metadata.name))


def effective(
    policies: Sequence[HealingPolicy],
    database: MonitoredDatabase,
    ceiling: Ceiling = NO_CEILING,
    known: Collection[str] = RISKS,
) -> EffectivePolicy:
    """The boundaries for `database`. `policies` may be all there are; without one that matches, it is only observed."""
    return merge(applying(policies, database), ceiling, known)


def merge(policies: Sequence[HealingPolicy], ceiling: Ceiling, known: Collection[str] = RISKS) -> EffectivePolicy:
    """The strictest of `policies`, all of which apply. Their order does not matter."""
    policies = sorted(policies, key=lambda policy: policy.metadata.name)
    notes: list[str] = []
    mode = _merged_mode(policies, ceiling, known, notes)
    strict = _Strictest(policies, notes)
    constraints = Constraints(
        max_data_loss=strict.least("maxDataLoss", lambda s: s.constraints.max_data_loss, lambda v: f"{v}B"),
        max_replication_lag=strict.least("maxReplicationLag", lambda s: s.constraints.max_replication_lag, _time),
        protected=tuple(sorted({name for policy in policies for name in policy.spec.constraints.protected})),
    )
    limits = Limits(
        per_hour=strict.least("perHour", lambda s: s.limits.per_hour, str),
        cooldown=strict.most("cooldown", lambda s: s.limits.cooldown, _time),
        concurrent=strict.least("concurrent", lambda s: s.limits.concurrent, str),
    )
    return EffectivePolicy(
        refs=tuple(
            PolicyRef(name=p.metadata.name, uid=p.metadata.uid, generation=p.metadata.generation) for p in policies
        ),
        mode=mode,
        paused_by=tuple(p.metadata.name for p in policies if p.spec.paused or PAUSE in p.metadata.annotations),
        overrides=_merged_overrides(policies, mode, notes),
        protect_roles=_merged_roles(policies),
        objectives=_objectives(policies),
        constraints=constraints,
        limits=limits,
        concurrent={policy.metadata.name: policy.spec.limits.concurrent for policy in policies},
        windows=tuple((p.metadata.name, p.spec.windows) for p in policies if p.spec.windows),
        approval=Approval(
            expires_after=strict.least("expiresAfter", lambda s: s.approval.expires_after, _time),
            approvers=strict.most("approvers", lambda s: s.approval.approvers, str),
        ),
        verification=Verification(
            window=strict.most("verification.window", lambda s: s.verification.window, _time),
            revert_on_failure=strict.most("revertOnFailure", lambda s: s.verification.revert_on_failure, str),
        ),
        max_attempts=strict.least("maxAttempts", lambda s: s.escalation.max_attempts, str),
        max_harm_rate=min((p.spec.rollout.max_harm_rate for p in policies if p.spec.rollout), default=None),
        ceiling=ceiling,
        notes=tuple(notes),
    )


def unknown_actions(spec: PolicySpec, known: Collection[str] = RISKS) -> tuple[str, ...]:
    """The action names in overrides and windows that don't exist."""
    named = {override.name for override in spec.actions} | {name for w in spec.windows for name in w.actions}
    return tuple(sorted(named - set(known)))


_DEFAULTS = PolicySpec(selector=Selector())
"""Stands in where no policy matches; the mode is Observe then, so that its limits never come to matter."""


class _Strictest:
    """Picks each boundary's strictest value, and notes who set it where policies differ."""

    def __init__(self, policies: Sequence[HealingPolicy], notes: list[str]) -> None:
        self._policies = policies
        self._notes = notes

    def least(self, name: str, get: Callable[[PolicySpec], T], show: Callable[[T], str]) -> T:
        """The smallest value."""
        return self._pick(min, name, get, show)

    def most(self, name: str, get: Callable[[PolicySpec], T], show: Callable[[T], str]) -> T:
        """The largest value."""
        return self._pick(max, name, get, show)

    def _pick(
        self, choose: Callable[..., Any], name: str, get: Callable[[PolicySpec], T], show: Callable[[T], str]
    ) -> T:
        values = {policy.metadata.name: get(policy.spec) for policy in self._policies}
        best: T = choose(values.values(), default=get(_DEFAULTS))
        if len(set(values.values())) > 1:
            by = ", ".join(policy for policy, value in values.items() if value == best)
            self._notes.append(f"{name} {show(best)} is from {by}, the strictest of {len(values)} policies")
        return best


def _merged_mode(policies: Sequence[HealingPolicy], ceiling: Ceiling, known: Collection[str], notes: list[str]) -> Mode:
    if not policies:
        notes.append("no policy matches, so the database is only observed; create a HealingPolicy that selects it")
        return Mode.OBSERVE
    given: dict[str, Mode] = {}
    for policy in policies:
        given[policy.metadata.name] = policy.spec.mode
        if unknown := unknown_actions(policy.spec, known):
            given[policy.metadata.name] = _lowest((policy.spec.mode, Mode.RECOMMEND))
            notes.append(f"{policy.metadata.name} names unknown actions ({', '.join(unknown)}): at most Recommend")
    lowest = _lowest(given.values())
    by = ", ".join(name for name, mode in given.items() if mode is lowest)
    notes.extend(
        f"mode {mode} of {name} is capped to {lowest} by {by}" for name, mode in given.items() if mode != lowest
    )
    if ceiling.mode.rank < lowest.rank:
        notes.append(f"mode {lowest} of {by} is capped to {ceiling.mode} by the operator's ceiling")
    return _lowest((lowest, ceiling.mode))


def _merged_overrides(policies: Sequence[HealingPolicy], mode: Mode, notes: list[str]) -> dict[str, Mode]:
    merged: dict[str, Mode] = {}
    for policy in policies:
        for override in policy.spec.actions:
            if override.mode is None:
                continue
            merged[override.name] = _lowest((override.mode, merged.get(override.name, override.mode)))
            if override.mode.rank > mode.rank:
                notes.append(
                    f"{override.name}: {override.mode} in {policy.metadata.name} is looser than {mode}, so {mode} holds"
                )
    return merged


def _merged_roles(policies: Sequence[HealingPolicy]) -> dict[str, frozenset[str]]:
    merged: dict[str, frozenset[str]] = {}
    for policy in policies:
        for override in policy.spec.actions:
            merged[override.name] = merged.get(override.name, frozenset()).union(override.protect_roles)
    return {action: roles for action, roles in merged.items() if roles}


def _objectives(policies: Sequence[HealingPolicy]) -> Objectives:
    first = min(policies, key=lambda policy: (-policy.spec.priority, policy.metadata.name), default=None)
    weights = (first.spec if first else _DEFAULTS).objectives
    return Objectives(weights.latency, weights.throughput, weights.resources, weights.consistency)


def _lowest(modes: Collection[Mode]) -> Mode:
    return min(modes, key=lambda mode: mode.rank)


def _holds(expression: Expression, labels: Mapping[str, str]) -> bool:
    present = expression.key in labels
    listed = present and labels[expression.key] in expression.values
    return {"In": listed, "NotIn": not listed, "Exists": present, "DoesNotExist": not present}[expression.operator]


def _at_or_below(url: str, base: str) -> bool:
    given, allowed = urlsplit(url), urlsplit(base)
    if given.username is not None or "\\" in url or ".." in given.path or "%" in given.path:
        return False
    root = allowed.path.rstrip("/")
    below = not root or given.path == root or given.path.startswith(root + "/")
    return below and _origin(given) is not None and _origin(given) == _origin(allowed)


def _origin(url: SplitResult) -> tuple[str, str | None, int | None] | None:
    try:
        port = url.port
    except ValueError:
        return None
    return url.scheme, url.hostname, port or {"http": 80, "https": 443}.get(url.scheme)


def _time(value: timedelta) -> str:
    return format_duration(value)
