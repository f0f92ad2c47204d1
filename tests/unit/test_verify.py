from __future__ import annotations

from collections.abc import Collection

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kintsugi.domain.frame import Floats, Frame
from kintsugi.domain.signals import Catalogue, Hurts, Kind, Role, Signal
from kintsugi.domain.verdict import Outcome, Verdict
from kintsugi.stages.verify import Slo, verify


def a_signal(name: str, component: str, role: Role = Role.SYMPTOM, hurts: Hurts = Hurts.UP) -> Signal:
    return Signal(name, component, "s", Kind.GAUGE, hurts, role, 0.1, f"The {name}.", {})


CATALOGUE = Catalogue(
    "postgresql",
    (
        a_signal("wait", "lock-manager"),
        a_signal("latency", "client"),
        a_signal("errors", "client"),
        a_signal("delay", "replication"),
        a_signal("sync", "wal"),
        a_signal("reads", "buffer-pool", Role.CAUSE),
    ),
)
NAMES = CATALOGUE.names()


class Case:
    """A fault in `wait` and `latency`, an action at second 400, and what came after."""

    def __init__(self, interval: float = 1.0, seconds: int = 120) -> None:
        rng = np.random.default_rng(3)
        self.interval = interval
        self.normal: Floats = rng.normal(5.0, 1.0, size=(300, len(NAMES)))
        self.past: Floats = rng.normal(5.0, 1.0, size=(20, len(NAMES)))
        self.future: Floats = rng.normal(5.0, 1.0, size=(seconds, len(NAMES)))
        self.set(self.past, "wait", 60.0)
        self.set(self.past, "latency", 40.0)

    def set(self, rows: Floats, name: str, value: float, start: int = 0, end: int | None = None) -> Case:
        rows[start:end, NAMES.index(name)] = value
        return self

    def after(self, name: str, value: float, start: int = 0, end: int | None = None) -> Case:
        return self.set(self.future, name, value, start, end)

    def frame(self, values: Floats, start: float) -> Frame:
        times: Floats = np.asarray(start + self.interval * np.arange(len(values)), dtype=np.float64)
        return Frame(NAMES, times, values, ~np.isnan(values), self.interval)

    def at(
        self,
        samples: int,
        evidence: Collection[str] = ("wait", "latency"),
        slo: Slo | None = None,
        window: float = 60.0,
        cascading: Collection[str] = (),
    ) -> Verdict | None:
        elapsed = samples * self.interval
        after = self.frame(self.future[:samples], 2000.0 * self.interval)
        before = self.frame(self.past, 1000.0 * self.interval)
        return verify(before, after, self.frame(self.normal, 0.0), CATALOGUE, evidence, slo, elapsed, window, cascading)


def outcome(verdict: Verdict | None) -> Outcome | None:
    return verdict.outcome if verdict else None


def test_back_in_the_band_for_five_samples_is_healed_and_not_before() -> None:
    case = Case()
    assert [outcome(case.at(n)) for n in (1, 4)] == [None, None]
    assert outcome(case.at(5)) is Outcome.HEALED


def test_the_reasons_have_the_numbers_before_after_and_of_the_reference() -> None:
    verdict = Case().at(10)
    assert verdict is not None
    assert verdict.reasons[0].startswith("wait 1 m before, ")
    assert "normally 5" in verdict.reasons[0]
    assert [m.signal for m in verdict.measures] == ["wait", "latency"]
    assert verdict.measures[0].before == 60.0


def test_it_waits_while_the_effect_may_still_come() -> None:
    case = Case().after("wait", 60.0, end=30)
    assert case.at(30) is None
    assert case.at(33) is None
    assert outcome(case.at(36)) is Outcome.HEALED


def test_what_is_still_out_at_the_end_of_the_window_is_not_healed() -> None:
    verdict = Case().after("wait", 60.0).at(60)
    assert outcome(verdict) is Outcome.NOT_HEALED
    assert verdict is not None
    assert "not back after 1 m" in verdict.reasons[0]


def test_evidence_that_is_back_does_not_heal_while_the_client_still_suffers() -> None:
    verdict = Case().after("latency", 40.0).at(60, evidence=["wait"])
    assert outcome(verdict) is Outcome.NOT_HEALED
    assert verdict is not None
    assert "latency 40 s before" in verdict.reasons[0]


def test_something_else_that_got_clearly_worse_is_harm_even_if_the_evidence_is_back() -> None:
    case = Case().after("delay", 80.0)
    assert case.at(30) is None
    verdict = case.at(60)
    assert outcome(verdict) is Outcome.HARMED
    assert verdict is not None
    assert verdict.reasons[0].startswith("delay 5")
    assert "delay" in {measure.signal for measure in verdict.measures}


def test_noise_and_short_disturbances_are_no_harm() -> None:
    case = Case().after("delay", 80.0, start=2, end=20).after("sync", 9.0)
    assert outcome(case.at(26)) is Outcome.HEALED


def test_what_the_fault_itself_was_going_to_reach_is_not_healed_rather_than_harmed() -> None:
    case = Case().after("wait", 90.0).after("delay", 80.0)
    assert outcome(case.at(60)) is Outcome.HARMED
    assert outcome(case.at(60, cascading=["replication"])) is Outcome.NOT_HEALED


