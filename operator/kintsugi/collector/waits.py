"""Who waits for whom, as three numbers: the longest wait, the tree's depth, and how many wait for the worst blocker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def measure(waits: Sequence[tuple[int, float, Sequence[int]]]) -> Mapping[str, float]:
    """The metrics of waiting sessions, given as (pid, seconds of waiting, pids that block it).

    A prepared transaction blocks as pid 0. A queue counts as one level, because each of its sessions also waits for
    the holder: the depth is the longest of the shortest ways to somebody who waits for nobody. Sessions in a cycle
    (a deadlock about to be broken) count as one level.
    """
    ages = [age for _, age, _ in waits]
    blockers = {pid: tuple(found) for pid, _, found in waits if found}
    return {
        "lock_wait_seconds": max(ages, default=0.0),
        "blocking_depth": float(_depth(blockers)),
        "blocked_by_one": float(_most_blocked(blockers)),
    }


def _depth(blockers: Mapping[int, Sequence[int]]) -> int:
    """Levels reached by going from those who wait for nobody to those whom they block, and on."""
    levels: dict[int, int] = {}
    frontier = {pid for found in blockers.values() for pid in found if pid not in blockers}
    level = 0
    while frontier:
        level += 1
        reached = {pid for pid, found in blockers.items() if pid not in levels and frontier.intersection(found)}
        levels |= dict.fromkeys(reached, level)
        frontier = reached
    return max(levels.values(), default=1 if blockers else 0)


def _most_blocked(blockers: Mapping[int, Sequence[int]]) -> int:
    """How many sessions wait, directly or not, for the one that most wait for."""
    held = {pid for found in blockers.values() for pid in found}
    return max((len(_behind(pid, blockers)) for pid in held), default=0)


def _behind(holder: int, blockers: Mapping[int, Sequence[int]]) -> set[int]:
    behind: set[int] = set()
    frontier = {holder}
    while frontier:
        frontier = {p for p, found in blockers.items() if p not in behind and frontier.intersection(found)}
        behind |= frontier
    return behind - {holder}
