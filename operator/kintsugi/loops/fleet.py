"""All our objects as the operator last saw them: kept by watch events, corrected by a full listing every minute."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from kintsugi.api.action import HealingAction
from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import Model, ObjectMeta
from kintsugi.api.policy import HealingPolicy

log = logging.getLogger(__name__)

Json = Mapping[str, Any]
M = TypeVar("M", MonitoredDatabase, HealingPolicy, HealingAction)
KINDS: Mapping[str, type[MonitoredDatabase] | type[HealingPolicy] | type[HealingAction]] = {
    kind.PLURAL: kind for kind in (MonitoredDatabase, HealingPolicy, HealingAction)
}


@dataclass(frozen=True, slots=True)
class Broken:
    """An object that this version can't read (a newer one wrote it, perhaps); `problem` says what and where."""

    plural: str
    meta: ObjectMeta
    problem: str


@dataclass(slots=True)
class Fleet:
    """The registry. Keys are `namespace/name`; `raw` has each object's status as the server has it."""

    databases: dict[str, MonitoredDatabase] = field(default_factory=dict)
    policies: dict[str, HealingPolicy] = field(default_factory=dict)
    actions: dict[str, HealingAction] = field(default_factory=dict)
    broken: dict[tuple[str, str], Broken] = field(default_factory=dict)
    raw_status: dict[tuple[str, str], Json] = field(default_factory=dict)
    complete: bool = False
    """Whether every kind has been listed once: until then, what is not here may exist all the same."""

    def exists(self, plural: str, key: str, uid: str) -> bool | None:
        """Whether this very object exists; None while that is not known."""
        if (plural, key) in self.broken:
            return True if self.broken[plural, key].meta.uid == uid else None
        known = self._table(plural).get(key)
        if known is None or known.metadata.uid != uid:
            return False if self.complete else None
        return True

    def apply(self, plural: str, body: Json) -> str:
        """Take one object in as it is now, unless a newer version of it is known; its key."""
        meta = ObjectMeta.model_validate(body["metadata"])
        known = self._table(plural).get(meta.key)
        if known and known.metadata.uid == meta.uid and _older(meta, known.metadata):
            return meta.key
        self.raw_status[plural, meta.key] = body.get("status") or {}
        try:
            parsed = _parse(plural, body)
        except ValidationError as error:
            self._table(plural).pop(meta.key, None)
            self.broken[plural, meta.key] = Broken(plural, meta, _problem(error))
            return meta.key
        self.broken.pop((plural, meta.key), None)
        self._table(plural)[meta.key] = parsed
        return meta.key

    def remove(self, plural: str, key: str) -> None:
        """Forget one object."""
        self._table(plural).pop(key, None)
        self.broken.pop((plural, key), None)
        self.raw_status.pop((plural, key), None)

    def replace(self, plural: str, bodies: Iterable[Json], version: str = "") -> list[str]:
        """Take a full listing in; what is not in it is gone. What the watch had not said: one sentence each.

        What is newer than the listing's `version` was created while the listing was under way, and stays.
        """
        before = self._generations(plural)
        present = {self.apply(plural, body) for body in bodies}
        after = self._generations(plural)
        gone = {key for key in set(before) - present if not self._newer(plural, key, version)}
        for key in gone:
            self.remove(plural, key)
        changed = {key for key in before if key in after and before[key] != after[key]}
        return [
            *(f"{key} is gone" for key in sorted(gone)),
            *(f"{key} exists" for key in sorted(present - set(before))),
            *(f"{key} has changed" for key in sorted(changed)),
        ]

    def _newer(self, plural: str, key: str, version: str) -> bool:
        known = self._table(plural).get(key)
        own = known.metadata.resource_version if known else ""
        return own.isdigit() and version.isdigit() and int(own) > int(version)

    def _generations(self, plural: str) -> dict[str, tuple[str, int]]:
        """Which object, in which generation, is known by each key."""
        known = {key: item.metadata for key, item in self._table(plural).items()}
        known |= {key: broken.meta for (kind, key), broken in self.broken.items() if kind == plural}
        return {key: (meta.uid, meta.generation) for key, meta in known.items()}

    def actions_of(self, database: MonitoredDatabase) -> list[HealingAction]:
        """The actions on this very database (by uid), oldest first."""
        namespace, uid = database.metadata.namespace, database.metadata.uid
        found = [
            action
            for action in self.actions.values()
            if action.metadata.namespace == namespace and action.spec.database.uid == uid
        ]
        return sorted(found, key=lambda action: (str(action.metadata.creation_timestamp), action.metadata.name))

    def policies_in(self, namespace: str) -> list[HealingPolicy]:
        """The policies of one namespace, by name."""
        found = [policy for policy in self.policies.values() if policy.metadata.namespace == namespace]
        return sorted(found, key=lambda policy: policy.metadata.name)

    def _table(self, plural: str) -> dict[str, Any]:
        tables: dict[str, dict[str, Any]] = {
            MonitoredDatabase.PLURAL: self.databases,
            HealingPolicy.PLURAL: self.policies,
            HealingAction.PLURAL: self.actions,
        }
        return tables[plural]


def _parse(plural: str, body: Json) -> Model:
    known = {key: body[key] for key in ("metadata", "spec", "status") if key in body}
    return KINDS[plural].model_validate(known)


def _older(meta: ObjectMeta, known: ObjectMeta) -> bool:
    """Whether `meta` is an older version: resourceVersions of one kind compare as numbers (KEP-5504)."""
    if not (meta.resource_version.isdigit() and known.resource_version.isdigit()):
        return False
    return int(meta.resource_version) < int(known.resource_version)


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}"
