"""The Kubernetes API as the operator uses it: few verbs, short timeouts, typed errors, a small bounded thread pool.

The official client, because it knows every way to authenticate; DESIGN §11 has the measurements. Objects come and go as
plain JSON. Nothing is retried here: the loops come round again.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config

from kintsugi.api.meta import GROUP, VERSION
from kintsugi.shell.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    UnavailableError,
)

Json = dict[str, Any]
T = TypeVar("T")

TIMEOUT = 5.0
MERGE_PATCH = "application/merge-patch+json"
_EVENTS = "/apis/events.k8s.io/v1"
_WORKLOADS = {
    "service": ("/api/v1", "services"),
    "statefulset": ("/apis/apps/v1", "statefulsets"),
    "deployment": ("/apis/apps/v1", "deployments"),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind, as of `version` (a resourceVersion; the oldest one when several lists were needed)."""

    items: tuple[Json, ...]
    version: str


def load_api_client(kubeconfig: str | None = None) -> client.ApiClient:
    """A client from `kubeconfig`, the pod's own ServiceAccount, or $KUBECONFIG, in this order."""
    configuration = client.Configuration()
    if kubeconfig:
        config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    else:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            config.load_kube_config(client_configuration=configuration)
    configuration.retries = False
    return client.ApiClient(configuration)


def merge_patch(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7386) that turns `old` into `new`; `{}` when they are equal."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    patch: Json = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif old[key] != value:
            patch[key] = merge_patch(old[key], value)
    return patch


class Kube:
    """Asynchronous methods over the official synchronous client.

    Every method raises one of the `KubeError`s; none logs or retries.
    """

    def __init__(self, api: client.ApiClient, *, threads: int = 4) -> None:
        self.api = api
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="kube")

    async def run(self, call: Callable[[], T]) -> T:
        """Any synchronous call with the client, in the pool, its errors translated."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: translated(call))

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Json | None = None, seconds: float = TIMEOUT
    ) -> Json:
        """One request with a JSON body (a PATCH is a merge patch); the answer as plain JSON."""
        return await self.run(lambda: send(self.api, method, path, body, query=query, seconds=seconds))

    async def list_objects(self, plural: str, namespaces: Sequence[str] = ()) -> Listing:
        """All our objects of one kind, in these namespaces or in all."""
        paths = [_ours(plural, namespace) for namespace in namespaces] or [f"/apis/{GROUP}/{VERSION}/{plural}"]
        answers = [await self.request("GET", path, seconds=TIMEOUT * 4) for path in paths]
        versions = [str(answer["metadata"]["resourceVersion"]) for answer in answers]
        return Listing(tuple(item for answer in answers for item in answer["items"]), min(versions, key=_age))

    async def get_object(self, plural: str, namespace: str, name: str) -> Json:
        """One of our objects as it is now."""
        return await self.request("GET", _ours(plural, namespace, name))

    async def create_object(self, plural: str, namespace: str, body: Json) -> Json:
        """Create one of our objects; `ConflictError` when the name is taken."""
        return await self.request("POST", _ours(plural, namespace), body)

    async def delete_object(self, plural: str, namespace: str, name: str) -> None:
        """Delete one of our objects."""
        await self.request("DELETE", _ours(plural, namespace, name))

    async def patch_status(
        self, plural: str, namespace: str, name: str, patch: Json, resource_version: str | None = None
    ) -> Json:
        """Merge `patch` into the status; with a resource version it is a compare-and-swap (`ConflictError`)."""
        body: Json = {"status": patch}
        if resource_version:
            body["metadata"] = {"resourceVersion": resource_version}
        return await self.request("PATCH", _ours(plural, namespace, name) + "/status", body)

    async def get_secret(self, namespace: str, name: str) -> dict[str, str]:
        """The decoded values of one Secret. Read when needed, never watched, never logged."""
        secret = await self.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}

    async def get_workload(self, namespace: str, kind: str, name: str) -> Json:
        """One Service, StatefulSet or Deployment."""
        return await self.request("GET", _workload(namespace, kind, name))

    async def patch_workload(self, namespace: str, kind: str, name: str, body: Json) -> Json:
        """Merge-patch a Service, StatefulSet or Deployment; a resourceVersion in `body` makes it a compare-and-swap."""
        return await self.request("PATCH", _workload(namespace, kind, name), body)

    async def list_pods(self, namespace: str, selector: str) -> list[Json]:
        """The pods that match a label selector."""
        answer = await self.request("GET", f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
        return list(answer["items"])

    async def pod_log(self, namespace: str, pod: str, query: Json) -> bytes:
        """What a container wrote, as the API server's `log` subresource gives it with this query."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        return await self.run(lambda: fetch(self.api, "GET", path, query=query, accept="*/*"))

    async def create_event(self, namespace: str, body: Json) -> None:
        """Create an `events.k8s.io/v1` Event."""
        await self.request("POST", f"{_EVENTS}/namespaces/{namespace}/events", body)

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None:
        """Merge-patch an Event: how a repeated one is counted."""
        await self.request("PATCH", f"{_EVENTS}/namespaces/{namespace}/events/{name}", patch)

    def close(self) -> None:
        """Give the threads and connections back."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def send(
    api: client.ApiClient,
    method: str,
    path: str,
    body: Json | None = None,
    *,
    query: Json | None = None,
    seconds: float = TIMEOUT,
) -> Json:
    """`Kube.request`, synchronously; raises the official client's `ApiException`."""
    answer: Json = json.loads(fetch(api, method, path, body, query=query, seconds=seconds))
    return answer


