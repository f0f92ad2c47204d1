"""The real model behind the operator's detector: what it does in a batch it does alone, and no data breaks it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import logit

from kintsugi.domain.anomaly import Anomaly
from kintsugi.domain.experience import LabelKind
from kintsugi.domain.frame import Frame
from kintsugi.shell import models
from kintsugi.stages.learned import LearnedDetector
from kintsugi.stages.ports import LearnedModel, Observed
from kintsugi_dev.judged import NAMES, Database, an_example, now_of

FAULT = {"wait_age": 40.0, "waiters": 40.0}
WIDTH = len(NAMES)


@pytest.fixture(scope="module")
def model() -> LearnedModel:
    return models.load()


def test_the_shipped_model_tells_a_fault_from_quiet(model: LearnedModel) -> None:
    quiet, faulty = Database("quiet", seed=3).observed(5), Database("faulty", seed=3, spoilt=FAULT).observed(5)

    [calm, hurt] = [anomaly.opinion for anomaly, _ in LearnedDetector(model).detect([quiet, faulty], now_of(quiet))]

    assert calm is not None
    assert hurt is not None
    assert calm.probability < calm.threshold <= hurt.probability
    assert {name for name, _ in hurt.unusual} >= {"wait_age", "waiters"}
    assert "wait_age" in hurt.sentence


def test_a_database_is_scored_in_a_batch_as_it_is_alone(model: LearnedModel) -> None:
    observed = [Database(f"db{n}", seed=n, spoilt=FAULT if n % 2 else {}).observed(n % 4) for n in range(12)]

    together = LearnedDetector(model).detect(observed, now_of(observed[-1]))

    for one, (anomaly, _) in zip(observed, together, strict=True):
        [(alone, _)] = LearnedDetector(model).detect([one], now_of(observed[-1]))
        assert anomaly.opinion is not None
        assert alone.opinion is not None
        assert anomaly.opinion.probability == pytest.approx(alone.opinion.probability, abs=1e-5)


def test_an_anomalous_example_raises_the_probability_of_the_same_again(model: LearnedModel) -> None:
    weak = {"wait_age": 8.5, "waiters": 8.5}
    observed = Database(spoilt=weak).observed(6)
    taught, untaught = LearnedDetector(model), LearnedDetector(model)
    taught.hear(observed.uid, [an_example(LabelKind.ANOMALY, weak)])

    [(after, _)], [(before, _)] = (each.detect([observed], now_of(observed)) for each in (taught, untaught))

    def over_threshold(anomaly: Anomaly) -> float:
        """Log odds, because probabilities near 1 hardly differ."""
        assert anomaly.opinion is not None
        return float(logit(anomaly.opinion.probability) - logit(anomaly.opinion.threshold))

    assert over_threshold(after) > over_threshold(before)


def test_serving_needs_none_of_what_training_needs() -> None:
    code = (
        "import sys; from kintsugi.shell import models; models.load();"
        "print([name for name in ('torch', 'sklearn', 'scipy', 'pyarrow', 'higher') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"


def spoilt(observed: Observed, draw: st.DataObject) -> Observed:
    """The same with holes, vanished signals and wild values in reference and recent samples."""

    def holes(frame: Frame, least: int) -> Frame:
        rows = draw.draw(st.integers(least, len(frame)), "rows")
        values = frame.values[-rows:].copy() if rows else frame.values[:0].copy()
        random = np.random.default_rng(draw.draw(st.integers(0, 2**32 - 1), "seed"))
        values[random.random(values.shape) < draw.draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]), "missing")] = np.nan
        for column in draw.draw(st.sets(st.integers(0, WIDTH - 1), max_size=WIDTH), "vanished"):
            values[:, column] = np.nan
        wild = draw.draw(st.sampled_from([0.0, 1.0, -1e300, 1e300, np.inf, -np.inf, 1e-300]), "wild")
        values[random.random(values.shape) < draw.draw(st.sampled_from([0.0, 0.05, 1.0]), "how wild")] = wild
        kept = frame.times[len(frame) - rows :]
        return Frame(frame.signals, kept, values, ~np.isnan(values), frame.interval)

    return replace(observed, reference=holes(observed.reference, 0), recent=holes(observed.recent, 0))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_no_data_makes_a_score_that_is_no_number_or_fails_the_model(draw: st.DataObject, model: LearnedModel) -> None:
    failures: list[Exception] = []
    detector = LearnedDetector(model, failures.append)
    kinds = draw.draw(st.lists(st.sampled_from(list(LabelKind)), max_size=3), "examples")
    detector.hear("uid-db0", [an_example(kind, {"wait_age": 40.0, "latency": float("nan")}) for kind in kinds])
    observed = [
        spoilt(Database(f"db{n}", seed=n, spoilt=FAULT).observed(draw.draw(st.integers(0, 5))), draw) for n in range(2)
    ]

    for _ in range(2):
        verdicts = detector.detect(observed, now_of(Database().observed(5)))
        observed = [replace(one, state=state) for one, (_, state) in zip(observed, verdicts, strict=True)]

        assert failures == []
        for anomaly, _ in verdicts:
            assert 0 <= anomaly.score <= 1
            if anomaly.opinion is not None:
                assert 0 <= anomaly.opinion.probability <= 1
                assert 0 < anomaly.opinion.threshold < 1 or not anomaly.opinion.model
                assert all(np.isfinite(far) for _, far in anomaly.opinion.unusual)
                assert "nan" not in anomaly.opinion.sentence
