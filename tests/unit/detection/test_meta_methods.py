import numpy as np
import pytest

pytest.importorskip("torch", reason="the networks need the extra `train`")

from kintsugi_ml.detection.meta import encoder, methods, reconstruct
from kintsugi_ml.detection.meta.outer import KINDS
from kintsugi_ml.detection.protocol import Method, Run, Source, episode

QUICK = [
    methods.Learner(KINDS[0], steps=10),
    methods.Encoding("fine-tune", lambda runs, seed: encoder.pretrain(runs, seed, 40), encoder.tuned),
    methods.Encoding("ProtoNet", lambda runs, seed: encoder.prototypes(runs, seed, 15), encoder.nearer),
    methods.Encoding("ANIL", lambda runs, seed: encoder.anil(runs, seed, 15), encoder.adapted),
]


@pytest.mark.parametrize("method", QUICK, ids=lambda method: method.name)
def test_every_network_scores_the_anomaly_of_a_class_it_never_saw_higher(method: Method, toy_runs: list[Run]) -> None:
    trained = method.train(toy_runs[3:], 0)
    labels = toy_runs[0].labels
    cases: list[tuple[Source, int]] = [("same", 5), ("other", 1), ("none", 0)]
    for source, k in cases:
        judged = trained.score(episode(toy_runs[0], source, k, 0, toy_runs[:3]))
        assert ((judged.scores > 0) & (judged.scores < 1)).all()
        assert np.median(judged.scores[labels]) > np.quantile(judged.scores[~labels], 0.9)


def test_the_autoencoder_rebuilds_the_anomaly_worse(toy_runs: list[Run]) -> None:
    error = reconstruct.rebuilt(toy_runs[0])
    labels = toy_runs[0].labels
    assert np.median(error[labels]) > np.quantile(error[:25], 0.9)


def test_training_leaves_torch_as_it_was(toy_runs: list[Run]) -> None:
    import torch

    before = torch.get_num_threads(), torch.random.get_rng_state()
    reconstruct.rebuilt(toy_runs[1])
    methods.Learner(KINDS[2], steps=1).train(toy_runs[3:], 0)
    assert torch.get_num_threads() == before[0]
    assert bool((torch.random.get_rng_state() == before[1]).all())
