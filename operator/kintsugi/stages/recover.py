"""Recover: which of the proposed remedies comes first.

    score = weights · expected × fit − price of the risk

The expectation is weighted by the policy's objectives; the fit says how near the remedy is to the root. Diagnostics
have confirmed what is proposed here, so even a remedy far from the forecast's root keeps a little: forecasts err.
A remedy that is expected to gain less than its risk costs is left out: doing nothing is better.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kintsugi.domain.actions import Candidate, NotProposed, Objectives, Plan, Proposal, Risk
from kintsugi.domain.forecast import Forecast
from kintsugi.engines.engine import Action, BadParametersError

PRICE: Final[Mapping[Risk, float]] = {Risk.LOW: 0.0, Risk.MEDIUM: 0.05, Risk.HIGH: 0.15}
"""What a risk costs, in units of the weighted expectation (1 would be all objectives fully helped)."""

EVEN: Final = Objectives(1.0, 1.0, 1.0, 1.0)
"""Weights of a policy that has none."""

ROOT_FIT: Final = 1.0
CAUSE_FIT: Final = 0.8
DEGRADED_FIT: Final = 0.6
AHEAD_FIT: Final = 0.4
OTHER_FIT: Final = 0.25
"""Fit of a remedy for the root; for a cause on the way from it; for the last degraded component; for what is only at
risk; for anything else."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first, and what was left out with the reason."""

    candidates: tuple[Candidate, ...]
    not_proposed: tuple[NotProposed, ...]


class RunbookRecommender:
    """Orders proposals by what they are expected to do: deterministic, the same facts give the same order.

    Args:
        actions: the engine's, by name; they compile the plans.
        risks: the table of risks; an action that is not in it does not exist.
    """

    def __init__(self, actions: Mapping[str, Action], risks: Mapping[str, Risk]) -> None:
        self._actions = actions
        self._risks = risks

    def rank(
        self, proposals: Sequence[Proposal], forecast: Forecast, weights: Objectives, tried: Sequence[str]
    ) -> Sequence[Candidate]:
        """Candidates with compiled plans, best first; `judge` also says what was left out."""
        return self.judge(proposals, forecast, weights, tried).candidates

    def judge(
        self, proposals: Sequence[Proposal], forecast: Forecast, weights: Objectives, tried: Sequence[str]
    ) -> Ranking:
        """Candidates with compiled plans, best first, and why the others are none. Never raises for a bad proposal.

        Args:
            proposals: what the actions offer for this diagnosis.
            forecast: where the trouble started and goes.
            weights: the policy's objectives; all zero counts as all equal.
            tried: actions taken or proposed for this incident already; none of them comes again.
        """
        judged = [self._judge(proposal, forecast, _weights(weights), tried) for proposal in proposals]
        candidates = sorted((c for c in judged if isinstance(c, Candidate)), key=_order)
        chosen = [replace(c, propensity=1.0 if place == 0 else 0.0) for place, c in enumerate(candidates)]
        return Ranking(tuple(chosen), tuple(item for item in judged if isinstance(item, NotProposed)))

    def _judge(
        self, proposal: Proposal, forecast: Forecast, weights: Objectives, tried: Sequence[str]
    ) -> Candidate | NotProposed:
        name = proposal.action
        action, risk = self._actions.get(name), self._risks.get(name)
        if action is None or risk is None:
            return NotProposed(name, "unknown action: it is missing from the engine's actions or the table of risks")
        if name in tried:
            return NotProposed(name, "already tried for this incident")
        plan = _compiled(action, proposal)
        if isinstance(plan, NotProposed):
            return plan
        gain, fit = proposal.expected.dot(weights), _fit(proposal, forecast)
        score = (gain * fit if gain > 0 else gain) - PRICE[risk]
        if score <= 0:
            return NotProposed(
                name, f"expected to gain {gain * fit:.2f}, less than its {risk} risk costs: not worth it"
            )
        return Candidate(proposal, plan, risk, score)


def explain(candidates: Sequence[Candidate], not_proposed: Sequence[NotProposed]) -> tuple[str, ...]:
    """Why it is the first candidate: the runners-up and what was left out, one sentence each."""
    runners = [_behind(candidates[0], other) for other in candidates[1:]]
    return (*runners, *(f"{item.action}: {item.reason}" for item in not_proposed))


def _behind(best: Candidate, other: Candidate) -> str:
    """As in "restart-workload: scores 0.31, terminate-blocker 0.62 (expected latency 0.4 against 0.8, high risk)"."""
    mine, theirs = best.proposal.expected, other.proposal.expected
    names = ("latency", "throughput", "resources", "consistency")
    worse = [(getattr(mine, name) - getattr(theirs, name), name) for name in names]
    most, name = max(worse, key=lambda pair: pair[0])
    reasons = [f"expected {name} {getattr(theirs, name):.1f} against {getattr(mine, name):.1f}"] if most > 0 else []
    if other.risk.rank > best.risk.rank:
        reasons.append(f"{other.risk} risk")
    why = f" ({', '.join(reasons)})" if reasons else " (fits the root less well)"
    return f"{other.action}: scores {other.score:.2f}, {best.action} {best.score:.2f}{why}"


def _compiled(action: Action, proposal: Proposal) -> Plan | NotProposed:
    try:
        return action.compile(proposal.parameters)
    except BadParametersError as error:
        return NotProposed(proposal.action, f"its own parameters were refused, report this as a bug: {error}")


def _weights(weights: Objectives) -> Objectives:
    total = weights.latency + weights.throughput + weights.resources + weights.consistency
    return weights if total > 0 else EVEN


def _fit(proposal: Proposal, forecast: Forecast) -> float:
    """How near the remedy is to where the trouble started."""
    heals = proposal.heals
    degraded = [impact for impact in forecast.impacts if impact.degraded]
    if forecast.root is not None and forecast.root in heals:
        return ROOT_FIT
    if any(heals & set(impact.path[:-1]) for impact in degraded):
        return CAUSE_FIT
    if any(impact.component in heals for impact in degraded):
        return DEGRADED_FIT
    return AHEAD_FIT if any(impact.component in heals for impact in forecast.impacts) else OTHER_FIT


def _order(candidate: Candidate) -> tuple[float, int, str, str]:
    parameters = json.dumps(dict(candidate.proposal.parameters), sort_keys=True, default=str)
    return (-round(candidate.score, 9), candidate.risk.rank, candidate.action, parameters)
