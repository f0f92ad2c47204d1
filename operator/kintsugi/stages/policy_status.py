"""What a policy's status says: which databases it matches, what its modes come to, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from kintsugi.api.meta import Condition, set_condition
from kintsugi.api.policy import ActionMode, HealingPolicy, MatchedDatabase, PolicyStatus, Window
from kintsugi.domain.actions import Risk
from kintsugi.engines.risk import RISKS
from kintsugi.stages.policy import Ceiling, EffectivePolicy, merge, unknown_actions
from kintsugi.stages.windows import InvalidWindowError, check, never_overlap

LISTED = 100
"""Databases listed in a policy's status; `matched` counts all. A status must stay readable and far below 1 MB."""


@dataclass(frozen=True, slots=True)
class Matched:
    """One database under a policy, as the database loop last saw it.

    `blocked` are the reasons (in words) why nothing may run there now.
    """

    name: str
    effective: EffectivePolicy
    actions_last_hour: int
    blocked: tuple[str, ...] = ()


def status_of(
    policy: HealingPolicy,
    matched: Sequence[Matched],
    ceiling: Ceiling,
    conflicts: Sequence[str],
    now: datetime,
    risks: Mapping[str, Risk] = RISKS,
) -> PolicyStatus:
    """The whole status of `policy`. Equal inputs give an equal status, so that it is written on change only."""
    alone = merge((policy,), ceiling, risks)
    order = sorted(matched, key=lambda database: (not database.blocked, database.name))
    return PolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=_conditions(policy, alone, len(matched), conflicts, now, risks),
        matched=len(matched),
        databases=tuple(
            MatchedDatabase(
                name=database.name,
                effective_mode=database.effective.mode.value,
                actions_last_hour=database.actions_last_hour,
                blocked=database.blocked,
            )
            for database in order[:LISTED]
        ),
        actions=tuple(
            ActionMode(name=action, risk=risk.value, mode=alone.mode_for(action, risk).value)
            for action, risk in risks.items()
        ),
    )


def problems(policy: HealingPolicy, known: Collection[str] = RISKS) -> tuple[tuple[str, str], ...]:
    """What is wrong with a policy that the API server let through, as (reason, sentence with the remedy)."""
    found: list[tuple[str, str]] = []
    if unknown := unknown_actions(policy.spec, known):
        found.append(
            (
                "UnknownAction",
                f"there is no action {', '.join(unknown)}; until the name is corrected nothing runs under this policy; "
                f"known actions: {', '.join(sorted(known))}",
            )
        )
    for window in policy.spec.windows:
        try:
            check(window)
        except InvalidWindowError as error:
            found.append(("InvalidWindow", str(error)))
    return tuple(found)


def conflicts(policies: Sequence[HealingPolicy], now: datetime) -> tuple[str, ...]:
    """Pairs of policies that, applied together, leave an action no time to run; costly, so on change only.

    `policies` are those that apply to one database.
    """
    pairs = combinations(sorted(policies, key=lambda policy: policy.metadata.name), 2)
    return tuple(
        f"windows of {one.metadata.name} and {other.metadata.name} never overlap for {action}, "
        "so it can never run; change one of them"
        for one, other in pairs
        for action in sorted(_restricted(one) & _restricted(other))
        if never_overlap(_windows(one, action), _windows(other, action), now)
    )


def _conditions(
    policy: HealingPolicy,
    alone: EffectivePolicy,
    matched: int,
    clashes: Sequence[str],
    now: datetime,
    known: Collection[str],
) -> tuple[Condition, ...]:
    wrong = problems(policy, known)
    if wrong:
        ready, reason, message = False, wrong[0][0], "; ".join(sentence for _, sentence in wrong)
    elif matched == 0:
        ready, reason, message = True, "NothingMatched", "no database in this namespace matches the selector"
    else:
        ready, reason, message = True, "Applied", f"holds for {matched} database{'s' if matched != 1 else ''}"
    generation = policy.metadata.generation
    conditions = set_condition(
        policy.status.conditions, "Ready", ready, reason, message, now=now, generation=generation
    )
    capped = "; ".join(alone.notes)
    conditions = set_condition(
        conditions,
        "Capped",
        bool(capped),
        "StricterElsewhere" if capped else "AsWritten",
        capped or "nothing in it is capped",
        now=now,
        generation=generation,
    )
    return set_condition(
        conditions,
        "Conflicting",
        bool(clashes),
        "WindowsNeverOverlap" if clashes else "NoConflict",
        "; ".join(clashes) or "no other policy makes it impossible to follow",
        now=now,
        generation=generation,
    )


def _restricted(policy: HealingPolicy) -> set[str]:
    return {action for window in policy.spec.windows for action in window.actions}


def _windows(policy: HealingPolicy, action: str) -> tuple[Window, ...]:
    return tuple(window for window in policy.spec.windows if action in window.actions)
