"""Stability under delay, and the risk of the noisy quadratic: what the arithmetic of runs must come to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from asgd_lab.tasks import expected_loss
from tests.backends.sim.laws import accept, normal_p
from tests.backends.virtual import scenario, simulate


def growth(
    workers: int, n_sync: int, step: float, scaled: bool = False, versions: int = 1200, name: str = "asgd"
) -> float:
    """By what factor a version changes the parameter, of a noiseless quadratic with lr*h = `step`, in the long run.

    The workers are identical and deterministic, so that they go round robin with a delay of M - 1 versions. The rate is
    that of the root mean square over windows of several periods, in the second half of the run.
    """
    task = {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": step}}
    algorithm = {"name": name, "n_sync": n_sync, "rule": ["scale" if scaled else "add"]}
    stated = scenario(
        task, algorithm, workers, {"updates": versions},
        evaluate={"every_minibatches": n_sync}, hardware={"compute": {"step_s": 0.001}},
    )  # fmt: skip
    run = simulate(stated)
    rows = [row for row in run.simulation.record.evals if row[3] == "server"]  # type: ignore[attr-defined]
    losses = np.array([value for *_, value in rows])[: versions + 1]
    window = versions // 4
    early, late = losses[-2 * window : -window].mean(), losses[-window:].mean()
    return float((late / early) ** (0.5 / window))


def dominant_root(workers: int, a: float) -> float:
    """The largest modulus of the roots of z^(t+1) = z^t - a with t = M - 1: w+ = w - a*w_{-t}."""
    polynomial = [1.0, -1.0, *[0.0] * (workers - 2), a] if workers > 1 else [1.0, a - 1.0]
    return float(np.abs(np.roots(polynomial)).max())


def critical(workers: int) -> float:
    """Constant delay on a quadratic: stable iff a < 2 sin(pi / (2(2t+1))), t = M - 1."""
    return 2 * math.sin(math.pi / (2 * (2 * workers - 1)))


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 40])
def test_the_stability_bound_is_where_the_characteristic_roots_leave_the_unit_circle(workers: int) -> None:
    """Constant delay on a quadratic itself, before runs are held against it."""
    assert dominant_root(workers, critical(workers)) == pytest.approx(1, abs=1e-9)
    assert dominant_root(workers, 0.999 * critical(workers)) < 1 < dominant_root(workers, 1.001 * critical(workers))


@pytest.mark.parametrize(("workers", "n_sync"), [(2, 1), (3, 1), (4, 2), (8, 1), (8, 5)])
def test_whole_deltas_in_round_robin_are_stable_just_below_the_bound_and_unstable_just_above(
    workers: int, n_sync: int
) -> None:
    """Stable iff 1 - (1 - lr*h)^n < 2 sin(pi / (2(2M-1))); the growth rate is that of the largest root."""
    for factor in (0.97, 1.03):
        a = factor * critical(workers)
        assert a < 1 or n_sync == 1
        step = 1 - (1 - a) ** (1 / n_sync) if n_sync > 1 else a
        rate = growth(workers, n_sync, step)
        assert (rate < 1) == (factor < 1)
        assert rate == pytest.approx(dominant_root(workers, a), abs=3e-4)


@pytest.mark.parametrize(("workers", "n_sync"), [(1, 1), (2, 1), (2, 3)])
def test_overlap_delays_by_a_round_more_and_is_stable_up_to_the_bound_of_twice_the_workers(
    workers: int, n_sync: int
) -> None:
    """Downpour on a free network: each center was asked for a round before, so that the delay is 2M - 1 versions."""
    for factor in (0.97, 1.03):
        a = factor * critical(2 * workers)
        step = 1 - (1 - a) ** (1 / n_sync) if n_sync > 1 else a
        rate = growth(workers, n_sync, step, name="downpour")
        assert (rate < 1) == (factor < 1)
        assert rate == pytest.approx(dominant_root(2 * workers, a), abs=3e-4)


@pytest.mark.parametrize("n_sync", [1, 4])
def test_deltas_divided_by_the_workers_are_stable_where_whole_deltas_are_not(n_sync: int) -> None:
    """Pushing delta/M is stable for every lr*h <= 1, and for even n; 1.9 with n = 1 and M = 8 is not."""
    assert growth(8, n_sync, 0.5, scaled=True, versions=400) < 1 < growth(8, n_sync, 0.5, versions=400)
    assert growth(8, n_sync, 1.0, scaled=True, versions=400) < 1
    assert (growth(8, n_sync, 1.9, scaled=True, versions=400) < 1) == (n_sync == 4)


def test_the_risk_of_plain_sgd_on_the_noisy_quadratic_is_the_closed_form() -> None:
    """Noisy quadratic (Zhang et al. 2019), through a whole simulated run: many equal coordinates are as many runs.

    Each coordinate is Gaussian with known mean and variance: the sum of squared standard scores is chi-square with P
    degrees of freedom; the risk itself by z, the variance of a squared Gaussian being 2*s^4 + 4*m^2*s^2.
    """
    h, noise, batch, lr, steps, P = 0.5, 2.0, 4, 0.3, 12, 4000
    task = {
        "name": "quadratic", "curvature": [h] * P, "noise": noise, "batch_size": batch,
        "optimizer": {"name": "SGD", "lr": lr},
    }  # fmt: skip
    run = simulate(scenario(task, {"name": "sgd", "n_sync": 3}, 1, {"minibatches": steps}))
    assert run.outcome.params is not None
    params = run.outcome.params.astype(float)
    kept = (1 - lr * h) ** steps
    variance = (1 - kept**2) * lr * noise / (batch * h * (2 - lr * h))
    assert expected_loss([h], noise, batch, lr, steps) == pytest.approx(0.5 * h * (kept**2 + variance))
    score = float((((params - kept) ** 2) / variance).sum())
    accept(2 * min(stats.chi2(P).cdf(score), stats.chi2(P).sf(score)))
    deviation = 0.5 * h * math.sqrt(P * (2 * variance**2 + 4 * kept**2 * variance))
    accept(normal_p(run.outcome.final["test_loss"], expected_loss([h] * P, noise, batch, lr, steps), deviation))