def fetch(
    api: client.ApiClient,
    method: str,
    path: str,
    body: Json | None = None,
    *,
    query: Json | None = None,
    seconds: float = TIMEOUT,
    accept: str = "application/json",
) -> bytes:
    """The bytes that one request is answered with; raises the official client's `ApiException`."""
    headers = {"Accept": accept}
    if body is not None:
        headers["Content-Type"] = MERGE_PATCH if method == "PATCH" else "application/json"
    serialized = api.param_serialize(
        method,
        path,
        query_params=list((query or {}).items()),
        header_params=headers,
        body=body,
        auth_settings=["BearerToken"],
    )
    response = api.call_api(*serialized, _request_timeout=seconds)
    data: bytes = response.read()
    if not 200 <= response.status < 300:
        raise client.ApiException(status=response.status, reason=response.reason, body=data.decode(errors="replace"))
    return data


def _age(version: str) -> int:
    return int(version) if version.isdigit() else 0


def _ours(plural: str, namespace: str, name: str = "") -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def _workload(namespace: str, kind: str, name: str) -> str:
    prefix, plural = _WORKLOADS[kind.lower()]
    return f"{prefix}/namespaces/{namespace}/{plural}/{name}"


def translated(call: Callable[[], T]) -> T:
    """The call's answer, or its failure as a `KubeError` with the API server's own words."""
    try:
        return call()
    except client.ApiException as error:
        raise kube_error(error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise UnavailableError(
            f"the Kubernetes API server does not answer ({type(error).__name__}); it is asked again by itself"
        ) from error


def kube_error(error: client.ApiException) -> KubeError:
    """An `ApiException` as one of ours, with the message that the API server gave."""
    try:
        body = json.loads(error.body or "")
        message, details = str(body["message"]), body.get("details") or {}
    except (ValueError, KeyError, TypeError):
        message, details = error.reason or str(error.body), {}
    if error.status == 404 and not details.get("name"):
        return UnavailableError(f"the API server does not serve this kind, or not yet: {message} (HTTP 404)")
    kinds = {404: NotFoundError, 409: ConflictError, 401: ForbiddenError, 403: ForbiddenError, 422: InvalidError}
    kind = kinds.get(error.status, UnavailableError if error.status >= 500 or error.status == 429 else KubeError)
    return kind(f"{message} (HTTP {error.status})")
