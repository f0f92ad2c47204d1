"""The Kubernetes client against a real API server: compare-and-swap, typed errors, an API server that is away."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from kintsugi.api.database import MonitoredDatabase
from kintsugi.shell.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from kintsugi.shell.kube import Kube, load_api_client, merge_patch
from kintsugi.shell.secrets import REMEMBERED, SecretError, Secrets
from kintsugi_dev.cluster import Cluster
from kintsugi_dev.people.objects import a_database, a_policy

DATABASES, POLICIES = MonitoredDatabase.PLURAL, "healingpolicies"


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    kube = Kube(load_api_client(str(cluster.kubeconfig)))
    yield kube
    kube.close()


@pytest.fixture
async def operator(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Kube]:
    """As the operator's ServiceAccount."""
    path = cluster.service_account_kubeconfig("kintsugi-system", "kintsugi", tmp_path / "kubeconfig")
    kube = Kube(load_api_client(str(path)))
    yield kube
    kube.close()


async def test_a_status_is_written_only_while_nobody_changed_the_object(
    kube: Kube, operator: Kube, namespace: str
) -> None:
    created = await kube.create_object(POLICIES, namespace, a_policy("calm"))
    version = created["metadata"]["resourceVersion"]

    written = await operator.patch_status(POLICIES, namespace, "calm", {"matched": 1}, version)

    assert written["status"] == {"matched": 1}
    with pytest.raises(ConflictError, match="the object has been modified"):
        await operator.patch_status(POLICIES, namespace, "calm", {"matched": 2}, version)


async def test_without_a_version_the_last_writer_wins_and_null_removes(
    kube: Kube, operator: Kube, namespace: str
) -> None:
    await kube.create_object(POLICIES, namespace, a_policy("calm"))
    await operator.patch_status(POLICIES, namespace, "calm", {"matched": 1, "observedGeneration": 1})

    written = await operator.patch_status(POLICIES, namespace, "calm", {"matched": 3, "observedGeneration": None})

    assert written["status"] == {"matched": 3}


async def test_a_name_that_is_taken_is_a_conflict(kube: Kube, namespace: str) -> None:
    await kube.create_object(POLICIES, namespace, a_policy("calm"))

    with pytest.raises(ConflictError, match='"calm" already exists'):
        await kube.create_object(POLICIES, namespace, a_policy("calm"))


async def test_what_is_gone_is_not_found_in_the_servers_words(kube: Kube, namespace: str) -> None:
    with pytest.raises(NotFoundError, match=r'monitoreddatabases.kintsugi.dev "nobody" not found \(HTTP 404\)'):
        await kube.get_object(DATABASES, namespace, "nobody")


async def test_a_kind_that_is_not_served_is_no_object_that_is_gone(kube: Kube, namespace: str) -> None:
    with pytest.raises(UnavailableError, match="does not serve this kind, or not yet"):
        await kube.get_object("healingwonders", namespace, "one")


async def test_an_invalid_object_is_refused_in_the_servers_words(kube: Kube, namespace: str) -> None:
    with pytest.raises(InvalidError, match=r"spec\.mode"):
        await kube.create_object(POLICIES, namespace, a_policy("calm", mode="Berserk"))


async def test_what_rbac_forbids_is_forbidden(operator: Kube, namespace: str) -> None:
    with pytest.raises(ForbiddenError, match="kintsugi-system:kintsugi"):
        await operator.create_object(POLICIES, namespace, a_policy("calm"))


async def test_a_listing_knows_its_version(kube: Kube, namespace: str) -> None:
    created = await kube.create_object(POLICIES, namespace, a_policy("calm"))

    listing = await kube.list_objects(POLICIES, [namespace])

    assert [item["metadata"]["name"] for item in listing.items] == ["calm"]
    assert int(listing.version) >= int(created["metadata"]["resourceVersion"])


async def test_a_listing_of_several_namespaces_is_as_old_as_its_first(kube: Kube, namespace: str) -> None:
    listing = await kube.list_objects(POLICIES, [namespace, "default"])
    later = await kube.list_objects(POLICIES, ["default"])

    assert int(listing.version) <= int(later.version)


async def test_an_api_server_that_is_gone_is_unavailable_at_once_and_asked_again(
    kube: Kube, cluster: Cluster, namespace: str
) -> None:
    await kube.create_object(POLICIES, namespace, a_policy("calm"))
    await asyncio.to_thread(cluster.stop_apiserver)
    try:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            await kube.get_object(POLICIES, namespace, "calm")
        assert time.monotonic() - began < 3
    finally:
        await asyncio.to_thread(cluster.start_apiserver)

    assert (await kube.get_object(POLICIES, namespace, "calm"))["metadata"]["name"] == "calm"


