"""Follows the demo's objects at the API server, as a user with `kubectl get -w` would, and keeps what changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import urllib3.exceptions
from kubernetes import client, config

from kintsugi_dev.demo.record import ActionRecord, Event, Incident, State

EVERY_SECONDS = 0.3
EVENTS_EVERY = 4  # of the polls
TIMEOUT = (2.0, 5.0)
GROUP, VERSION = "kintsugi.dev", "v1alpha1"

Json = dict[str, Any]


class Watcher:
    """Polls one database, its actions and their Events in a thread of its own; use as a context manager."""

    def __init__(self, kubeconfig: Path, namespace: str, database: str) -> None:
        self._api = config.new_client_from_config(config_file=str(kubeconfig))
        self._namespace = namespace
        self._database = database
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="demo-watch")
        self._status: Json = {}
        self._actions: dict[str, ActionRecord] = {}
        self._states: list[State] = []
        self._events: dict[str, Event] = {}
        self._incidents: dict[str, Incident] = {}
        self.problem = ""

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._api.close()

    @property
    def state(self) -> State:
        """What the status says now."""
        with self._lock:
            return self._states[-1] if self._states else State(time.time(), "", "", "", "")

    @property
    def states(self) -> tuple[State, ...]:
        """Everything that the status has said."""
        with self._lock:
            return tuple(self._states)

    @property
    def events(self) -> tuple[Event, ...]:
        """All Events, oldest first."""
        with self._lock:
            return tuple(sorted(self._events.values(), key=lambda event: event.at))

    @property
    def incident(self) -> Incident | None:
        """The open incident."""
        with self._lock:
            found = self._status.get("incident")
            return self._incidents.get(found["id"]) if found else None

    def incident_since(self, at: float) -> Incident | None:
        """The first incident that was opened at `at` or later."""
        with self._lock:
            later = [incident for incident in self._incidents.values() if incident.opened_at >= at]
            return min(later, key=lambda incident: incident.opened_at, default=None)

    def actions(self, incident: str = "") -> tuple[ActionRecord, ...]:
        """The actions that may run (no recommendations), of one incident or of all, oldest first."""
        with self._lock:
            found = [a for a in self._actions.values() if a.action.spec.runnable]
        mine = [a for a in found if not incident or a.action.spec.incident == incident]
        return tuple(sorted(mine, key=lambda a: (a.body["metadata"]["creationTimestamp"], a.name)))

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                self._poll(with_events=number % EVENTS_EVERY == 0)
                self.problem = ""
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                self.problem = f"the API server does not answer: {str(error).splitlines()[0][:120]}"
            number += 1
            self._stop.wait(EVERY_SECONDS)

    def _poll(self, *, with_events: bool) -> None:
        objects: Any = client.CustomObjectsApi(self._api)  # whose answers are untyped
        where = (GROUP, VERSION, self._namespace)
        body = objects.get_namespaced_custom_object(
            *where, "monitoreddatabases", self._database, _request_timeout=TIMEOUT
        )
        actions = objects.list_namespaced_custom_object(*where, "healingactions", _request_timeout=TIMEOUT)["items"]
        events = self._listed_events(objects) if with_events else {}
        with self._lock:
            self._take(body.get("status", {}), time.time())
            self._actions |= {item["metadata"]["name"]: ActionRecord(_kept(item)) for item in actions}
            self._events |= events

    def _take(self, status: Json, now: float) -> None:
        self._status = status
        state = State(now, *(str(status.get(key, "")) for key in ("phase", "risk", "soon", "doing")))
        if not self._states or _words(state) != _words(self._states[-1]):
            self._states.append(state)
        if found := status.get("incident"):
            opened = datetime.fromisoformat(found["openedAt"]).timestamp()
            known = self._incidents.get(found["id"])  # what was said first is what was known then
            summary = known.summary if known else found.get("summary", "")
            self._incidents[found["id"]] = Incident(found["id"], opened, found.get("root", ""), summary)

    def _listed_events(self, objects: Any) -> dict[str, Event]:
        listed: Json = objects.list_namespaced_custom_object(
            "events.k8s.io", "v1", self._namespace, "events", _request_timeout=TIMEOUT
        )
        ours = [item for item in listed["items"] if item.get("regarding", {}).get("apiVersion", "").startswith(GROUP)]
        return {item["metadata"]["name"]: _event(item) for item in ours}


def _event(item: Mapping[str, Any]) -> Event:
    at = item.get("eventTime") or item["metadata"]["creationTimestamp"]
    return Event(
        at=datetime.fromisoformat(at).timestamp(),
        object=item["regarding"]["name"],
        reason=item.get("reason", ""),
        note=item.get("note", ""),
        warning=item.get("type") == "Warning",
    )


def _kept(item: Mapping[str, Any]) -> Json:
    metadata = {
        key: item["metadata"][key]
        for key in ("name", "namespace", "uid", "creationTimestamp", "annotations")
        if key in item["metadata"]
    }
    return {"metadata": metadata, "spec": item["spec"], "status": item.get("status", {})}


def _words(state: State) -> tuple[str, ...]:
    return (state.phase, state.risk, state.soon, state.doing)
