from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the networks need the extra `train`")

import torch

from kintsugi_ml.detection.meta import encoder, fast, outer
from kintsugi_ml.detection.meta.inner import adapt
from kintsugi_ml.detection.meta.tasks import Task, collate, draw
from kintsugi_ml.detection.protocol import Run
from kintsugi_ml.detection.stack import Examples, Own, blend

KINDS = pytest.mark.parametrize("kind", outer.KINDS, ids=lambda kind: kind.name)


def a_task(signals: int = 8, seed: int = 0, kept: np.ndarray | None = None) -> Task:
    """Examples in which the first two signals are high, and queries of which half are like them."""
    random = np.random.default_rng(seed)
    labels, truth = np.arange(8) < 4, np.arange(20) < 10

    def points(wrong: np.ndarray) -> np.ndarray:
        out = 0.5 * random.standard_normal((len(wrong), signals))
        out[wrong, :2] += 2.0
        return out.astype(np.float32)

    anchors, given, asked = points(np.zeros(20, dtype=np.bool_)), points(labels), points(truth)
    kept = np.arange(signals) if kept is None else kept
    examples = Examples(given[:, kept], np.where(labels, 1.0, -1.0), labels)
    return Task(anchors[:, kept], examples, asked[:, kept], np.zeros(20), truth, np.full(20, 0.05))


def test_untrained_and_without_a_step_it_is_the_shipped_blend() -> None:
    task = a_task()
    found = fast.scores(fast.begin(0), collate([task]), second_order=True, steps=0).detach().numpy()[0]
    # At 15 s a sample nothing is averaged.
    blended = blend(
        task.logits,
        task.points,
        Own.beside(task.anchors, task.examples),
        15.0,
        np.ones(len(task.logits), dtype=np.bool_),
    )
    np.testing.assert_allclose(found, blended, rtol=1e-3, atol=1e-3)


def test_five_inner_steps_lower_the_support_loss() -> None:
    net, batch = fast.begin(0), collate([a_task()])
    ready = fast.prepare(net, batch)
    after = adapt(
        lambda found: fast.support_loss(net, ready, found), ready.start, ready.rates, fast.STEPS, second_order=True
    )
    before = fast.support_loss(net, ready, ready.start).item()
    assert fast.support_loss(net, ready, after).item() < 0.95 * before


def test_first_and_second_order_score_alike_but_have_other_meta_gradients() -> None:
    found = {}
    for second in (True, False):
        net, batch = fast.begin(0), collate([a_task()])
        scores = fast.scores(net, batch, second_order=second)
        scores.square().sum().backward()
        found[second] = (scores.detach().numpy(), net.of_signal[-2].grad.numpy())
    np.testing.assert_allclose(found[True][0], found[False][0], rtol=1e-5)
    assert np.abs(found[True][1] - found[False][1]).max() > 1e-3 * np.abs(found[True][1]).max()


def test_second_order_meta_gradients_are_those_of_torch_func() -> None:
    generator = torch.Generator().manual_seed(0)
    points, truth = torch.randn(6, 3, generator=generator), torch.tensor([0.0, 1, 0, 1, 1, 0])
    start, rate = torch.randn(3, generator=generator), torch.full((3,), 0.7)

    def loss(weights: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(torch.tanh(points @ weights), truth)

    def through(begin: torch.Tensor, speed: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            begin = begin - speed * torch.func.grad(loss)(begin)
        return loss(begin)

    expected = torch.func.grad(through, argnums=(0, 1))(start, rate)
    leaves = [start.clone().requires_grad_(), rate.clone().requires_grad_()]
    (after,) = adapt(lambda found: loss(found[0]), leaves[:1], leaves[1:], 5, second_order=True)
    found = torch.autograd.grad(loss(after), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@KINDS
def test_the_order_of_the_signals_changes_no_score(kind: outer.Kind) -> None:
    net, order = kind.begin(1), np.random.default_rng(3).permutation(8)
    one, other = (kind.scores(net, collate([a_task(kept=kept)])).detach().numpy() for kept in (None, order))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@KINDS
def test_a_batch_of_tasks_of_different_sizes_scores_each_as_if_alone(kind: outer.Kind) -> None:
    net, long = kind.begin(1), a_task(12, seed=2)
    short = replace(long, points=long.points[:7], logits=np.zeros(7), truth=long.truth[:7], weight=long.weight[:7])
    tasks = [a_task(8), a_task(5, seed=1), short]
    together = kind.scores(net, collate(tasks)).detach().numpy()
    for row, task in zip(together, tasks, strict=True):
        alone = kind.scores(net, collate([task])).detach().numpy()[0]
        np.testing.assert_allclose(row[: len(alone)], alone, rtol=1e-3, atol=1e-4)


@KINDS
def test_a_signal_that_tells_nothing_may_be_dropped(kind: outer.Kind) -> None:
    net = kind.begin(1)
    for kept in (np.arange(8), np.arange(7), np.array([0, 2, 5])):
        task = a_task(kept=kept)
        scores = kind.scores(net, collate([task])).detach().numpy()[0]
        assert np.median(scores[task.truth]) > np.max(scores[~task.truth])


@KINDS
@pytest.mark.parametrize("labels", [[True], [True, True, False]])
def test_one_example_and_still_signals_score_finite_and_have_finite_gradients(
    kind: outer.Kind, labels: list[bool]
) -> None:
    task = a_task()
    still = np.zeros_like(task.anchors)
    examples = Examples(np.zeros((len(labels), 8), dtype=np.float32), np.zeros(len(labels)), np.array(labels))
    net = kind.begin(1)
    loss = outer.loss(kind, net, collate([replace(task, anchors=still, examples=examples)]))
    loss.backward()
    assert np.isfinite(loss.item())
    assert all(bool(torch.isfinite(one.grad).all()) for one in net.parameters() if one.grad is not None)


@KINDS
def test_learning_is_the_same_for_the_same_seed_and_lowers_the_loss(kind: outer.Kind, toy_runs: list[Run]) -> None:
    one, again, unlearned = (outer.learn(kind, toy_runs, 0, steps) for steps in (12, 12, 0))
    for first, second in zip(one.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    groups, logits = outer.described(tuple(toy_runs), 0)
    random = np.random.default_rng(9)
    batch = collate([draw(groups, logits, random) for _ in range(24)])
    assert outer.loss(kind, one, batch).item() < outer.loss(kind, unlearned, batch).item()


def test_a_task_is_a_class_on_one_system(a_run: Callable[..., Run]) -> None:
    runs = [
        replace(a_run(f"{group} on {system}/{number}", group, seed=number), system=system)
        for group in ("lock", "disk")
        for system in ("one", "other")
        for number in range(2)
    ]
    expected = {frozenset(run.name for run in runs[2 * each : 2 * each + 2]) for each in range(4)}
    groups, _ = outer.described(tuple(runs), 0)
    assert {frozenset(seen.run.name for seen in group) for group in groups} == expected
    assert {frozenset(run.name for run in group) for group in encoder.tasks(runs)} == expected


def test_no_query_of_a_training_task_is_one_of_its_examples(toy_runs: list[Run]) -> None:
    groups, logits = outer.described(tuple(toy_runs), 0)
    random = np.random.default_rng(0)
    for _ in range(40):
        task = draw(groups, logits, random, spoil=False)
        apart = np.abs(task.points[:, None] - task.examples.points[None]).max(axis=2)
        assert apart.min() > 0
