"""Algorithms that a user brings run on every backend, under the same properties, and repeat to the bit.

The modules in `tests/outside` are what a user would write: from outside of the package, named as package.module:Name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Scenario
from tests.backends.scenarios import QUADRATIC, scenario

OUTSIDE = "tests.outside"
DC = [{"name": f"{OUTSIDE}.delay_compensated:DelayCompensated"}, {"name": "sgd", "lr": 0.02}]
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ringmaster": {"name": f"{OUTSIDE}.ringmaster:Ringmaster", "n_sync": 2, "limit": 2},
    "ringmaster with stops": {"name": f"{OUTSIDE}.ringmaster_stops:RingmasterStops", "n_sync": 4, "limit": 1},
    "k-sync": {"name": f"{OUTSIDE}.k_sync:KSync", "n_sync": 2, "k": 2, "rule": ["mean"]},
    "fedbuff": {"name": f"{OUTSIDE}.fedbuff:FedBuff", "n_sync": 2, "k": 3, "rule": ["add"]},
    "delay-compensated": {"name": "asgd", "n_sync": 1, "push": "gradient", "rule": DC},
    "top-k": {"name": "asgd", "n_sync": 2, "codec": {"name": f"{OUTSIDE}.top_k:TopK", "share": 0.3}},
    "dylu": {"name": f"{OUTSIDE}.dylu:DyLU", "n_sync": 6},
}
LINES = {  # of a module, at most
    "ringmaster": 28, "ringmaster_stops": 40, "k_sync": 28, "fedbuff": 28, "delay_compensated": 30, "dylu": 25,
    "top_k": 60,
}  # fmt: skip
BUDGET = 120


TASK = {**QUADRATIC, "optimizer": {"name": "SGD", "lr": 0.1}}


def stated(name: str, backend: str, workers: int) -> Scenario:
    return scenario(
        algorithm=ALGORITHMS[name], backend=backend, workers=workers, budget={"minibatches": BUDGET}, task=TASK
    )


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_users_algorithm_keeps_the_properties_of_all(name: str, backend: str, workers: int, tmp_path: Path) -> None:
    summary = execute(stated(name, backend, workers), tmp_path / "run")
    assert summary["status"] == "done"
    assert summary["minibatches"] == BUDGET, "the budget is exact: what is dropped or stopped is taken again"
    effects = tables.read(tmp_path / "run", "effects")
    applied = effects[(effects["kind"] == "apply") & (effects["version"] > 0)]
    versions = sorted(applied["version"].unique())
    assert versions == list(range(1, summary["updates"] + 1)), "versions grow by one"
    ends = effects[effects["kind"] == "apply"]
    assert not ends.duplicated(["client", "incarnation", "round"]).any(), "a push ends once"
    assert applied["steps"].sum() == BUDGET
    if backend == "process":
        verdict = repeat(stated(name, backend, workers), tmp_path / "run")
        assert verdict.difference is None


@pytest.mark.parametrize("module", LINES)
def test_adding_an_algorithm_takes_few_lines(module: str) -> None:
    text = (Path(__file__).parent / "outside" / f"{module}.py").read_text()
    assert len(text.splitlines()) <= LINES[module]
