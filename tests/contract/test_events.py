"""Events on a real API server: counted and not repeated, in order, and none lost while the server is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kintsugi.api.database import MonitoredDatabase
from kintsugi.api.meta import ObjectMeta
from kintsugi.shell.events import NOTE_LIMIT, EventRecorder
from kintsugi.shell.kube import Kube, load_api_client
from kintsugi_dev.cluster import Cluster

KIND = MonitoredDatabase.KIND
NOW = datetime.now(UTC)


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    client = Kube(load_api_client(str(cluster.kubeconfig)))
    yield client
    client.close()


@pytest.fixture
async def recorder(kube: Kube) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(kube, "test/1")
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()


def about(namespace: str, name: str = "orders") -> ObjectMeta:
    return ObjectMeta(name=name, namespace=namespace, uid=f"uid-{name}")


async def events(kube: Kube, namespace: str) -> list[dict[str, Any]]:
    answer = await kube.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    return sorted(answer["items"], key=lambda event: str(event["eventTime"]))


async def test_an_event_says_what_happened_to_what(kube: Kube, recorder: EventRecorder, namespace: str) -> None:
    recorder.emit(KIND, about(namespace), "IncidentOpened", "lock waiters 9", now=NOW, warning=True)
    await recorder.drain()

    (event,) = await events(kube, namespace)
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "IncidentOpened", "lock waiters 9")
    assert event["regarding"] | {"kind": KIND, "name": "orders", "uid": "uid-orders"} == event["regarding"]
    assert event["reportingController"] == "kintsugi.dev/operator"
    assert "series" not in event


async def test_kubectl_describe_shows_it(kube: Kube, recorder: EventRecorder, cluster: Cluster, namespace: str) -> None:
    recorder.emit(KIND, about(namespace), "Healed", "by terminate-blocker", now=NOW)
    await recorder.drain()

    told = await asyncio.to_thread(cluster.kubectl, "-n", namespace, "events", "--for=monitoreddatabase/orders")

    assert "Healed" in told
    assert "by terminate-blocker" in told


async def test_the_same_again_is_counted_and_not_repeated(kube: Kube, recorder: EventRecorder, namespace: str) -> None:
    for second in range(5):
        recorder.emit(KIND, about(namespace), "HeldBack", "ObserveOnly", now=NOW + timedelta(seconds=second))
    await recorder.drain()

    (event,) = await events(kube, namespace)
    assert event["series"]["count"] == 5
    assert event["series"]["lastObservedTime"].startswith((NOW + timedelta(seconds=4)).strftime("%Y-%m-%dT%H:%M:%S"))


async def test_another_object_reason_or_note_is_another_event(
    kube: Kube, recorder: EventRecorder, namespace: str
) -> None:
    recorder.emit(KIND, about(namespace), "HeldBack", "ObserveOnly", now=NOW)
    recorder.emit(KIND, about(namespace, "stock"), "HeldBack", "ObserveOnly", now=NOW)
    recorder.emit(KIND, about(namespace), "Proposed", "ObserveOnly", now=NOW)
    recorder.emit(KIND, about(namespace), "HeldBack", "Paused", now=NOW)
    await recorder.drain()

    assert len(await events(kube, namespace)) == 4


async def test_after_a_long_silence_a_new_series_begins(kube: Kube, recorder: EventRecorder, namespace: str) -> None:
    recorder.emit(KIND, about(namespace), "HeldBack", "ObserveOnly", now=NOW)
    recorder.emit(KIND, about(namespace), "HeldBack", "ObserveOnly", now=NOW + timedelta(minutes=7))
    await recorder.drain()

    assert len(await events(kube, namespace)) == 2


async def test_a_counted_event_that_has_expired_on_the_server_begins_anew(
    kube: Kube, recorder: EventRecorder, namespace: str
) -> None:
    recorder.emit(KIND, about(namespace), "HeldBack", "ObserveOnly", now=NOW)
    await recorder.drain()
    (event,) = await events(kube, namespace)
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/{event['metadata']['name']}"
    await kube.request("DELETE", path)

    recorder.emit(KIND, about(namespace), "HeldBack", "ObserveOnly", now=NOW + timedelta(seconds=1))
    await recorder.drain()

    (again,) = await events(kube, namespace)
    assert "series" not in again


async def test_a_note_longer_than_allowed_is_cut_between_characters(
    kube: Kube, recorder: EventRecorder, namespace: str
) -> None:
    recorder.emit(KIND, about(namespace), "Executed", "é" * NOTE_LIMIT, now=NOW)
    await recorder.drain()

    (event,) = await events(kube, namespace)
    assert event["note"] == "é" * (NOTE_LIMIT // 2)


async def test_an_event_that_is_refused_is_logged_and_holds_nobody_up(
    kube: Kube, recorder: EventRecorder, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.emit(KIND, about("no-such-namespace"), "Healed", "lost", now=NOW)
    recorder.emit(KIND, about(namespace), "Healed", "kept", now=NOW)
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(recorder.drain(), 10)

    assert [event["note"] for event in await events(kube, namespace)] == ["kept"]
    assert "event Healed about no-such-namespace/orders not written" in caplog.text


async def test_while_the_api_server_is_away_events_wait_in_order_and_none_is_lost(
    kube: Kube, recorder: EventRecorder, cluster: Cluster, namespace: str
) -> None:
    await asyncio.to_thread(cluster.stop_apiserver)
    try:
        for number in range(5):
            recorder.emit(KIND, about(namespace), "Approved", f"{number}", now=NOW + timedelta(seconds=number))
        await asyncio.sleep(3)
    finally:
        await asyncio.to_thread(cluster.start_apiserver)
    await asyncio.wait_for(recorder.drain(), 30)

    assert [event["note"] for event in await events(kube, namespace)] == ["0", "1", "2", "3", "4"]


async def test_what_is_queued_when_the_operator_ends_is_still_written(kube: Kube, namespace: str) -> None:
    recorder = EventRecorder(kube, "test/1")  # its `run` has been cancelled
    recorder.emit(KIND, about(namespace), "Executed", "one", now=NOW)
    recorder.emit(KIND, about(namespace), "Executed", "two", now=NOW + timedelta(seconds=1))

    await recorder.flush(5)

    assert [event["note"] for event in await events(kube, namespace)] == ["one", "two"]


async def test_a_last_event_that_cannot_be_written_holds_the_end_up_only_so_long() -> None:
    recorder = EventRecorder(Kube(load_api_client_of_nobody()), "test/1")
    recorder.emit(KIND, about("shop"), "Executed", "lost", now=NOW)

    await asyncio.wait_for(recorder.flush(0.5), 3)


async def test_more_than_fit_are_dropped_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    recorder = EventRecorder(Kube(load_api_client_of_nobody()), "test/1")

    with caplog.at_level(logging.WARNING):
        for number in range(1001):
            recorder.emit(KIND, about("shop"), "HeldBack", f"{number}", now=NOW)

    assert recorder.dropped == 1
    assert "event dropped, 1000 wait already: HeldBack 1000" in caplog.text


def load_api_client_of_nobody() -> Any:
    from kubernetes import client

    return client.ApiClient(client.Configuration(host="http://127.0.0.1:1"))
