"""Guard: whether a proposed action may run now, and if not, why not.

The only place that says no. Each boundary is one function from facts to a `Refusal` or nothing, so that a reader can
list them, a test can switch each off, and a user sees every reason at once instead of the first. There are two lists:
what is in `BOUNDARIES` forbids, whoever approves; what is in `ASKS` means that a person must approve first.
Both are judged twice: when an action is proposed and again at the moment of execution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

from kintsugi.api.policy import Mode
from kintsugi.domain.actions import Candidate
from kintsugi.domain.decision import Refusal
from kintsugi.domain.text import human, quantity
from kintsugi.stages.budget import HOUR, harm_rate_bound, successes_needed
from kintsugi.stages.judgement import Ask, Auto, Facts, Forbidden, Judgement, Permission, RecommendOnly
from kintsugi.stages.policy import EffectivePolicy, Restriction, automatic
from kintsugi.stages.protection import protector
from kintsugi.stages.windows import InvalidWindowError, inside, next_open

ZERO = timedelta(0)
PROMOTIONS = frozenset({"failover"})
"""Actions that make a replica the primary: they can lose data, and must rest on independent observers."""
WAL_WRITERS = frozenset({"create-index"})
"""Actions that write so much WAL that a replica which lags already would fall behind further."""
STORM_LEAST = 3
STORM_SHARE = 0.3
"""Open incidents that make a storm: three, or this share of the fleet if that is more."""
CIRCUIT = 2
"""Failures in a row that open the circuit."""


Boundary: TypeAlias = Callable[[Candidate, EffectivePolicy, Facts], Refusal | None]


# What forbids ---------------------------------------------------------------------------------------------------------


def kill_switch(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """Nothing acts while anybody has paused it: the whole operator, a policy, or the database."""
    if policy.ceiling.paused:
        return Refusal(
            "OperatorPaused", "the operator is paused everywhere; set paused to false in the chart's values to go on"
        )
    if policy.paused_by:
        return Refusal(
            "PolicyPaused",
            f"paused by policy {', '.join(policy.paused_by)}; "
            "set its spec.paused to false and remove its annotation kintsugi.dev/pause",
        )
    if facts.database_paused is not None:
        why = f" ({facts.database_paused})" if facts.database_paused else ""
        return Refusal(
            "DatabasePaused", f"the database is paused{why}; remove its annotation kintsugi.dev/pause to go on"
        )
    return None


def mode(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """Below Approve nothing runs."""
    allowed = policy.mode_for(candidate.action, candidate.risk)
    if allowed is Mode.OBSERVE:
        return Refusal("ObserveOnly", f"{candidate.action} is not proposed: its mode here is Observe")
    if allowed is Mode.RECOMMEND:
        return Refusal("RecommendOnly", f"{candidate.action} is only recommended: its mode here is Recommend")
    return None


def allowed_action(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """The operator's ceiling names the actions that may be taken at all."""
    if policy.ceiling.allows_action(candidate.action):
        return None
    return Refusal("ActionBarred", f"{candidate.action} is not among the actions that the operator's ceiling allows")


