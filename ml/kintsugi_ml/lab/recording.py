"""From a run that took place to a run in the data set: read everything back, judge it by code, write it.

The same five sources for every run: Prometheus by production's own reader, the truth track, the clients' log of every
request, the server's log, and what the run itself did.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np

from kintsugi.domain.frame import Frame
from kintsugi_dev.servers.errors import ServerError
from kintsugi_ml.lab import clienttrack, dataset, gate, logs, metrics, outcome
from kintsugi_ml.lab.cpu import VOID_SHARE
from kintsugi_ml.lab.faults.base import LOST, Effect
from kintsugi_ml.lab.manifest import Entry, GateEntry, OutcomeEntry, RemedyEntry, Status
from kintsugi_ml.lab.outcome import Consistency, Outcome
from kintsugi_ml.lab.parts import Parts, Planned
from kintsugi_ml.lab.plan import NULL
from kintsugi_ml.lab.remedies import Applied
from kintsugi_ml.lab.run import Course
from kintsugi_ml.lab.signals import recorded
from kintsugi_ml.lab.truth import onset, sampler
from kintsugi_ml.lab.truth.measures import MEASURES, Track, track
from kintsugi_ml.lab.truth.sampler import TruthSampler
from kintsugi_ml.lab.workloads import backoffice
from kintsugi_ml.lab.world import LABELS, World

BEFORE_SECONDS: Final = 2.0
"""So much of the settling is recorded, too: rates at the first normal second look back into it."""
LATEST_ANSWER: Final = 5.5
"""Seconds after which every request that was due has ended, its timeout included, and stands in the log."""
NULL_EFFECT: Final = Effect(client=1.5)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was written."""

    entry: Entry

    def line(self) -> str:
        """For the person who watches."""
        entry = self.entry
        moved = sorted((at, name) for name, at in entry.onsets.items() if at is not None)
        cascade = " → ".join(f"{name} {at:.1f}" for at, name in moved[:4]) or "nothing moved"
        felt = entry.gate.client_factor if entry.gate else None
        client = f"client ×{felt:.1f}" if felt is not None else "client ?"
        healed = entry.outcome.restored_after if entry.outcome else None
        remedy = entry.remedy.action if entry.remedy else "nothing"
        after = f"restored {healed:.1f} s" if healed is not None else "not restored"
        name = f"{entry.fault}+{entry.second}" if entry.second else entry.fault
        return (
            f"{name} {entry.form} on {entry.workload}/{entry.level}: {entry.status}"
            f"{f' ({entry.reason})' if entry.reason else ''} · {client} · {cascade} · {remedy}, {after}"
            f" · foreign {entry.foreign_cpu or 0:.0%}"
        )


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a recorded run."""

    status: Status

    @property
    def repeat(self) -> bool:
        """Whether the run is to be done again."""
        return self.status in ("void", "crashed")


def states(directory: Path) -> dict[str, State]:
    """The state of each recorded run by id."""
    return {entry.id: State(entry.status) for entry in dataset.entries(directory)}


async def record(directory: Path, course: Course, world: World, truth: TruthSampler) -> Verdict:
    """Read, judge and write one run."""
    if course.error is not None:
        return Verdict(write_crashed(directory, course.planned, course.error))
    parts = course.parts
    start = parts.normal - BEFORE_SECONDS
    await asyncio.sleep(max(0.0, parts.ended + LATEST_ANSWER - time.time()))
    frame = await metrics.read(world.prometheus.url, LABELS, start, parts.ended)
    requests = clienttrack.read(world.load.requests_file)
    samples = track(sampler.read(truth.file, start, parts.ended), requests)
    lines = logs.read(world.log_file, start, parts.ended) if world.log_file else logs.empty(start, parts.ended)
    entry = _entry(course, frame, requests, samples, await _consistency(course, world, frame))
    written = dataset.write_run(
        directory,
        entry,
        frame,
        samples,
        lines,
    )
    return Verdict(written)


def write_crashed(directory: Path, planned: Planned, reason: str) -> Entry:
    """Note that a run broke, so that it is known and repeated."""
    return dataset.write_entry(directory, _planned(planned, "crashed", reason))


def write_skipped(directory: Path, planned: Planned, reason: str) -> Entry:
    """Note that this machine can't have the run."""
    return dataset.write_entry(directory, _planned(planned, "skipped", reason))


