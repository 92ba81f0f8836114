"""Targets of the budget: a metric of the evaluations in a simulation, loss or error in the pushes everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from pydantic import ValidationError

from asgd_lab.backends.build import build_task, evaluated
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


def masked() -> dict[str, Any]:
    """Samples of seven classes, the first of which have none."""
    labels = torch.arange(60) % 7
    labels[:40] = -100
    inputs = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    return {f"{split}_{part}": each for split in ("train", "test") for part, each in (
        ("images", inputs), ("labels", labels))}  # fmt: skip


def of_numbers() -> dict[str, Any]:
    """Labels that are no classes."""
    return masked() | {f"{split}_labels": torch.rand(60, 7) for split in ("train", "test")}


MLP = {"name": "classification", "model": "mlp", "batch_size": 16, "optimizer": {"name": "SGD", "lr": 0.1}}
EVALUATING: dict[str, dict[str, Any]] = {
    "digits": {**MLP, "dataset": "digits"},
    "BatchNorm": {**MLP, "dataset": "digits", "model": "small"},
    "labels of no class": {**MLP, "dataset": f"{__name__}:masked"},
    "a loss of one's own": {**MLP, "dataset": f"{__name__}:of_numbers", "loss": f"{__name__}:distance"},
    "a bowl": dict(QUADRATIC),
    "a class": OWN,
}


def distance(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (outputs - labels).square().mean()


@pytest.mark.parametrize("name", EVALUATING)
def test_a_check_knows_what_the_evaluations_of_a_run_tell(name: str) -> None:
    stated = of_backends(task=EVALUATING[name], workers=2)
    task = build_task(stated)
    rows = [(split, metric) for split, metric, _ in task.evaluate(task.initial())]
    assert rows
    assert sorted(evaluated(task, torch.device("cpu"))) == sorted(rows)


@pytest.mark.parametrize("key", ["target", "early_stop"])
@pytest.mark.parametrize("name", EVALUATING)
def test_an_unknown_metric_or_split_is_refused_before_the_start_with_what_there_is(name: str, key: str) -> None:
    for split, metric in (("test", "bleu"), ("validation", "loss")):
        limit = {"split": split, "metric": metric, **({"below": 0.1} if key == "target" else {"patience": 3})}
        stated = of_backends(
            task=EVALUATING[name], workers=2, backend="sim", evaluate=EVERY_20, budget={"minibatches": 40, key: limit}
        )
        with pytest.raises(
            ScenarioError, match=rf"has no metric of the evaluations, {split} {metric}; they have: .*loss"
        ):
            build_task(stated)
