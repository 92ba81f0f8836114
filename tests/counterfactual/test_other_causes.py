"""Causes beside staleness: what is left without each is what theory and another run say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.run import execute
from asgd_lab.counterfactual.settings import Settings
from asgd_lab.counterfactual.study import explain
from asgd_lab.errors import ScenarioError
from tests.backends.scenarios import scenario
from tests.whole import sample

WORKERS, LR, ROUNDS = 4, 0.2, 10
EVEN = {"backend": "sim", "hardware": {"compute": {"step_s": 0.001}}, "workers": WORKERS}


def task(noise: float = 0.0, **optimizer: Any) -> dict[str, Any]:
    return {
        "name": "quadratic", "curvature": [1.0, 0.25], "noise": noise,
        "optimizer": {"name": "SGD", "lr": LR, **optimizer},
    }  # fmt: skip


def without(out: Path, cause: str) -> float:
    found = explain(out, Settings(causes=(cause,), seeds=1))
    return found.values(cause, 0.0, 1.0)[0]


def test_in_lock_step_an_even_run_is_synchronous_sgd_of_the_same_minibatches(tmp_path: Path) -> None:
    parts = {**EVEN, "task": task(noise=0.5), "budget": {"minibatches": WORKERS * ROUNDS}}
    execute(scenario(**parts, algorithm={"name": "asgd", "n_sync": 1}), tmp_path / "asgd")
    sync = execute(scenario(**parts, algorithm={"name": "sync_sgd", "n_sync": 1}), tmp_path / "sync")
    assert without(tmp_path / "asgd", "lock-step") == pytest.approx(sync["final"]["test_loss"], rel=1e-5)


def test_without_drift_a_round_is_one_step_at_n_sync_times_the_rate(tmp_path: Path) -> None:
    n_sync, rounds = 5, 6
    parts = {**EVEN, "workers": 1, "task": task(), "budget": {"minibatches": n_sync * rounds}}
    execute(scenario(**parts, algorithm={"name": "asgd", "n_sync": n_sync}), tmp_path / "run")
    expected = sum(h * (1 - n_sync * LR * h) ** (2 * rounds) / 2 for h in (1.0, 0.25))
    assert without(tmp_path / "run", "drift") == pytest.approx(expected, rel=1e-5, abs=1e-13)


def test_without_drift_rounds_of_one_minibatch_stay_as_they_are(tmp_path: Path) -> None:
    parts = {**EVEN, "task": task(noise=0.5, momentum=0.9), "budget": {"minibatches": 40}}
    summary = execute(scenario(**parts, algorithm={"name": "asgd", "n_sync": 1}), tmp_path / "run")
    assert without(tmp_path / "run", "drift") == summary["final"]["test_loss"]


@pytest.mark.parametrize(("recorded", "other"), [("keep", "reset"), ("reset", "keep")])
def test_momentum_is_reset_or_kept_against_the_record(tmp_path: Path, recorded: str, other: str) -> None:
    """The order of an even simulation does not depend on the optimizer, so the other run has the same one."""
    parts = {**EVEN, "task": task(noise=0.5, momentum=0.9), "budget": {"minibatches": 60}}
    for momentum in (recorded, other):
        algorithm = {"name": "asgd", "n_sync": 3, "momentum_at_fetch": momentum}
        execute(scenario(**parts, algorithm=algorithm), tmp_path / momentum)
    found = explain(tmp_path / other, Settings(causes=("drift",), seeds=1))
    assert without(tmp_path / recorded, "momentum") == found.values("staleness", 1.0, 1.0)[0]


def test_equal_shares_change_nothing_where_shares_are_equal(tmp_path: Path) -> None:
    parts = {**EVEN, "task": task(noise=0.5), "algorithm": {"name": "asgd", "n_sync": 1}, "budget": {"minibatches": 48}}
    even = execute(scenario(**parts), tmp_path / "even")
    assert without(tmp_path / "even", "shares") == even["final"]["test_loss"]


def test_a_waterfall_ends_at_synchronous_sgd_and_its_parts_add_up(tmp_path: Path) -> None:
    parts = {**EVEN, "task": task(noise=0.5), "budget": {"minibatches": WORKERS * 30}}
    execute(scenario(**parts, algorithm={"name": "asgd", "n_sync": 3}), tmp_path / "run")
    found = explain(tmp_path / "run", Settings(causes=("waterfall",), seeds=3))
    record, end = found.values("staleness", 1.0, 1.0), found.values("lock-step+drift", 0.0, 1.0)
    whole = sum(record[seed] - end[seed] for seed in record) / 3
    assert sum(each.mean for each in found.waterfall(1.0).values()) == pytest.approx(whole)
    assert any("less synchronous SGD of the same minibatches" in line for line in found.lines)


NOT_ONE_PUSH: dict[str, dict[str, Any]] = {
    "sync": {"algorithm": {"name": "sync_sgd", "n_sync": 2}},
    "ssp": {"algorithm": {"name": "ssp", "n_sync": 2, "bound": 1}},
    "fedbuff": {"algorithm": {"name": "tests.outside.fedbuff:FedBuff", "n_sync": 2, "k": 3, "rule": ["add"]}},
    "k-sync": {"algorithm": {"name": "tests.outside.k_sync:KSync", "n_sync": 2, "k": 2, "rule": ["mean"]}},
    "ringmaster": {"algorithm": {"name": "tests.outside.ringmaster:Ringmaster", "n_sync": 2, "limit": 1}},
    "streaming": {"algorithm": {"name": "tests.outside.streaming:Streaming", "n_sync": 3, "rule": ["mean"]}},
    "independent servers": {
        "hardware": {"server": {"count": 3, "independent": True}, "compute": {"step_s": 0.001}},
        "algorithm": {"name": "asgd", "n_sync": 2},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sample(NOT_ONE_PUSH, 4))
def test_lock_step_is_refused_where_a_version_is_not_one_push(tmp_path: Path, name: str) -> None:
    execute(scenario(**{**EVEN, "budget": {"minibatches": 40}, **NOT_ONE_PUSH[name]}), tmp_path / "run")
    with pytest.raises(ScenarioError, match="causes: lock-step needs a gate that applies each push at once"):
        explain(tmp_path / "run", Settings(causes=("lock-step",), seeds=1))


def test_a_waterfall_is_refused_where_its_end_is_not_synchronous_sgd(tmp_path: Path) -> None:
    algorithm = {"name": "asgd", "n_sync": 1, "rule": ["scale", {"name": "momentum", "beta": 0.5}]}
    execute(scenario(**EVEN, algorithm=algorithm), tmp_path / "run")
    with pytest.raises(ScenarioError, match="needs pushes that are added one by one"):
        explain(tmp_path / "run", Settings(causes=("waterfall",), seeds=1))
