"""A fault counts only when it has hurt; a hard negative only when it has not."""

import numpy as np
import pytest

from kintsugi.domain.frame import Frame
from kintsugi.engines import catalogue
from kintsugi_ml.lab import gate
from kintsugi_ml.lab.clienttrack import Requests, client_track, parse, per_second
from kintsugi_ml.lab.faults.base import Effect
from kintsugi_ml.lab.parts import Form, Parts

PARTS = Parts(normal=1000.0, injected=1030.0, remedied=1060.0, lifted=1080.0, ended=1090.0)
KNOWN = catalogue.load("postgresql")


def requests(latency: float, *, failing: float = 0.0, since: float = PARTS.injected) -> Requests:
    """Fifty a second, 10 ms each; from `since` on `latency` seconds, of which the share `failing` fails."""
    scheduled = np.arange(PARTS.normal, PARTS.ended, 0.02)
    late = scheduled >= since
    ok = ~(late & (np.arange(len(scheduled)) % 100 < failing * 100))
    return Requests(scheduled, np.where(late, latency, 0.01), np.where(ok, "ok", "error"))


def a_frame(signal: str, normal: float, fault: float) -> Frame:
    times = np.arange(PARTS.normal, PARTS.ended)
    values = np.where(times >= PARTS.injected, fault, normal)[:, None]
    return Frame((signal,), times, values, np.ones_like(values, dtype=bool), 1.0)


QUIET = a_frame("lock_waiters", 0.0, 0.0)


def judged(
    effect: Effect,
    client: Requests,
    frame: Frame = QUIET,
    *,
    negative: bool = False,
    form: Form = "abrupt",
    failed: str | None = None,
) -> gate.Gate:
    return gate.judge(effect, negative, PARTS, client, frame, KNOWN, form=form, failed=failed)


def test_a_slower_client_passes() -> None:
    verdict = judged(Effect(client=1.5), requests(0.05))
    assert verdict.passed
    assert verdict.client_factor == pytest.approx(5.0)
    assert "from 10 to 50 ms" in verdict.sentence


def test_a_client_that_is_not_answered_passes() -> None:
    verdict = judged(Effect(client=1.5), requests(0.001, failing=0.6))
    assert verdict.passed
    assert verdict.client_factor == pytest.approx(2.5)


def test_a_client_that_feels_nothing_does_not_pass() -> None:
    assert not judged(Effect(client=1.5), requests(0.01)).passed


def test_a_rise_below_the_floor_of_latency_is_none() -> None:
    client = requests(0.01)
    fast = Requests(client.scheduled, np.where(client.scheduled < PARTS.injected, 0.001, 0.003), client.outcome)
    assert judged(Effect(client=1.5), fast).client_factor == 1.0


def test_a_signal_that_moves_past_factor_and_floor_passes_without_the_client() -> None:
    verdict = judged(Effect(client=None, signal="lock_waiters"), requests(0.01), a_frame("lock_waiters", 0.0, 5.0))
    assert verdict.passed
    assert verdict.signal_factor == pytest.approx(10.0)
    assert not judged(
        Effect(client=None, signal="lock_waiters"), requests(0.05), a_frame("lock_waiters", 0.0, 0.4)
    ).passed


def test_a_signal_that_moves_the_good_way_does_not_pass() -> None:
    effect = Effect(client=None, signal="cache_hit_ratio", factor=1.2)
    assert judged(effect, requests(0.01), a_frame("cache_hit_ratio", 0.98, 0.4)).passed
    assert not judged(effect, requests(0.01), a_frame("cache_hit_ratio", 0.4, 0.98)).passed


def test_a_signal_that_was_not_measured_says_so() -> None:
    verdict = judged(Effect(client=None, signal="replication_lag"), requests(0.01))
    assert not verdict.passed
    assert verdict.signal_factor is None
    assert "replication_lag was not measured" in verdict.sentence


def test_of_a_ramp_only_the_second_half_counts() -> None:
    client = requests(0.05, since=PARTS.injected + 14)
    assert judged(Effect(client=4.5), client, form="ramped").client_factor == pytest.approx(5.0)


def test_a_hard_negative_passes_when_it_took_place_and_nobody_suffered() -> None:
    effect, moved = Effect(client=None, signal="vacuum_workers"), a_frame("vacuum_workers", 0.0, 2.0)
    assert judged(effect, requests(0.012), moved, negative=True).passed
    assert not judged(effect, requests(0.03), moved, negative=True).passed
    assert not judged(effect, requests(0.01, failing=0.03), moved, negative=True).passed
    assert not judged(effect, requests(0.01), a_frame("vacuum_workers", 0.0, 0.0), negative=True).passed


def test_a_hard_negative_whose_work_ended_with_an_error_did_not_take_place() -> None:
    verdict = judged(Effect(client=None), requests(0.01), negative=True, failed="DeadlockDetectedError: deadlock")
    assert not verdict.passed
    assert verdict.sentence.endswith("it did not take place: DeadlockDetectedError: deadlock.")


def test_without_requests_nothing_is_known() -> None:
    none = Requests.none()
    assert judged(Effect(), none).client_factor is None
    assert not judged(Effect(), none, negative=True).passed


def test_a_request_belongs_to_the_moment_it_was_due_and_its_answer_to_the_moment_it_came() -> None:
    lines = [
        "scheduled_unix,kind,latency_seconds,outcome\n",
        "10.2,a,0.1,ok\n",
        "10.1,a,2.5,timeout\n",
        "11.0,b,junk,ok\n",
    ]
    found = parse([*lines, "11.5,a,0.0"])
    seconds = per_second(found, 10.0, 13.0)
    assert len(found) == 2
    assert seconds.p50[0] == pytest.approx(1.3)
    assert np.isnan(seconds.p50[1])
    assert seconds.answered.tolist() == [1, 0, 0]
    assert seconds.failed.tolist() == [0, 0, 1]
    track = client_track(found, np.array([10.0, 10.15, 10.3, 10.65]))
    assert track.failed_share.tolist() == pytest.approx([np.nan, 1.0, 0.5, 0.0], nan_ok=True)


def test_a_hard_negative_of_two_seconds_took_place_although_its_mean_hardly_moved() -> None:
    times = np.arange(PARTS.normal, PARTS.ended)
    values = np.where((times >= 1040) & (times < 1042), 2.0, 0.0)[:, None]
    short = Frame(("lock_waiters",), times, values, np.ones_like(values, dtype=bool), 1.0)
    effect = Effect(client=None, signal="lock_waiters")
    assert judged(effect, requests(0.01), short, negative=True).passed
    assert not judged(effect, requests(0.01), short).passed