def data_loss(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """A promotion may lose at most `constraints.maxDataLoss`; what could be lost and is unknown counts as too much."""
    if candidate.action not in PROMOTIONS:
        return None
    limit = policy.constraints.max_data_loss
    if facts.data_loss_bytes is None:
        return Refusal(
            "DataLossUnknown", f"how much {candidate.action} would lose is unknown; at most {limit} B may be lost"
        )
    if facts.data_loss_bytes <= limit:
        return None
    lost = quantity(facts.data_loss_bytes, "B")
    return Refusal(
        "DataLoss", f"{candidate.action} could lose {lost} of WAL; at most {quantity(limit, 'B')} may be lost"
    )


def replication_lag(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """No promotion of a replica that lags (or may), and no heavy writing of WAL while one lags."""
    limit = policy.constraints.max_replication_lag.total_seconds()
    if facts.replication_lag is None:
        if candidate.action not in PROMOTIONS:
            return None
        return Refusal("LagUnknown", f"the replica's lag is unknown; {candidate.action} needs one below {human(limit)}")
    if candidate.action not in PROMOTIONS | WAL_WRITERS or facts.replication_lag <= limit:
        return None
    return Refusal(
        "ReplicaLags", f"the replica lags {human(facts.replication_lag)} behind; the limit is {human(limit)}"
    )


def protected(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """Nothing touches what is protected: tables, roles, databases, applications, and replication always."""
    roles = policy.protect_roles.get(candidate.action, frozenset())
    entries = (*policy.constraints.protected, *(f"role:{role}" for role in sorted(roles)))
    touches = (*candidate.proposal.touches, f"database:{facts.database_name}")
    hits = ((touch, entry) for touch in touches if (entry := protector(touch, entries)))
    if (hit := next(hits, None)) is None:
        return None
    return Refusal("Protected", f"{candidate.action} would touch {hit[0]}, which is protected ({hit[1]})")


def fresh_metrics(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """Never act on old or missing metrics."""
    if facts.newest_sample_age is None:
        return Refusal("NoMetrics", "there are no metrics of this database; check its spec.metrics and the collector")
    if facts.newest_sample_age <= facts.freshest_needed:
        return None
    age, limit = human(facts.newest_sample_age), human(facts.freshest_needed)
    return Refusal(
        "StaleMetrics", f"the newest metrics are {age} old, more than {limit}; check Prometheus and the collector"
    )


def window(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """An action that windows name runs only inside one of each policy that has such windows."""
    closed = [r for r in policy.restrictions(candidate.action) if not _open(r, facts.now)]
    if not closed:
        return None
    opens = [_opens(restriction, facts.now) for restriction in closed]
    known = [moment for moment in opens if moment is not None]
    names = ", ".join(restriction.policy for restriction in closed)
    if len(known) < len(opens):
        return Refusal("OutsideWindow", f"outside the windows of {names} for {candidate.action}, and none ever opens")
    wait = max(known) - facts.now
    return Refusal(
        "OutsideWindow",
        f"outside the windows of {names} for {candidate.action}; not before {max(known):%Y-%m-%d %H:%M} UTC",
        wait.total_seconds(),
    )


def cooldown(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """Leave a database alone for `limits.cooldown` after an action on it has ended."""
    if facts.last_action_ended is None:
        return None
    wait = facts.last_action_ended + policy.limits.cooldown - facts.now
    if wait <= ZERO:
        return None
    return Refusal("CoolingDown", f"{human(wait)} of cooldown left before {candidate.action}", wait.total_seconds())


def hourly_budget(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """At most `limits.perHour` actions start on a database within any hour."""
    limit = policy.limits.per_hour
    used = sorted(start for start in facts.started if start > facts.now - HOUR)
    if len(used) < limit:
        return None
    if limit == 0:
        return Refusal("BudgetUsed", "limits.perHour is 0, so no action ever starts on this database")
    wait = used[len(used) - limit] + HOUR - facts.now
    return Refusal(
        "BudgetUsed",
        f"{len(used)} of {limit} actions an hour are used; the next one in {human(wait)}",
        wait.total_seconds(),
    )


def one_at_a_time(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """One action at a time per database."""
    if not facts.at_work_here:
        return None
    return Refusal("AnotherActionAtWork", f"{facts.at_work_here} is at work on this database; one action at a time")


def concurrent(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """At most `limits.concurrent` at once over each policy's databases, and the ceiling's number over the fleet."""
    for name, limit in policy.concurrent.items():
        if (count := facts.at_work.get(name, 0)) >= limit:
            return Refusal(
                "TooManyAtWork", f"{count} actions are at work on databases of policy {name}; its limit is {limit}"
            )
    fleet = policy.ceiling.concurrent
    if fleet is not None and facts.at_work_fleet >= fleet:
        return Refusal(
            "TooManyAtWork", f"{facts.at_work_fleet} actions are at work in the fleet; the ceiling is {fleet}"
        )
    return None


def circuit(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """An action type that failed twice in a row here stays off until somebody acknowledges it."""
    failed = facts.record.failed_in_a_row
    if failed < CIRCUIT:
        return None
    return Refusal(
        "CircuitOpen",
        f"{candidate.action} failed {failed} times in a row here; look into it, then annotate the database with "
        f"kintsugi.dev/acknowledge={candidate.action}",
    )


def observers(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """A promotion needs at least two independent observers who see the primary as down, and none who sees it up."""
    if candidate.action not in PROMOTIONS:
        return None
    down = sorted(name for name, sees in facts.observers.items() if sees)
    up = sorted(name for name, sees in facts.observers.items() if sees is False)
    if up:
        return Refusal(
            "ObserversDisagree", f"{', '.join(up)} still sees the primary up; {', '.join(down) or 'nobody'}: down"
        )
    if len(down) < 2:
        seen = f"only {down[0]} sees" if down else "nobody sees"
        return Refusal(
            "ObserversDisagree", f"{seen} the primary down; {candidate.action} needs two independent observers"
        )
    return None


BOUNDARIES: tuple[Boundary, ...] = (
    kill_switch,
    mode,
    allowed_action,
    data_loss,
    replication_lag,
    protected,
    fresh_metrics,
    observers,
    circuit,
    window,
    cooldown,
    hourly_budget,
    one_at_a_time,
    concurrent,
)
"""What forbids. Lasting reasons first, those that time lifts last."""


# What asks ------------------------------------------------------------------------------------------------------------


def needs_approval(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """High risk always asks; below that, what the mode does not let run by itself."""
    granted = policy.granted(candidate.action)
    if automatic(granted, candidate.risk):
        return None
    reason = "HighRisk" if candidate.risk.rank >= 2 else "ModeAsks"
    always = ", which always asks" if reason == "HighRisk" else f" and its mode here is {granted}"
    return Refusal(reason, f"{candidate.action} is {candidate.risk} risk{always}")


def storm_brake(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """Many incidents at once have a common cause that no single action heals: a person decides."""
    limit = max(STORM_LEAST, math.ceil(STORM_SHARE * facts.databases))
    if facts.open_incidents < limit:
        return None
    return Refusal(
        "Storm",
        f"{facts.open_incidents} of {facts.databases} databases have incidents at once ({limit} make a storm): "
        "probably one common cause",
    )


def earned_trust(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """With `rollout`, an action type asks until its rate of harm is proven small, and again right after harm."""
    limit = policy.max_harm_rate
    if limit is None:
        return None
    good, bad = facts.trusted.succeeded, facts.trusted.harmed
    if bad and facts.trusted.failed_in_a_row:
        return Refusal("TrustLost", f"{candidate.action} did harm ({bad} times) and has not succeeded everywhere since")
    bound = harm_rate_bound(good, bad)
    if bound <= limit:
        return None
    needed = successes_needed(bad, limit)
    return Refusal(
        "TrustNotEarned",
        f"{candidate.action} has {good} verified successes and {bad} harms: its rate of harm may be up to {bound:.0%}; "
        + (f"{needed} successes bring it to {limit:.3g}" if needed else "no record is good enough for 0 %"),
    )


def attempts(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Refusal | None:
    """After `escalation.maxAttempts` for one incident a person decides."""
    if facts.tried < policy.max_attempts:
        return None
    return Refusal(
        "AttemptsExhausted", f"{facts.tried} actions were tried for this incident; the limit is {policy.max_attempts}"
    )


ASKS: tuple[Boundary, ...] = (needs_approval, storm_brake, earned_trust, attempts)
"""What means that a person must approve first."""


def guard(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> list[Refusal]:
    """Every reason why `candidate` may not run now, whoever approves; empty when it may."""
    return [refusal for boundary in BOUNDARIES if (refusal := boundary(candidate, policy, facts))]


def reasons_to_ask(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> list[Refusal]:
    """Every reason why a person must approve `candidate` before it runs; empty when it may run by itself."""
    return [reason for boundary in ASKS if (reason := boundary(candidate, policy, facts))]


def judge(candidate: Candidate, policy: EffectivePolicy, facts: Facts) -> Judgement:
    """The permission for `candidate` now, with every refusal and every reason to ask."""
    refusals = tuple(guard(candidate, policy, facts))
    asks = tuple(reasons_to_ask(candidate, policy, facts))
    return Judgement(_permission(refusals, asks), refusals, asks)


_PASSING = frozenset({"OutsideWindow", "CoolingDown", "BudgetUsed", "AnotherActionAtWork", "TooManyAtWork"})
"""Reasons about when, not whether: they don't keep anybody from reading a recommendation."""


def _permission(refusals: tuple[Refusal, ...], asks: tuple[Refusal, ...]) -> Permission:
    reasons = {refusal.reason for refusal in refusals}
    if "RecommendOnly" in reasons and reasons <= _PASSING | {"RecommendOnly"}:
        return RecommendOnly(refusals)
    if refusals:
        return Forbidden(refusals)
    return Ask(asks) if asks else Auto()


def _open(restriction: Restriction, now: datetime) -> bool:
    """Whether any window is open; an invalid one is closed (the policy's condition says that it is invalid)."""
    for candidate in restriction.windows:
        try:
            if inside(candidate, now):
                return True
        except InvalidWindowError:
            continue
    return False


def _opens(restriction: Restriction, now: datetime) -> datetime | None:
    found = []
    for candidate in restriction.windows:
        try:
            found.append(next_open(candidate, now))
        except InvalidWindowError:
            continue
    return min((moment for moment in found if moment is not None), default=None)
