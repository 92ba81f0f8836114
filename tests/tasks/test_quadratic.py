"""The noisy quadratic obeys its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.tasks import build, expected_loss
from tests.tasks.configs import Optimizer, Quadratic


@given(
    h=st.floats(0.1, 3),
    lr=st.floats(0.01, 0.6),
    noise=st.floats(0, 4),
    batch_size=st.integers(1, 9),
    steps=st.integers(0, 40),
    start=st.floats(-3, 3),
)
def test_the_closed_form_is_that_of_zhang_et_al_2019(
    h: float, lr: float, noise: float, batch_size: int, steps: int, start: float
) -> None:
    kept = (1 - lr * h) ** (2 * steps)
    published = kept * h * start**2 / 2 + (1 - kept) * lr * noise / (2 * batch_size * (2 - lr * h))
    assert expected_loss([h], noise, batch_size, lr, steps, start) == pytest.approx(published, rel=1e-9, abs=1e-12)


def test_at_the_edge_of_stability_noise_gathers_step_by_step() -> None:
    assert expected_loss([2.0], noise=1.0, batch_size=1, lr=1.0, steps=10, start=0.0) == pytest.approx(10.0)


def test_without_noise_a_run_follows_the_closed_form_exactly() -> None:
    task = build(Quadratic(curvature=[1.0, 0.5, 2.0], start=1.5), 0, {})
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(20):
        loss, error = learner.minibatch(step)
        assert loss == pytest.approx(expected_loss([1.0, 0.5, 2.0], 0.0, 1, 0.1, step, 1.5), rel=1e-5)
        assert math.isnan(error)
    assert task.evaluate(params) == [("test", "loss", pytest.approx(learner.minibatch(20)[0], rel=1e-6))]


@pytest.mark.parametrize(("lr", "noise", "batch_size"), [(0.1, 4.0, 1), (1.2, 1.0, 4)])
def test_many_streams_have_the_expected_distribution(lr: float, noise: float, batch_size: int) -> None:
    # Linear in Gaussian noise, each coordinate of each worker is an independent Gaussian of known mean and variance,
    # so their squared deviations are χ² (and the expected loss of Zhang et al. 2019 is those two moments).
    h, steps, start, coordinates, workers = 0.8, 12, 1.0, 40, 150
    config = Quadratic([h] * coordinates, noise, batch_size, start, Optimizer("SGD", {"lr": lr}))
    task = build(config, 11, {})
    finals = []
    for worker in range(workers):
        params = task.initial()
        learner = task.learner(worker, params)
        for step in range(steps):
            learner.minibatch(step)
        finals.append(params.double().numpy())
    sample = np.stack(finals).ravel()
    mean = (1 - lr * h) ** steps * start
    variance = 2 / h * expected_loss([h], noise, batch_size, lr, steps, start) - mean**2
    standardised = (sample - mean) / math.sqrt(variance)
    assert scipy.stats.kstest(standardised, "norm").pvalue > 1e-3
    tail = scipy.stats.chi2(sample.size).cdf(np.sum(standardised**2))
    assert 1e-3 < tail < 1 - 1e-3
    losses = 0.5 * h * np.square(np.stack(finals)).sum(axis=1)
    expected = expected_loss([h] * coordinates, noise, batch_size, lr, steps, start)
    assert scipy.stats.ttest_1samp(losses, expected).pvalue > 1e-3


def test_noise_is_a_function_of_seed_worker_and_step() -> None:
    def run(seed: int, worker: int, step: int) -> list[float]:
        task = build(Quadratic(noise=1.0), seed, {})
        params = task.initial()
        task.learner(worker, params).minibatch(step)
        return params.tolist()

    assert run(0, 1, 2) == run(0, 1, 2)
    assert len({tuple(run(*place)) for place in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]}) == 4


def test_gradients_are_gathered() -> None:
    task = build(Quadratic(noise=0.3), 0, {})
    params, gradients = task.initial(), torch.zeros(2)
    learner = task.learner(0, params, gradients)
    for step in range(5):
        learner.minibatch(step)
    assert torch.allclose(gradients, (task.initial() - params) / 0.1, atol=1e-6)


def test_warming_up_changes_nothing() -> None:
    task = build(Quadratic(noise=1.0, optimizer=Optimizer("SGD", {"lr": 0.1, "momentum": 0.9})), 0, {})

    def run(warm: bool) -> tuple[list[float], list[float]]:
        params, gradients = task.initial(), torch.zeros(2)
        learner = task.learner(0, params, gradients)
        for step in range(4):
            if warm:
                learner.warm_up()
            learner.minibatch(step)
        return params.tolist(), gradients.tolist()

    assert run(warm=True) == run(warm=False)
