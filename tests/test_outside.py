"""Algorithms that a user brings run on every backend, under the same properties, and repeat to the bit.

The modules in `tests/outside` are what a user would write: from outside of the package, named as package.module:Name.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.backends.scenarios import QUADRATIC, scenario
from tests.whole import sample

OUTSIDE = "tests.outside"
DC = [{"name": f"{OUTSIDE}.delay_compensated:DelayCompensated"}, {"name": "sgd", "lr": 0.02}]
STREAMING = {"name": f"{OUTSIDE}.streaming:Streaming", "n_sync": 3, "rule": ["mean"]}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ringmaster": {"name": f"{OUTSIDE}.ringmaster:Ringmaster", "n_sync": 2, "limit": 2},
    "ringmaster with stops": {"name": f"{OUTSIDE}.ringmaster_stops:RingmasterStops", "n_sync": 4, "limit": 1},
    "k-sync": {"name": f"{OUTSIDE}.k_sync:KSync", "n_sync": 2, "k": 2, "rule": ["mean"]},
    "fedbuff": {"name": f"{OUTSIDE}.fedbuff:FedBuff", "n_sync": 2, "k": 3, "rule": ["add"]},
    "delay-compensated": {"name": "asgd", "n_sync": 1, "push": "gradient", "rule": DC},
    "top-k": {"name": "asgd", "n_sync": 2, "codec": {"name": f"{OUTSIDE}.top_k:TopK", "share": 0.3}},
    "dylu": {"name": f"{OUTSIDE}.dylu:DyLU", "n_sync": 6},
    "streaming": STREAMING,
}
LINES = {  # of a module, at most
    "ringmaster": 28, "ringmaster_stops": 40, "k_sync": 28, "fedbuff": 28, "delay_compensated": 30, "dylu": 25,
    "top_k": 60, "streaming": 60,
}  # fmt: skip
BUDGET = 120


TASK = {**QUADRATIC, "optimizer": {"name": "SGD", "lr": 0.1}}


def stated(name: str, backend: str, workers: int) -> Scenario:
    return scenario(
        algorithm=ALGORITHMS[name], backend=backend, workers=workers, budget={"minibatches": BUDGET}, task=TASK
    )


@pytest.mark.parametrize(
    ("name", "backend", "workers"),
    sample(itertools.product(ALGORITHMS, ["inline", "sim", "process"], [1, 2, 3, 4]), 32),
)
def test_a_users_algorithm_keeps_the_properties_of_all(name: str, backend: str, workers: int, tmp_path: Path) -> None:
    summary = execute(stated(name, backend, workers), tmp_path / "run")
    assert summary["status"] == "done"
    assert [line for line in summary["warnings"] if "no clock" in line] == [] or (name, backend) == ("dylu", "inline")
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


def _final(tmp_path: Path, algorithm: dict[str, Any], workers: int) -> list[float]:
    name, minibatches = f"{len(list(tmp_path.iterdir()))}", 30 * workers
    keys = {"algorithm": algorithm, "backend": "inline", "workers": workers, "budget": {"minibatches": minibatches}}
    summary = execute(scenario(**keys, task=TASK), tmp_path / name)
    assert summary["minibatches"] == minibatches
    return final_params(tmp_path / name).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("rule", [["mean"], ["mean", {"name": "momentum", "beta": 0.9, "nesterov": True}]])
def test_streaming_one_fragment_without_delay_and_mixing_is_diloco(
    rule: list[Any], workers: int, tmp_path: Path
) -> None:
    """Douillard et al. 2025, section 2: P = 1, tau = 0, alpha = 0 is DiLoCo (2023, Algorithm 1), here in lock-step."""
    whole = STREAMING | {"parts": 1, "delay": 0, "alpha": 0.0, "rule": rule}
    lock_step = {"name": "sync_sgd", "n_sync": 3, "rule": rule}
    assert _final(tmp_path, whole, workers) == _final(tmp_path, lock_step, workers)


def test_streaming_with_one_worker_is_its_local_optimizer(tmp_path: Path) -> None:
    """The sum of its updates is what the replica is already."""
    streamed = _final(tmp_path, STREAMING | {"delay": 0, "alpha": 0.0}, 1)
    assert streamed == pytest.approx(_final(tmp_path, {"name": "asgd", "n_sync": 3, "rule": ["add"]}, 1), abs=1e-5)


@pytest.mark.parametrize("module", LINES)
def test_adding_an_algorithm_takes_few_lines(module: str) -> None:
    text = (Path(__file__).parent / "outside" / f"{module}.py").read_text()
    assert len(text.splitlines()) <= LINES[module]
