"""The response to doses on the noisy quadratic against its closed form: a linear recurrence with delays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from asgd_lab.backends.run import execute
from asgd_lab.counterfactual.settings import Settings
from asgd_lab.counterfactual.study import explain
from tests.backends.scenarios import scenario

WORKERS, LR, CURVATURE, PUSHES = 4, 0.3, 1.0, 60


def recorded(out: Path, noise: float, coordinates: int, momentum: float = 0.0) -> None:
    task = {
        "name": "quadratic", "curvature": [CURVATURE] * coordinates, "noise": noise,
        "optimizer": {"name": "SGD", "lr": LR, "momentum": momentum},
    }  # fmt: skip
    stated = scenario(
        task=task, workers=WORKERS, algorithm={"name": "asgd", "n_sync": 1, "rule": ["add"]},
        budget={"minibatches": PUSHES}, backend="sim", hardware={"compute": {"step_s": 0.001}},
    )  # fmt: skip
    execute(stated, out)


def with_delay(rate: float, delay: int, versions: int) -> npt.NDArray[np.float64]:
    """w(0..versions) of w(t+1) = w(t) - rate w(t - delay), from 1 at all times up to 0.

    Its closed form: the sum of c z^t over the roots z of z^(delay+1) - z^delay + rate.
    """
    roots = np.roots([1.0, -1.0, *[0.0] * (delay - 1), rate]) if delay else np.array([1.0 - rate])
    powers = roots[None, :] ** np.arange(-delay, 1)[:, None]
    weights = np.linalg.solve(powers, np.ones(delay + 1))
    return np.real(roots[None, :] ** np.arange(versions + 1)[:, None] @ weights)


def answered(rate: float, delay: int, versions: int) -> npt.NDArray[np.float64]:
    """The response of version t to a unit step at version 0, t from 1 to `versions`."""
    found = np.zeros(versions + delay + 1)  # shifted by the delay
    found[delay] = 1.0
    for t in range(delay, versions + delay):
        found[t + 1] = found[t] - rate * found[t - delay]
    return found[delay : delay + versions]


def test_without_noise_doses_1_and_0_are_the_solutions_of_the_recurrence(tmp_path: Path) -> None:
    """Workers of one speed take turns, and each push is stale by those of all others."""
    recorded(tmp_path / "run", noise=0.0, coordinates=1)
    found = explain(tmp_path / "run", Settings(doses=(1.0, 0.0), seeds=1, rates=(0.25, 0.5, 1.0)))
    assert found.frame["staleness"].max() == pytest.approx(WORKERS - 1, rel=0.05)
    for rate in (0.25, 0.5, 1.0):
        a = LR * rate * CURVATURE
        expected = {dose: with_delay(a, delay, PUSHES)[-1] ** 2 / 2 for dose, delay in ((1.0, WORKERS - 1), (0.0, 0))}
        for dose, loss in expected.items():
            # Rounding of float32 is 6e-8 a step, and the last steps are small beside the first parameters.
            assert found.values("staleness", dose, rate)[0] == pytest.approx(loss, rel=1e-3, abs=1e-13)


def test_with_noise_the_effect_is_that_of_the_closed_form(tmp_path: Path) -> None:
    """E w(T)^2 is the square of its mean, and the noise of each step times the square of the response to it."""
    noise, coordinates = 0.5, 2000
    recorded(tmp_path / "run", noise, coordinates)
    found = explain(tmp_path / "run", Settings(doses=(1.0, 0.0), seeds=4))
    expected = {}
    for dose, delay in ((1.0, WORKERS - 1), (0.0, 0)):
        mean = with_delay(LR * CURVATURE, delay, PUSHES)[-1]
        variance = LR**2 * noise * np.sum(answered(LR * CURVATURE, delay, PUSHES) ** 2)
        expected[dose] = coordinates * CURVATURE * (mean**2 + variance) / 2
        values = [*found.values("staleness", dose, 1.0).values()]
        assert np.mean(values) == pytest.approx(expected[dose], rel=0.06)  # 4 standard errors of a variance of 8,000
    (effect,) = found.effects
    assert effect.is_significant
    assert effect.estimate.mean == pytest.approx(expected[1.0] - expected[0.0], rel=0.12)