def test_once_the_fault_is_gone_getting_worse_is_the_action_s_doing_whatever_was_forecast() -> None:
    assert outcome(Case().after("delay", 80.0).at(60, cascading=["replication"])) is Outcome.HARMED
    assert outcome(Case().after("latency", 200.0).at(60, cascading=["client"])) is Outcome.HARMED


def test_a_client_far_worse_than_before_is_harm() -> None:
    assert outcome(Case().after("latency", 200.0).at(60)) is Outcome.HARMED
    assert outcome(Case().after("latency", 45.0).at(60)) is Outcome.NOT_HEALED


def test_errors_that_began_after_the_action_are_harm() -> None:
    assert outcome(Case().after("errors", 50.0).at(60)) is Outcome.HARMED


def test_a_cause_that_got_worse_is_no_harm_because_it_hurts_nobody() -> None:
    assert outcome(Case().after("reads", 500.0).at(20)) is Outcome.HEALED


def test_missing_evidence_is_never_success() -> None:
    case = Case().after("wait", np.nan)
    assert case.at(59) is None
    verdict = case.at(60)
    assert outcome(verdict) is Outcome.INCONCLUSIVE
    assert verdict is not None
    assert "only 0 % of its samples" in verdict.reasons[0]


def test_good_samples_that_cover_less_than_half_are_inconclusive() -> None:
    verdict = Case().after("wait", np.nan, end=45).at(60)
    assert outcome(verdict) is Outcome.INCONCLUSIVE


def test_without_any_metrics_after_the_action_it_is_inconclusive() -> None:
    case = Case()
    empty = case.frame(case.future[:0], 2000.0)
    before, reference = case.frame(case.past, 1000.0), case.frame(case.normal, 0.0)
    arguments = (before, empty, reference, CATALOGUE, ["wait"], None)
    assert verify(*arguments, 30.0, 60.0) is None
    assert outcome(verify(*arguments, 60.0, 60.0)) is Outcome.INCONCLUSIVE


def test_metrics_that_stop_after_a_good_start_are_not_success_at_the_end() -> None:
    case = Case().after("wait", 60.0, end=8)
    stopped = case.frame(case.future[:12], 2000.0)
    before, reference = case.frame(case.past, 1000.0), case.frame(case.normal, 0.0)
    verdict = verify(before, stopped, reference, CATALOGUE, ["wait"], None, 60.0, 60.0)
    assert outcome(verdict) is Outcome.INCONCLUSIVE


def test_a_signal_outside_the_evidence_may_vanish() -> None:
    case = Case().after("delay", np.nan).after("sync", np.nan)
    assert outcome(case.at(10)) is Outcome.HEALED


def test_a_signal_that_was_missing_before_can_t_have_got_worse() -> None:
    case = Case().after("delay", 80.0)
    case.set(case.past, "delay", np.nan)
    assert outcome(case.at(10)) is Outcome.HEALED


def test_without_evidence_nothing_is_called_healed() -> None:
    case = Case()
    case.past[:] = case.normal[:20]
    assert case.at(59, evidence=()) is None
    assert outcome(case.at(60, evidence=())) is Outcome.INCONCLUSIVE


def test_causes_in_the_evidence_need_not_come_back_where_symptoms_lead() -> None:
    case = Case().after("reads", 500.0)
    assert outcome(case.at(10, evidence=["wait", "reads"])) is Outcome.HEALED
    assert outcome(case.at(60, evidence=["reads"])) is Outcome.NOT_HEALED


def test_meeting_the_slo_is_as_good_as_being_in_the_band() -> None:
    case = Case().after("latency", 30.0)
    assert case.at(10, evidence=["wait"], slo=("latency", 20.0)) is None
    assert outcome(case.at(10, evidence=["wait"], slo=("latency", 35.0))) is Outcome.HEALED


def test_an_slo_s_signal_that_stopped_arriving_is_inconclusive() -> None:
    case = Case().after("latency", np.nan)
    assert outcome(case.at(60, evidence=["wait"], slo=("latency", 50.0))) is Outcome.INCONCLUSIVE


def test_at_a_long_scrape_interval_fewer_samples_suffice_but_never_one() -> None:
    case = Case(interval=15.0)
    assert [outcome(case.at(n, window=120.0)) for n in (3, 4)] == [None, Outcome.HEALED]
    assert [outcome(case.at(n, window=15.0)) for n in (2,)] == [Outcome.HEALED]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), samples=st.integers(0, 60))
def test_hiding_evidence_never_turns_failure_into_success(seed: int, share: float, samples: int) -> None:
    case = Case().after("wait", 60.0)
    hidden = np.random.default_rng(seed).random(case.future.shape) < share
    case.future[hidden] = np.nan
    assert outcome(case.at(samples)) is not Outcome.HEALED


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), samples=st.integers(0, 60))
def test_any_numbers_whatever_give_a_verdict_or_none(seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    case = Case()
    wild = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e308, -1e308, 1.0], size=case.future.shape)
    case.future = np.where(rng.random(case.future.shape) < 0.5, wild, case.future)
    with np.errstate(all="raise", under="ignore"):
        verdict = case.at(samples)
    assert verdict is None or verdict.reasons
