"""`Person`: requests to the API server as somebody else, the way `kubectl --as` sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from kubernetes import client

Json = dict[str, Any]

GROUP = "/apis/kintsugi.dev/v1alpha1"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
TIMEOUT_S = 10.0


class RefusedError(Exception):
    """The API server refused; `code` is the HTTP status, the message has its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Person:
    """A user in groups. `api` is a cluster admin's, who may impersonate; without a user it is the admin himself."""

    api: client.ApiClient
    user: str = ""
    groups: tuple[str, ...] = ()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """One request as this person; the answer as plain JSON.

        Raises:
            RefusedError: the API server said no.
        """
        sent = urllib3.HTTPHeaderDict({"Accept": "application/json", "Content-Type": content_type, **(headers or {})})
        if self.user:
            sent.add("Impersonate-User", self.user)
        for group in self.groups:
            sent.add("Impersonate-Group", group)
        response = self.api.rest_client.pool_manager.request(
            method,
            self.api.configuration.host + path,
            body=None if body is None else json.dumps(body),
            headers=sent,
            timeout=TIMEOUT_S,
            retries=False,
        )
        answer: Json = json.loads(response.data)
        if response.status >= 300:
            raise RefusedError(response.status, str(answer.get("message", answer)))
        return answer

    def get(self, plural: str, namespace: str, name: str) -> Json:
        """One of our objects."""
        return self.request("GET", at(plural, namespace, name))

    def create(self, plural: str, namespace: str, body: Json) -> Json:
        """Create one of our objects."""
        return self.request("POST", at(plural, namespace), body)

    def patch(self, plural: str, namespace: str, name: str, patch: Json, *, subresource: str = "") -> Json:
        """Merge-patch one of our objects, or a subresource of it."""
        return self.patch_at(at(plural, namespace, name, subresource), patch)

    def patch_at(self, path: str, patch: Json) -> Json:
        """Merge-patch any object."""
        return self.request("PATCH", path, patch, content_type=MERGE_PATCH)

    def annotate(self, plural: str, namespace: str, name: str, annotations: Mapping[str, str | None]) -> Json:
        """As `kubectl annotate --overwrite`; None removes."""
        return self.patch(plural, namespace, name, {"metadata": {"annotations": dict(annotations)}})

    def replace(self, plural: str, namespace: str, name: str, body: Json) -> Json:
        """As `kubectl replace`."""
        return self.request("PUT", at(plural, namespace, name), body)

    def apply(self, plural: str, namespace: str, name: str, body: Json, *, manager: str = "tester") -> Json:
        """As `kubectl apply --server-side --force-conflicts`."""
        path = f"{at(plural, namespace, name)}?fieldManager={manager}&force=true"
        return self.request("PATCH", path, body, content_type=APPLY_PATCH)

    def json_patch(
        self, plural: str, namespace: str, name: str, operations: list[Json], *, subresource: str = ""
    ) -> Json:
        """As `kubectl patch --type=json`."""
        path = at(plural, namespace, name, subresource)
        return self.request("PATCH", path, operations, content_type=JSON_PATCH)

    def delete(self, plural: str, namespace: str, name: str = "") -> Json:
        """Delete one of our objects, or without a name the whole collection."""
        return self.request("DELETE", at(plural, namespace, name))


def at(plural: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """The path of one of our objects, of its subresource, or of the collection."""
    parts = [f"{GROUP}/namespaces/{namespace}/{plural}", name, subresource]
    return "/".join(part for part in parts if part)
