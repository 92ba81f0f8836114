"""Targets of the budget: a metric of the evaluations in a simulation, loss or error in the pushes everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from pydantic import ValidationError

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Scenario
from tests.backends.scenarios import QUADRATIC, TIMING
from tests.backends.scenarios import scenario as of_backends

from . import own_classes

OWN = {"name": "own", "task": f"{own_classes.__name__}:Plain", "optimizer": {"name": "SGD", "lr": 0.1}}
EVERY_20 = {"every_minibatches": 20}


def stated(backend: Any, target: dict[str, Any], **parts: Any) -> Scenario:
    budget = {"minibatches": 3000, "target": target, "target_window": 20}
    return of_backends(**{"task": OWN, "workers": 2, "backend": backend, "budget": budget, **parts})


@pytest.mark.parametrize(
    "target",
    [
        {"split": "test", "metric": "accuracy", "above": 0.85},
        {"split": "other", "metric": "loss", "below": 0.5},
    ],
)
def test_a_simulation_ends_at_the_first_evaluation_that_reaches_the_target(
    tmp_path: Path, target: dict[str, Any]
) -> None:
    summary = execute(stated("sim", target, evaluate=EVERY_20), tmp_path / "run")
    rows = parquet.read_table(tmp_path / "run" / "evals.parquet").to_pylist()
    values = [row["value"] for row in rows if (row["split"], row["metric"]) == (target["split"], target["metric"])]
    met = [value >= target["above"] if "above" in target else value <= target["below"] for value in values]
    assert met[-2:] == [True, True], "the evaluation that ended the run, and that of the end"
    assert not any(met[:-2])
    assert len(met) > 2
    assert summary["minibatches"] < 3000
    assert summary["status"] == "done"


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
@pytest.mark.parametrize("metric", ["loss", "error"])
def test_loss_and_error_in_the_pushes_end_a_run_on_every_backend(tmp_path: Path, backend: str, metric: str) -> None:
    target = {"split": "train", "metric": metric, "below": 0.6 if metric == "loss" else 0.2}
    summary = execute(stated(backend, target), tmp_path / "run")
    assert 20 <= summary["minibatches"] < 3000
    rows = parquet.read_table(tmp_path / "run" / "minibatches.parquet").to_pylist()
    last = sorted(rows, key=lambda row: row["time_s"])[-40:]
    assert sum(row[metric] for row in last) / len(last) < 1.5 * target["below"]  # type: ignore[operator]


def test_a_metric_that_no_evaluation_has_is_told_at_the_start(tmp_path: Path) -> None:
    target = {"split": "test", "metric": "acuracy", "above": 0.9}
    with pytest.raises(
        ScenarioError, match="they have: test accuracy, test error, test loss, other accuracy"
    ) as caught:
        execute(stated("sim", target, evaluate=EVERY_20), tmp_path / "run")
    assert caught.value.key == "budget.target"


@pytest.mark.parametrize(
    ("target", "parts", "message"),
    [
        ({"split": "test", "metric": "loss"}, {}, "give exactly one of below and above"),
        ({"split": "test", "metric": "loss", "below": 1.0, "above": 0.0}, {}, "give exactly one of below and above"),
        ({"split": "train", "metric": "f1", "below": 1.0}, {}, "must be loss or error with split train"),
        ({"split": "train", "metric": "loss", "above": 1.0}, {}, "whose loss and error fall; give below"),
        ({"split": "test", "metric": "loss", "below": 1.0}, {}, "needs evaluations of the server's parameters"),
        (
            {"split": "test", "metric": "loss", "below": 1.0}, {"backend": "process", "evaluate": EVERY_20},
            "must be train with backend process, which evaluates after the run; or use sim",
        ),
        ({"split": "train", "metric": "error", "below": 0.1}, {"task": QUADRATIC}, "must be loss with task quadratic"),
        ({"split": "train", "metric": "loss", "below": 0.1}, {"task": TIMING}, "which learns nothing; remove it"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_observed_is_refused(
    target: dict[str, Any], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        stated(parts.pop("backend", "sim"), target, **parts)
