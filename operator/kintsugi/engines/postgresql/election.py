"""Whether the primary is gone, who could take its place, and what that would cost. Silence alone proves nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kintsugi.domain.text import human
from kintsugi.engines.engine import Diagnosis, MemberView

SILENT_FOR = 5.0
"""Seconds of silence before a failover is thought of at all."""
RECOVERING_FOR = 60.0
"""Seconds that a server which says it starts up or recovers is given: it is coming back by itself, losing nothing."""
RECEIVER_SILENT = 10.0
"""Seconds without a word from the primary after which a WAL receiver counts as deaf although it says `streaming`."""


def alive(diagnosis: Diagnosis, old_primary: str) -> str | None:
    """Why the primary can't be called gone: one who still sees it is enough. None when all agree that it is."""
    if torn := split_brain(diagnosis.members):
        return torn
    leaders = _leaders(diagnosis.members)
    if diagnosis.primary_reachable:
        return "the primary answers"
    if diagnosis.unreachable_for < SILENT_FOR:
        return (
            f"the primary has been silent for {human(diagnosis.unreachable_for)} only (acts from {human(SILENT_FOR)})"
        )
    if diagnosis.extra.get("primary_error") == "NotReadyError" and diagnosis.unreachable_for < RECOVERING_FOR:
        return f"the primary is starting up or recovering by itself; it is given {human(RECOVERING_FOR)}"
    if leaders == [old_primary]:
        return f"{old_primary} itself answers as primary; only the way to it through the Service is broken"
    if leaders:
        return (
            f"{leaders[0]} has been promoted already; the Service still names {old_primary}: point it to {leaders[0]}"
        )
    if diagnosis.metrics_down is False:
        return "the metrics still show the primary up"
    if diagnosis.metrics_down is None:
        return "the metrics say nothing about the primary: observers must agree, and one is missing"
    return _still_heard(diagnosis, old_primary)


def split_brain(members: Iterable[MemberView]) -> str | None:
    """What is wrong when more than one member accepts writes; None while at most one does."""
    leaders = _leaders(members)
    if len(leaders) < 2:
        return None
    return f"split brain: {' and '.join(leaders)} accept writes; stop all but one of them before anything else is done"


def _leaders(members: Iterable[MemberView]) -> list[str]:
    return [member.name for member in members if member.reachable and member.in_recovery is False]


def candidate(diagnosis: Diagnosis, old_primary: str) -> MemberView | str:
    """The replica on the newest timeline that has received the most; or why there is none."""
    replicas = [m for m in diagnosis.members if m.name != old_primary and m.reachable and m.in_recovery]
    ready = [m for m in replicas if m.timeline is not None and m.receive_lsn is not None]
    if not ready:
        errors = "; ".join(m.error for m in diagnosis.members if m.name != old_primary and m.error)
        return f"no replica can be reached{f' ({errors})' if errors else ''}"
    newest = diagnosis.extra.get("primary_timeline") or max(m.timeline or 0 for m in ready)
    level = [m for m in ready if m.timeline == newest]
    if not level:
        return f"no replica follows the primary's timeline {newest}: they have diverged"
    # Among equals the synchronous one, then the name, so that the choice is always the same.
    synchronous = diagnosis.extra.get("synchronous_standbys", ())
    return min(level, key=lambda m: (-(m.receive_lsn or 0), m.name not in synchronous, m.name))


def data_loss(diagnosis: Diagnosis, chosen: MemberView) -> int | None:
    """Bytes of WAL that the primary may have written and `chosen` has not received; None when that can't be told.

    The primary's position is only known as of its last pulse; it is carried on at the rate it had until the first
    moment at which it was silent. A synchronous standby has everything that was acknowledged.
    """
    if chosen.name in diagnosis.extra.get("synchronous_standbys", ()):
        return 0
    last = diagnosis.last_known_primary_lsn
    if last is None or chosen.receive_lsn is None:
        return None
    known: Mapping[str, Any] = diagnosis.extra
    unseen = max(0.0, float(known.get("pulse_age", 0.0)) - diagnosis.unreachable_for)
    return max(0, round(last + float(known.get("wal_rate", 0.0)) * unseen) - chosen.receive_lsn)


def lag(diagnosis: Diagnosis, chosen: MemberView) -> float | None:
    """Seconds that `chosen` was behind when the primary last spoke of it; None when it never did."""
    lags: Mapping[str, float] = diagnosis.extra.get("replay_lags", {})
    return lags.get(chosen.name)


def witnesses(diagnosis: Diagnosis, old_primary: str) -> str:
    """The replicas that were asked, in words."""
    names = [m.name for m in diagnosis.members if m.name != old_primary and m.reachable]
    return f"{', '.join(names)} (no WAL received)"


def _still_heard(diagnosis: Diagnosis, old_primary: str) -> str | None:
    for member in diagnosis.members:
        age = member.wal_receiver_age
        if member.name == old_primary or not member.reachable or not member.wal_receiver_streaming:
            continue
        if age is None or age < RECEIVER_SILENT:
            return f"{member.name} still receives WAL from the primary"
    return None