async def test_an_api_server_that_is_frozen_is_unavailable_within_the_timeout(
    kube: Kube, cluster: Cluster, namespace: str
) -> None:
    await kube.create_object(POLICIES, namespace, a_policy("calm"))
    await asyncio.to_thread(cluster.freeze_apiserver)
    try:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            await kube.get_object(POLICIES, namespace, "calm")
        assert time.monotonic() - began < 12
    finally:
        await asyncio.to_thread(cluster.thaw_apiserver)

    assert (await kube.get_object(POLICIES, namespace, "calm"))["metadata"]["name"] == "calm"


async def test_a_secret_is_read_once_and_remembered_while_the_api_server_is_away(
    kube: Kube, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _secret(kube, namespace, password="first")
    secrets = Secrets(kube)
    assert (await secrets.get(namespace, "db", "password"))["password"] == "first"
    later = time.monotonic() + REMEMBERED + 1
    monkeypatch.setattr("kintsugi.shell.secrets.time.monotonic", lambda: later)

    await asyncio.to_thread(cluster.stop_apiserver)
    try:
        assert (await secrets.get(namespace, "db", "password"))["password"] == "first"
        with pytest.raises(UnavailableError):
            await secrets.get(namespace, "another", "password")
    finally:
        await asyncio.to_thread(cluster.start_apiserver)


async def test_a_rotated_password_is_picked_up(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await _secret(kube, namespace, password="first")
    secrets = Secrets(kube)
    await secrets.get(namespace, "db", "password")
    encoded = base64.b64encode(b"second").decode()
    await kube.request("PATCH", f"/api/v1/namespaces/{namespace}/secrets/db", {"data": {"password": encoded}})

    assert (await secrets.get(namespace, "db", "password"))["password"] == "first"
    later = time.monotonic() + REMEMBERED + 1
    monkeypatch.setattr("kintsugi.shell.secrets.time.monotonic", lambda: later)
    assert (await secrets.get(namespace, "db", "password"))["password"] == "second"


async def test_a_refused_password_is_read_anew_at_once(kube: Kube, namespace: str) -> None:
    await _secret(kube, namespace, password="first")
    secrets = Secrets(kube)
    await secrets.get(namespace, "db", "password")
    encoded = base64.b64encode(b"second").decode()
    await kube.request("PATCH", f"/api/v1/namespaces/{namespace}/secrets/db", {"data": {"password": encoded}})

    secrets.forget(namespace, "db")

    assert (await secrets.get(namespace, "db", "password"))["password"] == "second"


async def test_secrets_say_what_is_wrong_with_them(kube: Kube, namespace: str) -> None:
    await _secret(kube, namespace, username="kintsugi")
    binary = {"metadata": {"name": "binary"}, "data": {"password": base64.b64encode(b"\xff\xfe").decode()}}
    await kube.request("POST", f"/api/v1/namespaces/{namespace}/secrets", binary)
    secrets = Secrets(kube)

    reasons = {}
    for name in ("db", "binary", "absent"):
        with pytest.raises(SecretError) as caught:
            await secrets.get(namespace, name, "password")
        reasons[name] = (caught.value.reason, str(caught.value))

    assert reasons["db"] == (
        "SecretIncomplete",
        f"Secret db has no password; add it (kubectl -n {namespace} edit secret db)",
    )
    assert reasons["binary"] == ("SecretBinary", "Secret binary holds a value that is no text; correct it")
    assert reasons["absent"] == ("SecretMissing", f"there is no Secret absent in {namespace}; create it")


async def _secret(kube: Kube, namespace: str, **values: str) -> None:
    body = {"metadata": {"name": "db"}, "stringData": values}
    await kube.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)


async def test_a_database_made_and_deleted_through_it(kube: Kube, namespace: str) -> None:
    await kube.create_object(DATABASES, namespace, a_database("orders"))

    await kube.delete_object(DATABASES, namespace, "orders")

    assert (await kube.list_objects(DATABASES, [namespace])).items == ()


async def test_an_answer_that_is_no_json_is_no_crash() -> None:
    error = client.ApiException(status=502, reason="Bad Gateway")
    error.body = "<html>proxy</html>"
    from kintsugi.shell.kube import kube_error

    assert isinstance(kube_error(error), UnavailableError)
    assert str(kube_error(error)) == "Bad Gateway (HTTP 502)"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from("abc"), JSON.filter(lambda value: value is not None), max_size=3)


@given(OBJECT, OBJECT)
def test_a_merge_patch_turns_one_object_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    new = _without_nulls(new)
    old = _without_nulls(old)

    assert _merged(old, merge_patch(old, new)) == new


@given(OBJECT)
def test_equal_objects_need_no_patch(same: dict[str, Any]) -> None:
    assert merge_patch(same, same) == {}


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value
