"""Our kinds over one HTTP connection, as whoever may: what tests use instead of starting kubectl for each object."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config

from kintsugi.api.crd import KINDS
from kintsugi.api.meta import API_VERSION
from kintsugi.shell.kube import send
from kintsugi_dev.objects import OPERATOR, Object

PLURALS = {kind.name: kind.plural for kind in KINDS}
_AUTHENTICATED, _ADMINS = "system:authenticated", "system:masters"


class RefusedError(Exception):
    """The API server refused; one sentence per mistake, its field in front, as kubectl prints them."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class Rest:
    """Creates, reads and patches. The operator creates actions and writes status; an admin does the rest."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api = new_client_from_config(str(kubeconfig))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._api.close()

    def create(self, whole: Object, namespace: str = "default", *, dry_run: bool = False) -> Object:
        """The object as stored; unknown fields are refused as by kubectl.

        Raises:
            RefusedError: a field, a rule or a policy was against it.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self._send("POST", _path(whole, namespace, ""), whole, whole["kind"] == "HealingAction", query)

    def get(self, whole: Object, namespace: str) -> Object:
        """The object of that kind and name as it is now."""
        return self._send("GET", _path(whole, namespace, whole["metadata"]["name"]), None, False)

    def patch(self, whole: Object, namespace: str, patch: Object) -> Object:
        """Merge `patch` into the object of that kind and name, into its status where the patch has one.

        Raises:
            RefusedError: a field, a rule or a policy was against it.
        """
        path = _path(whole, namespace, whole["metadata"]["name"]) + ("/status" if "status" in patch else "")
        return self._send("PATCH", path, patch, "status" in patch)

    def _send(
        self, method: str, path: str, body: Object | None, as_operator: bool, query: dict[str, str] | None = None
    ) -> Object:
        self._api.set_default_header("Impersonate-User", OPERATOR if as_operator else "ann")
        self._api.set_default_header("Impersonate-Group", _AUTHENTICATED if as_operator else _ADMINS)
        try:
            return send(self._api, method, path, body, query=query, seconds=30)
        except ApiException as error:
            raise RefusedError(_sentences(error)) from error


def _path(whole: Object, namespace: str, name: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURALS[whole['kind']]}" + (f"/{name}" if name else "")


def _sentences(refused: ApiException) -> list[str]:
    said = json.loads(refused.body or "{}")
    causes = said.get("details", {}).get("causes", [])
    return [f"{cause['field']}: {cause['message']}" for cause in causes if "field" in cause] or [said["message"]]
