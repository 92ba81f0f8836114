"""Every push has its apply rows and every apply row its push, by client, incarnation and round, on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Scenario
from tests.whole import sample

from .scenarios import QUADRATIC, scenario

KEY = ["client", "incarnation", "round"]
ALGORITHMS: list[dict[str, Any]] = [
    {"name": "asgd", "n_sync": 3},
    {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 2},
    {"name": "ssp", "n_sync": 2, "bound": 1},
    {"name": "sync_sgd", "n_sync": 2},
]
BUDGETS: list[dict[str, Any]] = [{"minibatches": 61}, {"updates": 13}, {"seconds": 0.4}]
KILL = {"name": "kill", "worker": 1, "at_s": 0.11, "repair_s": 0.05}
CASES = [
    (backend, algorithm, budget, dies)
    for backend in ("inline", "sim", "process")
    for algorithm in ALGORITHMS
    for budget in BUDGETS
    for dies in (False, True)
    if not (backend == "inline" and (dies or "seconds" in budget))
]


def stated(backend: str, algorithm: dict[str, Any], budget: dict[str, Any], dies: bool) -> Scenario:
    more: dict[str, Any] = {"faults": {"schedule": [KILL], "on_death": "restart"}} if dies else {}
    device = {"name": "process", "device": "emulated"} if backend == "process" else backend
    return scenario(
        task=QUADRATIC, algorithm=algorithm, budget=budget, workers=3, backend=device,
        hardware={"compute": {"step_s": 0.01}}, **more,
    )  # fmt: skip


@pytest.mark.parametrize(("backend", "algorithm", "budget", "dies"), sample(CASES, 16))
def test_pushes_and_their_applications_are_joined_without_a_rest(
    tmp_path: Path, backend: str, algorithm: dict[str, Any], budget: dict[str, Any], dies: bool
) -> None:
    summary = execute(stated(backend, algorithm, budget, dies), tmp_path / "run")
    effects = tables.read(tmp_path / "run", "effects")
    of_workers = effects[effects["worker"] >= 0]
    assert (of_workers["client"] == of_workers["worker"]).all()
    assert (effects["incarnation"] >= 1).all()
    assert set(effects["client"]) <= {0, 1, 2}
    pushes, applies = (effects[effects["kind"] == kind].set_index(KEY) for kind in ("push", "apply"))
    assert not pushes.index.has_duplicates
    assert not applies.index.has_duplicates
    assert len(applies) == summary["pushes"], "the one that ends the run and those that are dropped too"
    lost = pushes.index.difference(applies.index)
    assert len(lost) == 0, f"{lost} were answered and never applied"
    for column in ("version", "staleness", "steps"):
        assert (pushes[column] == applies[column].loc[pushes.index]).all(), column
    unheard = applies.index.difference(pushes.index)  # who died, or was told to leave, heard no answer
    if backend == "inline":
        assert len(unheard) == 0
    dropped = applies[applies["version"] < 0]
    assert len(dropped) == summary["dropped"]
    assert (dropped["staleness"] >= 0).all()
    counted = applies[applies["version"] >= 0]["staleness"].value_counts()
    assert {str(value): int(count) for value, count in counted.items()} == summary["staleness"]["histogram"]


@pytest.mark.parametrize("independent", [False, True])
def test_of_several_servers_each_has_its_row_of_every_push(tmp_path: Path, independent: bool) -> None:
    server = {"count": 2, "push_s": 0.001, "independent": independent}
    stated = scenario(
        task={**QUADRATIC, "curvature": [1.0, 4.0]}, algorithm=ALGORITHMS[0], budget={"minibatches": 60}, workers=3,
        backend="sim", hardware={"compute": {"step_s": 0.01}, "server": server},
    )  # fmt: skip
    summary = execute(stated, tmp_path / "run")
    applies = tables.read(tmp_path / "run", "effects").query("kind == 'apply'")
    each = summary["pushes"] // 2 if independent else summary["pushes"]  # a push to independent servers is one to each
    assert applies.groupby("shard").size().to_dict() == {0: each, 1: each}
    assert not pd.MultiIndex.from_frame(applies[[*KEY, "shard"]]).has_duplicates
