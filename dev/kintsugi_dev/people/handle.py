"""`Handle`: one object in a shop, and every way in which somebody can lay hands on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kintsugi.api.meta import API_VERSION
from kintsugi_dev.people.person import Person
from kintsugi_dev.people.shop import ACTIONS, DATABASES, POLICIES, Shop

Json = dict[str, Any]

K = "kintsugi.dev/"
_KINDS = {ACTIONS: "HealingAction", DATABASES: "MonitoredDatabase", POLICIES: "HealingPolicy"}


@dataclass(frozen=True)
class Handle:
    """An object of ours. Annotations are given without their prefix, `_` for `-`: `annotate(eve, paused_by="pat")`."""

    shop: Shop
    plural: str
    name: str

    def annotate(self, person: Person, **keys: str | None) -> Json:
        """As `kubectl annotate --overwrite`; None removes."""
        return person.annotate(self.plural, self.shop.namespace, self.name, _named(keys))

    def patch(self, person: Person, body: Json, subresource: str = "") -> Json:
        """A merge patch."""
        return person.patch(self.plural, self.shop.namespace, self.name, body, subresource=subresource)

    def spec(self, person: Person, **spec: Any) -> Json:
        """A merge patch of the spec."""
        return self.patch(person, {"spec": spec})

    def status(self, person: Person, **status: Any) -> Json:
        """A merge patch of the status, at its subresource."""
        return self.patch(person, {"status": status}, "status")

    def json_patch(self, person: Person, *operations: tuple[str, str, str]) -> Json:
        """A JSON patch of annotations: operation, key, value."""
        body = [
            {"op": op, "path": f"/metadata/annotations/kintsugi.dev~1{key}"} | ({"value": value} if value else {})
            for op, key, value in operations
        ]
        return person.json_patch(self.plural, self.shop.namespace, self.name, body)

    def apply(self, person: Person, *, manager: str = "tester", **keys: str) -> Json:
        """A server-side apply of these annotations and nothing else."""
        metadata = {"name": self.name, "annotations": _named(keys)}
        body = {"apiVersion": API_VERSION, "kind": _KINDS[self.plural], "metadata": metadata}
        return person.apply(self.plural, self.shop.namespace, self.name, body, manager=manager)

    def replace(self, person: Person, change: Callable[[Json], object]) -> Json:
        """Replace the object by itself after `change`."""
        body = self.object()
        change(body)
        return person.replace(self.plural, self.shop.namespace, self.name, body)

    def delete(self, person: Person) -> Json:
        """Delete it."""
        return person.delete(self.plural, self.shop.namespace, self.name)

    def object(self) -> Json:
        """It, as an admin reads it now."""
        return self.shop.admin.get(self.plural, self.shop.namespace, self.name)

    @property
    def ours(self) -> dict[str, str]:
        """Its `kintsugi.dev/` annotations now, without the prefix."""
        annotations = self.object()["metadata"].get("annotations", {})
        return {key.removeprefix(K): value for key, value in annotations.items() if key.startswith(K)}

    @property
    def hash(self) -> str:
        """The hash that an approval of this action carries."""
        return self.shop.plan_hash(self.name)

    def approve(self, person: Person) -> Json:
        """Approve this action as its plan is."""
        return self.annotate(person, approve=self.hash)


def _named(keys: dict[str, Any]) -> dict[str, Any]:
    return {K + key.replace("_", "-"): value for key, value in keys.items()}
