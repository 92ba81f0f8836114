"""A cause that changes nothing is rarely called significant."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asgd_lab.backends.run import execute
from asgd_lab.counterfactual.settings import Settings
from asgd_lab.counterfactual.study import explain
from tests.backends.scenarios import scenario

STUDIES, SEEDS = 40, 10
TASK = {
    "name": "quadratic", "curvature": [1.0, 0.3], "noise": 1.0, "start": 0.1,
    "optimizer": {"name": "SGD", "lr": 0.2, "momentum": 0.5},
}  # fmt: skip


def test_a_placebo_is_called_significant_in_at_most_a_twentieth_of_the_studies(tmp_path: Path) -> None:
    """Each worker has the data of the next one: other bits, the same distribution. No study shares a seed."""
    stated = scenario(
        task=TASK, workers=3, algorithm={"name": "asgd", "n_sync": 1}, backend="sim", budget={"minibatches": 9}
    )
    execute(stated, tmp_path / "run")
    together = explain(tmp_path / "run", Settings(causes=("placebo",), seeds=STUDIES * SEEDS))
    called = []
    for _, frame in together.frame.groupby(together.frame["seed"] // SEEDS):
        (effect,) = dataclasses.replace(together, frame=frame).effects
        assert effect.estimate.n == SEEDS
        assert effect.estimate.mean != 0, "the placebo changes the bits"
        called.append(effect.is_significant)
    assert len(called) == STUDIES
    assert sum(called) <= STUDIES * 0.05
