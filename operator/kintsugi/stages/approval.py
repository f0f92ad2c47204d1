"""Approval: who has said what about a `HealingAction`, read from the annotations that the API server stamped.

The admission policies let no forged stamp in; what is read here is checked once more all the same, because an object
may be older than the policies, or the policies may have been away for a while. What does not add up counts as no
approval and is said in `problem`. Whether an approver may still approve is asked of the API server (`shell/gate.py`);
whether the question has expired is `lifecycle`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kintsugi.api.meta import (
    APPROVE,
    APPROVED_BY,
    APPROVED_GROUPS,
    REJECT,
    REJECTED_BY,
    SECOND_APPROVE,
    SECOND_APPROVED_BY,
    SECOND_APPROVED_GROUPS,
)


@dataclass(frozen=True, slots=True)
class Approver:
    """A person as the API server knew them when they approved: user name and groups."""

    user: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approvals:
    """Who approved and who rejected; empty strings where nobody has.

    `reason` is why it was rejected. `problem` is a sentence for the action's message when something in the annotations
    can't be trusted; then neither approval counts. A rejection counts even so: not to act is safe.
    """

    approved_by: str = ""
    approved_groups: tuple[str, ...] = ()
    second_approved_by: str = ""
    second_approved_groups: tuple[str, ...] = ()
    rejected_by: str = ""
    reason: str = ""
    problem: str = ""

    @property
    def rejected(self) -> bool:
        """Whether somebody has said no, which outweighs every yes."""
        return bool(self.rejected_by)

    @property
    def approvers(self) -> tuple[Approver, ...]:
        """Everybody whose approval counts, in order: those to ask the API server about before executing."""
        people = ((self.approved_by, self.approved_groups), (self.second_approved_by, self.second_approved_groups))
        return tuple(Approver(user, groups) for user, groups in people if user)

    def granted(self, approvers: int) -> bool:
        """Whether `approvers` (1 or 2) different people have approved and nobody has rejected."""
        return not self.rejected and len(self.approvers) >= approvers

    def missing(self, approvers: int) -> str:
        """What is still waited for, for `kubectl get ha`; empty when nothing is."""
        if self.granted(approvers) or self.rejected:
            return ""
        return "second approval" if self.approvers else "approval"


@dataclass(frozen=True, slots=True)
class _Yes:
    """One approval as it stands in the annotations: the hash that was given, and the stamps beside it."""

    key: str
    given: str
    user: str
    groups: str


def read_approvals(annotations: Mapping[str, str], plan_hash: str) -> Approvals:
    """Who has approved or rejected the plan of this hash (`spec.planHash`), from the action's annotations.

    That the hash is the spec's own is checked before executing, by `compose.recompiled`.
    """
    first = _yes(annotations, APPROVE, APPROVED_BY, APPROVED_GROUPS)
    second = _yes(annotations, SECOND_APPROVE, SECOND_APPROVED_BY, SECOND_APPROVED_GROUPS)
    rejected_by, reason = _rejection(annotations)
    if problem := _problem(first, second, plan_hash):
        return Approvals(rejected_by=rejected_by, reason=reason, problem=problem)
    return Approvals(
        approved_by=first.user,
        approved_groups=split_groups(first.groups),
        second_approved_by=second.user,
        second_approved_groups=split_groups(second.groups),
        rejected_by=rejected_by,
        reason=reason,
    )


def join_groups(groups: tuple[str, ...]) -> str:
    """As the admission policy stamps them: a comma between, a comma inside a name as %2C, a percent sign as %25."""
    return ",".join(group.replace("%", "%25").replace(",", "%2C") for group in groups)


def split_groups(text: str) -> tuple[str, ...]:
    """The groups that `join_groups` joined; a group called `a,b` does not become two."""
    return tuple(part.replace("%2C", ",").replace("%25", "%") for part in text.split(",") if part)


def _yes(annotations: Mapping[str, str], key: str, by: str, groups: str) -> _Yes:
    return _Yes(key, annotations.get(key, ""), annotations.get(by, ""), annotations.get(groups, ""))


def _rejection(annotations: Mapping[str, str]) -> tuple[str, str]:
    """Who rejected, and why. A rejection without a name still stops the action."""
    if REJECT not in annotations and REJECTED_BY not in annotations:
        return "", ""
    return annotations.get(REJECTED_BY) or "somebody unknown", annotations.get(REJECT, "")


def _problem(first: _Yes, second: _Yes, expected: str) -> str:
    """The first thing about the approvals that does not add up."""
    for yes in (first, second):
        if yes.given and yes.given != expected:
            return f"{yes.key} is {yes.given}, but the plan's hash is {expected}; reject the action"
        if yes.given and not yes.user:
            return (
                f"{yes.key} carries no name: it was set without the admission policies; install them, reject the action"
            )
        if yes.user and not yes.given:
            return f"{yes.key}d-by is set without {yes.key}: the stamp is forged; reject the action"
    if second.user and not first.user:
        return f"{SECOND_APPROVE} is set without {APPROVE}; reject the action"
    if second.user and second.user == first.user:
        return f"{first.user} approved twice, but the second approval must be somebody else's; reject the action"
    return ""