def served(world: World, seconds: float) -> bool:
    """Whether (nearly) every request of the last `seconds` was answered."""
    now = time.time()
    recent = clienttrack.read_tail(world.load.requests_file).between(now - seconds - 0.5, now - 0.5)
    return len(recent) > 0 and float(recent.ok.mean()) >= 0.98


def _entry(
    course: Course, frame: Frame, requests: clienttrack.Requests, samples: Track, consistency: Consistency
) -> Entry:
    planned, fault = course.planned, course.fault
    parts = Parts(*(round(moment, 3) for moment in dataclasses.astuple(course.parts)))
    samples = dataset.as_stored(samples, parts.injected)
    verdict = gate.judge(
        fault.effect if fault is not None else NULL_EFFECT,
        fault.negative if fault is not None else True,
        parts,
        requests,
        frame,
        recorded(),
        form=planned.form,
        failed=course.failed,
    )
    status, reason = _status(course, verdict)
    came = outcome.measure(requests, parts, _resources(frame), consistency)
    if fault is not None and not fault.negative:
        came = dataclasses.replace(came, own_signal=outcome.own_signal(fault.effect, parts, frame, recorded()))
    return _planned(planned, status, reason).model_copy(
        update={
            "root": course.root,
            "negative": planned.fault == NULL or (fault is not None and fault.negative),
            "injected_at": parts.injected,
            "lifted_at": parts.lifted,
            "parts": parts,
            "gate": GateEntry(**dataclasses.asdict(verdict)),
            "remedy": _remedy(course.applied),
            "outcome": _outcome(came),
            "onsets": _rounded(onset.onsets(samples, parts, MEASURES)),
            "returned": _rounded(onset.returned(samples, parts, MEASURES)),
            "foreign_cpu": None if np.isnan(course.foreign_cpu) else round(course.foreign_cpu, 4),
        }
    )


def _status(course: Course, verdict: gate.Gate) -> tuple[Status, str | None]:
    if course.foreign_cpu > VOID_SHARE:
        return "void", f"other processes used {course.foreign_cpu:.0%} of the CPUs"
    if not verdict.passed:
        return "gate-failed", None
    return "counts", None


def _planned(planned: Planned, status: Status, reason: str | None) -> Entry:
    return Entry(
        id=planned.id,
        fault=planned.fault,
        form=planned.form,
        workload=planned.workload,
        level=planned.level,
        pattern=planned.pattern,
        severity=planned.severity,
        seed=planned.seed,
        server=planned.server,
        second=planned.second,
        noise=planned.noise,
        status=status,
        reason=reason,
    )


def _remedy(applied: tuple[Applied, ...]) -> RemedyEntry:
    if not applied:
        return RemedyEntry(action="nothing")
    first, *more = ({k: v for k, v in dataclasses.asdict(one).items() if k not in ("undo", "dirty")} for one in applied)
    return RemedyEntry(**first, **({"also": more} if more else {}))


def _outcome(came: Outcome) -> OutcomeEntry:
    return OutcomeEntry(**came.as_json())


def _resources(frame: Frame) -> Mapping[str, outcome.Track]:
    return {
        name: outcome.Track(frame.times, frame.values[:, frame.signals.index(name)])
        for name in ("host_cpu_used", "wal_bytes", "host_disk_busy", "connections_used")
        if name in frame.signals
    }


async def _consistency(course: Course, world: World, frame: Frame) -> Consistency:
    rollbacks = frame.between(course.parts.remedied, course.parts.ended).column("rollbacks")
    ended = sum(int(one.side_effects.get("sessions_terminated", 0)) for one in course.applied)
    return Consistency(
        lost_writes=await _lost(world),
        rolled_back=float(rollbacks.sum()) if len(rollbacks) else None,
        sessions_terminated=ended,
    )


async def _lost(world: World) -> int | None:
    """Acknowledged writes that whoever is primary now does not have; None when it can't be asked."""
    try:
        return await backoffice.lost_writes(world.load.journal, world.current_dsn())
    except (*LOST, ServerError, asyncpg.PostgresError):
        return None


def _rounded(moments: Mapping[str, float | None]) -> dict[str, Any]:
    return {name: None if at is None else round(at, 2) for name, at in moments.items()}
