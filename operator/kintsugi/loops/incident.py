"""The incident of a database: opened by an anomaly, closed when it is over, told once even if it can't be written."""

from __future__ import annotations

import hashlib
import logging

from kintsugi.api.database import IncidentStatus
from kintsugi.api.meta import ACKNOWLEDGE
from kintsugi.domain.anomaly import Effect, Health
from kintsugi.domain.text import human
from kintsugi.loops.cycle import Cycle
from kintsugi.loops.services import Services
from kintsugi.stages import summary

log = logging.getLogger(__name__)


def incident_of(services: Services, cycle: Cycle) -> IncidentStatus | None:
    """The open incident: a new one when an anomaly appears, none any more when it is over."""
    incident, anomaly = cycle.incident, cycle.anomaly
    if incident is None:
        if anomaly.health is Health.NORMAL:
            cycle.watch.closed(cycle.now.timestamp())  # one that was over before it could be written
        return _opened(services, cycle) if anomaly.flagged else None
    if anomaly.health is Health.NORMAL and not cycle.working:
        silenced = anomaly.opinion is not None and anomaly.opinion.effect is Effect.SILENCED
        _closed(services, cycle, incident, "no further than what was labelled normal" if silenced else "back to normal")
        return None
    if cycle.database.metadata.annotations.get(ACKNOWLEDGE) == incident.id and not cycle.working:
        _closed(services, cycle, incident, "acknowledged as how the database is now, and learned anew,")
        cycle.watch.accept_present()
        return None
    if _unjudgeable(cycle, incident):
        _closed(services, cycle, incident, "it can't be judged any more, as nothing is left of the time before it;")
        return None
    cycle.watch.opened(incident.opened_at.timestamp())
    tried = tuple(a.spec.action for a in cycle.actions if a.spec.incident == incident.id and a.status.attempts)
    root = cycle.watch.forecast.root or incident.root
    text = summary.summary_of(anomaly, cycle.watch.forecast, cycle.now.timestamp()) if anomaly.flagged else ""
    return incident.model_copy(update={"tried": tried, "root": root, "summary": text or incident.summary})


def _opened(services: Services, cycle: Cycle) -> IncidentStatus:
    at = cycle.anomaly.since or cycle.now.timestamp()
    digest = hashlib.sha256(f"{cycle.database.metadata.uid}/{at}".encode()).hexdigest()[:8]
    text = summary.summary_of(cycle.anomaly, cycle.watch.forecast, cycle.now.timestamp())
    cycle.watch.freeze(cycle.database, cycle.now.timestamp())
    cycle.watch.opened(at)
    if cycle.watch.says(f"{digest} opened"):  # the status may have to wait for the API server
        log.info("incident %s opened: %s", digest, text)
        services.emit(cycle.database, None, "IncidentOpened", text, now=cycle.now, warning=True)
    return IncidentStatus(id=digest, opened_at=cycle.now, root=cycle.watch.forecast.root or "", summary=text)


def _unjudgeable(cycle: Cycle, incident: IncidentStatus) -> bool:
    """Whether an incident found after a restart has no reference, nor will get one while it is open."""
    window = cycle.database.spec.reference.window
    return cycle.anomaly.health is Health.LEARNING and not cycle.working and cycle.now - incident.opened_at > window


def _closed(services: Services, cycle: Cycle, incident: IncidentStatus, why: str = "back to normal") -> None:
    cycle.watch.closed(cycle.now.timestamp())
    cycle.watch.diagnosis = cycle.watch.diagnosed_at = None
    if not cycle.watch.says(f"{incident.id} closed"):
        return
    lasted = human(cycle.now - incident.opened_at)
    log.info("incident %s closed after %s", incident.id, lasted)
    services.emit(cycle.database, None, "IncidentClosed", f"{why} after {lasted}", now=cycle.now)
