"""The moments of a fault's story, in order: what its charts draw and its list tells."""

from __future__ import annotations

from dataclasses import dataclass

from kintsugi.api.action import Phase
from kintsugi_dev.demo.record import ActionRecord, FaultRecord, Say
from kintsugi_dev.demo.report import words


@dataclass(frozen=True)
class Moment:
    """Something that happened `at`; `kind` chooses its colour, `short` stands in charts, `title` and `note` in lists.

    `quote` is said word for word by somebody else, `command` was typed.
    """

    at: float
    kind: str
    short: str
    title: str
    note: str = ""
    command: str = ""
    quote: str = ""


def moments(fault: FaultRecord) -> list[Moment]:
    """All of them, oldest first; those without a short name are not drawn."""
    found = [Moment(fault.injected_at, "inject", "injected", "Injected", fault.title)]
    if fault.hurt_at is not None:
        limit = words.milliseconds(fault.p99.limit)
        found.append(Moment(fault.hurt_at, "hurt", "", "The client feels it", f"p99 of a second above {limit}"))
    if fault.incident is not None:
        found.append(Moment(fault.incident.opened_at, "detect", "detected", "Detected", fault.incident.summary))
    for action in fault.actions:
        found += _of_action(action)
    found += _approval(fault)
    if fault.healed_at is not None:
        note = f"five seconds in a row at most {words.milliseconds(fault.p99.limit)}"
        found.append(Moment(fault.healed_at, "heal", "healed", "The client is served as before", note))
    if fault.repaired_at is not None:
        found.append(Moment(fault.repaired_at, "repair", "", "Tidied up", fault.repair))
    return sorted(found, key=lambda moment: moment.at)


def _of_action(record: ActionRecord) -> list[Moment]:
    spec, found = record.action.spec, []
    risk = f"{record.name}, {spec.risk} risk"
    created = record.action.metadata.creation_timestamp
    for number, step in enumerate(record.action.status.history):
        at, phase = step.at.timestamp(), step.phase
        if number == 0:
            proposed = min(at, created.timestamp() + 1) if created else at
            found.append(Moment(proposed, "decide", "proposed", f"Proposed: {spec.action}", risk))
        match phase:
            case Phase.AWAITING_APPROVAL:
                found.append(Moment(at, "wait", "", "Waits for a person", spec.approval.why))
            case Phase.APPROVED if not spec.approval.required:
                found.append(Moment(at, "approve", "", "Needs nobody", step.message))
            case Phase.EXECUTING:
                found.append(Moment(at, "act", "executed", "Executing", step.message))
            case Phase.VERIFYING:
                found.append(Moment(at, "act", "", "Verifying", step.message))
            case Phase.PROPOSED | Phase.APPROVED:
                pass
            case _:
                kind = "verify" if record.healed else "fail"
                outcome = f": {record.verdict}" if record.verdict else ""
                found.append(Moment(at, kind, "verified" if record.healed else phase, f"{phase}{outcome}"))
    return found


def _approval(fault: FaultRecord) -> list[Moment]:
    found = []
    if fault.refused is not None:
        found.append(_said(fault.refused, "refuse", "", f"{fault.refused.who} tries to approve it, and is refused"))
    if fault.approved is not None:
        found.append(_said(fault.approved, "approve", "approved", f"{fault.approved.who} approves it"))
    return found


def _said(said: Say, kind: str, short: str, title: str) -> Moment:
    return Moment(said.at, kind, short, title, command=said.command, quote=said.answer)
